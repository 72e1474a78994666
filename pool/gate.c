/* gate.c: the gate that operations pass, and the slots they stand in.
 *
 * Entering costs one compare-and-swap and two stores in a cache line that is the thread's own as long as threads are fewer
 * than slots. Closing waits until every slot is outside: a many-readers lock without a shared counter. The order that makes
 * it right: an operation first says "inside" (era), then looks whether the gate is closed; the closer first says "closed",
 * then looks at the slots. Both are sequentially consistent, so at least one of them sees the other.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

#define COMMITS_MAX 1024u /* that may come and go while an operation waits: each frees what it froze, but others may be quicker */

/* What a thread carries from one try of an operation to the next. */
static _Thread_local struct {
	unsigned hint;          /* the slot it had last, plus 1 */
	unsigned tries;
	bool alone;             /* the next try runs with nobody else inside, after everything was reclaimed */
	unsigned pin_count;
	rp_frame pins[16];
} carried;

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int rp_gate_init(struct rp_pool *pool)
{
	pool->slots = aligned_alloc(128, RP_SLOT_COUNT * sizeof(*pool->slots));
	if (!pool->slots)
		return -ENOMEM;
	memset(pool->slots, 0, RP_SLOT_COUNT * sizeof(*pool->slots));
	pthread_mutex_init(&pool->gate_lock, NULL);
	atomic_store(&pool->era, 1);
	return 0;
}

void rp_gate_free(struct rp_pool *pool)
{
	if (!pool->slots)
		return;
	for (unsigned i = 0; i < RP_SLOT_COUNT; i++) {
		free(pool->slots[i].undo);
		free(pool->slots[i].undo_bytes);
	}
	free(pool->slots);
	pthread_mutex_destroy(&pool->gate_lock);
}

struct rp_slot *rp_slot_claim(struct rp_pool *pool)
{
	unsigned start = carried.hint ? carried.hint - 1 : (unsigned)gettid();

	for (;;) {
		for (unsigned i = 0; i < RP_SLOT_COUNT; i++) {
			struct rp_slot *slot = &pool->slots[(start + i) % RP_SLOT_COUNT];
			uint32_t free_word = 0;

			if (atomic_load_explicit(&slot->busy, memory_order_relaxed) == 0 &&
			    atomic_compare_exchange_strong_explicit(&slot->busy, &free_word, 1, memory_order_acquire,
			                                            memory_order_relaxed)) {
				carried.hint = (start + i) % RP_SLOT_COUNT + 1;
				return slot;
			}
		}
		sched_yield();
	}
}

void rp_slot_release(struct rp_slot *slot)
{
	atomic_store_explicit(&slot->busy, 0, memory_order_release);
}

static void op_start(struct rp_op *op, struct rp_pool *pool, struct rp_slot *slot, unsigned flags)
{
	op->pool = pool;
	op->slot = slot;
	op->flags = flags;
	op->tries = carried.tries;
	op->epoch = atomic_load_explicit(&pool->epoch, memory_order_relaxed);
	op->wait_commit = false;
	op->starved = false;
	op->alone = false;
	op->absent_count = 0;
	op->pin_count = carried.pin_count;
	for (unsigned i = 0; i < carried.pin_count; i++)
		op->pins[i] = carried.pins[i];
	carried.pin_count = 0;
}

void rp_op_begin(struct rp_op *op, struct rp_pool *pool, unsigned flags)
{
	if (carried.alone) {
		rp_gate_close(op, pool, flags);
		return;
	}
	for (;;) {
		struct rp_slot *slot = rp_slot_claim(pool);

		uint64_t era = atomic_load(&pool->era); /* old by the time it is said: then it holds the next one back */

		rp_race_point("era read");
		atomic_store(&slot->era, era);
		rp_race_point("inside");
		if (atomic_load(&pool->gate_closed) == 0) {
			op_start(op, pool, slot, flags);
			return;
		}
		atomic_store_explicit(&slot->era, 0, memory_order_release);
		rp_slot_release(slot);
		futex_wait(&pool->gate_closed, 1);
	}
}

/* Frames may be on their way back, held up by whoever is inside, or look shared only until a node that is gone lets go of
 * them. Alone, what is found is the truth. */
static bool wants_last_try(const struct rp_op *op, int error)
{
	return error == -ENOSPC && op->starved && !op->alone;
}

/* Keep or undo, and let go of what the operation held; but what was brought in for it stays for the next try, if that one is
 * not for bringing more in: else each try could miss in its turn a frame or the page. Still inside the gate. */
static void op_settle(struct rp_op *op, int error)
{
	if (error)
		rp_undo_back(op);
	else
		rp_undo_keep(op);
	if (wants_last_try(op, error) || (error == RP_AGAIN && !op->absent_count)) {
		carried.pin_count = op->pin_count;
		memcpy(carried.pins, op->pins, sizeof(carried.pins));
		return;
	}
	for (unsigned i = 0; i < op->pin_count; i++)
		rp_frame_put(op, op->pins[i]);
}

