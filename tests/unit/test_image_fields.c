/* Each word of the superblock and of the root block set to numbers at the edge of something, all checksums right again. Then:
 * what the proof calls whole can be opened, what can be opened and saved is whole afterwards, and what the proof cannot call
 * whole but can go back from, opens after going back.
 */
#include <errno.h>
#include <string.h>
#include "pool/image.h"
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/world.h"

#define PATH "/image"

static char message[512];
static const char *doing = "";
static unsigned cases, opened, gone_back;

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static const struct rp_hooks hooks = { .log = quiet };

static void fail(const char *what)
{
	printf("FAIL %s: %s: %s\n", doing, what, message);
	exit(1);
}

static struct rp_image_options options_for(struct disk *disk)
{
	return (struct rp_image_options){ .io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true,
		                          .message = message };
}

/* Two commits; the first one's root is what can be gone back to. */
static uint8_t *image_make(size_t *size)
{
	struct rp_pool_options pool_options = { .size_bytes = 4 << 20, .small_pages = true, .hooks = &hooks };
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	struct world w = { .random = 1 };
	struct rp_image *image;
	uint8_t *whole;

	options.codec_set = true;
	options.codec = RP_CODEC_NONE;
	EXPECT_OK(rp_pool_create(&pool_options, &w.pool), "pool");
	EXPECT_OK(world_write(&w, 5), "write");
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	EXPECT_OK(world_write(&w, 5), "write");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	uint8_t *bytes = disk_bytes(disk, PATH, size);

	whole = malloc(*size);
	EXPECT(whole);
	memcpy(whole, bytes, *size);
	disk_free(disk);
	return whole;
}

static bool proved(const struct rp_image_options *options, uint64_t *newest_whole)
{
	struct rp_image_check check = { .report = quiet };
	int error = rp_image_verify(PATH, options, &check);

	*newest_whole = error ? 0 : check.newest_whole;
	return !error && check.newest_is_whole;
}

/* As the world is when everything is read, a change, a save. Was it opened? */
static bool use(struct disk *disk)
{
	struct rp_image_options options = options_for(disk);
	struct world w = { .random = 2 };
	struct rp_image *image;
	uint64_t whole;

	if (rp_image_open(PATH, &options, &w.pool, &image))
		return false;
	int error = rp_image_read_all(image);

	if (!error) {
		error = rp_snapshot_create(w.pool, "made");
		if (!error && rp_image_commit(image, NULL, NULL) == 0 && !proved(&options, &whole))
			fail("a save that is said to have worked is not whole");
	}
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	return true;
}

static void try(const uint8_t *bytes, size_t size)
{
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	uint64_t whole;

	disk_file_set(disk, PATH, bytes, size);
	cases++;
	message[0] = 0;
	bool is_whole = proved(&options, &whole), is_opened = use(disk);

	/* A size that no machine has is not damage, but cannot be opened either. */
	if (is_whole && !is_opened && !strstr(message, "cannot be had") && !strstr(message, "does not have"))
		fail("proved to be whole, and cannot be opened");
	opened += is_opened;
	disk_free(disk);
	if (is_opened || !whole)
		return;
	disk = disk_new(1);
	options = options_for(disk);
	disk_file_set(disk, PATH, bytes, size);
	if (!is_whole && rp_image_roll_back(PATH, whole, &options) == 0) {
		if (!use(disk) && !strstr(message, "cannot be had"))
			fail("gone back, and cannot be opened");
		gone_back++;
	}
	disk_free(disk);
}

/* Checksums of the root block and of all copies of the superblock; the root where the newest superblock says, if that is set. */
static void sign(uint8_t *bytes, const uint64_t *root, struct rp_super *super, unsigned slot, rp_addr root_addr, uint64_t birth)
{
	struct rp_codec_state codec = { 0 };
	uint32_t size;

	if (root) {
		EXPECT_OK(rp_block_encode(&codec, RP_CODEC_NONE, super->file_id, root_addr, RP_KIND_ROOT, birth, root,
		                          bytes + rp_addr_offset(root_addr), &size), "encode");
		memcpy(&super->root_checksum, bytes + rp_addr_offset(root_addr), sizeof(super->root_checksum));
	}
	rp_super_encode(super, slot, bytes + slot * RP_SUPER_SLOT_SIZE);
}

static uint64_t edge(unsigned i, uint64_t old)
{
	const uint64_t edges[] = {
		0, 1, old + 1, old - 1, old << 1, UINT32_MAX, UINT64_C(1) << 39, (UINT64_C(1) << 40) - 1, UINT64_C(1) << 47,
		UINT64_C(1) << 62, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX,
	};

	return i < sizeof(edges) / sizeof(*edges) ? edges[i] : old;
}

int main(void)
{
	size_t size;
	uint8_t *whole = image_make(&size), *bytes = malloc(size);
	struct rp_super best[RP_SUPER_SLOTS], super;
	struct rp_codec_state codec = { 0 };
	uint64_t page[RP_PAGE_SIZE / 8], root[RP_PAGE_SIZE / 8];
	struct rp_block_info info;
	bool good[RP_SUPER_SLOTS];
	char text[64];
	unsigned slot;
	const char *why;

	EXPECT(bytes && rp_super_decode(whole, best, good, &slot) == 0);
	uint64_t at = rp_addr_offset(best[slot].root);

	EXPECT_OK(rp_block_decode(&codec, best[slot].file_id, best[slot].root, RP_KIND_ROOT, whole + at, size - at, page, &info,
	                          &why), why);
	doing = text;
	for (size_t word = 0; word < sizeof(super) / 8 + sizeof(struct rp_root) / 8; word++) {
		bool in_root = word >= sizeof(super) / 8;
		size_t i = in_root ? word - sizeof(super) / 8 : word;

		for (unsigned n = 0; n < 13; n++) {
			uint64_t old, new;

			memcpy(bytes, whole, size);
			super = best[slot];
			memcpy(root, page, sizeof(root));
			memcpy(&old, in_root ? (void *)&root[i] : (uint8_t *)&super + 8 * i, 8);
			new = edge(n, old);
			snprintf(text, sizeof(text), "%s byte %zu: %llx", in_root ? "root" : "super", i * 8,
			         (unsigned long long)new);
			memcpy(in_root ? (void *)&root[i] : (uint8_t *)&super + 8 * i, &new, 8);
			sign(bytes, in_root ? root : NULL, &super, slot, best[slot].root, info.birth);
			try(bytes, size);
		}
	}
	EXPECT(opened > cases / 2 && gone_back > 0);
	printf("%u cases: %u were opened, %u went back\n", cases, opened, gone_back);
	rp_codec_state_free(&codec);
	free(whole);
	free(bytes);
	return 0;
}
