/* block.c: a page of the pool as a block of an image, and back.
 *
 * A block is a header of 40 bytes and a payload, padded with zeroes to 64 bytes. The checksum covers header and payload and
 * is seeded with the file's id and the block's address, which is never used twice in one file: a block that is stale,
 * misplaced or from another file does not verify. It is checked before anything is decompressed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <lz4.h>
#include <zstd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "image.h"

/* Level 1: at higher ones a page of 4 KiB takes twice the time for a few percent. */
#define ZSTD_LEVEL 1

void rp_codec_state_free(struct rp_codec_state *state)
{
	ZSTD_freeCCtx(state->zstd_compressor);
	ZSTD_freeDCtx(state->zstd_decompressor);
	free(state->lz4_state);
	memset(state, 0, sizeof(*state));
}

bool rp_page_is_zero(const void *page)
{
	const uint64_t *word = page;

	for (size_t i = 0; i < RP_PAGE_SIZE / 8; i += 8)
		if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7])
			return false;
	return true;
}

static uint64_t block_seed(const uint8_t file_id[16], rp_addr address)
{
	return XXH3_64bits_withSeed(file_id, 16, address);
}

static uint64_t block_checksum(const uint8_t file_id[16], rp_addr address, const void *block, uint32_t stored_bytes)
{
	const char *covered = (const char *)block + sizeof(uint64_t);

	return XXH3_64bits_withSeed(covered, sizeof(struct rp_block_header) - sizeof(uint64_t) + stored_bytes,
	                            block_seed(file_id, address));
}

static int zstd_compress(struct rp_codec_state *state, const void *page, void *to, size_t room, size_t *size)
{
	if (!state->zstd_compressor) {
		ZSTD_CCtx *made = ZSTD_createCCtx();

		if (!made)
			return -ENOMEM;
		state->zstd_compressor = made;
	}
	*size = ZSTD_compressCCtx(state->zstd_compressor, to, room, page, RP_PAGE_SIZE, ZSTD_LEVEL);
	if (ZSTD_isError(*size))
		*size = 0;
	return 0;
}

static int lz4_compress(struct rp_codec_state *state, const void *page, void *to, size_t room, size_t *size)
{
	int n;

	if (!state->lz4_state) {
		state->lz4_state = malloc((size_t)LZ4_sizeofState());
		if (!state->lz4_state)
			return -ENOMEM;
	}
	n = LZ4_compress_fast_extState(state->lz4_state, page, to, RP_PAGE_SIZE, (int)room, 1);
	*size = n > 0 ? (size_t)n : 0;
	return 0;
}

static uint32_t unit_round(size_t size)
{
	return (uint32_t)((size + RP_ADDR_UNIT - 1) & ~(size_t)(RP_ADDR_UNIT - 1));
}

int rp_block_encode(struct rp_codec_state *state, enum rp_codec codec, const uint8_t file_id[16], rp_addr address,
                    unsigned kind, uint64_t birth, const void *page, void *to, uint32_t *size)
{
	struct rp_block_header *header = to;
	char *payload = (char *)to + sizeof(*header);
	/* No room for an encoding that would save no unit: then the codec says so itself. */
	size_t room = RP_BLOCK_MAX - RP_ADDR_UNIT - sizeof(*header), stored = 0;
	int error = 0;

	if (codec == RP_CODEC_ZSTD)
		error = zstd_compress(state, page, payload, room, &stored);
	else if (codec == RP_CODEC_LZ4)
		error = lz4_compress(state, page, payload, room, &stored);
	if (error)
		return error;
	if (!stored) {
		codec = RP_CODEC_NONE;
		stored = RP_PAGE_SIZE;
		memcpy(payload, page, RP_PAGE_SIZE);
	}
	*header = (struct rp_block_header){
		.magic = RP_BLOCK_MAGIC,
		.kind = (uint8_t)kind,
		.codec = (uint8_t)codec,
		.stored_bytes = (uint32_t)stored,
		.raw_bytes = RP_PAGE_SIZE,
		.birth = birth,
		.address = address,
	};
	header->checksum = block_checksum(file_id, address, to, (uint32_t)stored);
	*size = unit_round(sizeof(*header) + stored);
	memset(payload + stored, 0, *size - sizeof(*header) - stored);
	return 0;
}

