/* model_shape.c: threads that heed no locks write, punch, empty and look at the same pages of the same files, while snapshots
 * make them copy: maps grow and shrink under everybody's hands. Nobody knows what there should be, but each word says which
 * page it belongs to, the first page of one file is always there, and after each round the checker counts. test-timeout: 200
 *
 * RP_SEED, RP_TEST_STEPS (in a round).
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

#define THREADS 4u
#define FILES 3u  /* file 0 keeps its first page */
#define ROUNDS 20u
#define WORDS (RP_PAGE_SIZE / 8)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 400u
#else
#define STEPS 4000u
#endif

static struct {
	struct rp_pool *pool;
	rp_object files[FILES];
	uint64_t steps;
	atomic_uint running;
} all;

struct worker {
	uint64_t random;
	pthread_t thread;
};

static uint64_t mark_of(rp_page page) { return (page + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 32 << 32; }

static rp_page some_page(struct worker *w)
{
	static const rp_page base[] = { 0, 0, 0, 1, 510, 1024, 1 << 18, UINT64_C(1) << 27, RP_PAGE_COUNT_MAX - 8 };

	return base[random_below(&w->random, 9)] + random_below(&w->random, 4);
}

static void must(int error, const char *what)
{
	if (error)
		ref_fail("%s: %d", what, error);
}

static void write_words(rp_object file, rp_page page, size_t first, size_t count)
{
	uint64_t words[2 * WORDS];
	size_t done;

	for (size_t i = 0; i < count; i++)
		words[i] = mark_of(page + i / WORDS) | i;
	must(REF_OP(all.pool, 0, rp_bytes_write(&op, file, (page << RP_PAGE_SHIFT) + first * 8, words + first,
	                                        (count - first) * 8, &done)), "write");
}

static void write_some(struct worker *w, rp_object file, rp_page page)
{
	size_t first = random_below(&w->random, 3) ? 0 : random_below(&w->random, WORDS);

	write_words(file, page, first, page + 1 < RP_PAGE_COUNT_MAX && random_below(&w->random, 2) ? 2 * WORDS : WORDS);
}

static void look(rp_object file, rp_page page, bool there)
{
	uint64_t words[WORDS];

	must(REF_OP(all.pool, RP_OP_READ, rp_bytes_read(&op, rp_pool_live(all.pool), file, page << RP_PAGE_SHIFT, words,
	                                                sizeof(words))), "read");
	for (unsigned i = 0; i < WORDS; i++)
		if ((words[i] || there) && words[i] >> 32 != mark_of(page) >> 32)
			ref_fail("page %llu holds what was never written to it: %llx", (unsigned long long)page,
			         (unsigned long long)words[i]);
}

/* Page 0 of file 0 is data, whatever the others do. */
static void look_first(void)
{
	uint64_t end;
	bool data = false;

	must(REF_OP(all.pool, RP_OP_READ, rp_extent_get(&op, rp_pool_live(all.pool), all.files[0], 0, RP_PAGE_SIZE, &data, &end)),
	     "extent");
	if (!data)
		ref_fail("a page that is always there is called a hole");
	look(all.files[0], 0, true);
}

static void punch(struct worker *w, unsigned i)
{
	rp_page first = random_below(&w->random, 3) ? some_page(w) : 0, last = RP_PAGE_COUNT_MAX, next;

	if (random_below(&w->random, 2) && first + 600 < last)
		last = first + 1 + random_below(&w->random, 3) * 300;
	if (i == 0 && first == 0)
		first = 1;
	for (; first < last; first = next)
		must(REF_OP(all.pool, RP_OP_RESERVE, rp_pages_punch(&op, all.files[i], first, last - first, &next)), "punch");
}

static void step(struct worker *w)
{
	unsigned i = (unsigned)random_below(&w->random, FILES);
	rp_page page = some_page(w), next;

	switch (random_below(&w->random, 10)) {
	case 0:
	case 1:
		look(all.files[i], page, false);
		break;
	case 2:
		look_first();
		break;
	case 3:
	case 4:
	case 5:
		punch(w, i);
		break;
	case 6:
		must(REF_OP(all.pool, 0, rp_pages_allocate(&op, all.files[1], page, 1, &next)), "allocate");
		break;
	default:
		write_some(w, all.files[i], page);
	}
}

static void *work(void *context)
{
	struct worker *w = context;

	for (uint64_t i = 0; i < all.steps; i++)
		step(w);
	atomic_fetch_sub(&all.running, 1);
	return NULL;
}

static void round_run(struct worker *workers, uint64_t *random)
{
	struct rp_snapshot *snapshot;
	struct rp_pool_status status;
	rp_page done;

	atomic_store(&all.running, THREADS);
	for (unsigned t = 0; t < THREADS; t++)
		if (pthread_create(&workers[t].thread, NULL, work, &workers[t]))
			ref_fail("no thread");
	while (atomic_load(&all.running)) {
		must(rp_snapshot_take(all.pool, &snapshot), "snapshot");
		if (random_below(random, 4) == 0)
			must(rp_pages_share(all.pool, all.files[0], 0, all.files[2], 0, 2, &done), "share");
		if (random_below(random, 4) == 0)
			rp_pool_status(all.pool, &status);
		sched_yield();
		rp_snapshot_put(snapshot);
	}
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(workers[t].thread, NULL);
	ref_check(all.pool);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 1), random = seed, generation;
	struct rp_pool_options options = { .size_bytes = 64 << 20, .small_pages = true };
	struct worker workers[THREADS];
	struct rp_pool_status status;

	all.steps = number_from_environment("RP_TEST_STEPS", STEPS);
	printf("seed %llu, %llu steps a round\n", (unsigned long long)seed, (unsigned long long)all.steps);
	fflush(stdout);
	must(rp_pool_create(&options, &all.pool), "pool");
	for (unsigned i = 0; i < FILES; i++)
		must(REF_OP(all.pool, 0, rp_object_create(&op, false, &all.files[i], &generation)), "create");
	for (unsigned t = 0; t < THREADS; t++)
		workers[t] = (struct worker){ .random = seed * 1000 + t };
	write_words(all.files[0], 0, 0, WORDS);
	for (unsigned i = 0; i < ROUNDS; i++)
		round_run(workers, &random);
	for (unsigned i = 0; i < FILES; i++)
		must(REF_OP(all.pool, RP_OP_RESERVE, rp_object_remove(&op, all.files[i])), "remove");
	ref_check(all.pool);
	rp_pool_status(all.pool, &status);
	if (status.frame_used != 2 + rp_entry_height(atomic_load(&all.pool->live.root)))
		ref_fail("%llu frames are used by nothing", (unsigned long long)status.frame_used);
	rp_pool_destroy(all.pool);
	return 0;
}
