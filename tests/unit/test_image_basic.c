/* Images as a program uses them: made, saved, opened again, refused, saved elsewhere, gone back in. Files on the simulated disk
 * and, where it is about files, in a private directory. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"

static char message[512], why[256];

static void report(void *context, const char *line)
{
	(void)context;
	printf("FAIL checker: %s\n", line);
	exit(1);
}

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static const struct rp_hooks hooks = { .log = quiet };

static struct rp_image_options options_for(struct disk *disk)
{
	return (struct rp_image_options){
		.io = disk ? disk_io(disk) : NULL, .hooks = &hooks, .no_read_ahead = true, .small_pages = true,
		.message = message,
	};
}

static void world_begin(struct world *w, uint64_t seed, unsigned steps)
{
	struct rp_pool_options options = { .size_bytes = 16 << 20, .small_pages = true, .hooks = &hooks, .label = "a label" };

	memset(w, 0, sizeof(*w));
	w->random = seed;
	EXPECT_OK(rp_pool_create(&options, &w->pool), "pool");
	for (unsigned i = 0; i < steps; i++)
		EXPECT_OK(world_step(w), "step");
}

static void reopen(struct world *w, struct rp_image **image, const struct rp_image_options *options)
{
	rp_image_close(*image);
	rp_pool_destroy(w->pool);
	EXPECT_OK(rp_image_open(PATH, options, &w->pool, image), message);
}

static void end(struct world *w, struct rp_image *image, struct disk *disk)
{
	rp_image_close(image);
	rp_pool_destroy(w->pool);
	disk_free(disk);
}

static uint64_t written(struct rp_image *image)
{
	struct rp_image_status status;

	rp_image_status(image, &status);
	return status.written_bytes;
}

/* Save, open, compare, again and again, with every codec. */
static void test_round_trips(uint64_t seed, enum rp_codec codec)
{
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = options_for(disk);
	struct rp_image *image;
	struct world w;

	options.codec_set = true;
	options.codec = codec;
	world_begin(&w, seed, 60);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	options.codec_set = false;
	for (unsigned round = 0; round < 12; round++) {
		struct rp_pool_status pool;
		struct rp_image_status status;

		for (unsigned i = 0; i < 20; i++)
			EXPECT_OK(world_step(&w), "step");
		EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
		EXPECT(!rp_image_is_changed(image));
		reopen(&w, &image, &options);
		EXPECT(!rp_image_is_changed(image));
		if (round % 2)
			EXPECT_OK(rp_image_read_all(image), "read all");
		EXPECT_OK(world_compare(w.pool, &w.state, why), why);
		EXPECT(!rp_image_is_changed(image));
		EXPECT_OK(rp_image_read_all(image), "read all");
		EXPECT_EQUAL(rp_pool_check(w.pool, report, NULL), 0);
		rp_pool_status(w.pool, &pool);
		rp_image_status(image, &status);
		EXPECT_EQUAL(pool.unread_pages, 0);
		EXPECT_EQUAL(pool.dirty_frames, 0);
		EXPECT_EQUAL(status.codec, codec);
		EXPECT(strcmp(pool.label, "a label") == 0);
	}
	end(&w, image, disk);
}

/* What a commit writes follows what changed, and nothing is written when nothing did. */
static void test_cost(void)
{
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	struct rp_image_status status;
	struct rp_image *image;
	struct world w;
	uint64_t before, generation;

	world_begin(&w, 5, 400);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	before = written(image);
	rp_image_status(image, &status);
	generation = status.generation;
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	EXPECT_EQUAL(written(image), before);
	EXPECT_OK(world_write(&w, 1), "write");
	EXPECT(rp_image_is_changed(image));
	rp_image_status(image, &status);
	EXPECT(status.changed_bytes > 0);
	EXPECT(status.changed_since_sec > 0);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	/* One page, at most six nodes above it, a page of records, the table's nodes, the root, a superblock slot. */
	EXPECT(written(image) - before <= 11 * 4160 + 4096);
	rp_image_status(image, &status);
	EXPECT_EQUAL(status.generation, generation + 1);
	EXPECT_EQUAL(status.changed_bytes, 0);
	end(&w, image, disk);
}

