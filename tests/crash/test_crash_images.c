/* Crash images: at every operation on the simulated disk that changes something, what a power failure might leave is opened
 * with the real code and compared with the reference. An acknowledged commit must be there; the state must be exactly one
 * commit; the image must accept the next one, during which some of them crash again.
 *
 * test-timeout: 400
 * RP_CRASH_IMAGES: how many images (100000). RP_CRASH_SEED: the first life's seed (1). RP_CRASH_LIFE=1: that life alone,
 * in this process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/lib/disk.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define ATTEMPTS 16
#define PROCESSES 6 /* ends of pools wait for a thread that naps: more than there are CPUs */

struct life {
	uint64_t seed, random, images, seconds, goal;
	struct disk *disk;
	struct world world;
	struct rp_image_options options;
	struct rp_image *image;
	char message[512];
	bool created;                           /* acknowledged */
	uint64_t generation;                    /* of the newest acknowledged commit */
	struct world_state acknowledged;
	struct world_state attempts[ATTEMPTS];  /* commits since that were begun and not acknowledged */
	unsigned attempt_count;
};

static void fail(const struct life *life, const char *what, const char *why)
{
	printf("FAIL life %llu, image %llu: %s: %s\n", (unsigned long long)life->seed, (unsigned long long)life->images, what, why);
	printf("replay: RP_CRASH_LIFE=1 RP_CRASH_SEED=%llu\n", (unsigned long long)life->seed);
	fflush(stdout);
	_exit(1);
}

static void fail_error(const struct life *life, const char *what, int error)
{
	fail(life, what, strerror(error < 0 ? -error : 0));
}

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void check_report(void *context, const char *line)
{
	fail(context, "the checker", line);
}

static const struct rp_hooks hooks = { .log = quiet };

/* Which of the states that may be there is it? null: none. */
static const struct world_state *state_find(struct life *life, struct rp_pool *pool, uint64_t generation, char why[256])
{
	int error;

	if (generation == life->generation && life->created) {
		error = world_compare(pool, &life->acknowledged, why);
		return error ? NULL : &life->acknowledged;
	}
	snprintf(why, 256, "commit %llu was never begun", (unsigned long long)generation);
	for (unsigned i = 0; i < life->attempt_count; i++)
		if (world_compare(pool, &life->attempts[i], why) == 0)
			return &life->attempts[i];
	return NULL;
}

/* ---- The second crash: while the image that came up is written again ------------------------------------------------------- */

struct again {
	struct life *life;
	struct disk *disk, *crashed;
	uint64_t at;
};

static void again_watch(void *context, enum disk_operation operation)
{
	struct again *again = context;

	(void)operation;
	if (again->at-- == 0)
		again->crashed = disk_crash(again->disk, random_next(&again->life->random));
}

static void again_check(struct life *life, struct disk *disk, const struct world_state *before,
                        const struct world_state *after, uint64_t generation)
{
	struct rp_image_options options = { .io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true,
		.message = life->message };
	struct rp_image_status status;
	struct rp_image *image;
	struct rp_pool *pool;
	char why[256] = "";
	int error = rp_image_open(PATH, &options, &pool, &image);

	if (error)
		fail(life, "second crash: open", life->message);
	rp_image_status(image, &status);
	if (status.generation != generation && status.generation != generation + 1)
		fail(life, "second crash", "another commit came up");
	if (world_compare(pool, status.generation == generation ? before : after, why))
		fail(life, "second crash", why);
	rp_image_close(image);
	rp_pool_destroy(pool);
	disk_free(disk);
	life->seconds++;
}

/* ---- One image --------------------------------------------------------------------------------------------------------------- */

/* It came up: it must take the next commit, and give it back. */
static void next_commit(struct life *life, struct disk *disk, struct rp_pool *pool, struct rp_image *image,
                        const struct world_state *found, uint64_t generation)
{
	struct world world = { .pool = pool, .random = random_next(&life->random), .state = *found };
	struct again again = { .life = life, .disk = disk, .at = random_below(&life->random, 6) };
	int error = world_write(&world, 1 + (unsigned)random_below(&world.random, 4));

	if (error)
		fail_error(life, "writing after a crash", error);
	if (random_below(&life->random, 4) == 0)
		disk_watch(disk, again_watch, &again);
	error = rp_image_commit(image, NULL, NULL);
	disk_watch(disk, NULL, NULL);
	if (error)
		fail_error(life, "the next commit", error);
	if (again.crashed)
		again_check(life, again.crashed, found, &world.state, generation);
	else if (random_below(&life->random, 4) == 0)
		again_check(life, disk_crash(disk, random_next(&life->random)), &world.state, &world.state, generation);
}

