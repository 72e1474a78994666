/* model_threads_full.c: threads in a pool that is too small, whose live tree is rolled back under them. Nobody knows what
 * there should be, but every word says which page it belongs to, and the checker counts. test-timeout: 200
 *
 * RP_SEED, RP_TEST_STEPS.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/random.h"
#include "tests/lib/reference.h"

#define THREADS 5u
#define PLACES 24u
#define WORDS (RP_PAGE_SIZE / 8)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 15000u
#else
#define STEPS 600000u
#endif

/* An object somebody made: anybody uses it, as long as number and generation are those of an object. */
struct place {
	pthread_mutex_t lock; /* held while the object is metadata that is changed, or removed */
	rp_object number;
	uint64_t generation;
	bool meta;
};

struct world {
	struct rp_pool *pool;
	struct place places[PLACES];
	uint64_t steps;
	atomic_uint running;
	_Atomic uint64_t full, gone, done;
};

struct worker {
	struct world *world;
	uint64_t random;
	pthread_t thread;
};

static uint64_t word_of(rp_page page, bool meta, uint32_t low)
{
	return ((page * 2 + meta + 1) * UINT64_C(0x9e3779b97f4a7c15)) >> 32 << 32 | low | 1;
}

static void fill(uint64_t *to, rp_page page, bool meta, uint32_t low, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		to[i] = word_of(page, meta, low + i);
}

static void look(const uint64_t *words, rp_page page, bool meta, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (words[i] && words[i] >> 32 != word_of(page, meta, 0) >> 32)
			ref_fail("page %llu holds what was never written to it: %llx", (unsigned long long)page,
			         (unsigned long long)words[i]);
}

static rp_page some_page(struct worker *w)
{
	static const rp_page base[] = { 0, 0, 0, 505, 1 << 18, UINT64_C(1) << 45 };

	return base[random_below(&w->random, 6)] + random_below(&w->random, 10);
}

/* What may happen to anybody here; everything else is a fault. */
static void tolerate(struct worker *w, int error, const char *what)
{
	if (error == -ENOSPC)
		atomic_fetch_add(&w->world->full, 1);
	else if (error == -ENOENT || error == -ESTALE)
		atomic_fetch_add(&w->world->gone, 1);
	else if (error && error != -ECANCELED && error != -EEXIST)
		ref_fail("%s: %d", what, error);
	else
		atomic_fetch_add(&w->world->done, 1);
}

/* Is it still the object it was? Within one operation the answer stays good: places are locked where objects go. */
static int still(struct rp_op *op, const struct place *p)
{
	const struct rp_record *record;

	return rp_record_get(op, rp_pool_live(op->pool), p->number, p->generation, &record);
}

static int write_bytes(struct rp_op *op, const struct place *p, uint64_t offset, const void *from, size_t length)
{
	size_t done;
	int error = still(op, p);

	return error ? error : rp_bytes_write(op, p->number, offset, from, length, &done);
}

static int change_page(struct rp_op *op, const struct place *p, rp_page page, uint32_t low, bool drop, bool cancel)
{
	struct rp_record *record;
	void *bytes;
	int error = still(op, p);

	if (!error)
		error = rp_record_edit(op, p->number, offsetof(struct rp_record, user), 8, &record);
	if (!error)
		memset(record->user, (int)low, 8);
	if (!error && drop)
		error = rp_page_drop(op, p->number, page);
	if (!error && !drop) {
		error = rp_page_edit(op, p->number, page, 0, RP_PAGE_SIZE, &bytes);
		if (!error)
			fill(bytes, page, true, low, WORDS);
	}
	return error ? error : cancel ? -ECANCELED : 0;
}

static int read_page(struct rp_op *op, const struct place *p, rp_page page, uint64_t *to)
{
	const void *bytes;
	int error = still(op, p);

	if (error)
		return error;
	if (!p->meta)
		return rp_bytes_read(op, rp_pool_live(op->pool), p->number, page << RP_PAGE_SHIFT, to, RP_PAGE_SIZE);
	error = rp_page_get(op, rp_pool_live(op->pool), p->number, page, &bytes);
	if (!error)
		memcpy(to, bytes, RP_PAGE_SIZE);
	return error;
}

static int punch_pages(struct rp_op *op, const struct place *p, rp_page first, rp_page count, rp_page *next)
{
	int error = still(op, p);

	return error ? error : rp_pages_punch(op, p->number, first, count, next);
}