static int payload_decode(struct rp_codec_state *state, const struct rp_block_header *header, const void *payload,
                          void *page, const char **why)
{
	size_t n = 0;

	switch (header->codec) {
	case RP_CODEC_NONE:
		n = header->stored_bytes;
		if (n == RP_PAGE_SIZE)
			memcpy(page, payload, n);
		break;
	case RP_CODEC_LZ4:
		n = (size_t)LZ4_decompress_safe(payload, page, (int)header->stored_bytes, RP_PAGE_SIZE);
		break;
	case RP_CODEC_ZSTD:
		if (!state->zstd_decompressor)
			state->zstd_decompressor = ZSTD_createDCtx();
		if (!state->zstd_decompressor)
			return -ENOMEM;
		n = ZSTD_decompressDCtx(state->zstd_decompressor, page, RP_PAGE_SIZE, payload, header->stored_bytes);
		break;
	}
	*why = "cannot be decompressed";
	return n == RP_PAGE_SIZE ? 0 : -EIO;
}

void rp_block_rewrap(const uint8_t file_id[16], rp_addr address, const struct rp_block_header *header, const void *payload,
                     void *to, uint32_t *size)
{
	struct rp_block_header *made = to;
	char *at = (char *)to + sizeof(*made);

	*made = *header;
	made->address = address;
	memcpy(at, payload, header->stored_bytes);
	made->checksum = block_checksum(file_id, address, to, header->stored_bytes);
	*size = unit_round(sizeof(*made) + header->stored_bytes);
	memset(at + header->stored_bytes, 0, *size - sizeof(*made) - header->stored_bytes);
}

int rp_block_verify(const uint8_t file_id[16], rp_addr address, unsigned kind, const void *from, size_t available,
                    const char **why)
{
	struct rp_block_header header;

	*why = "beyond the end of the file";
	if (available < sizeof(header))
		return -EIO;
	memcpy(&header, from, sizeof(header));
	*why = "no block stands there";
	if (header.magic != RP_BLOCK_MAGIC || header.stored_bytes > RP_PAGE_SIZE)
		return -EIO;
	*why = "cut off by the end of the file";
	if (header.stored_bytes > available - sizeof(header))
		return -EIO;
	*why = "checksum does not match";
	if (header.checksum != block_checksum(file_id, address, from, header.stored_bytes))
		return -EIO;
	*why = "belongs to another address";
	if (header.address != address)
		return -EIO;
	*why = "holds another kind of page";
	if (kind && header.kind != kind)
		return -EIO;
	*why = "header makes no sense";
	if (header.raw_bytes != RP_PAGE_SIZE || header.codec > RP_CODEC_ZSTD || header.kind == RP_KIND_FREE ||
	    header.kind > RP_KIND_LAST || header.reserved)
		return -EIO;
	return 0;
}

int rp_block_decode(struct rp_codec_state *state, const uint8_t file_id[16], rp_addr address, unsigned kind,
                    const void *from, size_t available, void *page, struct rp_block_info *info, const char **why)
{
	struct rp_block_header header;
	int error = rp_block_verify(file_id, address, kind, from, available, why);

	if (error)
		return error;
	memcpy(&header, from, sizeof(header));
	if (info) {
		info->kind = header.kind;
		info->codec = header.codec;
		info->stored_bytes = unit_round(sizeof(header) + header.stored_bytes);
		info->birth = header.birth;
	}
	return payload_decode(state, &header, (const char *)from + sizeof(header), page, why);
}

static const char *const codec_names[] = { "none", "lz4", "zstd" };

const char *rp_codec_name(enum rp_codec codec)
{
	return (unsigned)codec <= RP_CODEC_ZSTD ? codec_names[codec] : "unknown";
}

int rp_codec_parse(const char *name, enum rp_codec *out)
{
	for (unsigned i = 0; i <= RP_CODEC_ZSTD; i++) {
		if (strcmp(name, codec_names[i]) == 0) {
			*out = (enum rp_codec)i;
			return 0;
		}
	}
	return -EINVAL;
}