static void pages_write(struct rp_pool *pool, rp_object object, unsigned first, unsigned count, uint64_t content)
{
	uint8_t page[RP_PAGE_SIZE];

	for (unsigned i = 0; i < count; i++) {
		struct rp_op op;
		size_t done;
		int error;

		world_fill(content ? content * 3000 + i * 3 : 1, page);
		do {
			rp_op_begin(&op, pool, 0);
			error = rp_bytes_write(&op, object, (uint64_t)(first + i) * RP_PAGE_SIZE, page, RP_PAGE_SIZE, &done);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "write");
	}
}

/* Pages of zeroes take no block but come back as data; shared pages are saved once and come back shared. */
static void test_zero_and_shared(void)
{
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	struct rp_pool_status full, again;
	struct rp_image *image;
	struct world w;
	rp_object a, b;
	uint64_t before, extent_end;
	struct rp_op op;
	bool is_data;
	rp_page done;
	int error;

	world_begin(&w, 1, 0);
	a = world_object_make(w.pool, false);
	b = world_object_make(w.pool, false);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	before = written(image);
	pages_write(w.pool, a, 0, 500, 0);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	EXPECT(written(image) - before < 12 * 1024);
	before = written(image);
	pages_write(w.pool, a, 0, 100, 7);
	EXPECT_OK(rp_pages_share(w.pool, a, 0, b, 1000, 100, &done), "share");
	EXPECT_OK(rp_snapshot_create(w.pool, "one"), "snapshot");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	EXPECT(written(image) - before >= 100 * 4096);
	EXPECT(written(image) - before < 100 * 4160 + 32 * 1024);
	rp_pool_status(w.pool, &full);
	reopen(&w, &image, &options);
	EXPECT_OK(rp_image_read_all(image), "read all");
	rp_pool_status(w.pool, &again);
	/* The pages of zeroes are one frame now. */
	EXPECT(again.frame_used + 399 <= full.frame_used + 8);
	do {
		rp_op_begin(&op, w.pool, RP_OP_READ);
		error = rp_extent_get(&op, rp_pool_live(w.pool), a, 400 * 4096, 501 * 4096, &is_data, &extent_end);
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "extent");
	EXPECT(is_data);
	EXPECT_EQUAL(extent_end, 500 * 4096);
	pages_write(w.pool, a, 300, 150, 9);
	EXPECT_EQUAL(rp_pool_check(w.pool, report, NULL), 0);
	end(&w, image, disk);
}


/* Opening reads a handful of blocks; reading without the file gives errors, not zeroes. */
static void test_lazy(void)
{
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	struct rp_pool_status status;
	struct rp_image *image;
	struct world w;
	uint64_t before;
	unsigned unread;

	world_begin(&w, 9, 500);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	before = disk_operation_count(disk);
	EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
	EXPECT(disk_operation_count(disk) - before < 24);
	rp_pool_status(w.pool, &status);
	EXPECT(status.unread_pages > 0);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	reopen(&w, &image, &options);
	rp_image_close(image);
	EXPECT_OK(world_compare_readable(w.pool, &w.state, why, &unread), why);
	EXPECT(unread > 0);
	rp_pool_destroy(w.pool);
	disk_free(disk);
}

