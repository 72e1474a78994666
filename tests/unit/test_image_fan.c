/* A file made to do harm: every node of a map names one child 512 times, so that seven blocks claim 2^62 bytes. All checksums are
 * right. Whoever walks through it ends after what is really there, with EIO: the proof, reading everything in, finding
 * extents, making holes, comparing, removing, checking. Pages of objects may be named many times, and stay readable.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "pool/image.h"
#include "pool/internal.h"
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define CALLS_MAX 100000u /* each looks at up to 64 nodes; 2^51 pages would take 2^36 of them */
#define FAR_PAGE (UINT64_C(1) << 45)

static char message[512];

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static const struct rp_hooks hooks = { .log = quiet };

static struct rp_image_options options_for(struct disk *disk)
{
	return (struct rp_image_options){ .io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true,
		                          .message = message, .codec = RP_CODEC_NONE, .codec_set = true };
}

static int page_write(struct rp_pool *pool, rp_object object, rp_page page, const char *text)
{
	struct rp_op op;
	size_t done;
	int error;

	do {
		rp_op_begin(&op, pool, 0);
		error = rp_bytes_write(&op, object, page << RP_PAGE_SHIFT, text, strlen(text) + 1, &done);
	} while (rp_op_end(&op, &error));
	return error;
}

/* A file whose map has every height, and a small one; a snapshot, so that comparing has something to compare with. */
static struct disk *image_make(rp_object *far, rp_object *near)
{
	struct rp_pool_options pool_options = { .size_bytes = 4 << 20, .small_pages = true, .hooks = &hooks };
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	struct rp_image *image;
	struct rp_pool *pool;
	rp_page done;

	EXPECT_OK(rp_pool_create(&pool_options, &pool), "pool");
	*near = world_object_make(pool, false);
	EXPECT_OK(page_write(pool, *near, 0, "near"), "write");
	for (rp_page page = 1; page < 200; page++)
		EXPECT_OK(rp_pages_share(pool, *near, 0, *near, page, 1, &done), "share");
	EXPECT_OK(rp_snapshot_create(pool, "before"), "snapshot");
	*far = world_object_make(pool, false);
	EXPECT_OK(page_write(pool, *far, 0, "first"), "write");
	EXPECT_OK(page_write(pool, *far, FAR_PAGE, "last"), "write");
	EXPECT_OK(rp_image_create(pool, PATH, false, &options, &image), message);
	rp_image_close(image);
	rp_pool_destroy(pool);
	return disk;
}

/* Entries of nodes become the first one there is, all of them. Returns how many nodes were changed. */
static unsigned fan_make(struct disk *disk, unsigned level_min)
{
	struct rp_codec_state codec = { 0 };
	uint64_t page[RP_PAGE_SIZE / 8];
	struct rp_block_info info;
	unsigned changed = 0;
	uint32_t stored;
	size_t size;
	uint8_t *bytes = disk_bytes(disk, PATH, &size);
	const uint8_t *file_id = ((const struct rp_super *)bytes)->file_id;
	const char *why;

	for (size_t at = RP_BLOCKS_START; at + RP_BLOCK_MAX <= size; at += RP_ADDR_UNIT) {
		unsigned first = 0;

		if (rp_block_decode(&codec, file_id, at / RP_ADDR_UNIT, 0, bytes + at, size - at, page, &info, &why) ||
		    info.kind < RP_KIND_NODE + level_min - 1 || info.kind > RP_KIND_LAST)
			continue;
		while (!page[first])
			first++;
		for (unsigned i = 0; i < RP_NODE_ENTRIES; i++)
			page[i] = page[first];
		EXPECT_OK(rp_block_encode(&codec, RP_CODEC_NONE, file_id, at / RP_ADDR_UNIT, info.kind, info.birth, page,
		                          bytes + at, &stored), "encode");
		changed++;
	}
	rp_codec_state_free(&codec);
	return changed;
}

/* ---- Walks ------------------------------------------------------------------------------------------------------------- */

