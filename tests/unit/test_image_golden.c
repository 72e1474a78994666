/* Images of format 1 keep opening: small ones stand in tests/golden and are read here, whatever the version.
 *
 * RP_GOLDEN_WRITE=DIRECTORY writes them instead; that is done once for each format, not to make this test pass. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <rampool/image.h>
#include "tests/lib/expect.h"
#include "tests/lib/world.h"

static char message[512];

/* What the images hold. Contents are world_fill()'s: 0 a hole, 1 zeroes, others bytes made from the number. */
#define FILES 3
static const struct golden_page {
	unsigned file;
	rp_page page;
	uint64_t first, second;   /* in the first commit and in the snapshot, and in the second commit */
} golden[] = {
	{ 0, 0, 3001, 3001 }, { 0, 1, 1, 1 }, { 0, 2, 0, 3002 }, { 0, 700, 3003, 0 }, { 0, 300000, 3004, 4005 },
	{ 1, 0, 3006, 4006 }, { 1, 5, 0, 1 }, { 2, 0, 3007, 3007 }, { 2, 513, 3008, 4009 }, { 2, 514, 0, 0 },
};
#define GOLDEN_COUNT (sizeof(golden) / sizeof(golden[0]))

static void report(void *context, const char *line)
{
	(void)context;
	printf("FAIL checker: %s\n", line);
	exit(1);
}

/* File 1 is metadata, so its pages go through other calls. */
static void page_set(struct rp_pool *pool, rp_object object, unsigned file, rp_page page, uint64_t content)
{
	uint8_t bytes[RP_PAGE_SIZE];
	rp_page next = page;
	struct rp_op op;
	size_t done;
	void *to;
	int error;

	world_fill(content, bytes);
	do {
		rp_op_begin(&op, pool, 0);
		if (file == 1) {
			error = rp_page_edit(&op, object, page, 0, RP_PAGE_SIZE, &to);
			if (!error)
				memcpy(to, bytes, RP_PAGE_SIZE);
		} else if (content) {
			error = rp_bytes_write(&op, object, page << RP_PAGE_SHIFT, bytes, RP_PAGE_SIZE, &done);
		} else {
			error = rp_pages_punch(&op, object, page, 1, &next);
		}
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "page");
}

static void objects_make(struct rp_pool *pool, rp_object *objects)
{
	for (unsigned i = 0; i < FILES; i++) {
		struct rp_record *record;
		uint64_t generation;
		struct rp_op op;
		int error;

		do {
			rp_op_begin(&op, pool, 0);
			error = rp_object_create(&op, i == 1, &objects[i], &generation);
			if (!error)
				error = rp_record_edit(&op, objects[i], offsetof(struct rp_record, user),
				                       RP_RECORD_USER_SIZE, &record);
			if (!error)
				error = rp_record_edit(&op, objects[i], offsetof(struct rp_record, size_bytes), 8, &record);
			if (!error) {
				record->size_bytes = 1000000000 + i;
				memset(record->user, 'a' + (int)i, sizeof(record->user));
			}
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "object");
	}
}

static void image_write(const char *path, enum rp_codec codec)
{
	static const uint8_t uuid[16] = "golden image  1";
	struct rp_pool_options options = { .size_bytes = 4 << 20, .small_pages = true, .label = "golden", .uuid = uuid };
	struct rp_image_options image_options = {
		.codec = codec, .codec_set = true, .no_read_ahead = true, .message = message,
	};
	rp_object objects[FILES];
	struct rp_image *image;
	struct rp_pool *pool;

	EXPECT_OK(rp_pool_create(&options, &pool), "pool");
	objects_make(pool, objects);
	for (unsigned i = 0; i < GOLDEN_COUNT; i++)
		if (golden[i].first)
			page_set(pool, objects[golden[i].file], golden[i].file, golden[i].page, golden[i].first);
	EXPECT_OK(rp_snapshot_create(pool, "the first"), "snapshot");
	EXPECT_OK(rp_image_create(pool, path, true, &image_options, &image), message);
	for (unsigned i = 0; i < GOLDEN_COUNT; i++)
		if (golden[i].first != golden[i].second)
			page_set(pool, objects[golden[i].file], golden[i].file, golden[i].page, golden[i].second);
	rp_image_mark_clean(image);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	rp_image_close(image);
	rp_pool_destroy(pool);
}