/* Any commit since the file was made can be opened, and the next one stands after the newest. */
static void test_generations(void)
{
	struct disk *disk = disk_new(3);
	struct rp_image_options options = options_for(disk);
	struct world_state *states = calloc(8, sizeof(*states));
	struct rp_commit_info *list;
	struct rp_image_status status;
	struct rp_image *image;
	struct world w;
	size_t count;

	EXPECT(states);
	world_begin(&w, 11, 50);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	states[1] = w.state;
	for (unsigned g = 2; g < 8; g++) {
		for (unsigned i = 0; i < 15; i++)
			EXPECT_OK(world_step(&w), "step");
		EXPECT_OK(world_write(&w, 1), "write");
		EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
		states[g] = w.state;
	}
	EXPECT_OK(rp_image_commits(PATH, &options, &list, &count), message);
	EXPECT_EQUAL(count, 7);
	for (unsigned i = 0; i < 7; i++)
		EXPECT_EQUAL(list[i].generation, 7 - i);
	free(list);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	options.read_only = true;
	for (unsigned g = 1; g < 8; g++) {
		options.generation = g;
		EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
		EXPECT_OK(world_compare(w.pool, &states[g], why), why);
		EXPECT_EQUAL(rp_image_commit(image, NULL, NULL), g == 7 ? -EROFS : -EROFS);
		rp_image_close(image);
		rp_pool_destroy(w.pool);
	}
	options.generation = 8;
	EXPECT_EQUAL(rp_image_open(PATH, &options, &w.pool, &image), -ESRCH);
	options.read_only = false;
	options.generation = 3;
	EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
	EXPECT(rp_image_is_changed(image));
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	rp_image_status(image, &status);
	EXPECT_EQUAL(status.generation, 8);
	options.generation = 0;
	reopen(&w, &image, &options);
	EXPECT_OK(world_compare(w.pool, &states[3], why), why);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	EXPECT_OK(rp_image_roll_back(PATH, 5, &options), message);
	EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
	EXPECT_OK(world_compare(w.pool, &states[5], why), why);
	w.state = states[5];
	EXPECT_OK(world_write(&w, 3), "write");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	reopen(&w, &image, &options);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	EXPECT_EQUAL(rp_image_roll_back(PATH, 5, &options), -EBUSY);
	end(&w, image, disk);
	free(states);
}

static void test_clean_end(void)
{
	struct disk *disk = disk_new(3);
	struct rp_image_options options = options_for(disk);
	struct rp_image_status status;
	struct rp_image *image;
	struct world w;

	world_begin(&w, 2, 20);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	reopen(&w, &image, &options);
	rp_image_status(image, &status);
	EXPECT(!status.opened_clean);
	rp_image_mark_clean(image);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	reopen(&w, &image, &options);
	rp_image_status(image, &status);
	EXPECT(status.opened_clean);
	/* Opened to be written and not ended as it should: the next start knows. */
	reopen(&w, &image, &options);
	rp_image_status(image, &status);
	EXPECT(!status.opened_clean);
	EXPECT_OK(world_write(&w, 2), "write");
	rp_image_mark_clean(image);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	reopen(&w, &image, &options);
	rp_image_status(image, &status);
	EXPECT(status.opened_clean);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	end(&w, image, disk);
}

static int cancel_at(void *context, const struct rp_progress *progress)
{
	EXPECT(progress->done_bytes <= progress->total_bytes);
	return --*(int *)context < 0;
}

static void test_progress(void)
{
	struct disk *disk = disk_new(3);
	struct rp_image_options options = options_for(disk);
	struct rp_image_status status;
	struct rp_image *image;
	struct world w;
	int calls = 2;

	world_begin(&w, 2, 5);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	pages_write(w.pool, world_object_make(w.pool, false), 0, 1500, 3);
	EXPECT_EQUAL(rp_image_commit(image, cancel_at, &calls), -ECANCELED);
	EXPECT(rp_image_is_changed(image));
	rp_image_status(image, &status);
	EXPECT_EQUAL(status.generation, 1);
	calls = 1000000;
	EXPECT_OK(rp_image_commit(image, cancel_at, &calls), message);
	EXPECT(calls < 1000000);
	calls = 1;
	EXPECT_EQUAL(rp_image_save_as(w.pool, image, "/other", false, &options, cancel_at, &calls), -ECANCELED);
	EXPECT(!disk_exists(disk, "/other"));
	EXPECT(!disk_exists(disk, "/other.new"));
	EXPECT_EQUAL(rp_pool_check(w.pool, report, NULL), 0);
	end(&w, image, disk);
}

