/* model_threads.c: threads that share objects, each with pages of its own in them, so that each knows exactly what its
 * pages hold however the others copy, grow and prune the same nodes; while snapshots are taken, named and dropped and
 * pages shared. test-timeout: 200
 *
 * Each thread's operations also add to a number in the header and set the same number in a record: a snapshot must hold
 * both or neither. RP_SEED, RP_TEST_STEPS.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/random.h"
#include "tests/lib/reference.h"

#define THREADS 6u
#define SHARED 3u
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 40000u
#else
#define STEPS 400000u
#endif

struct world;

struct worker {
	struct world *world;
	unsigned index;
	uint64_t random, tag, number;
	struct ref_object *shared[SHARED]; /* this thread's pages of the shared objects */
	struct ref_tree own;               /* object 0: metadata; then data */
	pthread_t thread;
};

struct world {
	struct rp_pool *pool;
	rp_object shared[SHARED];
	uint64_t steps;
	atomic_uint running;
	struct worker worker[THREADS];
};

/* Pages of shared object 0 alternate between the threads, those of object 1 go by nodes, those of object 2 by both. */
static unsigned page_owner(unsigned object, rp_page page)
{
	return (unsigned)((object == 0 ? page : object == 1 ? page / 512 : page / 16) % THREADS);
}

static rp_page own_page(struct worker *w, unsigned object)
{
	static const rp_page base[] = { 0, 0, 0, 500, 1 << 18, (1 << 27) - 40 };

	for (;;) {
		rp_page page = base[random_below(&w->random, 6)];

		page += object == 1 ? random_below(&w->random, THREADS) * 512 + random_below(&w->random, 10)
		                    : random_below(&w->random, 160);
		if (page_owner(object, page) == w->index)
			return page;
	}
}

static void verify_page(struct worker *w, rp_object number, const struct ref_object *object, rp_page page)
{
	uint8_t is[RP_PAGE_SIZE], should[RP_PAGE_SIZE];
	int error = REF_OP(w->world->pool, RP_OP_READ,
	                   rp_bytes_read(&op, rp_pool_live(w->world->pool), number, page << RP_PAGE_SHIFT, is, sizeof(is)));

	ref_bytes(object, page << RP_PAGE_SHIFT, should, sizeof(should));
	if (error || memcmp(is, should, sizeof(is)))
		ref_fail("thread %u: object %llu page %llu: %s", w->index, (unsigned long long)number,
		         (unsigned long long)page, error ? "error" : "wrong bytes");
}

static void write_page(struct worker *w, rp_object number, struct ref_object *object, rp_page page)
{
	uint8_t bytes[RP_PAGE_SIZE];
	unsigned first = (unsigned)random_below(&w->random, REF_TAGS), count = 1 + (unsigned)random_below(&w->random, 16 - first);
	uint64_t offset, tag = w->tag += 64;
	size_t done;

	if (random_below(&w->random, 2)) {
		first = 0;
		count = REF_TAGS;
	}
	for (unsigned i = 0; i < count; i++)
		ref_fill(bytes + i * REF_BLOCK, tag + i);
	offset = (page << RP_PAGE_SHIFT) + first * REF_BLOCK;
	int error = REF_OP(w->world->pool, 0, rp_bytes_write(&op, number, offset, bytes, count * REF_BLOCK, &done));

	if (error)
		ref_fail("thread %u: write: %d", w->index, error);
	ref_write(object, offset, count * REF_BLOCK, tag);
}

static void punch(struct worker *w, rp_object number, struct ref_object *object, rp_page first, rp_page last)
{
	while (first < last) {
		rp_page next;
		int error = REF_OP(w->world->pool, RP_OP_RESERVE, rp_pages_punch(&op, number, first, last - first, &next));

		if (error)
			ref_fail("thread %u: punch: %d", w->index, error);
		ref_pages_drop(object, first, next);
		first = next;
	}
}

