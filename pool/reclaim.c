/* reclaim.c: the end of a frame's life.
 *
 * A frame whose last reference is dropped may still be looked at by operations that found it before. So it is retired, with
 * the era of that moment, in the slot of whoever dropped it; two eras later nobody can be looking: an era ends only when
 * every operation inside the gate began in it. Then the frame's children lose a reference (and may be retired in turn), and
 * the frame is free. This is epoch-based reclamation (K. Fraser, Practical lock freedom, 2004), with the lists threaded
 * through the frame table so that nothing is allocated in order to free.
 *
 * Who does the work: each operation some of it as it leaves, a thread of the pool's the rest, and whoever finds the pool
 * full all of it at once.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <time.h>
#include "internal.h"

#define RECLAIM_DELAY_NS 5000000 /* the reclaimer lets work gather: one wake in 5 ms costs nothing */
#define RECLAIM_BUDGET 8192u     /* frames while a slot is held */

/* Reclaiming at once. A level of a tree takes two eras, and a pass ends as many eras as there are slots when nobody is inside;
 * while operations come and go there is always something left. */
#define PASSES_MAX 128u
#define YIELDS 20u
#define STILL_MAX 1000u          /* passes in which nothing moved */
#define WAIT_NS 100000
#define WAITS_MAX 100u           /* for running operations to give back what is needed: some 10 ms */

static void list_push(struct rp_pool *pool, struct rp_frame_list *list, rp_frame f)
{
	atomic_store_explicit(&rp_info(pool, f)->addr_low, list->first, memory_order_relaxed);
	if (!list->first)
		list->last = f;
	list->first = f;
	list->count++;
}

static rp_frame list_pop(struct rp_pool *pool, struct rp_frame_list *list)
{
	rp_frame f = list->first;

	list->first = atomic_load_explicit(&rp_info(pool, f)->addr_low, memory_order_relaxed);
	list->count--;
	return f;
}

static void list_append(struct rp_pool *pool, struct rp_frame_list *to, struct rp_frame_list *from)
{
	if (!from->first)
		return;
	atomic_store_explicit(&rp_info(pool, from->last)->addr_low, to->first, memory_order_relaxed);
	if (!to->first)
		to->last = from->last;
	to->first = from->first;
	to->count += from->count;
	from->first = from->last = 0;
	from->count = 0;
}

static void retire_in(struct rp_pool *pool, struct rp_slot *slot, rp_frame f)
{
	uint64_t era = atomic_load(&pool->era);
	struct rp_frame_list *list = &slot->retired[era % 3];
	rp_addr addr = rp_frame_addr(pool, f);

	rp_race_point("retire");
	if (addr) {
		if (pool->resident)
			rp_resident_remove(pool, addr, f);
		rp_frame_addr_set(pool, f, 0);
	}
	if (slot->retired_era[era % 3] != era) {
		/* What is left there is three eras old or more. */
		list_append(pool, &slot->dying, list);
		slot->retired_era[era % 3] = era;
	}
	list_push(pool, list, f);
	atomic_store_explicit(&slot->waiting, atomic_load_explicit(&slot->waiting, memory_order_relaxed) + 1,
	                      memory_order_relaxed);
}

void rp_retire(struct rp_op *op, rp_frame f)
{
	retire_in(op->pool, op->slot, f);
}

/* The next era, if every operation inside began in this one. */
static bool era_advance(struct rp_pool *pool)
{
	uint64_t era = atomic_load(&pool->era);

	for (unsigned i = 0; i < RP_SLOT_COUNT; i++) {
		uint64_t seen = atomic_load(&pool->slots[i].era);

		if (seen != 0 && seen != era)
			return false;
	}
	rp_race_point("era");
	return atomic_compare_exchange_strong(&pool->era, &era, era + 1);
}

static void drop_children(struct rp_pool *pool, struct rp_slot *slot, rp_frame f)
{
	unsigned first, step, count = rp_kind_children(rp_frame_kind(pool, f), &first, &step);
	_Atomic rp_entry *word = rp_node(pool, f);

	for (unsigned i = 0; i < count; i++) {
		rp_entry e = atomic_load_explicit(&word[first + i * step], memory_order_relaxed);

		if (rp_entry_is_frame(e) &&
		    atomic_fetch_sub_explicit(&rp_info(pool, rp_entry_frame(e))->refs, 1, memory_order_acq_rel) == 1)
			retire_in(pool, slot, rp_entry_frame(e));
	}
}

static void cache_add(struct rp_pool *pool, struct rp_slot *slot, rp_frame f)
{
	if (slot->cached == RP_CACHE_FRAMES) {
		rp_slot_cached_set(slot, slot->cached - RP_CACHE_FRAMES / 2);
		rp_arena_give(&pool->arena, slot->cache + slot->cached, RP_CACHE_FRAMES / 2);
	}
	slot->cache[slot->cached] = f;
	rp_slot_cached_set(slot, slot->cached + 1);
}