static int punch(struct rp_pool *pool, rp_object object)
{
	const rp_page end = RP_PAGE_COUNT_MAX - 1;
	rp_page next = 1;
	unsigned calls = 0;
	int error = 0;

	while (!error && next < end) {
		rp_page from = next;
		struct rp_op op;

		EXPECT(++calls < CALLS_MAX);
		do {
			rp_op_begin(&op, pool, RP_OP_RESERVE);
			error = rp_pages_punch(&op, object, from, end - from, &next);
		} while (rp_op_end(&op, &error));
	}
	return error;
}

static int extents(struct rp_pool *pool, rp_object object)
{
	uint64_t at = 0, end = UINT64_C(1) << 62, found = 0;
	unsigned calls = 0;
	int error = 0;

	while (!error && at < end) {
		struct rp_op op;
		bool is_data;

		EXPECT(++calls < CALLS_MAX);
		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_extent_get(&op, rp_pool_live(pool), object, at, end, &is_data, &found);
		} while (rp_op_end(&op, &error));
		at = found;
	}
	return error;
}

static int page_count(void *context, rp_page page)
{
	(void)page;
	return ++*(unsigned *)context > CALLS_MAX;
}

static int compare(struct rp_pool *pool, rp_object object)
{
	struct rp_snapshot *before, *now;
	unsigned pages = 0;
	int error = rp_snapshot_open(pool, "before", &before);

	EXPECT_OK(error, "snapshot");
	EXPECT_OK(rp_snapshot_take(pool, &now), "snapshot");
	error = rp_diff_pages(pool, before, now, object, page_count, &pages);
	EXPECT(pages <= CALLS_MAX);
	rp_snapshot_put(before);
	rp_snapshot_put(now);
	return error;
}

static void remove_object(struct rp_pool *pool, rp_object object)
{
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_RESERVE);
		error = rp_object_remove(&op, object);
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "remove");
}

static void near_expect(struct rp_pool *pool, rp_object object)
{
	char text[8];

	for (rp_page page = 0; page < 200; page++) {
		struct rp_op op;
		int error;

		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_bytes_read(&op, rp_pool_live(pool), object, page << RP_PAGE_SHIFT, text, 5);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "read");
		EXPECT(memcmp(text, "near", 5) == 0);
	}
}

/* read_first: everything is brought in before anybody asks. */
static void use(bool read_first)
{
	rp_object far, near;
	struct disk *disk = image_make(&far, &near);
	struct rp_image_options options = options_for(disk);
	struct rp_image_check check = { .report = quiet };
	struct rp_image *image;
	struct rp_pool *pool;

	EXPECT_OK(rp_image_verify(PATH, &options, &check), message);
	EXPECT(check.newest_is_whole && check.bad_count == 0);
	EXPECT_EQUAL(fan_make(disk, 2), 9); /* the root, and two ways down from it */
	EXPECT_OK(rp_image_verify(PATH, &options, &check), message);
	EXPECT(!check.newest_is_whole && check.bad_count > 0);
	EXPECT_OK(rp_image_open(PATH, &options, &pool, &image), message);
	if (read_first)
		EXPECT_EQUAL(rp_image_read_all(image), -EIO);
	EXPECT_EQUAL(extents(pool, far), -EIO);
	EXPECT_EQUAL(compare(pool, far), -EIO);
	rp_pool_check(pool, quiet, NULL);
	EXPECT_EQUAL(punch(pool, far), -EIO);
	near_expect(pool, near);
	remove_object(pool, far);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	/* Nothing is left of it, and what is left is whole. */
	EXPECT_EQUAL(rp_pool_check(pool, quiet, NULL), 0);
	near_expect(pool, near);
	rp_image_close(image);
	rp_pool_destroy(pool);
	EXPECT_OK(rp_image_verify(PATH, &options, &check), message);
	EXPECT_EQUAL(check.newest_whole > 1, 1);
	disk_free(disk);
}

int main(void)
{
	alarm(100); /* what does not count its calls either ends or does not */
	use(false);
	use(true);
	printf("walks through nodes that name one child 512 times end\n");
	return 0;
}