static void step_shared(struct worker *w)
{
	unsigned i = (unsigned)random_below(&w->random, SHARED);
	rp_object number = w->world->shared[i];
	struct ref_object *object = w->shared[i];
	rp_page page = own_page(w, i), next;
	bool found;
	int error;

	switch (random_below(&w->random, 8)) {
	case 0:
	case 1:
		verify_page(w, number, object, page);
		break;
	case 2:
		if (i == 1)
			punch(w, number, object, page & ~(rp_page)511, (page | 511) + 1);
		else
			punch(w, number, object, page, page + 1);
		break;
	case 3:
		error = REF_OP(w->world->pool, 0, rp_pages_allocate(&op, number, page, 1, &next));
		if (error)
			ref_fail("thread %u: allocate: %d", w->index, error);
		ref_page_find(object, page, &found);
		if (!found)
			ref_page_make(object, page);
		break;
	default:
		write_page(w, number, object, page);
	}
}

static void step_own(struct worker *w)
{
	struct ref_object *object;
	uint64_t generation;
	rp_object number;
	size_t i;
	int error;

	if (w->own.count < 4) {
		error = REF_OP(w->world->pool, 0, rp_object_create(&op, false, &number, &generation));
		if (error)
			ref_fail("thread %u: create: %d", w->index, error);
		ref_add(&w->own, number, generation, false);
	}
	i = random_below(&w->random, w->own.count);
	object = w->own.objects[i];
	if (object->meta)
		return;
	if (random_below(&w->random, 12) == 0) {
		ref_verify_object(w->world->pool, rp_pool_live(w->world->pool), object);
		error = REF_OP(w->world->pool, RP_OP_RESERVE, rp_object_remove(&op, object->number));
		if (error)
			ref_fail("thread %u: remove: %d", w->index, error);
		ref_remove(&w->own, i);
	} else if (random_below(&w->random, 12) == 0) {
		punch(w, object->number, object, random_below(&w->random, 3) * 256, RP_PAGE_COUNT_MAX);
	} else {
		write_page(w, object->number, object, own_page(w, 0));
	}
}

/* Metadata, the header and a record, kept or taken back. */
static int change(struct worker *w, struct rp_op *op, struct ref_object *object, rp_page page, bool drop, uint64_t tag)
{
	struct rp_record *record;
	void *bytes;
	int error = rp_header_add(op, offsetof(struct rp_header, user) + w->index * 8, 1);

	if (!error)
		error = rp_record_edit(op, object->number, offsetof(struct rp_record, user) + 8, 8, &record);
	if (error)
		return error;
	uint64_t number = w->number + 1;

	memcpy(record->user + 8, &number, sizeof(number));
	if (drop)
		return rp_page_drop(op, object->number, page);
	error = rp_page_edit(op, object->number, page, 0, REF_BLOCK, &bytes);
	if (!error)
		ref_fill(bytes, tag);
	return error;
}

static void step_change(struct worker *w)
{
	struct ref_object *object = NULL;
	rp_page page = own_page(w, 0);
	bool drop = random_below(&w->random, 3) == 0, cancel = random_below(&w->random, 3) == 0;
	uint64_t tag = w->tag += 64;
	struct rp_op op;
	int error;

	for (size_t i = 0; !object; i++)
		if (w->own.objects[i]->meta)
			object = w->own.objects[i];
	do {
		rp_op_begin(&op, w->world->pool, 0);
		error = change(w, &op, object, page, drop, tag);
		if (!error && cancel)
			error = -ECANCELED;
	} while (rp_op_end(&op, &error));
	if (error && error != -ECANCELED)
		ref_fail("thread %u: operation: %d", w->index, error);
	if (error)
		return;
	object->user = ++w->number;
	if (drop)
		ref_pages_drop(object, page, page + 1);
	else
		ref_write(object, page << RP_PAGE_SHIFT, REF_BLOCK, tag);
}

static void *work(void *context)
{
	struct worker *w = context;

	for (uint64_t i = 0; i < w->world->steps; i++) {
		uint64_t die = random_below(&w->random, 10);

		if (die < 6)
			step_shared(w);
		else if (die < 8)
			step_own(w);
		else
			step_change(w);
	}
	atomic_fetch_sub(&w->world->running, 1);
	return NULL;
}

