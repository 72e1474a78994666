/* Random operations, snapshots, rollbacks, commits, failed commits, compaction, saving elsewhere and reopening against the flat
 * reference, over several seeds. After every few steps everything is compared; after every reopening too, and the checker
 * counts every frame.
 *
 * test-timeout: 400
 * RP_TEST_SEED: the first seed. RP_MODEL_STEPS: operations in all (1000000). */
#include <errno.h>
#include <string.h>
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define SEEDS 20

static char message[512], why[256];
static uint64_t seed, step;

#define NEED(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			printf("FAIL seed %llu, step %llu: %s:%d: %s (%s; %s)\n", (unsigned long long)seed,            \
			       (unsigned long long)step, __FILE__, __LINE__, #condition, message, why);                \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void report(void *context, const char *line)
{
	(void)context;
	printf("FAIL seed %llu, step %llu: checker: %s\n", (unsigned long long)seed, (unsigned long long)step, line);
	exit(1);
}

static const struct rp_hooks hooks = { .log = quiet };

struct model {
	struct disk *disk;
	struct world world;
	struct world_state saved;
	struct rp_image *image;
	struct rp_image_options options;
	uint64_t random;
};

static void save(struct model *m)
{
	NEED(rp_image_commit(m->image, NULL, NULL) == 0);
	m->saved = m->world.state;
}

static void open_again(struct model *m, bool save_first)
{
	if (save_first)
		save(m);
	rp_image_close(m->image);
	rp_pool_destroy(m->world.pool);
	m->options.codec_set = random_below(&m->random, 2);
	m->options.codec = (enum rp_codec)random_below(&m->random, 3);
	m->options.no_read_ahead = random_below(&m->random, 4) != 0;
	NEED(rp_image_open(PATH, &m->options, &m->world.pool, &m->image) == 0);
	m->world.state = m->saved;
}

static void crash(struct model *m)
{
	struct disk *after = disk_crash(m->disk, random_next(&m->random));

	rp_image_close(m->image);
	rp_pool_destroy(m->world.pool);
	disk_free(m->disk);
	m->disk = after;
	m->options.io = disk_io(after);
	NEED(rp_image_open(PATH, &m->options, &m->world.pool, &m->image) == 0);
	m->world.state = m->saved;
}

static void save_failing(struct model *m)
{
	struct disk_fault fault = {
		.kinds = 1u << DISK_WRITE | 1u << DISK_SYNC, .after = random_below(&m->random, 4), .error = -EIO,
		.for_ever = random_below(&m->random, 2),
	};

	disk_fault_set(m->disk, &fault);
	if (rp_image_commit(m->image, NULL, NULL) == 0)
		m->saved = m->world.state;
	disk_fault_set(m->disk, NULL);
	/* What the failed one may have left on the disk counts only until the next. */
	save(m);
}

static void elsewhere(struct model *m)
{
	struct rp_image_options options = m->options;
	struct rp_image *image;
	struct rp_pool *pool;

	NEED(rp_image_save_as(m->world.pool, m->image, "/other", true, &options, NULL, NULL) == 0);
	options.no_read_ahead = true;
	NEED(rp_image_open("/other", &options, &pool, &image) == 0);
	NEED(world_compare(pool, &m->world.state, why) == 0);
	rp_image_close(image);
	rp_pool_destroy(pool);
}

static void event(struct model *m)
{
	switch (random_below(&m->random, 12)) {
	case 0: case 1: case 2: case 3:
		save(m);
		break;
	case 4: case 5:
		open_again(m, true);
		break;
	case 6:
		open_again(m, false);
		break;
	case 7:
		NEED(rp_image_read_all(m->image) == 0);
		NEED(rp_image_compact(m->image) == 0);
		break;
	case 8:
		save_failing(m);
		break;
	case 9:
		elsewhere(m);
		break;
	case 10:
		crash(m);
		break;
	default:
		NEED(world_compare(m->world.pool, &m->world.state, why) == 0);
		break;
	}
}

static void seed_run(uint64_t steps)
{
	struct rp_pool_options pool_options = { .size_bytes = 16 << 20, .small_pages = true, .hooks = &hooks };
	struct model *m = calloc(1, sizeof(*m));

	EXPECT(m);
	m->random = seed;
	m->world.random = seed + 1000;
	m->disk = disk_new(seed);
	m->options = (struct rp_image_options){
		.io = disk_io(m->disk), .hooks = &hooks, .small_pages = true, .message = message, .keep = 1 + (unsigned)(seed % 3),
		.no_read_ahead = true,
	};
	step = 0;
	NEED(rp_pool_create(&pool_options, &m->world.pool) == 0);
	NEED(rp_image_create(m->world.pool, PATH, false, &m->options, &m->image) == 0);
	m->saved = m->world.state;
	for (; step < steps; step++) {
		NEED(world_step(&m->world) == 0);
		if (random_below(&m->random, 60) == 0)
			event(m);
	}
	NEED(rp_image_read_all(m->image) == 0);
	rp_image_close(m->image);
	NEED(world_compare(m->world.pool, &m->world.state, why) == 0);
	NEED(rp_pool_check(m->world.pool, report, NULL) == 0);
	rp_pool_destroy(m->world.pool);
	disk_free(m->disk);
	free(m);
}

int main(void)
{
	uint64_t first = number_from_environment("RP_TEST_SEED", 1);
	uint64_t steps = number_from_environment("RP_MODEL_STEPS", steps_scaled(1000000)) / SEEDS;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seeds %llu to %llu, %llu steps each\n", (unsigned long long)first, (unsigned long long)first + SEEDS - 1,
	       (unsigned long long)steps);
	for (seed = first; seed < first + SEEDS; seed++)
		seed_run(steps);
	return 0;
}