/* Saved elsewhere: complete and separate, from a pool wholly, partly or not at all in memory. */
static void test_save_as(unsigned how)
{
	struct disk *disk = disk_new(3);
	struct rp_image_options options = options_for(disk);
	struct rp_image *image = NULL, *other;
	struct rp_pool *pool;
	struct world w;

	world_begin(&w, 20 + how, 150);
	if (how > 0) {
		EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
		reopen(&w, &image, &options);
		if (how > 1)
			for (unsigned i = 0; i < 40; i++)
				EXPECT_OK(world_step(&w), "step");
	}
	EXPECT_OK(rp_image_save_as(w.pool, image, "/other", false, &options, NULL, NULL), message);
	EXPECT_EQUAL(rp_image_save_as(w.pool, image, "/other", false, &options, NULL, NULL), -EEXIST);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	EXPECT_OK(rp_image_open("/other", &options, &pool, &other), message);
	EXPECT_OK(world_compare(pool, &w.state, why), why);
	EXPECT_EQUAL(rp_image_save_as(w.pool, image, "/other", true, &options, NULL, NULL), -EBUSY);
	rp_image_close(other);
	rp_pool_destroy(pool);
	EXPECT_OK(rp_image_save_as(w.pool, image, "/other", true, &options, NULL, NULL), message);
	if (image) {
		EXPECT_OK(world_write(&w, 3), "write");
		EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
		reopen(&w, &image, &options);
		EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	}
	end(&w, image, disk);
}

/* A pool whose image was closed gets another one: what it knew of the first means nothing there. */
static void test_second_image(void)
{
	struct disk *disk = disk_new(3);
	struct rp_image_options options = options_for(disk);
	struct rp_image *image, *second;
	struct world w;

	world_begin(&w, 4, 80);
	EXPECT_OK(rp_image_create(w.pool, "/first", false, &options, &image), message);
	EXPECT_EQUAL(rp_image_create(w.pool, PATH, false, &options, &second), -EBUSY);
	rp_image_close(image);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	reopen(&w, &image, &options);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	end(&w, image, disk);
}

/* ---- Files ------------------------------------------------------------------------------------------------------------------- */

static void file_write(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	EXPECT(file);
	fputs(text, file);
	fclose(file);
}

static void test_refusals(void)
{
	struct rp_image_options options = options_for(NULL);
	struct rp_image *image, *second;
	struct rp_pool *pool;
	struct stat st;
	struct world w;
	char holder[64];

	world_begin(&w, 6, 30);
	EXPECT_EQUAL(rp_image_open("image", &options, &pool, &second), -ENOENT);
	EXPECT_OK(rp_image_create(w.pool, "image", false, &options, &image), message);
	EXPECT(stat("image", &st) == 0);
	EXPECT_EQUAL(st.st_mode & 07777, 0600);
	EXPECT(access("image.new", F_OK) < 0);
	EXPECT_EQUAL(rp_image_open("image", &options, &pool, &second), -EBUSY);
	snprintf(holder, sizeof(holder), "process %ld, ", (long)getpid());
	EXPECT(strstr(message, holder));
	options.read_only = true;
	EXPECT_OK(rp_image_open("image", &options, &pool, &second), message);
	EXPECT_OK(world_compare(pool, &w.state, why), why);
	EXPECT_EQUAL(rp_image_commit(second, NULL, NULL), -EROFS);
	rp_image_close(second);
	rp_pool_destroy(pool);
	options.read_only = false;

	/* Taken away or replaced while in use: no commit is acknowledged that nobody could find. */
	EXPECT(rename("image", "moved") == 0);
	EXPECT_OK(world_write(&w, 1), "write");
	EXPECT_EQUAL(rp_image_commit(image, NULL, NULL), -ENOENT);
	file_write("image", "something else");
	EXPECT_EQUAL(rp_image_commit(image, NULL, NULL), -ESTALE);
	EXPECT(rename("moved", "image") == 0);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	rp_image_close(image);

	EXPECT(chmod("image", 0666) == 0);
	EXPECT_EQUAL(rp_image_open("image", &options, &pool, &second), -EPERM);
	options.any_owner = true;
	EXPECT_OK(rp_image_open("image", &options, &pool, &second), message);
	rp_image_close(second);
	rp_pool_destroy(pool);
	options.any_owner = false;

	file_write("text", "this is no image, and never was one\n");
	EXPECT_EQUAL(rp_image_open("text", &options, &pool, &second), -EINVAL);
	file_write("empty", "");
	EXPECT_EQUAL(rp_image_open("empty", &options, &pool, &second), -EINVAL);
	EXPECT(mkdir("directory", 0700) == 0);
	EXPECT(rp_image_open("directory", &options, &pool, &second) < 0);
	EXPECT(mkfifo("fifo", 0600) == 0);
	EXPECT(rp_image_open("fifo", &options, &pool, &second) < 0);
	EXPECT_EQUAL(rp_image_create(w.pool, "text", false, &options, &second), -EEXIST);
	EXPECT_EQUAL(rp_image_create(w.pool, "nowhere/image", false, &options, &second), -ENOENT);
	EXPECT(access("text.new", F_OK) < 0);
	EXPECT_OK(rp_image_create(w.pool, "text", true, &options, &image), message);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	EXPECT_OK(rp_image_open("text", &options, &w.pool, &image), message);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
}