/* Bring in what the operation met and was not in memory. 0: try again. */
static int fetch_absent(struct rp_op *op)
{
	struct rp_pool *pool = op->pool;

	for (unsigned i = 0; i < op->absent_count; i++) {
		rp_frame f;
		int error = pool->source.fetch ? pool->source.fetch(pool->source.context, op->absent[i], op->absent_kind[i],
		                                                    op->absent_place[i], &f)
		                               : -EIO;

		if (error) {
			if (i > 0)
				return 0; /* the next try meets this one first, and fails if it is really needed */
			return error;
		}
		carried.pins[carried.pin_count++] = f;
	}
	return 0;
}

/* Outside the gate and the slot: is there a reason to try again? */
static bool op_again(struct rp_op *op, int *error)
{
	struct rp_pool *pool = op->pool;
	int result = *error;

	if (result == RP_AGAIN && op->absent_count > 0) {
		result = fetch_absent(op);
		if (!result)
			return true;
	} else if (result == RP_AGAIN) {
		if (pool->source.wait_commit)
			pool->source.wait_commit(pool->source.context);
		rp_pool_reclaim(pool);
		result = -ENOSPC;
		if (carried.tries++ < COMMITS_MAX)
			return true;
		while (carried.pin_count > 0)
			rp_frame_put_outside(pool, carried.pins[--carried.pin_count]);
	} else if (wants_last_try(op, result)) {
		rp_pool_reclaim(pool);
		carried.alone = true;
		return true;
	}
	carried.tries = 0;
	*error = result;
	return false;
}

bool rp_op_end(struct rp_op *op, int *error)
{
	struct rp_pool *pool = op->pool;
	struct rp_slot *slot = op->slot;

	if (op->alone)
		return rp_gate_open(op, false, error);
	op_settle(op, *error);
	atomic_store_explicit(&slot->era, 0, memory_order_release);
	rp_race_point("outside");
	if (atomic_load_explicit(&slot->waiting, memory_order_relaxed) > 0)
		rp_slot_reclaim(pool, slot, RP_CACHE_FRAMES);
	rp_slot_release(slot);
	if (*error == 0) {
		carried.tries = 0;
		return false;
	}
	return op_again(op, error);
}

/* Whoever is waited for needs the CPU, perhaps this one, and perhaps not only for a moment. */
static void pause_for(unsigned times)
{
	const struct timespec pause = { .tv_nsec = 50000 };

	if (times < 100)
		sched_yield();
	else
		nanosleep(&pause, NULL);
}

/* Nobody is inside, so nothing holds eras up but who looks in at the closed gate and leaves: everything that can come back
 * does. A slot is held by others only while they leave, so this ends, however busy the machine. */
static void reclaim_alone(struct rp_pool *pool, struct rp_slot *slot)
{
	unsigned i;

	for (i = 0; atomic_load_explicit(&slot->waiting, memory_order_relaxed) > 0; i++) {
		rp_slot_reclaim(pool, slot, UINT64_MAX);
		pause_for(i);
	}
	if (slot->cached) {
		rp_arena_give(&pool->arena, slot->cache, slot->cached);
		rp_slot_cached_set(slot, 0);
	}
	for (i = 0; rp_pool_reclaim(pool) > 0; i++)
		pause_for(i);
}

void rp_gate_close(struct rp_op *op, struct rp_pool *pool, unsigned flags)
{
	struct rp_slot *slot;
	bool alone = carried.alone;

	/* The lock first: who waits for it must not keep a slot's frames from others. */
	pthread_mutex_lock(&pool->gate_lock);
	slot = rp_slot_claim(pool);
	carried.alone = false;
	op_start(op, pool, slot, flags);
	op->alone = alone;
	op->closed_ns = now_ns();
	rp_race_point("close");
	atomic_store(&pool->gate_closed, 1);
	for (unsigned i = 0; i < RP_SLOT_COUNT; i++) {
		for (unsigned spins = 0; atomic_load(&pool->slots[i].era) != 0; spins++)
			if (spins > 200)
				sched_yield();
	}
	if (alone)
		reclaim_alone(pool, slot);
	op->epoch = atomic_load(&pool->epoch);
	atomic_store(&slot->era, atomic_load(&pool->era));
}

bool rp_gate_open(struct rp_op *op, bool shared, int *error)
{
	struct rp_pool *pool = op->pool;
	struct rp_slot *slot = op->slot;

	op_settle(op, *error);
	if (shared)
		atomic_fetch_add(&pool->epoch, 1);
	atomic_store_explicit(&slot->era, 0, memory_order_release);
	uint64_t ns = now_ns() - op->closed_ns;

	atomic_store(&pool->gate_closed, 0);
	if (ns > atomic_load(&pool->gate_closed_max_ns))
		atomic_store(&pool->gate_closed_max_ns, ns);
	atomic_fetch_add(&pool->gate_closings, 1);
	futex_wake(&pool->gate_closed);
	pthread_mutex_unlock(&pool->gate_lock);
	if (atomic_load_explicit(&slot->waiting, memory_order_relaxed) > 0)
		rp_slot_reclaim(pool, slot, RP_CACHE_FRAMES);
	rp_slot_release(slot);
	if (*error == 0) {
		carried.tries = 0;
		return false;
	}
	return op_again(op, error);
}