static void image_check(struct life *life, struct disk *disk)
{
	struct rp_image_options options = { .io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true,
		.message = life->message };
	const struct world_state *found;
	struct rp_image_status status;
	struct rp_image *image;
	struct rp_pool *pool;
	char why[256] = "";
	int error = rp_image_open(PATH, &options, &pool, &image);

	life->images++;
	if (error == -ENOENT && !life->created) {
		disk_free(disk);
		return;
	}
	if (error)
		fail(life, "open", life->message);
	rp_image_status(image, &status);
	if (life->created && status.generation < life->generation)
		fail(life, "open", "an acknowledged commit is lost");
	found = state_find(life, pool, status.generation, why);
	if (!found)
		fail(life, "compare", why);
	if (random_below(&life->random, 4) == 0) {
		error = rp_image_read_all(image);
		if (error)
			fail_error(life, "read all", error);
		rp_pool_check(pool, check_report, life);
	}
	next_commit(life, disk, pool, image, found, status.generation);
	rp_image_close(image);
	rp_pool_destroy(pool);
	disk_free(disk);
}

static void watch(void *context, enum disk_operation operation)
{
	struct life *life = context;
	unsigned count = operation == DISK_SYNC || operation == DISK_SYNC_DIRECTORY ? 6 : 2;

	while (count-- > 0)
		image_check(life, disk_crash(life->disk, random_next(&life->random)));
}

/* ---- One life ---------------------------------------------------------------------------------------------------------------- */

static void attempt_begin(struct life *life)
{
	if (life->attempt_count == ATTEMPTS)
		fail(life, "test", "too many attempts");
	life->attempts[life->attempt_count++] = life->world.state;
}

static void acknowledge(struct life *life)
{
	struct rp_image_status status;

	rp_image_status(life->image, &status);
	life->created = true;
	life->generation = status.generation;
	life->acknowledged = life->world.state;
	life->attempt_count = 0;
}

/* A commit that fails, once or for some operations; then the fault is gone and the next must succeed. */
static void commit_with_fault(struct life *life)
{
	static const int errors[] = { -EIO, -ENOSPC, -EIO };
	struct disk_fault fault = {
		.kinds = random_below(&life->random, 2) ? 1u << DISK_SYNC : 1u << DISK_WRITE | 1u << DISK_SYNC | 1u << DISK_OPEN,
		.after = random_below(&life->random, 5),
		.error = errors[random_below(&life->random, 3)],
		.for_ever = random_below(&life->random, 2),
	};
	int error;

	attempt_begin(life);
	disk_fault_set(life->disk, &fault);
	error = rp_image_commit(life->image, NULL, NULL);
	disk_fault_set(life->disk, NULL);
	if (!error)
		acknowledge(life);
	else if (world_compare(life->world.pool, &life->world.state, life->message))
		fail(life, "after a failed commit", life->message);
}

static void commit(struct life *life)
{
	int error;

	attempt_begin(life);
	error = rp_image_commit(life->image, NULL, NULL);
	if (error)
		fail_error(life, "commit", error);
	acknowledge(life);
}

static void reopen(struct life *life)
{
	int error;

	rp_image_mark_clean(life->image);
	commit(life);
	rp_image_close(life->image);
	rp_pool_destroy(life->world.pool);
	error = rp_image_open(PATH, &life->options, &life->world.pool, &life->image);
	if (error)
		fail(life, "reopen", life->message);
}

static void compact(struct life *life)
{
	int error;

	/* A compaction keeps commits, not what was never saved. */
	error = rp_image_read_all(life->image);
	if (!error)
		error = rp_image_compact(life->image);
	if (error)
		fail_error(life, "compact", error);
}