/* With the background thread, in a directory that is left meanwhile. */
static void test_background(void)
{
	struct rp_image_options options = options_for(NULL);
	struct rp_pool_status status;
	struct rp_image *image;
	struct world w;

	world_begin(&w, 8, 200);
	EXPECT_OK(rp_image_create(w.pool, "background", false, &options, &image), message);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	options.no_read_ahead = false;
	EXPECT_OK(rp_image_open("background", &options, &w.pool, &image), message);
	do {
		usleep(1000);
		rp_pool_status(w.pool, &status);
	} while (status.unread_pages);
	EXPECT(chdir("directory") == 0);
	EXPECT_OK(world_write(&w, 20), "write");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	EXPECT(chdir("..") == 0);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
}

static void line_count(void *context, const char *text)
{
	EXPECT(strlen(text) > 0);
	++*(unsigned *)context;
}

static void test_offline(void)
{
	struct disk *disk = disk_new(3);
	struct rp_image_options options = options_for(disk);
	struct rp_image_check check = { .report = report };
	struct rp_image *image;
	struct world w;
	unsigned lines = 0;

	world_begin(&w, 12, 200);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	EXPECT_OK(rp_image_verify(PATH, &options, &check), message);
	EXPECT(check.newest_is_whole);
	EXPECT_EQUAL(check.newest_whole, 1);
	EXPECT_EQUAL(check.bad_count, 0);
	EXPECT_EQUAL(check.superblocks_good, 2);
	EXPECT(check.block_count > 20);
	EXPECT_OK(rp_image_describe(PATH, &options, line_count, &lines), message);
	EXPECT(lines >= 2);
	for (unsigned i = 0; i < 3; i++) {
		EXPECT_OK(world_write(&w, 5), "write");
		EXPECT_OK(rp_image_commit(image, NULL, NULL), message);
	}
	EXPECT_OK(rp_image_verify(PATH, &options, &check), message);
	EXPECT_EQUAL(check.newest_whole, 4);
	end(&w, image, disk);
}

static void test_codec_names(void)
{
	enum rp_codec codec;

	for (unsigned i = 0; i < 3; i++) {
		EXPECT_OK(rp_codec_parse(rp_codec_name((enum rp_codec)i), &codec), "parse");
		EXPECT_EQUAL(codec, i);
	}
	EXPECT_EQUAL(rp_codec_parse("bzip2", &codec), -EINVAL);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1);
	char directory[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < 3; i++)
		test_round_trips(seed + i, (enum rp_codec)i);
	test_cost();
	test_zero_and_shared();
	test_lazy();
	test_generations();
	test_clean_end();
	test_progress();
	for (unsigned how = 0; how < 3; how++)
		test_save_as(how);
	test_second_image();
	test_offline();
	test_codec_names();
	directory_enter(directory);
	test_refusals();
	test_background();
	directory_leave(directory);
	printf("ok\n");
	return 0;
}