/* Pages beside each other, with the place's lock: metadata has one owner at a time, and data may use it likewise. */
static void use(struct worker *w, struct place *p)
{
	uint64_t words[2 * WORDS];
	rp_page page = some_page(w), next;
	uint32_t low = (uint32_t)random_next(&w->random);
	uint64_t die = random_below(&w->random, 8), first = random_below(&w->random, WORDS / 2);
	bool drop = die == 1, cancel = die == 2;

	if (die < 2) {
		tolerate(w, REF_OP(w->world->pool, RP_OP_READ, read_page(&op, p, page, words)), "read");
		if (REF_OP(w->world->pool, RP_OP_READ, read_page(&op, p, page, words)) == 0)
			look(words, page, p->meta, WORDS);
	} else if (p->meta) {
		tolerate(w, REF_OP(w->world->pool, 0, change_page(&op, p, page, low, drop, cancel)), "change");
	} else if (die <= 3) {
		tolerate(w, REF_OP(w->world->pool, RP_OP_RESERVE, punch_pages(&op, p, page & ~(rp_page)7,
		                                                              random_below(&w->random, 700), &next)), "punch");
	} else {
		fill(words, page, false, low, WORDS);
		fill(words + WORDS, page + 1, false, low, WORDS);
		tolerate(w, REF_OP(w->world->pool, 0,
		                   write_bytes(&op, p, (page << RP_PAGE_SHIFT) + first * 8, words + first,
		                               (2 * WORDS - first - low % (WORDS / 2)) * 8)), "write");
	}
}

static int remove_object(struct rp_op *op, const struct place *p)
{
	int error = still(op, p);

	return error ? error : rp_object_remove(op, p->number);
}

static void renew(struct worker *w, struct place *p)
{
	uint64_t generation;
	rp_object number;

	if (p->number) {
		int error = REF_OP(w->world->pool, RP_OP_RESERVE, remove_object(&op, p));

		tolerate(w, error, "remove");
		if (error == -ENOSPC)
			return;
		p->number = 0;
	}
	bool meta = random_below(&w->random, 4) == 0;
	int error = REF_OP(w->world->pool, 0, rp_object_create(&op, meta, &number, &generation));

	tolerate(w, error, "create");
	if (!error) {
		p->number = number;
		p->generation = generation;
		p->meta = meta;
	}
}

static void *work(void *context)
{
	struct worker *w = context;

	for (uint64_t i = 0; i < w->world->steps; i++) {
		struct place *p = &w->world->places[random_below(&w->random, PLACES)];

		pthread_mutex_lock(&p->lock);
		if (!p->number || random_below(&w->random, 60) == 0)
			renew(w, p);
		else
			use(w, p);
		pthread_mutex_unlock(&p->lock);
	}
	atomic_fetch_sub(&w->world->running, 1);
	return NULL;
}