/* A compaction that fails somewhere: at worst the next commit is refused once more, until the directory can be synced. */
static void compact_with_fault(struct life *life)
{
	struct disk_fault fault = {
		.kinds = random_below(&life->random, 2) ? 1u << DISK_SYNC_DIRECTORY | 1u << DISK_RENAME
		                                        : 1u << DISK_WRITE | 1u << DISK_SYNC | 1u << DISK_OPEN,
		.after = random_below(&life->random, 2),
		.error = -EIO,
		.for_ever = random_below(&life->random, 2),
	};
	int error = rp_image_read_all(life->image);

	if (error)
		fail_error(life, "read all", error);
	disk_fault_set(life->disk, &fault);
	rp_image_compact(life->image);
	disk_fault_set(life->disk, NULL);
	if (world_compare(life->world.pool, &life->world.state, life->message))
		fail(life, "after a failed compaction", life->message);
	world_write(&life->world, 1);
	commit(life);
}

static void life_begin(struct life *life)
{
	struct rp_pool_options pool_options = { .size_bytes = 8 << 20, .small_pages = true, .hooks = &hooks };
	int error = rp_pool_create(&pool_options, &life->world.pool);

	if (error)
		fail_error(life, "pool", error);
	life->disk = disk_new(life->seed);
	life->world.random = life->seed ^ UINT64_C(0x5bd1e995);
	life->options = (struct rp_image_options){
		.io = disk_io(life->disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true,
		.message = life->message, .codec_set = true,
		.codec = (enum rp_codec)(life->seed % 3), .keep = 1 + (unsigned)(life->seed % 4),
	};
	disk_short_set(life->disk, life->seed % 2);
	disk_watch(life->disk, watch, life);
	for (unsigned i = 0; i < 30; i++)
		world_step(&life->world);
	attempt_begin(life);
	error = rp_image_create(life->world.pool, PATH, false, &life->options, &life->image);
	if (error)
		fail(life, "create", life->message);
	acknowledge(life);
}

static void life_run(struct life *life)
{
	life_begin(life);
	for (unsigned round = 0; round < 10 && life->images < life->goal; round++) {
		unsigned steps = (unsigned)random_below(&life->random, 25);

		for (unsigned i = 0; i < steps; i++) {
			int error = world_step(&life->world);

			if (error)
				fail_error(life, "step", error);
		}
		switch (random_below(&life->random, 7)) {
		case 0:
			reopen(life);
			break;
		case 1:
			compact(life);
			break;
		case 2:
			commit_with_fault(life);
			break;
		case 3:
			compact_with_fault(life);
			break;
		default:
			commit(life);
			break;
		}
	}
	disk_watch(life->disk, NULL, NULL);
	rp_image_close(life->image);
	rp_pool_destroy(life->world.pool);
	disk_free(life->disk);
}

/* Lives first, first + step, ... until the goal is reached. */
static uint64_t lives_run(uint64_t first, uint64_t step, uint64_t goal, uint64_t *seconds)
{
	struct life *life = calloc(1, sizeof(*life));
	uint64_t images = 0;

	if (!life)
		abort();
	for (uint64_t seed = first; images < goal; seed += step) {
		memset(life, 0, sizeof(*life));
		life->seed = life->random = seed;
		life->goal = goal == 1 ? UINT64_MAX : goal - images;
		life_run(life);
		images += life->images;
		*seconds += life->seconds;
	}
	free(life);
	return images;
}

static int child_run(uint64_t seed, uint64_t index, uint64_t goal)
{
	uint64_t seconds = 0, images = lives_run(seed + index, PROCESSES, goal, &seconds);

	printf("process %llu: %llu images, %llu of them crashed again\n", (unsigned long long)index, (unsigned long long)images,
	       (unsigned long long)seconds);
	fflush(stdout);
	_exit(images >= goal ? 0 : 1);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_CRASH_SEED", 1), seconds = 0;
	uint64_t goal = number_from_environment("RP_CRASH_IMAGES", 100000);
	int result = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	if (number_from_environment("RP_CRASH_LIFE", 0)) {
		printf("%llu images\n", (unsigned long long)lives_run(seed, 1, 1, &seconds));
		return 0;
	}
	for (uint64_t i = 0; i < PROCESSES; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0)
			child_run(seed, i, (goal + PROCESSES - 1) / PROCESSES);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
			result = 1;
	}
	return result;
}
