/* Commits while others write: threads move amounts between objects, each move one operation, and write pages that must agree
 * with each other; others save, take snapshots, read, and open what was saved. Every commit that can be gone back to must
 * show each operation wholly or not at all, and what a thread wrote before a commit it asked for must be in that commit. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define ACCOUNTS 24
#define WRITERS 4
#define TOTAL (ACCOUNTS * UINT64_C(1000))

static char message[512];

struct shared {
	struct rp_pool *pool;
	struct rp_image *image;
	rp_object accounts[ACCOUNTS];
	rp_object counters[WRITERS];   /* page 0 and page 600 of each hold the same number */
	_Atomic uint64_t counted[WRITERS];
	atomic_bool stop;
	uint64_t seed;
	pthread_mutex_t moving;        /* which of two moves is first is the accounts' owner's business */
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

static rp_object object_make(struct rp_pool *pool, bool meta, uint64_t user)
{
	struct rp_record *record;
	uint64_t generation;
	rp_object object;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, 0);
		error = rp_object_create(&op, meta, &object, &generation);
		if (!error)
			error = rp_record_edit(&op, object, offsetof(struct rp_record, user), 8, &record);
		if (!error)
			memcpy(record->user, &user, 8);
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "object");
	return object;
}

/* ---- What writers do --------------------------------------------------------------------------------------------- */

static int amount_add(struct rp_op *op, rp_object object, int64_t amount)
{
	struct rp_record *record;
	uint64_t value;
	int error = rp_record_edit(op, object, offsetof(struct rp_record, user), 8, &record);

	if (error)
		return error;
	memcpy(&value, record->user, 8);
	value += (uint64_t)amount;
	memcpy(record->user, &value, 8);
	return 0;
}

static void move(struct shared *s, uint64_t *random)
{
	rp_object from = s->accounts[random_below(random, ACCOUNTS)], to = s->accounts[random_below(random, ACCOUNTS)];
	struct rp_op op;
	int error;

	pthread_mutex_lock(&s->moving);
	do {
		rp_op_begin(&op, s->pool, 0);
		error = amount_add(&op, from, -7);
		if (!error)
			error = amount_add(&op, to, 7);
	} while (rp_op_end(&op, &error));
	pthread_mutex_unlock(&s->moving);
	EXPECT_OK(error, "move");
}

static void count(struct shared *s, unsigned me, uint64_t number)
{
	struct rp_op op;
	void *page;
	int error;

	do {
		rp_op_begin(&op, s->pool, 0);
		error = rp_page_edit(&op, s->counters[me], 0, 0, 8, &page);
		if (!error)
			memcpy(page, &number, 8);
		if (!error)
			error = rp_page_edit(&op, s->counters[me], 600, 4000, 8, &page);
		if (!error)
			memcpy((char *)page + 4000, &number, 8);
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "count");
	atomic_store(&s->counted[me], number);
}

struct writer {
	struct shared *shared;
	unsigned me;
};

/* A fault may be on: then it fails, and whoever asks again gets an answer of his own. */
static void asked_commit(struct shared *s)
{
	int error = rp_image_commit(s->image, NULL, NULL);

	EXPECT(error == 0 || error == -EIO);
}

static void *writer_main(void *context)
{
	struct writer *w = context;
	uint64_t random = w->shared->seed * 100 + w->me, number = atomic_load(&w->shared->counted[w->me]);

	while (!atomic_load(&w->shared->stop)) {
		for (unsigned i = 0; i < 10; i++)
			move(w->shared, &random);
		count(w->shared, w->me, ++number);
		/* Like a client that asks for durability now and then. */
		if (random_below(&random, 40) == 0)
			asked_commit(w->shared);
	}
	return NULL;
}

/* ---- What must hold in every tree -------------------------------------------------------------------------------- */

static void tree_check(struct shared *s, struct rp_pool *pool, struct rp_tree *tree, const uint64_t *at_least)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < ACCOUNTS; i++) {
		const struct rp_record *record;
		struct rp_op op;
		uint64_t value = 0;
		int error;

		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_record_get(&op, tree, s->accounts[i], 0, &record);
			if (!error)
				memcpy(&value, record->user, 8);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "record");
		sum += value;
	}
	EXPECT_EQUAL(sum, TOTAL);
	for (unsigned i = 0; i < WRITERS; i++) {
		const void *page;
		struct rp_op op;
		uint64_t a = 0, b = 0;
		int error;

		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_page_get(&op, tree, s->counters[i], 0, &page);
			if (!error)
				memcpy(&a, page, 8);
			if (!error)
				error = rp_page_get(&op, tree, s->counters[i], 600, &page);
			if (!error)
				memcpy(&b, (const char *)page + 4000, 8);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "page");
		EXPECT_EQUAL(a, b);
		EXPECT(!at_least || a >= at_least[i]);
	}
}