void rp_slot_reclaim(struct rp_pool *pool, struct rp_slot *slot, uint64_t budget)
{
	era_advance(pool);
	uint64_t era = atomic_load(&pool->era);
	uint64_t done = 0;

	for (unsigned i = 0; i < 3; i++)
		if (slot->retired[i].count && slot->retired_era[i] + 2 <= era)
			list_append(pool, &slot->dying, &slot->retired[i]);
	for (; slot->dying.count && done < budget; done++) {
		rp_frame f = list_pop(pool, &slot->dying);

		drop_children(pool, slot, f);
		rp_race_point("free");
		atomic_store_explicit(&rp_info(pool, f)->life, 0, memory_order_relaxed);
		atomic_store_explicit(&rp_info(pool, f)->addr_low, 0, memory_order_relaxed);
		cache_add(pool, slot, f);
	}
	uint64_t left = slot->retired[0].count + slot->retired[1].count + slot->retired[2].count + slot->dying.count;

	atomic_store_explicit(&slot->waiting, left, memory_order_relaxed);
	if (slot->cached && atomic_load_explicit(&pool->arena.tight, memory_order_relaxed)) {
		rp_arena_give(&pool->arena, slot->cache, slot->cached);
		rp_slot_cached_set(slot, 0);
	}
	if (left && pool->reclaim_running && !atomic_exchange(&pool->reclaim_wanted, true)) {
		pthread_mutex_lock(&pool->reclaim_lock);
		pthread_cond_signal(&pool->reclaim_wake);
		pthread_mutex_unlock(&pool->reclaim_lock);
	}
}

static bool slot_try_claim(struct rp_slot *slot)
{
	uint32_t free_word = 0;

	return atomic_compare_exchange_strong_explicit(&slot->busy, &free_word, 1, memory_order_acquire, memory_order_relaxed);
}

struct pass {
	uint64_t left; /* frames on their way back after it; all: idle in caches of slots in use, too */
	bool inside;   /* an operation runs */
};

/* One pass over the slots, without waiting for any. all: caches are emptied too. */
static struct pass reclaim_pass(struct rp_pool *pool, bool all, uint64_t budget)
{
	struct pass pass = { 0, false };

	for (unsigned i = 0; i < RP_SLOT_COUNT; i++) {
		struct rp_slot *slot = &pool->slots[i];
		uint64_t held = atomic_load_explicit(&slot->waiting, memory_order_relaxed);

		if (all)
			held += __atomic_load_n(&slot->cached, __ATOMIC_RELAXED);
		if (atomic_load(&slot->era) != 0)
			pass.inside = true;
		if (held && slot_try_claim(slot)) {
			rp_slot_reclaim(pool, slot, budget);
			if (all && slot->cached) {
				rp_arena_give(&pool->arena, slot->cache, slot->cached);
				rp_slot_cached_set(slot, 0);
			}
			held = atomic_load_explicit(&slot->waiting, memory_order_relaxed);
			rp_slot_release(slot);
		}
		pass.left += held;
	}
	return pass;
}

uint64_t rp_pool_reclaim(struct rp_pool *pool)
{
	const struct timespec delay = { 0, WAIT_NS };
	struct pass pass = { 0, false };
	unsigned still = 0, moved = 0;

	while (still < STILL_MAX && moved < PASSES_MAX) {
		uint64_t era = atomic_load(&pool->era);

		pass = reclaim_pass(pool, true, UINT64_MAX);
		if (!pass.left)
			break;
		if (atomic_load(&pool->era) != era) {
			moved++;
			continue;
		}
		if (pass.inside)
			break; /* nothing moves until an operation has ended */
		/* A slot is held, but not by an operation: by the reclaimer, or by one that is just leaving. */
		if (++still < YIELDS)
			sched_yield();
		else
			nanosleep(&delay, NULL); /* on a busy machine its holder may not run for a while */
	}
	return pass.left;
}

bool rp_pool_reclaim_wait(struct rp_pool *pool, enum rp_class class)
{
	const struct timespec delay = { 0, WAIT_NS };

	for (unsigned i = 0; i < WAITS_MAX; i++) {
		uint64_t left = rp_pool_reclaim(pool);

		if (rp_arena_room(&pool->arena, class) > 0)
			return true;
		if (!left)
			return false;
		nanosleep(&delay, NULL);
	}
	/* Something is still on its way, and whoever holds it up does not run: not a reason to call the pool full. The caller
	 * counts how often he asks. */
	return true;
}

static void *reclaimer_main(void *context)
{
	struct rp_pool *pool = context;
	const struct timespec delay = { 0, RECLAIM_DELAY_NS };

	pthread_mutex_lock(&pool->reclaim_lock);
	while (!pool->reclaim_stop) {
		if (!atomic_load(&pool->reclaim_wanted)) {
			pthread_cond_wait(&pool->reclaim_wake, &pool->reclaim_lock);
			continue;
		}
		pthread_mutex_unlock(&pool->reclaim_lock);
		nanosleep(&delay, NULL);
		atomic_store(&pool->reclaim_wanted, false);
		if (reclaim_pass(pool, false, RECLAIM_BUDGET).left > 0)
			atomic_store(&pool->reclaim_wanted, true);
		pthread_mutex_lock(&pool->reclaim_lock);
	}
	pthread_mutex_unlock(&pool->reclaim_lock);
	return NULL;
}

int rp_reclaimer_start(struct rp_pool *pool)
{
	pthread_mutex_init(&pool->reclaim_lock, NULL);
	pthread_cond_init(&pool->reclaim_wake, NULL);
	int error = pthread_create(&pool->reclaimer, NULL, reclaimer_main, pool);

	pool->reclaim_running = error == 0;
	return -error;
}

void rp_reclaimer_stop(struct rp_pool *pool)
{
	if (!pool->reclaim_running)
		return;
	pthread_mutex_lock(&pool->reclaim_lock);
	pool->reclaim_stop = true;
	pthread_cond_signal(&pool->reclaim_wake);
	pthread_mutex_unlock(&pool->reclaim_lock);
	pthread_join(pool->reclaimer, NULL);
	pool->reclaim_running = false;
	pthread_mutex_destroy(&pool->reclaim_lock);
	pthread_cond_destroy(&pool->reclaim_wake);
}
