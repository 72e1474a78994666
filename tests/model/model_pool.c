/* model_pool.c: random steps on a pool and on a flat reference beside it, compared all the time. test-timeout: 400
 *
 * Small pools run full again and again; larger ones grow maps of all heights. RP_SEED runs one seed; RP_TEST_STEPS says how
 * many steps a seed takes, RP_TEST_CHECK after how many of them the checker looks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/model/pool_model.h"

#define SEEDS 20u
#if defined(__SANITIZE_THREAD__)
#define STEPS 600u /* one thread: it has little to find here */
#elif defined(__SANITIZE_ADDRESS__)
#define STEPS 2500u
#else
#define STEPS 50000u
#endif
#define PHASE_STEPS 350u

rp_page model_page(struct model *m)
{
	static const rp_page base[] = { 0, 0, 0, 0, 480, 1000, (1 << 18) - 20, 1 << 18, (1 << 27) - 8, 1 << 27,
		                        (UINT64_C(1) << 36) - 30, UINT64_C(1) << 45, RP_PAGE_COUNT_MAX - 80 };

	return base[model_below(m, sizeof(base) / sizeof(base[0]))] + model_below(m, 48);
}

bool model_object(struct model *m, const struct ref_tree *tree, bool meta, size_t *i)
{
	size_t start = tree->count ? model_below(m, tree->count) : 0;

	for (size_t n = 0; n < tree->count; n++) {
		*i = (start + n) % tree->count;
		if (tree->objects[*i]->meta == meta)
			return true;
	}
	return false;
}

/* An operation that needs several frames gives back what it got before it failed: as many as a path has levels. */
void model_is_full(struct model *m)
{
	struct rp_pool_status status;

	rp_pool_status(m->pool, &status);
	if (status.frame_used + status.frame_reserve + 2 * RP_HEIGHT_MAX + 4 < status.frame_limit)
		ref_fail("full with %llu of %llu frames used", (unsigned long long)status.frame_used,
		         (unsigned long long)status.frame_limit);
	m->full++;
}

static void step_resize(struct model *m)
{
	struct rp_pool_status status;
	uint64_t limit = 512 + model_below(m, 4096);

	if (m->seed % 3)
		return;
	rp_pool_status(m->pool, &status);
	int error = rp_pool_resize(m->pool, limit << RP_PAGE_SHIFT | 77);
	uint64_t reserve = limit / 64 < 32 ? 32 : limit / 64; /* at most 1024 at sizes that are not used here */
	bool fits = limit >= status.frame_limit || status.frame_used + reserve <= limit;

	if (error != (fits ? 0 : -ENOSPC))
		ref_fail("resizing to %llu frames with %llu used: %d", (unsigned long long)limit,
		         (unsigned long long)status.frame_used, error);
	rp_pool_status(m->pool, &status);
	if (!error && status.frame_limit != limit)
		ref_fail("resized to %llu frames, not %llu", (unsigned long long)status.frame_limit, (unsigned long long)limit);
}

static void step_trim(struct model *m)
{
	rp_pool_trim(m->pool);
}

static const struct {
	void (*run)(struct model *m);
	unsigned filling, draining;     /* weights */
} steps[] = {
	{ step_write, 240, 60 },     { step_zero, 30, 20 },   { step_punch, 20, 100 }, { step_allocate, 40, 10 },
	{ step_read, 60, 60 },       { step_share, 12, 6 },   { step_operation, 160, 200 }, { step_hold, 6, 2 },
	{ step_unhold, 4, 8 },       { step_name, 4, 1 },     { step_unname, 1, 5 },   { step_rename, 2, 2 },
	{ step_list, 2, 2 },         { step_roll_back, 3, 5 }, { step_compare, 6, 6 }, { step_resize, 2, 2 },
	{ step_trim, 1, 1 },
};

static void step(struct model *m)
{
	uint64_t total = 0, die;

	m->filling = m->step / PHASE_STEPS % 2 == 0;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		total += m->filling ? steps[i].filling : steps[i].draining;
	die = model_below(m, total);
	for (unsigned i = 0;; i++) {
		unsigned weight = m->filling ? steps[i].filling : steps[i].draining;

		if (die < weight) {
			steps[i].run(m);
			return;
		}
		die -= weight;
	}
}

/* All goes, and what is left is what an empty pool has: its first two pages, below a map whose height stays. */
static void end(struct model *m)
{
	struct rp_pool_status status;

	model_snapshots_free(m);
	while (m->live.count) {
		int error = REF_OP(m->pool, RP_OP_RESERVE, rp_object_remove(&op, m->live.objects[0]->number));

		if (error)
			ref_fail("removing the last objects: %d", error);
		ref_remove(&m->live, 0);
	}
	ref_check(m->pool);
	rp_pool_status(m->pool, &status);
	if (status.frame_used != 2 + rp_entry_height(atomic_load(&m->pool->live.root)) || atomic_load(&m->pool->catalog))
		ref_fail("%llu frames are used by nothing", (unsigned long long)status.frame_used);
}

static void run(uint64_t seed, uint64_t count)
{
	static const uint64_t sizes[] = { 4, 6, 8, 12, 24 };
	struct model m = { .seed = seed, .random = seed * 7919 + 1 };
	struct rp_pool_options options = { .size_bytes = sizes[seed % 5] << 20, .object_limit = seed % 7 ? 0 : 30 };
	uint64_t check_every = number_from_environment("RP_TEST_CHECK", count <= 5000 ? 20 : 100);

	m.object_limit = options.object_limit;
	if (rp_pool_create(&options, &m.pool))
		ref_fail("no pool");
	for (m.step = 0; m.step < count; m.step++) {
		step(&m);
		if (m.live.count && m.step % 4 == 0)
			ref_verify_object(m.pool, rp_pool_live(m.pool), m.live.objects[model_below(&m, m.live.count)]);
		if (m.step % check_every == 0 || m.step < 200)
			ref_check(m.pool);
		if (m.step % (5 * check_every) == 0)
			ref_verify(m.pool, rp_pool_live(m.pool), &m.live);
	}
	printf("seed %llu: full %llu, aborted %llu, rolled back %llu, compared %llu; %zu objects, %llu pages\n",
	       (unsigned long long)seed, (unsigned long long)m.full, (unsigned long long)m.aborted,
	       (unsigned long long)m.rolled_back, (unsigned long long)m.compared, m.live.count,
	       (unsigned long long)ref_pages_total(&m.live));
	end(&m);
	ref_free(&m.live);
	rp_pool_destroy(m.pool);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", UINT64_MAX);
	uint64_t count = number_from_environment("RP_TEST_STEPS", STEPS);

	uint64_t first = seed == UINT64_MAX ? 1 : seed, last = seed == UINT64_MAX ? SEEDS : seed;

	for (uint64_t s = first; s <= last; s++) {
		printf("seed %llu, %llu steps\n", (unsigned long long)s, (unsigned long long)count);
		fflush(stdout);
		run(s, count);
	}
	return 0;
}
