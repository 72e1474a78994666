/* test_pool_snapshot.c: what a snapshot costs and what deleting it gives back, names, rolling back, and the gate while
 * operations run. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

static struct rp_pool *new_pool(uint64_t size)
{
	struct rp_pool_options options = { .size_bytes = size };
	struct rp_pool *pool;

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	return pool;
}

static uint64_t used(struct rp_pool *pool)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	return status.frame_used;
}

static rp_object new_object(struct rp_pool *pool, bool meta)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, meta, &object, &generation)), 0);
	return object;
}

static void write_byte(struct rp_pool *pool, rp_object object, rp_page page, uint8_t byte)
{
	size_t done;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_write(&op, object, page << RP_PAGE_SHIFT, &byte, 1, &done)), 0);
}

static int read_byte(struct rp_pool *pool, struct rp_tree *tree, rp_object object, rp_page page)
{
	uint8_t byte;
	int error = REF_OP(pool, RP_OP_READ, rp_bytes_read(&op, tree, object, page << RP_PAGE_SHIFT, &byte, 1));

	return error ? error : byte;
}

/* Taking one copies nothing; the first change afterwards copies one path, the next on it one page. */
static void test_cost(void)
{
	struct rp_pool *pool = new_pool(64 << 20);
	rp_object object = new_object(pool, false);
	struct rp_snapshot *snapshot[50];

	for (rp_page page = 0; page < 3000; page++)
		write_byte(pool, object, page, 1);
	uint64_t before = used(pool);

	for (unsigned i = 0; i < 50; i++)
		EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot[i]), 0);
	EXPECT_EQUAL(used(pool), before);
	write_byte(pool, object, 1, 2);
	EXPECT_EQUAL(used(pool), before + 1 /* table page */ + 2 /* nodes */ + 1);
	write_byte(pool, object, 2, 2);
	EXPECT_EQUAL(used(pool), before + 5);
	for (unsigned i = 0; i < 50; i++) {
		EXPECT_EQUAL(read_byte(pool, rp_snapshot_tree(snapshot[i]), object, 1), 1);
		rp_snapshot_put(snapshot[i]);
	}
	EXPECT_EQUAL(used(pool), before);
	EXPECT_EQUAL(read_byte(pool, rp_pool_live(pool), object, 1), 2);
	ref_check(pool);
	rp_pool_destroy(pool);
}

/* alone_frames says what deleting gives back. */
static void test_measure(void)
{
	struct rp_pool *pool = new_pool(64 << 20);
	rp_object object = new_object(pool, false);
	struct rp_snapshot_info *list;
	size_t count;
	char name[8] = "s0";

	for (unsigned i = 0; i < 8; i++) {
		for (rp_page page = 0; page < 100 * (i + 1); page++)
			write_byte(pool, object, page * (i + 1), (uint8_t)i);
		name[1] = (char)('0' + i);
		EXPECT_EQUAL(rp_snapshot_create(pool, name), 0);
	}
	write_byte(pool, object, 0, 99);
	for (unsigned left = 8; left > 0; left--) {
		EXPECT_EQUAL(rp_snapshot_list(pool, true, &list, &count), 0);
		EXPECT_EQUAL(count, left);
		unsigned which = left * 5 % left;
		uint64_t before = used(pool);

		EXPECT_EQUAL(rp_snapshot_delete(pool, list[which].name), 0);
		/* The page of the catalog goes with the last one. */
		EXPECT_EQUAL(before - used(pool), list[which].alone_frames + (left == 1));
		free(list);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
}

static void test_names(void)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "a@b", "a\nb", "\x7f" };
	struct rp_pool *pool = new_pool(8 << 20);
	struct rp_snapshot *snapshot;
	struct rp_snapshot_info *list;
	char name[RP_SNAPSHOT_NAME_MAX + 2];
	size_t count;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		EXPECT_EQUAL(rp_snapshot_create(pool, bad[i]), -EINVAL);
	memset(name, 'n', sizeof(name));
	name[RP_SNAPSHOT_NAME_MAX + 1] = 0;
	EXPECT_EQUAL(rp_snapshot_create(pool, name), -EINVAL);
	name[RP_SNAPSHOT_NAME_MAX] = 0;
	EXPECT_EQUAL(rp_snapshot_create(pool, name), 0);
	EXPECT_EQUAL(rp_snapshot_create(pool, name), -EEXIST);
	EXPECT_EQUAL(rp_snapshot_rename(pool, name, "..."), 0);
	EXPECT_EQUAL(rp_snapshot_open(pool, name, &snapshot), -ENOENT);
	EXPECT_EQUAL(rp_snapshot_rename(pool, "none", "x"), -ENOENT);
	EXPECT_EQUAL(rp_snapshot_delete(pool, name), -ENOENT);
	/* Many, deleted in another order, and made again: the catalog grows and shrinks with them. */
	for (unsigned i = 0; i < 700; i++) {
		sprintf(name, "%u", i * 7919 % 700);
		EXPECT_EQUAL(rp_snapshot_create(pool, name), 0);
	}
	EXPECT_EQUAL(rp_snapshot_list(pool, false, &list, &count), 0);
	EXPECT_EQUAL(count, 701);
	for (unsigned i = 1; i < count; i++) {
		EXPECT(list[i].id > list[i - 1].id);
		EXPECT_EQUAL(atoi(list[i].name), (i - 1) * 7919 % 700);
	}
	free(list);
	ref_check(pool);
	for (unsigned i = 0; i < 700; i++) {
		sprintf(name, "%u", i);
		EXPECT_EQUAL(rp_snapshot_open(pool, name, &snapshot), 0);
		EXPECT_EQUAL(rp_snapshot_delete(pool, name), 0);
		rp_snapshot_put(snapshot);
	}
	EXPECT_EQUAL(rp_snapshot_delete(pool, "..."), 0);
	ref_check(pool);
	EXPECT_EQUAL(used(pool), 2);
	rp_pool_destroy(pool);
}

