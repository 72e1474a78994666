/* hostile_change.c: from a whole image to a hostile one.
 *
 * Pages are decoded, changed and encoded again where they stood, with any codec that leaves room; the root's checksum and the
 * superblock follow. Headers and compressed bytes are changed in place and given a right checksum. Also blocks that stand
 * where others belong, trees in which every entry names the same child, files that are cut off or longer than they were.
 */
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "hostile.h"
#include "tests/lib/expect.h"

struct change {
	const struct sample *sample, *other;
	uint8_t *bytes;
	uint64_t *random;
	struct rp_codec_state codec;
};

static uint64_t below(struct change *c, uint64_t limit) { return random_below(c->random, limit); }

/* Some block; nodes, tables and roots, which are at the end of each commit, more often than their number is. */
static uint32_t block_any(struct change *c)
{
	const struct sample *s = c->sample;

	for (unsigned tries = 0; tries < 8; tries++) {
		uint32_t at = s->blocks[below(c, s->block_count)];

		if (s->bytes[at + offsetof(struct rp_block_header, kind)] != RP_KIND_DATA)
			return at;
	}
	return s->blocks[s->block_count - 1 - below(c, s->block_count < 12 ? s->block_count : 12)];
}

static void checksum_repair(struct change *c, uint32_t at, uint64_t address)
{
	struct rp_block_header *header = (struct rp_block_header *)(c->bytes + at);
	uint64_t seed = XXH3_64bits_withSeed(c->sample->file_id, 16, address);
	size_t size = sizeof(*header) - 8 + header->stored_bytes;

	if (at + 8 + size <= c->sample->size)
		header->checksum = XXH3_64bits_withSeed(c->bytes + at + 8, size, seed);
}

/* Room of the block in the file as it was made. */
static uint32_t block_room(const struct sample *s, uint32_t at)
{
	const struct rp_block_header *header = (const void *)(s->bytes + at);

	return ((uint32_t)sizeof(*header) + header->stored_bytes + RP_ADDR_UNIT - 1) & ~(RP_ADDR_UNIT - 1);
}

static bool page_get(struct change *c, const struct sample *s, const uint8_t *bytes, uint32_t at, uint64_t *page,
                     struct rp_block_info *info)
{
	const char *why;

	return rp_block_decode(&c->codec, s->file_id, at / RP_ADDR_UNIT, 0, bytes + at, s->size - at, page, info, &why) == 0;
}

static void page_put(struct change *c, uint32_t at, unsigned kind, uint64_t birth, const uint64_t *page)
{
	uint8_t block[RP_BLOCK_MAX];
	uint32_t size, room = block_room(c->sample, at);
	unsigned first = (unsigned)below(c, 3);

	for (unsigned i = 0; i < 3; i++) {
		EXPECT_OK(rp_block_encode(&c->codec, (first + i) % 3, c->sample->file_id, at / RP_ADDR_UNIT, kind, birth,
		                          page, block, &size), "encode");
		if (size <= room) {
			memcpy(c->bytes + at, block, size);
			return;
		}
	}
}

/* ---- Changes --------------------------------------------------------------------------------------------------------- */

static void change_page(struct change *c)
{
	uint64_t page[RP_PAGE_SIZE / 8];
	struct rp_block_info info;
	uint32_t at = block_any(c);

	if (!page_get(c, c->sample, c->bytes, at, page, &info))
		return;
	for (unsigned n = 1 + (unsigned)below(c, 3); n; n--)
		page_change(c->sample, info.kind, page, c->random);
	if (below(c, 30) == 0)
		info.birth = number_hostile(c->random, info.birth);
	page_put(c, at, info.kind, info.birth, page);
}

/* What stands elsewhere, here or in another image, under a right header. */
static void change_splice(struct change *c)
{
	const struct sample *from = below(c, 2) ? c->sample : c->other;
	uint32_t at = block_any(c), source = from->blocks[below(c, from->block_count)];
	unsigned kind = c->bytes[at + offsetof(struct rp_block_header, kind)];
	uint64_t page[RP_PAGE_SIZE / 8];
	struct rp_block_info info;

	for (unsigned i = 0; i < 20 && from->bytes[source + offsetof(struct rp_block_header, kind)] != kind; i++)
		source = from->blocks[below(c, from->block_count)];
	if (page_get(c, from, from->bytes, source, page, &info))
		page_put(c, at, below(c, 8) ? info.kind : kind, info.birth, page);
}

static void change_header(struct change *c)
{
	uint32_t at = block_any(c);
	struct rp_block_header header;
	uint64_t address = at / RP_ADDR_UNIT;

	memcpy(&header, c->bytes + at, sizeof(header));
	switch (below(c, 8)) {
	case 0: header.kind = (uint8_t)below(c, 24); break;
	case 1: header.codec = (uint8_t)below(c, 5); break;
	case 2: header.stored_bytes = (uint32_t)number_hostile(c->random, header.stored_bytes); break;
	case 3: header.raw_bytes = (uint32_t)number_hostile(c->random, header.raw_bytes); break;
	case 4: header.birth = number_hostile(c->random, header.birth); break;
	case 5: header.address = number_hostile(c->random, header.address); break;
	case 6: header.reserved = (uint16_t)below(c, 3); break;
	default: header.magic ^= 1u << below(c, 32);
	}
	memcpy(c->bytes + at, &header, sizeof(header));
	checksum_repair(c, at, address);
}

