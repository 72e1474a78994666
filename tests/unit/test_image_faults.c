/* The Nth allocation and the Nth operation on the disk fail, once and for ever, N = 1, 2, ... until none fires, through a whole
 * life of an image: made, saved, closed, opened, read, saved elsewhere, compacted. Each failure is an error and nothing
 * else: afterwards the pool holds what it held, the next commit succeeds, and what was acknowledged is there.
 *
 * test-timeout: 300 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"

struct memory_fault {
	_Atomic uint64_t left;   /* allocations that still succeed */
	atomic_bool armed, for_ever, fired;
};

struct life {
	struct disk *disk;
	struct memory_fault memory;
	struct rp_hooks hooks;
	struct world world;
	struct rp_image *image;
	struct rp_image_options options;
	struct world_state saved;
	bool is_saved;
	bool unlink_fails; /* so that what is left over cannot be removed */
};

static char message[512], why[256];
static const char *doing = "";
static uint64_t at;

#define NEED(condition)                                                                                              \
	do {                                                                                                         \
		if (!(condition)) {                                                                                  \
			printf("FAIL %s, fault %llu: %s:%d: %s (%s; %s)\n", doing, (unsigned long long)at, __FILE__, \
			       __LINE__, #condition, message, why);                                                  \
			exit(1);                                                                                     \
		}                                                                                                    \
	} while (0)

static void *allocate(void *context, size_t size)
{
	struct memory_fault *fault = context;

	if (atomic_load(&fault->armed)) {
		uint64_t left = atomic_load(&fault->left);

		if (left == 0) {
			atomic_store(&fault->fired, true);
			if (!atomic_load(&fault->for_ever))
				atomic_store(&fault->armed, false);
			return NULL;
		}
		atomic_store(&fault->left, left - 1);
	}
	return calloc(1, size);
}

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void report(void *context, const char *line)
{
	(void)context;
	printf("FAIL %s, fault %llu: checker: %s\n", doing, (unsigned long long)at, line);
	exit(1);
}

/* ---- The life --------------------------------------------------------------------------------------------------------------- */

static void life_begin(struct life *life, uint64_t seed)
{
	struct rp_pool_options options = { .size_bytes = 8 << 20, .small_pages = true, .hooks = &life->hooks };

	memset(life, 0, sizeof(*life));
	life->disk = disk_new(seed);
	life->hooks = (struct rp_hooks){ .allocate = allocate, .log = quiet, .context = &life->memory };
	life->world.random = seed;
	life->options = (struct rp_image_options){
		.io = disk_io(life->disk), .hooks = &life->hooks, .no_read_ahead = true, .small_pages = true, .message = message,
		.keep = 2,
	};
	NEED(rp_pool_create(&options, &life->world.pool) == 0);
	for (unsigned i = 0; i < 40; i++)
		NEED(world_step(&life->world) == 0);
}

static int life_save(struct life *life)
{
	int error = rp_image_commit(life->image, NULL, NULL);

	if (!error) {
		life->saved = life->world.state;
		life->is_saved = true;
	}
	return error;
}

static void life_close(struct life *life)
{
	rp_image_close(life->image);
	rp_pool_destroy(life->world.pool);
	life->image = NULL;
	life->world.pool = NULL;
}

/* One thing after the other until one fails; with a fault armed, some will. Calls that failed leave all as it was. */
static int life_run(struct life *life)
{
	int error = 0;

	if (!life->image && !life->is_saved) {
		error = rp_image_create(life->world.pool, PATH, false, &life->options, &life->image);
		if (error)
			return error;
		life->saved = life->world.state;
		life->is_saved = true;
	}
	for (unsigned i = 0; i < 12 && !error; i++)
		error = world_step(&life->world);
	if (!error)
		error = rp_snapshot_create(life->world.pool, "of the life");
	if (!error)
		error = rp_snapshot_delete(life->world.pool, "of the life");
	if (!error)
		error = life_save(life);
	if (!error)
		life_close(life);
	if (!error)
		error = rp_image_open(PATH, &life->options, &life->world.pool, &life->image);
	if (!error)
		error = world_write(&life->world, 5);
	if (!error)
		error = life_save(life);
	if (!error)
		error = rp_image_save_as(life->world.pool, life->image, "/other", true, &life->options, NULL, NULL);
	if (!error)
		error = rp_image_read_all(life->image);
	if (!error)
		error = rp_image_compact(life->image);
	if (!error)
		error = world_write(&life->world, 2);
	if (!error)
		error = life_save(life);
	return error;
}

/* The fault is gone: whatever happened, all that was in the pool is there, or, where there is no pool, all that was saved. */
static void life_check(struct life *life)
{
	if (!life->world.pool) {
		NEED(rp_image_open(PATH, &life->options, &life->world.pool, &life->image) == 0);
		life->world.state = life->saved;
	} else if (!life->image) {
		NEED(world_compare(life->world.pool, &life->world.state, why) == 0);
		NEED(life->unlink_fails || !disk_exists(life->disk, PATH ".new"));
		NEED(rp_image_create(life->world.pool, PATH, true, &life->options, &life->image) == 0);
	}
	NEED(world_compare(life->world.pool, &life->world.state, why) == 0);
	NEED(rp_pool_check(life->world.pool, report, NULL) == 0);
	NEED(world_write(&life->world, 2) == 0);
	NEED(life_save(life) == 0);
	NEED(rp_image_read_all(life->image) == 0);
	NEED(rp_image_compact(life->image) == 0);
	life_close(life);
	NEED(rp_image_open(PATH, &life->options, &life->world.pool, &life->image) == 0);
	NEED(world_compare(life->world.pool, &life->saved, why) == 0);
	life_close(life);
	disk_free(life->disk);
}

/* ---- Faults ------------------------------------------------------------------------------------------------------------------ */

static void faults_of_memory(uint64_t seed, bool for_ever, uint64_t step)
{
	struct life *life = malloc(sizeof(*life));
	bool fired = true;

	EXPECT(life);
	doing = for_ever ? "allocations fail from here on" : "an allocation fails";
	for (at = 0; fired; at += step) {
		int error;

		life_begin(life, seed);
		atomic_store(&life->memory.left, at);
		atomic_store(&life->memory.for_ever, for_ever);
		atomic_store(&life->memory.armed, true);
		error = life_run(life);
		atomic_store(&life->memory.armed, false);
		fired = atomic_load(&life->memory.fired);
		NEED(fired || error == 0);
		NEED(error == 0 || error == -ENOMEM || error == -ENOSPC);
		life_check(life);
	}
	printf("%s: %llu places\n", doing, (unsigned long long)at);
	free(life);
}

static void faults_of_disk(uint64_t seed, int error_wanted, bool for_ever, unsigned kinds, uint64_t step)
{
	struct life *life = malloc(sizeof(*life));
	bool fired = true;

	EXPECT(life);
	doing = strerror(-error_wanted);
	for (at = 0; fired; at += step) {
		struct disk_fault fault = { .kinds = kinds, .after = at, .for_ever = for_ever, .error = error_wanted };
		int error;

		life_begin(life, seed);
		disk_short_set(life->disk, at % 2);
		disk_fault_set(life->disk, &fault);
		life->unlink_fails = kinds & 1u << DISK_UNLINK;
		error = life_run(life);
		fired = disk_fault_fired(life->disk);
		disk_fault_set(life->disk, NULL);
		NEED(fired || error == 0);
		/* An interrupted call is made again. */
		NEED(error_wanted != -EINTR || for_ever || error == 0 || !(kinds & ~(1u << DISK_READ | 1u << DISK_WRITE)));
		life_check(life);
	}
	printf("%s%s: %llu places\n", doing, for_ever ? " from here on" : "", (unsigned long long)at);
	free(life);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1), step = 10 / steps_scaled(10);
	const unsigned changes = 1u << DISK_WRITE | 1u << DISK_SYNC | 1u << DISK_TRUNCATE | 1u << DISK_RENAME | 1u << DISK_UNLINK |
	                         1u << DISK_SYNC_DIRECTORY | 1u << DISK_OPEN;
	const unsigned bytes = 1u << DISK_READ | 1u << DISK_WRITE;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	for (unsigned for_ever = 0; for_ever < 2; for_ever++) {
		faults_of_memory(seed, for_ever, step);
		faults_of_disk(seed, -EIO, for_ever, changes, step);
		faults_of_disk(seed, -ENOSPC, for_ever, changes, step);
		faults_of_disk(seed, -EIO, for_ever, 1u << DISK_READ, step);
	}
	faults_of_disk(seed, -EINTR, false, bytes, step);
	return 0;
}
