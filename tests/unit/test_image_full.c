/* A pool that is nearly full, saved and read in while it is overwritten: what a commit or a round of reading in freezes never
 * turns into a full pool for writers who replace what they have. And a disk that is full: that commit fails, the pool goes
 * on, and with room the next one succeeds. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define PAGES 1600u          /* of a pool of 2048 frames */
#define WRITERS 2

static char message[512];

struct shared {
	struct rp_pool *pool;
	rp_object object;
	atomic_bool stop;
	_Atomic uint64_t written[PAGES];  /* content last written, by the only writer of the page */
	_Atomic uint64_t count;
	uint64_t seed;
};

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void report(void *context, const char *line)
{
	(void)context;
	printf("FAIL checker: %s\n", line);
	exit(1);
}

static const struct rp_hooks hooks = { .log = quiet };

static void failures_count(void *context, const char *line)
{
	*(unsigned *)context += strstr(line, "saving failed") != NULL;
}

static int page_write(struct shared *s, unsigned i, uint64_t content)
{
	uint8_t page[RP_PAGE_SIZE];
	struct rp_op op;
	size_t done;
	int error;

	world_fill(content, page);
	do {
		rp_op_begin(&op, s->pool, 0);
		error = rp_bytes_write(&op, s->object, (uint64_t)i * RP_PAGE_SIZE, page, RP_PAGE_SIZE, &done);
	} while (rp_op_end(&op, &error));
	if (!error)
		atomic_store(&s->written[i], content);
	return error;
}

struct writer {
	struct shared *shared;
	unsigned me;
};

static void *writer_main(void *context)
{
	struct writer *w = context;
	struct shared *s = w->shared;
	uint64_t random = s->seed * 10 + w->me;

	while (!atomic_load(&s->stop)) {
		unsigned i = (unsigned)random_below(&random, PAGES / WRITERS) * WRITERS + w->me;

		EXPECT_EQUAL(page_write(s, i, 2 + (random_next(&random) >> 1)), 0);
		atomic_fetch_add(&s->count, 1);
	}
	return NULL;
}

static void pages_compare(struct shared *s)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint8_t have[RP_PAGE_SIZE], want[RP_PAGE_SIZE];
		struct rp_op op;
		int error;

		do {
			rp_op_begin(&op, s->pool, RP_OP_READ);
			error = rp_bytes_read(&op, rp_pool_live(s->pool), s->object, (uint64_t)i * RP_PAGE_SIZE, have,
			                      RP_PAGE_SIZE);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "read");
		world_fill(atomic_load(&s->written[i]), want);
		EXPECT(memcmp(have, want, RP_PAGE_SIZE) == 0);
	}
}

static void writers_run(struct shared *s, struct rp_image *image, unsigned commits)
{
	pthread_t threads[WRITERS];
	struct writer context[WRITERS];

	atomic_store(&s->stop, false);
	for (unsigned i = 0; i < WRITERS; i++) {
		context[i] = (struct writer){ s, i };
		EXPECT(pthread_create(&threads[i], NULL, writer_main, &context[i]) == 0);
	}
	for (unsigned i = 0; i < commits; i++) {
		uint64_t before = atomic_load(&s->count);

		/* Something is overwritten between two commits, and during each. */
		while (atomic_load(&s->count) < before + 50)
			usleep(100);
		EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	}
	atomic_store(&s->stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
}

static void test_pool_full(uint64_t seed)
{
	struct rp_pool_options pool_options = { .size_bytes = 8 << 20, .small_pages = true, .hooks = &hooks };
	struct shared *s = calloc(1, sizeof(*s));
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = { .io = disk_io(disk), .hooks = &hooks, .small_pages = true, .message = message };
	struct rp_image *image;
	uint64_t generation;
	struct rp_op op;
	int error;

	EXPECT(s);
	s->seed = seed;
	EXPECT_OK(rp_pool_create(&pool_options, &s->pool), "pool");
	do {
		rp_op_begin(&op, s->pool, 0);
		error = rp_object_create(&op, false, &s->object, &generation);
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "object");
	for (unsigned i = 0; i < PAGES; i++)
		EXPECT_OK(page_write(s, i, 1000 + i), "fill");
	EXPECT_OK(rp_image_create(s->pool, PATH, false, &options, &image), message);
	writers_run(s, image, (unsigned)steps_scaled(30));
	for (unsigned round = 0; round < 4; round++) {
		EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
		rp_image_close(image);
		EXPECT_EQUAL(rp_pool_check(s->pool, report, NULL), 0);
		rp_pool_destroy(s->pool);
		EXPECT_OK(rp_image_open(PATH, &options, &s->pool, &image), message);
		/* While the background thread reads. */
		writers_run(s, image, (unsigned)steps_scaled(10));
		EXPECT_OK(rp_image_read_all(image), "read all");
		pages_compare(s);
	}
	rp_image_close(image);
	rp_pool_destroy(s->pool);
	disk_free(disk);
	free(s);
}

static void test_disk_full(uint64_t seed)
{
	struct rp_pool_options pool_options = { .size_bytes = 8 << 20, .small_pages = true, .hooks = &hooks };
	struct disk_fault fault = { .kinds = 1u << DISK_WRITE, .for_ever = true, .error = -ENOSPC };
	struct disk *disk = disk_new(seed);
	unsigned told = 0;
	const struct rp_hooks counting = { .log = failures_count, .context = &told };
	struct rp_image_options options = { .io = disk_io(disk), .hooks = &counting, .small_pages = true, .message = message };
	struct rp_image_status status;
	struct world w = { .random = seed };
	struct rp_image *image;
	char why[256];
	size_t before, after;

	EXPECT_OK(rp_pool_create(&pool_options, &w.pool), "pool");
	for (unsigned i = 0; i < 60; i++)
		EXPECT_OK(world_step(&w), "step");
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	disk_bytes(disk, PATH, &before);
	disk_fault_set(disk, &fault);
	for (unsigned i = 0; i < 5; i++) {
		EXPECT_OK(world_write(&w, 5), "write");
		EXPECT_EQUAL(rp_image_commit(image, NULL, NULL), -ENOSPC);
		EXPECT(rp_image_is_changed(image));
		rp_image_status(image, &status);
		EXPECT_EQUAL(status.last_error, -ENOSPC);
		EXPECT_EQUAL(status.generation, 1);
		EXPECT_EQUAL(status.commits_failed, i + 1);
		/* What was half written does not keep the space. */
		disk_bytes(disk, PATH, &after);
		EXPECT(after <= before + 4096);
	}
	/* With sync=image each fsync is such a save: they are not all told. */
	EXPECT(told >= 1 && told < 5);
	disk_fault_set(disk, NULL);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	rp_image_status(image, &status);
	EXPECT_EQUAL(status.last_error, 0);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
	EXPECT_OK(world_compare(w.pool, &w.state, why), why);
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	disk_free(disk);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1);

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	test_pool_full(seed);
	test_disk_full(seed);
	return 0;
}