/* Compressed bytes that nobody compressed. */
static void change_payload(struct change *c)
{
	uint32_t at = block_any(c);
	struct rp_block_header header;

	memcpy(&header, c->bytes + at, sizeof(header));
	if (!header.stored_bytes || at + sizeof(header) + header.stored_bytes > c->sample->size)
		return;
	for (unsigned i = 1 + (unsigned)below(c, 6); i; i--)
		c->bytes[at + sizeof(header) + below(c, below(c, 2) ? header.stored_bytes : 1 + header.stored_bytes / 16)] =
			(uint8_t)random_next(c->random);
	checksum_repair(c, at, at / RP_ADDR_UNIT);
}

/* Nodes whose entries are all the same: each level multiplies the ways to what is below by 512. */
static void change_fan(struct change *c)
{
	const struct sample *s = c->sample;
	bool spoilt = below(c, 2);
	uint64_t page[RP_PAGE_SIZE / 8];
	struct rp_block_info info;

	for (unsigned i = 0; i < s->block_count; i++) {
		unsigned kind = s->bytes[s->blocks[i] + offsetof(struct rp_block_header, kind)], first = 0;

		if (kind == RP_KIND_DATA && spoilt && below(c, 4) == 0)
			c->bytes[s->blocks[i] + sizeof(struct rp_block_header)] ^= 1;
		if (kind < RP_KIND_NODE || below(c, 8) == 0 || !page_get(c, s, c->bytes, s->blocks[i], page, &info))
			continue;
		while (first < RP_NODE_ENTRIES - 1 && !page[first])
			first++;
		for (unsigned k = 0; k < RP_NODE_ENTRIES; k++)
			page[k] = page[first];
		page_put(c, s->blocks[i], info.kind, info.birth, page);
	}
}

static void change_raw(struct change *c)
{
	for (unsigned i = 1 + (unsigned)below(c, 4); i; i--)
		c->bytes[below(c, c->sample->size)] ^= (uint8_t)(1 << below(c, 8));
}

static void change_super(struct change *c, struct rp_super *super)
{
	uint64_t *words[] = { &super->generation, &super->generation_last, &super->root, &super->file_end, &super->size_bytes,
		              &super->sequence, &super->root_checksum, &super->ro_compat, &super->incompat };

	if (below(c, 3)) {
		uint64_t *word = words[below(c, sizeof(words) / sizeof(*words))];

		*word = number_hostile(c->random, *word);
	} else if (below(c, 2)) {
		super->root = c->sample->blocks[below(c, c->sample->block_count)] / RP_ADDR_UNIT;
	} else {
		uint8_t *rest = (uint8_t *)super + offsetof(struct rp_super, flags);

		rest[below(c, sizeof(*super) - offsetof(struct rp_super, flags))] = (uint8_t)random_next(c->random);
	}
}

static void change_one(struct change *c)
{
	switch (below(c, 20)) {
	case 0:
	case 1: change_splice(c); break;
	case 2: change_header(c); break;
	case 3: change_payload(c); break;
	default: change_page(c);
	}
}

/* ---- A case ------------------------------------------------------------------------------------------------------------ */

static size_t size_change(struct change *c, size_t size)
{
	size_t more;

	switch (below(c, 40)) {
	case 0: return below(c, size + 1);
	case 1: return c->sample->blocks[below(c, c->sample->block_count)] + below(c, 100);
	case 2:
		more = below(c, 100000);
		for (size_t i = 0; i < more; i++)
			c->bytes[size + i] = (uint8_t)random_next(c->random);
		return size + more;
	default: return size;
	}
}

size_t sample_change(const struct sample *sample, const struct sample *other, bool fan, uint64_t *random, uint8_t *to)
{
	struct change c = { .sample = sample, .other = other, .bytes = to, .random = random };
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	unsigned newest;

	memcpy(to, sample->bytes, sample->size);
	EXPECT_OK(rp_super_decode(to, super, good, &newest), "superblocks");
	if (fan)
		change_fan(&c);
	for (unsigned n = 1 + (unsigned)below(&c, below(&c, 4) ? 4 : 40); n && !fan; n--)
		change_one(&c);
	if (below(&c, 15) == 0 && !fan)
		change_super(&c, &super[newest]);
	if (super[newest].root < sample->size / RP_ADDR_UNIT && below(&c, 30))
		memcpy(&super[newest].root_checksum, to + super[newest].root * RP_ADDR_UNIT, 8);
	rp_super_encode(&super[newest], newest, to + newest * RP_SUPER_SLOT_SIZE);
	if (below(&c, 40) == 0)
		change_raw(&c);
	rp_codec_state_free(&c.codec);
	return size_change(&c, sample->size);
}