static void test_roll_back(void)
{
	struct rp_pool *pool = new_pool(8 << 20);
	rp_object kept = new_object(pool, false), later[40];
	struct rp_snapshot *snapshot;
	const struct rp_record *record;
	uint64_t generation, id = rp_pool_tree_id(pool), last = 0;

	write_byte(pool, kept, 5, 1);
	EXPECT_EQUAL(rp_snapshot_create(pool, "then"), 0);
	for (unsigned i = 0; i < 40; i++)
		later[i] = new_object(pool, false);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_record_get(&op, rp_pool_live(pool), later[39], 0, &record)), 0);
	last = record->generation;
	write_byte(pool, kept, 5, 2);
	write_byte(pool, kept, 1 << 20, 2);
	EXPECT_EQUAL(rp_snapshot_create(pool, "since"), 0);
	EXPECT_EQUAL(rp_pool_resize(pool, 16 << 20), 0);
	EXPECT_EQUAL(rp_snapshot_open(pool, "then", &snapshot), 0);
	EXPECT_EQUAL(rp_snapshot_rollback(pool, snapshot), 0);
	rp_snapshot_put(snapshot);
	EXPECT(rp_pool_tree_id(pool) != id);
	EXPECT_EQUAL(read_byte(pool, rp_pool_live(pool), kept, 5), 1);
	EXPECT_EQUAL(read_byte(pool, rp_pool_live(pool), kept, 1 << 20), 0);
	for (unsigned i = 0; i < 40; i++)
		EXPECT_EQUAL(read_byte(pool, rp_pool_live(pool), later[i], 0), -ENOENT);
	/* Nothing given out since is given out again. */
	rp_object again;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &again, &generation)), 0);
	EXPECT(generation > last);
	/* The pool is as large as it was made, and its snapshots are all there. */
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	EXPECT_EQUAL(status.size_bytes, 16 << 20);
	EXPECT_EQUAL(status.snapshot_count, 2);
	EXPECT_EQUAL(rp_snapshot_open(pool, "since", &snapshot), 0);
	EXPECT_EQUAL(read_byte(pool, rp_snapshot_tree(snapshot), kept, 5), 2);
	EXPECT_EQUAL(rp_snapshot_rollback(pool, snapshot), 0);
	rp_snapshot_put(snapshot);
	EXPECT_EQUAL(read_byte(pool, rp_pool_live(pool), kept, 1 << 20), 2);
	EXPECT_EQUAL(read_byte(pool, rp_pool_live(pool), later[39], 0), 0);
	ref_check(pool);
	EXPECT_EQUAL(rp_snapshot_delete(pool, "then"), 0);
	EXPECT_EQUAL(rp_snapshot_delete(pool, "since"), 0);
	ref_check(pool);
	rp_pool_destroy(pool);
}

/* ---- The gate ---- */

#define THREADS 4u

static struct {
	struct rp_pool *pool;
	rp_object object[THREADS];
	atomic_bool stop;
	_Atomic uint64_t done;
} load;

static int add_both(struct rp_op *op, rp_object object)
{
	struct rp_record *record;
	int error = rp_record_edit(op, object, offsetof(struct rp_record, size_bytes), 8, &record);

	if (!error) {
		record->size_bytes++;
		error = rp_header_add(op, offsetof(struct rp_header, user), 1);
	}
	return error;
}

static void *change(void *context)
{
	rp_object object = *(rp_object *)context;

	while (!atomic_load(&load.stop)) {
		EXPECT_EQUAL(REF_OP(load.pool, 0, add_both(&op, object)), 0);
		atomic_fetch_add(&load.done, 1);
	}
	return NULL;
}

static int sum(struct rp_op *op, struct rp_tree *tree, uint64_t *sizes, uint64_t *total)
{
	const struct rp_header *header;
	const struct rp_record *record;
	int error = rp_header_get(op, tree, &header);

	if (error)
		return error;
	memcpy(total, header->user, 8);
	*sizes = 0;
	for (unsigned i = 0; !error && i < THREADS; i++) {
		error = rp_record_get(op, tree, load.object[i], 0, &record);
		*sizes += error ? 0 : record->size_bytes;
	}
	return error;
}