/* Threads that pay no heed to locks: data is anybody's. */
static void *work_freely(void *context)
{
	struct worker *w = context;
	uint64_t words[WORDS];

	while (atomic_load(&w->world->running)) {
		struct place *p = &w->world->places[random_below(&w->random, PLACES)];

		if (pthread_mutex_trylock(&p->lock))
			continue;
		struct place seen = *p;

		if (seen.number && !seen.meta) {
			rp_page page = some_page(w);

			fill(words, page, false, 7, WORDS);
			tolerate(w, REF_OP(w->world->pool, 0, write_bytes(&op, &seen, page << RP_PAGE_SHIFT, words, RP_PAGE_SIZE)),
			         "write");
		}
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static void share(struct worker *w)
{
	struct place *a = &w->world->places[random_below(&w->random, PLACES)];
	struct place *b = &w->world->places[random_below(&w->random, PLACES)];
	rp_page page = some_page(w), done;

	if (a == b)
		return;
	pthread_mutex_lock(a < b ? &a->lock : &b->lock);
	pthread_mutex_lock(a < b ? &b->lock : &a->lock);
	/* Only this thread rolls back: what is there now stays what it is. */
	if (a->number && b->number && !a->meta && !b->meta && REF_OP(w->world->pool, RP_OP_READ, still(&op, a)) == 0 &&
	    REF_OP(w->world->pool, RP_OP_READ, still(&op, b)) == 0)
		tolerate(w, rp_pages_share(w->world->pool, a->number, page, b->number, page, 1 + random_below(&w->random, 600),
		                           &done), "share");
	pthread_mutex_unlock(&a->lock);
	pthread_mutex_unlock(&b->lock);
}

static void disturb(struct worker *w)
{
	struct rp_snapshot *held = NULL, *open;
	struct rp_pool_status status;
	unsigned i;

	for (i = 0; atomic_load(&w->world->running); i++) {
		switch (random_below(&w->random, 10)) {
		case 0:
			rp_snapshot_put(held);
			held = NULL;
			tolerate(w, rp_snapshot_take(w->world->pool, &held), "take");
			break;
		case 1:
			if (held)
				tolerate(w, rp_snapshot_rollback(w->world->pool, held), "roll back");
			break;
		case 2:
			tolerate(w, rp_snapshot_create(w->world->pool, "name"), "name");
			break;
		case 3:
			if (rp_snapshot_open(w->world->pool, "name", &open) == 0) {
				tolerate(w, rp_snapshot_rollback(w->world->pool, open), "roll back");
				rp_snapshot_put(open);
			}
			break;
		case 4:
			tolerate(w, rp_snapshot_delete(w->world->pool, "name"), "unname");
			break;
		case 5:
			rp_snapshot_put(held);
			held = NULL;
			break;
		case 6:
			tolerate(w, rp_pool_resize(w->world->pool, (1200 + random_below(&w->random, 1500)) << RP_PAGE_SHIFT),
			         "resize");
			break;
		case 7:
			rp_pool_status(w->world->pool, &status);
			break;
		default:
			share(w);
		}
		sched_yield();
	}
	printf("%u disturbances; %llu done, %llu full, %llu gone\n", i, (unsigned long long)w->world->done,
	       (unsigned long long)w->world->full, (unsigned long long)w->world->gone);
	rp_snapshot_put(held);
	rp_snapshot_delete(w->world->pool, "name");
}

/* The tree may hold objects that no place knows any more: all that are there go. */
static int collect(void *context, rp_object object, const struct rp_record *in_a, const struct rp_record *in_b)
{
	struct ref_tree *tree = context;
	const struct rp_record *record = in_a ? in_a : in_b;

	ref_add(tree, object, record->generation, false);
	return 0;
}

static void clear(struct world *world, struct rp_snapshot *empty)
{
	struct rp_pool_status status;
	struct ref_tree tree = { 0 };
	struct rp_snapshot *now;

	if (rp_snapshot_take(world->pool, &now) || rp_diff_objects(world->pool, empty, now, collect, &tree))
		ref_fail("the objects cannot be listed");
	rp_snapshot_put(now);
	rp_snapshot_put(empty);
	for (size_t i = 0; i < tree.count; i++) {
		int error = REF_OP(world->pool, RP_OP_RESERVE, rp_object_remove(&op, tree.objects[i]->number));

		if (error)
			ref_fail("removing: %d", error);
	}
	ref_free(&tree);
	ref_check(world->pool);
	rp_pool_status(world->pool, &status);
	if (status.frame_used != 2 + rp_entry_height(atomic_load(&world->pool->live.root)))
		ref_fail("%llu frames are used by nothing", (unsigned long long)status.frame_used);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 1);
	struct world *world = calloc(1, sizeof(*world));
	struct rp_pool_options options = { .size_bytes = 6 << 20 };
	struct worker workers[THREADS + 1], disturber = { .world = world, .random = seed };
	struct rp_snapshot *empty;

	world->steps = number_from_environment("RP_TEST_STEPS", STEPS);
	printf("seed %llu, %llu steps\n", (unsigned long long)seed, (unsigned long long)world->steps);
	fflush(stdout);
	if (rp_pool_create(&options, &world->pool) || rp_snapshot_take(world->pool, &empty))
		ref_fail("no pool");
	for (unsigned i = 0; i < PLACES; i++)
		pthread_mutex_init(&world->places[i].lock, NULL);
	atomic_store(&world->running, THREADS);
	for (unsigned t = 0; t <= THREADS; t++) {
		workers[t] = (struct worker){ .world = world, .random = seed * 1000 + t };
		if (pthread_create(&workers[t].thread, NULL, t < THREADS ? work : work_freely, &workers[t]))
			ref_fail("no thread");
	}
	disturb(&disturber);
	for (unsigned t = 0; t <= THREADS; t++)
		pthread_join(workers[t].thread, NULL);
	ref_check(world->pool);
	clear(world, empty);
	rp_pool_destroy(world->pool);
	free(world);
	return 0;
}