static void tree_check(struct rp_pool *pool, struct rp_tree *tree, bool second)
{
	for (unsigned i = 0; i < GOLDEN_COUNT; i++) {
		uint8_t have[RP_PAGE_SIZE], want[RP_PAGE_SIZE];
		uint64_t content = second ? golden[i].second : golden[i].first, offset = golden[i].page << RP_PAGE_SHIFT, end;
		rp_object object = golden[i].file + 2; /* the first that was free */
		const struct rp_record *record;
		uint64_t size = 0;
		bool is_data = false;
		uint8_t user = 0;
		struct rp_op op;
		int error;

		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_record_get(&op, tree, object, 0, &record);
			if (!error) {
				size = record->size_bytes;
				user = record->user[RP_RECORD_USER_SIZE - 1];
				error = rp_bytes_read(&op, tree, object, offset, have, RP_PAGE_SIZE);
			}
			if (!error)
				error = rp_extent_get(&op, tree, object, offset, offset + RP_PAGE_SIZE, &is_data, &end);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "read");
		world_fill(content, want);
		EXPECT(memcmp(have, want, RP_PAGE_SIZE) == 0);
		EXPECT_EQUAL(is_data, content != 0);
		EXPECT_EQUAL(size, 1000000000 + golden[i].file);
		EXPECT_EQUAL(user, 'a' + golden[i].file);
	}
}

static void image_check(const char *path, enum rp_codec codec)
{
	struct rp_image_options options = {
		.read_only = true, .any_owner = true, .small_pages = true, .message = message,
	};
	struct rp_image_check verify = { .report = report };
	struct rp_image_status status;
	struct rp_pool_status numbers;
	struct rp_snapshot *snapshot;
	struct rp_image *image;
	struct rp_pool *pool;

	EXPECT_OK(rp_image_verify(path, &options, &verify), message);
	EXPECT_EQUAL(verify.newest_whole, 2);
	EXPECT_OK(rp_image_open(path, &options, &pool, &image), message);
	rp_image_status(image, &status);
	EXPECT_EQUAL(status.generation, 2);
	EXPECT_EQUAL(status.codec, codec);
	EXPECT(status.opened_clean);
	rp_pool_status(pool, &numbers);
	EXPECT_EQUAL(numbers.size_bytes, 4 << 20);
	EXPECT(strcmp(numbers.label, "golden") == 0);
	EXPECT(memcmp(numbers.uuid, "golden image  1", 16) == 0);
	EXPECT_EQUAL(numbers.snapshot_count, 1);
	tree_check(pool, rp_pool_live(pool), true);
	EXPECT_OK(rp_snapshot_open(pool, "the first", &snapshot), "snapshot");
	tree_check(pool, rp_snapshot_tree(snapshot), false);
	rp_snapshot_put(snapshot);
	EXPECT_OK(rp_image_read_all(image), "read all");
	rp_image_close(image);
	EXPECT_EQUAL(rp_pool_check(pool, report, NULL), 0);
	rp_pool_destroy(pool);
	options.generation = 1;
	EXPECT_OK(rp_image_open(path, &options, &pool, &image), message);
	tree_check(pool, rp_pool_live(pool), false);
	rp_image_close(image);
	rp_pool_destroy(pool);
}

int main(void)
{
	const char *directory = getenv("RP_GOLDEN_WRITE"), *source = getenv("RP_SRC");
	char path[4096];

	for (unsigned codec = 0; codec < 3; codec++) {
		if (directory) {
			snprintf(path, sizeof(path), "%s/image-1-%s", directory, rp_codec_name((enum rp_codec)codec));
			image_write(path, (enum rp_codec)codec);
		} else {
			snprintf(path, sizeof(path), "%s/tests/golden/image-1-%s", source ? source : ".",
			         rp_codec_name((enum rp_codec)codec));
		}
		image_check(path, (enum rp_codec)codec);
	}
	return 0;
}