/* In a snapshot each thread's two numbers are the same, and nothing changes. */
static void verify_snapshot(struct world *world, struct rp_snapshot *snapshot, const rp_object *meta)
{
	struct rp_tree *tree = rp_snapshot_tree(snapshot);

	for (unsigned i = 0; i < THREADS; i++) {
		const struct rp_header *header;
		const struct rp_record *record;
		uint64_t a = 0, b = 1;
		int error = REF_OP(world->pool, RP_OP_READ, ({
			int e = rp_header_get(&op, tree, &header);
			if (!e) {
				memcpy(&a, header->user + i * 8, 8);
				e = rp_record_get(&op, tree, meta[i], 0, &record);
			}
			if (!e)
				memcpy(&b, record->user + 8, 8);
			e;
		}));

		if (error || a != b)
			ref_fail("a snapshot holds half an operation of thread %u: %llu, %llu (%d)", i, (unsigned long long)a,
			         (unsigned long long)b, error);
	}
}

static void compare_reads(struct world *world, struct rp_snapshot *snapshot, uint64_t *random)
{
	static uint8_t first[20 * RP_PAGE_SIZE], second[20 * RP_PAGE_SIZE];
	rp_object number = world->shared[random_below(random, SHARED)];

	for (unsigned i = 0; i < 2; i++) {
		int error = REF_OP(world->pool, RP_OP_READ, rp_bytes_read(&op, rp_snapshot_tree(snapshot), number, 0,
		                                                          i ? second : first, sizeof(first)));

		if (error)
			ref_fail("reading a snapshot: %d", error);
		sched_yield();
	}
	if (memcmp(first, second, sizeof(first)))
		ref_fail("a snapshot changed");
}

static int ignore_object(void *context, rp_object object, const struct rp_record *a, const struct rp_record *b)
{
	(void)context;
	return a || b ? 0 : object ? -EIO : -EINVAL;
}

/* One snapshot after the other, some of them named, while the threads work; pages shared from a shared object. */
static void disturb(struct world *world, const rp_object *meta, rp_object copy, uint64_t *random)
{
	struct rp_snapshot *last = NULL, *now;
	struct rp_snapshot_info *list;
	struct rp_pool_status status;
	size_t count;
	rp_page done;
	int error = 0;
	unsigned i;

	for (i = 0; atomic_load(&world->running); i++) {
		error = rp_snapshot_take(world->pool, &now);
		if (!error && last)
			error = rp_diff_objects(world->pool, last, now, ignore_object, NULL);
		rp_snapshot_put(last);
		last = now;
		verify_snapshot(world, now, meta);
		compare_reads(world, now, random);
		if (!error && i % 4 == 0)
			error = rp_snapshot_create(world->pool, "name");
		if (!error && i % 4 == 1)
			error = rp_snapshot_rename(world->pool, "name", "other");
		if (!error && i % 4 == 2)
			error = rp_snapshot_list(world->pool, true, &list, &count);
		if (!error && i % 4 == 2)
			free(list);
		if (!error && i % 4 == 3)
			error = rp_snapshot_delete(world->pool, "other");
		if (!error)
			error = rp_pages_share(world->pool, world->shared[i % SHARED], random_below(random, 40), copy,
			                       random_below(random, 700), 1 + random_below(random, 200), &done);
		if (error)
			ref_fail("snapshots: %d", error);
		rp_pool_status(world->pool, &status);
		rp_pool_trim(world->pool);
		sched_yield();
	}
	printf("%u snapshots\n", i);
	rp_snapshot_put(last);
	rp_snapshot_delete(world->pool, "name");
	rp_snapshot_delete(world->pool, "other");
}

static rp_object make_object(struct world *world, bool meta, uint64_t *generation)
{
	rp_object number;

	if (REF_OP(world->pool, 0, rp_object_create(&op, meta, &number, generation)))
		ref_fail("no object");
	return number;
}