struct taken {
	struct rp_snapshot *snapshot;
	uint64_t sizes, total;
};

static void *take(void *context)
{
	struct taken *t = context;

	EXPECT_EQUAL(rp_snapshot_take(load.pool, &t->snapshot), 0);
	EXPECT_EQUAL(REF_OP(load.pool, RP_OP_READ, sum(&op, rp_snapshot_tree(t->snapshot), &t->sizes, &t->total)), 0);
	return NULL;
}

/* Half an operation is done when the snapshot is asked for: it waits for the other half. */
static void test_gate_waits(void)
{
	const struct timespec delay = { 0, 30000000 };
	struct taken taken = { 0 };
	struct rp_record *record;
	pthread_t thread;
	struct rp_op watch;
	int error = 0;

	load.pool = new_pool(8 << 20);
	for (unsigned i = 0; i < THREADS; i++)
		load.object[i] = new_object(load.pool, true);
	rp_op_begin(&watch, load.pool, 0);
	EXPECT_EQUAL(rp_header_add(&watch, offsetof(struct rp_header, user), 1), 0);
	EXPECT_EQUAL(pthread_create(&thread, NULL, take, &taken), 0);
	nanosleep(&delay, NULL);
	EXPECT_EQUAL(rp_record_edit(&watch, load.object[0], offsetof(struct rp_record, size_bytes), 8, &record), 0);
	record->size_bytes++;
	rp_op_end(&watch, &error);
	EXPECT_EQUAL(error, 0);
	pthread_join(thread, NULL);
	EXPECT_EQUAL(taken.sizes, taken.total);
	rp_snapshot_put(taken.snapshot);
	ref_check(load.pool);
	rp_pool_destroy(load.pool);
}

/* Every snapshot holds each operation wholly or not at all, however many run; and a gate that closes again and again lets
 * them through. */
static void test_gate(void)
{
	pthread_t threads[THREADS];
	struct rp_snapshot *snapshot;
	struct rp_pool_status status;

	load.pool = new_pool(64 << 20);
	for (unsigned i = 0; i < THREADS; i++) {
		load.object[i] = new_object(load.pool, true);
		EXPECT_EQUAL(pthread_create(&threads[i], NULL, change, &load.object[i]), 0);
	}
	for (unsigned i = 0; i < 500 || atomic_load(&load.done) < 1000; i++) {
		uint64_t sizes = 0, total = 1;

		EXPECT_EQUAL(rp_snapshot_take(load.pool, &snapshot), 0);
		EXPECT_EQUAL(REF_OP(load.pool, RP_OP_READ, sum(&op, rp_snapshot_tree(snapshot), &sizes, &total)), 0);
		EXPECT_EQUAL(sizes, total);
		rp_snapshot_put(snapshot);
	}
	atomic_store(&load.stop, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	rp_pool_status(load.pool, &status);
	EXPECT(status.gate_closings >= 500);
	EXPECT(status.epoch > 500);
	ref_check(load.pool);
	rp_pool_destroy(load.pool);
}

/* More threads than there are places in the gate, half of which close it. */
static void *crowd(void *context)
{
	rp_object object = *(rp_object *)context;
	struct rp_snapshot *snapshot;

	for (unsigned i = 0; i < 20; i++) {
		EXPECT_EQUAL(REF_OP(load.pool, 0, rp_header_add(&op, offsetof(struct rp_header, user), 1)), 0);
		if (object != load.object[0])
			continue;
		EXPECT_EQUAL(rp_snapshot_take(load.pool, &snapshot), 0);
		rp_snapshot_put(snapshot);
	}
	return NULL;
}

static void test_crowd(void)
{
	pthread_t threads[150];
	struct rp_pool_status status;
	uint64_t sizes = 0, total = 1;

	load.pool = new_pool(64 << 20);
	for (unsigned i = 0; i < THREADS; i++)
		load.object[i] = new_object(load.pool, true);
	for (unsigned i = 0; i < 150; i++)
		EXPECT_EQUAL(pthread_create(&threads[i], NULL, crowd, &load.object[i % 2]), 0);
	for (unsigned i = 0; i < 150; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQUAL(REF_OP(load.pool, RP_OP_READ, sum(&op, rp_pool_live(load.pool), &sizes, &total)), 0);
	EXPECT_EQUAL(total, 150 * 20);
	rp_pool_status(load.pool, &status);
	EXPECT_EQUAL(status.gate_closings, 75 * 20);
	ref_check(load.pool);
	rp_pool_destroy(load.pool);
}

int main(void)
{
	test_cost();
	test_measure();
	test_names();
	test_roll_back();
	test_gate_waits();
	test_gate();
	test_crowd();
	return 0;
}
