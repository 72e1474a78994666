/* test_pool_full_threads.c: a pool is full when nothing more is there, not when somebody holds up what is on its way back. And
 * threads overwrite the pages of a full pool, all at once after each snapshot that came and went: none of them may find it
 * full, for nothing more is needed when all have written. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

#define THREADS 6u
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 10u
#else
#define ROUNDS 60u
#endif

static struct {
	struct rp_pool *pool;
	rp_object object;
	rp_page pages;
	pthread_barrier_t barrier;
} all;

static int write_page(rp_page page, int byte, size_t length)
{
	uint8_t bytes[RP_PAGE_SIZE];
	size_t done;

	memset(bytes, byte, sizeof(bytes));
	return REF_OP(all.pool, 0, rp_bytes_write(&op, all.object, page << RP_PAGE_SHIFT, bytes, length, &done));
}

static void *overwrite(void *context)
{
	unsigned index = (unsigned)(uintptr_t)context;

	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&all.barrier);
		for (rp_page page = index; page < all.pages; page += THREADS)
			EXPECT_EQUAL(write_page(page, (int)round, round % 2 ? RP_PAGE_SIZE : 100), 0);
		pthread_barrier_wait(&all.barrier);
	}
	return NULL;
}

static void expect_bytes(int byte)
{
	uint8_t bytes[RP_PAGE_SIZE];

	for (rp_page page = 0; page < all.pages; page++) {
		EXPECT_EQUAL(REF_OP(all.pool, RP_OP_READ, rp_bytes_read(&op, rp_pool_live(all.pool), all.object,
		                                                        page << RP_PAGE_SHIFT, bytes, sizeof(bytes))), 0);
		EXPECT_EQUAL(bytes[0], byte);
		EXPECT_EQUAL(bytes[99], byte);
	}
}

/* ---- A page that is free as soon as somebody leaves ------------------------------------------------------------------ */

#define HOLD_UPS 20u

static struct {
	sem_t inside, go;
} hold;

static void *stay_inside(void *context)
{
	struct rp_op op;
	int error = 0;

	(void)context;
	rp_op_begin(&op, all.pool, RP_OP_READ);
	EXPECT_EQUAL(sem_post(&hold.inside), 0);
	EXPECT_EQUAL(sem_wait(&hold.go), 0);
	rp_op_end(&op, &error);
	return NULL;
}

static void *write_first(void *context)
{
	(void)context;
	EXPECT_EQUAL(write_page(0, 1, RP_PAGE_SIZE), 0);
	return NULL;
}

static void test_hold_up(void)
{
	pthread_t holder, writer;
	rp_page next;

	EXPECT_EQUAL(sem_init(&hold.inside, 0, 0), 0);
	EXPECT_EQUAL(sem_init(&hold.go, 0, 0), 0);
	for (unsigned i = 0; i < HOLD_UPS; i++) {
		EXPECT_EQUAL(pthread_create(&holder, NULL, stay_inside, NULL), 0);
		EXPECT_EQUAL(sem_wait(&hold.inside), 0);
		EXPECT_EQUAL(REF_OP(all.pool, RP_OP_RESERVE, rp_pages_punch(&op, all.object, 0, 1, &next)), 0);
		EXPECT_EQUAL(pthread_create(&writer, NULL, write_first, NULL), 0);
		/* The writer waits for the holder, and for nothing less. */
		while (!atomic_load(&all.pool->gate_closed))
			sched_yield();
		EXPECT_EQUAL(sem_post(&hold.go), 0);
		pthread_join(holder, NULL);
		pthread_join(writer, NULL);
	}
	sem_destroy(&hold.inside);
	sem_destroy(&hold.go);
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 12 << 20 };
	struct rp_snapshot *snapshot;
	struct rp_pool_status status;
	pthread_t threads[THREADS];
	uint64_t generation;

	EXPECT_EQUAL(rp_pool_create(&options, &all.pool), 0);
	EXPECT_EQUAL(REF_OP(all.pool, 0, rp_object_create(&op, false, &all.object, &generation)), 0);
	while (write_page(all.pages, 0, RP_PAGE_SIZE) == 0)
		all.pages++;
	test_hold_up();
	pthread_barrier_init(&all.barrier, NULL, THREADS + 1);
	for (unsigned i = 0; i < THREADS; i++)
		EXPECT_EQUAL(pthread_create(&threads[i], NULL, overwrite, (void *)(uintptr_t)i), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		EXPECT_EQUAL(rp_snapshot_take(all.pool, &snapshot), 0);
		rp_snapshot_put(snapshot);
		pthread_barrier_wait(&all.barrier);
		pthread_barrier_wait(&all.barrier);
		rp_pool_status(all.pool, &status);
		EXPECT(status.frame_used + status.frame_reserve <= status.frame_limit);
		if (round % 10 == 9)
			expect_bytes((int)round);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ref_check(all.pool);
	pthread_barrier_destroy(&all.barrier);
	rp_pool_destroy(all.pool);
	return 0;
}