static void prepare(struct world *world, uint64_t seed, rp_object *meta)
{
	uint64_t generation;

	for (unsigned i = 0; i < SHARED; i++)
		world->shared[i] = make_object(world, false, &generation);
	for (unsigned t = 0; t < THREADS; t++) {
		struct worker *w = &world->worker[t];

		w->world = world;
		w->index = t;
		w->random = seed * 1000 + t;
		w->tag = (uint64_t)t << 48;
		meta[t] = make_object(world, true, &generation);
		ref_add(&w->own, meta[t], generation, true);
		for (unsigned i = 0; i < SHARED; i++)
			w->shared[i] = calloc(1, sizeof(*w->shared[i]));
	}
}

/* What every thread left, and that nothing else is there. */
static void verify_all(struct world *world)
{
	for (unsigned i = 0; i < SHARED; i++) {
		const struct rp_record *record;
		uint64_t pages = 0, held = 0;

		for (unsigned t = 0; t < THREADS; t++) {
			struct worker *w = &world->worker[t];

			for (size_t k = 0; k < w->shared[i]->count; k++)
				verify_page(w, world->shared[i], w->shared[i], w->shared[i]->pages[k].page);
			pages += w->shared[i]->count;
		}
		int error = REF_OP(world->pool, RP_OP_READ, ({
			int e = rp_record_get(&op, rp_pool_live(world->pool), world->shared[i], 0, &record);
			held = e ? 0 : record->page_count;
			e;
		}));

		if (error || held != pages)
			ref_fail("shared object %u counts %llu pages, not %llu", i, (unsigned long long)held,
			         (unsigned long long)pages);
	}
	for (unsigned t = 0; t < THREADS; t++)
		for (size_t k = 0; k < world->worker[t].own.count; k++)
			ref_verify_object(world->pool, rp_pool_live(world->pool), world->worker[t].own.objects[k]);
}

static void clear(struct world *world, rp_object copy)
{
	struct rp_pool_status status;
	int error = REF_OP(world->pool, RP_OP_RESERVE, rp_object_remove(&op, copy));

	for (unsigned i = 0; !error && i < SHARED; i++)
		error = REF_OP(world->pool, RP_OP_RESERVE, rp_object_remove(&op, world->shared[i]));
	for (unsigned t = 0; t < THREADS; t++) {
		struct worker *w = &world->worker[t];

		for (size_t k = 0; !error && k < w->own.count; k++)
			error = REF_OP(world->pool, RP_OP_RESERVE, rp_object_remove(&op, w->own.objects[k]->number));
		ref_free(&w->own);
		for (unsigned i = 0; i < SHARED; i++) {
			free(w->shared[i]->pages);
			free(w->shared[i]);
		}
	}
	if (error)
		ref_fail("removing: %d", error);
	ref_check(world->pool);
	rp_pool_status(world->pool, &status);
	if (status.frame_used != 2 + rp_entry_height(atomic_load(&world->pool->live.root)))
		ref_fail("%llu frames are used by nothing", (unsigned long long)status.frame_used);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 1), random = seed, generation;
	struct world *world = calloc(1, sizeof(*world));
	struct rp_pool_options options = { .size_bytes = 256 << 20 };
	rp_object meta[THREADS];

	world->steps = number_from_environment("RP_TEST_STEPS", STEPS);
	printf("seed %llu, %llu steps\n", (unsigned long long)seed, (unsigned long long)world->steps);
	fflush(stdout);
	if (rp_pool_create(&options, &world->pool))
		ref_fail("no pool");
	rp_object copy = make_object(world, false, &generation);

	prepare(world, seed, meta);
	atomic_store(&world->running, THREADS);
	for (unsigned t = 0; t < THREADS; t++)
		if (pthread_create(&world->worker[t].thread, NULL, work, &world->worker[t]))
			ref_fail("no thread");
	disturb(world, meta, copy, &random);
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(world->worker[t].thread, NULL);
	ref_check(world->pool);
	verify_all(world);
	clear(world, copy);
	rp_pool_destroy(world->pool);
	free(world);
	return 0;
}
