/* Compaction: what is dead goes, what is kept stays, what was shared stays shared, and the pool goes on with the new file. */
#include <errno.h>
#include <string.h>
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
		.io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true, .message = message,
	};
}

static void world_begin(struct world *w, uint64_t seed, unsigned steps, uint64_t size_bytes)
{
	struct rp_pool_options options = { .size_bytes = size_bytes, .small_pages = true, .hooks = &hooks };

	memset(w, 0, sizeof(*w));
	w->random = seed;
	EXPECT_OK(rp_pool_create(&options, &w->pool), "pool");
	for (unsigned i = 0; i < steps; i++)
		EXPECT_OK(world_step(w), "step");
}

static void end(struct world *w, struct rp_image *image, struct disk *disk)
{
	rp_image_close(image);
	rp_pool_destroy(w->pool);
	disk_free(disk);
}

static uint64_t file_bytes(struct rp_image *image)
{
	struct rp_image_status status;

	rp_image_status(image, &status);
	return status.file_bytes;
}

/* Random histories, compacted now and then, from memory and from a pool that was opened; `keep` commits can be gone back to. */
static void test_histories(uint64_t seed, unsigned keep)
{
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = options_for(disk);
	struct world_state *states = calloc(64, sizeof(*states));
	struct rp_image_status status;
	struct rp_image *image;
	struct world w;
	uint64_t generation = 1;

	EXPECT(states);
	options.keep = keep;
	world_begin(&w, seed, 50, 16 << 20);
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	states[1] = w.state;
	for (unsigned round = 0; round < 12; round++) {
		uint64_t before, newest;

		for (unsigned i = 0; i < 3; i++) {
			for (unsigned n = 0; n < 8; n++)
				EXPECT_OK(world_step(&w), "step");
			EXPECT_OK(world_write(&w, 1), "write");
			EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
			states[++generation] = w.state;
		}
		if (round % 3 == 1) {
			rp_image_close(image);
			rp_pool_destroy(w.pool);
			EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
			EXPECT_EQUAL(rp_image_compact(image), -EAGAIN);
			EXPECT_OK(rp_image_read_all(image), "read all");
		}
		/* Changes that are in no commit are not in the new file, and not lost either. */
		if (round % 2)
			EXPECT_OK(world_write(&w, 4), "write");
		before = file_bytes(image);
		EXPECT_OK(rp_image_compact(image), "compact");
		EXPECT(file_bytes(image) < before);
		EXPECT_EQUAL(rp_image_is_changed(image), round % 2);
		EXPECT_OK(world_compare(w.pool, &w.state, why), why);
		EXPECT_EQUAL(rp_pool_check(w.pool, report, NULL), 0);
		rp_image_status(image, &status);
		newest = status.generation;
		EXPECT_EQUAL(newest, generation);
		for (uint64_t g = newest - 3; g <= newest; g++) {
			struct rp_image_options past = options;
			struct rp_image *old;
			struct rp_pool *pool;
			int error;

			past.generation = g;
			past.read_only = true;
			error = rp_image_open(PATH, &past, &pool, &old);
			EXPECT_EQUAL(error, g + keep > newest ? 0 : -ESRCH);
			if (error)
				continue;
			EXPECT_OK(world_compare(pool, &states[g], why), why);
			rp_image_close(old);
			rp_pool_destroy(pool);
		}
		before = status.written_bytes;
		EXPECT_OK(world_write(&w, 1), "write");
		EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
		states[++generation] = w.state;
		rp_image_status(image, &status);
		EXPECT(status.written_bytes - before <= 5 * 11 * 4160 + 4096);
	}
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	end(&w, image, disk);
	free(states);
}

/* Snapshots that somebody holds, and named ones gone back to, live through it. */
static void test_held(void)
{
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	struct rp_snapshot *held, *named;
	struct rp_image *image;
	struct world_state before;
	struct world w;

	world_begin(&w, 77, 0, 16 << 20);
	EXPECT_OK(world_write(&w, 100), "write");
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	EXPECT_OK(rp_snapshot_create(w.pool, "kept"), "snapshot");
	before = w.state;
	EXPECT_OK(rp_snapshot_take(w.pool, &held), "take");
	EXPECT_OK(world_write(&w, 100), "write");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	EXPECT_OK(world_write(&w, 100), "write");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	EXPECT_OK(rp_image_compact(image), "compact");
	EXPECT_OK(rp_snapshot_rollback(w.pool, held), "rollback");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	rp_snapshot_put(held);
	EXPECT_OK(rp_snapshot_open(w.pool, "kept", &named), "open");
	EXPECT_OK(rp_snapshot_rollback(w.pool, named), "rollback");
	rp_snapshot_put(named);
	EXPECT_OK(rp_snapshot_delete(w.pool, "kept"), "delete");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	EXPECT_EQUAL(rp_pool_check(w.pool, report, NULL), 0);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
	EXPECT_OK(world_compare(w.pool, &before, why), why);
	EXPECT_OK(rp_image_read_all(image), "read all");
	EXPECT_EQUAL(rp_pool_check(w.pool, report, NULL), 0);
	end(&w, image, disk);
}

/* The background thread does it by itself, so a file that is saved for ever stays bounded. */
static void test_by_itself(void)
{
	struct disk *disk = disk_new(1);
	struct rp_image_options options = options_for(disk);
	uint8_t page[RP_PAGE_SIZE];
	uint64_t most = 0, written;
	struct rp_image_status status;
	struct rp_image *image;
	struct world w;
	rp_object object;

	world_begin(&w, 1, 0, 16 << 20);
	object = world_object_make(w.pool, false);
	options.no_read_ahead = false;
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	for (uint64_t round = 0; round < 60; round++) {
		for (unsigned i = 0; i < 256; i++) {
			struct rp_op op;
			size_t done;
			int error;

			world_fill((round * 256 + i + 1) * 3, page);
			do {
				rp_op_begin(&op, w.pool, 0);
				error = rp_bytes_write(&op, object, i * 4096, page, RP_PAGE_SIZE, &done);
			} while (rp_op_end(&op, &error));
			EXPECT_OK(error, "write");
		}
		EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
		if (file_bytes(image) > most)
			most = file_bytes(image);
		/* Let it have the role now and then; without a pause it gets it later, and the file is larger meanwhile. */
		usleep(2000);
	}
	rp_image_status(image, &status);
	written = status.written_bytes;
	printf("written %llu, at most %llu in the file\n", (unsigned long long)written, (unsigned long long)most);
	EXPECT(written > 60 * 256 * 4096u);
	EXPECT(most < written / 2);
	end(&w, image, disk);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1);

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < steps_scaled(6); i++)
		test_histories(seed + i, 1 + i % 3);
	test_held();
	test_by_itself();
	return 0;
}