static void *observer_main(void *context)
{
	struct shared *s = context;

	while (!atomic_load(&s->stop)) {
		struct rp_snapshot *snapshot;

		EXPECT_OK(rp_snapshot_take(s->pool, &snapshot), "take");
		tree_check(s, s->pool, rp_snapshot_tree(snapshot), NULL);
		rp_snapshot_put(snapshot);
		rp_image_is_changed(s->image);
	}
	return NULL;
}

static void commits_check(struct shared *s, struct disk *disk, const uint64_t *at_least)
{
	struct rp_image_options options = {
		.io = disk_io(disk), .hooks = &hooks, .small_pages = true, .message = message, .read_only = true,
		.no_read_ahead = true,
	};
	struct rp_commit_info *list;
	size_t count_of;

	EXPECT_OK(rp_image_commits(PATH, &options, &list, &count_of), message);
	for (size_t i = 0; i < count_of && i < 8; i++) {
		struct rp_image *image;
		struct rp_pool *pool;

		options.generation = list[i].generation;
		EXPECT_OK(rp_image_open(PATH, &options, &pool, &image), message);
		tree_check(s, pool, rp_pool_live(pool), i == 0 ? at_least : NULL);
		rp_image_close(image);
		rp_pool_destroy(pool);
	}
	free(list);
}

/* ---- Rounds ------------------------------------------------------------------------------------------------------ */

static void saver_run(struct shared *s, struct disk *disk, unsigned commits)
{
	for (unsigned i = 0; i < commits; i++) {
		/* Nobody else's failure is passed on: the fault is off, so this one succeeds. */
		EXPECT_OK(rp_image_commit(s->image, NULL, NULL), "commit");
		if (i % 5 == 2)
			EXPECT_OK(rp_snapshot_create(s->pool, "named"), "create");
		if (i % 5 == 4)
			EXPECT_OK(rp_snapshot_delete(s->pool, "named"), "delete");
		if (i % 9 == 8) {
			int error = rp_image_compact(s->image);

			EXPECT(error == 0 || error == -EAGAIN);
		}
		if (i % 4 == 0) {
			struct disk_fault fault = { .kinds = 1u << DISK_SYNC, .error = -EIO, .after = i % 3 };

			disk_fault_set(disk, &fault);
			rp_image_commit(s->image, NULL, NULL);
			disk_fault_set(disk, NULL);
		}
	}
}

static void round_run(struct shared *s, struct disk *disk, unsigned commits)
{
	pthread_t writers[WRITERS], observer;
	struct writer context[WRITERS];
	uint64_t last[WRITERS];

	atomic_store(&s->stop, false);
	for (unsigned i = 0; i < WRITERS; i++) {
		context[i] = (struct writer){ s, i };
		EXPECT(pthread_create(&writers[i], NULL, writer_main, &context[i]) == 0);
	}
	EXPECT(pthread_create(&observer, NULL, observer_main, s) == 0);
	saver_run(s, disk, commits);
	atomic_store(&s->stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	pthread_join(observer, NULL);
	for (unsigned i = 0; i < WRITERS; i++)
		last[i] = atomic_load(&s->counted[i]);
	EXPECT_OK(rp_image_commit(s->image, NULL, NULL), "commit");
	commits_check(s, disk, last);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1);
	struct rp_pool_options pool_options = { .size_bytes = 32 << 20, .small_pages = true, .hooks = &hooks };
	struct shared *s = calloc(1, sizeof(*s));
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = {
		.io = disk_io(disk), .hooks = &hooks, .small_pages = true, .message = message,
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	EXPECT(s);
	s->seed = seed;
	pthread_mutex_init(&s->moving, NULL);
	EXPECT_OK(rp_pool_create(&pool_options, &s->pool), "pool");
	for (unsigned i = 0; i < ACCOUNTS; i++)
		s->accounts[i] = object_make(s->pool, false, TOTAL / ACCOUNTS);
	for (unsigned i = 0; i < WRITERS; i++)
		s->counters[i] = object_make(s->pool, true, 0);
	EXPECT_OK(rp_image_create(s->pool, PATH, false, &options, &s->image), message);
	/* Each round but the first begins with a pool that was just opened, and is read in while it is changed. */
	for (unsigned round = 0; round < 4; round++) {
		round_run(s, disk, (unsigned)steps_scaled(400));
		EXPECT_OK(rp_image_read_all(s->image), "read all");
		rp_image_close(s->image);
		EXPECT_EQUAL(rp_pool_check(s->pool, report, NULL), 0);
		rp_pool_destroy(s->pool);
		EXPECT_OK(rp_image_open(PATH, &options, &s->pool, &s->image), message);
		rp_snapshot_delete(s->pool, "named");
	}
	rp_image_close(s->image);
	rp_pool_destroy(s->pool);
	disk_free(disk);
	pthread_mutex_destroy(&s->moving);
	free(s);
	return 0;
}
