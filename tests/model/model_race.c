/* model_race.c: orders of steps that chance hardly ever gives: at a race point of one operation, others run as a whole. In a
 * pool built without race points the same steps run one after the other, which must come out right too. */
#ifndef RP_RACE_POINTS
#define RP_RACE_POINTS
#endif
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>
#include "pool/internal.h"
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

static struct rp_pool *pool;
static rp_object file;

/* At the point named, once, this thread calls that. */
static _Thread_local struct {
	const char *where;
	void (*call)(void);
} trap;

void rp_race_point(const char *where)
{
	void (*call)(void) = trap.call;

	if (!call || strcmp(where, trap.where))
		return;
	trap.call = NULL;
	call();
}

static void trap_set(const char *where, void (*call)(void))
{
	trap.where = where;
	trap.call = call;
}

static rp_object new_file(void)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &object, &generation)), 0);
	return object;
}

static void write_page(rp_page page, int byte)
{
	uint8_t bytes[RP_PAGE_SIZE];
	size_t done;

	memset(bytes, byte, sizeof(bytes));
	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_write(&op, file, page << RP_PAGE_SHIFT, bytes, sizeof(bytes), &done)), 0);
}

static int read_page(rp_page page)
{
	uint8_t bytes[RP_PAGE_SIZE];

	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_bytes_read(&op, rp_pool_live(pool), file, page << RP_PAGE_SHIFT, bytes,
	                                                    sizeof(bytes))), 0);
	for (unsigned i = 1; i < sizeof(bytes); i++)
		EXPECT_EQUAL(bytes[i], bytes[0]);
	return bytes[0];
}

static void punch(rp_page first, rp_page last)
{
	for (rp_page next; first < last; first = next)
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, file, first, last - first, &next)), 0);
}

static bool is_data(rp_page page)
{
	uint64_t end;
	bool data;

	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_extent_get(&op, rp_pool_live(pool), file, page << RP_PAGE_SHIFT,
	                                                    (page + 1) << RP_PAGE_SHIFT, &data, &end)), 0);
	return data;
}

static void share_everything(void)
{
	struct rp_snapshot *snapshot;

	EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot), 0);
	rp_snapshot_put(snapshot);
}

static void finish(void)
{
	ref_check(pool);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, file)), 0);
	ref_check(pool);
}

/* ---- A map that gets its first node while somebody asks what its page is ------------------------------------------------ */

static void grow(void) { write_page(5, 2); }

static void test_extent(void)
{
	file = new_file();
	write_page(0, 1);
	trap_set("extent", grow);
	EXPECT(is_data(0));
	EXPECT_EQUAL(read_page(0), 1);
	finish();
}

/* ---- Who replaces a page that was punched meanwhile, and the map is low now ---------------------------------------------- */

static struct {
	sem_t before, raised, written;
} order;

static void wait_a_while(sem_t *semaphore)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 100000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (sem_timedwait(semaphore, &until) && errno == EINTR)
		;
}

/* The page that is to be replaced goes, and with it the whole map; another comes. */
static void lower(void)
{
	punch(0, RP_PAGE_COUNT_MAX);
	write_page(1, 3);
	EXPECT_EQUAL(sem_post(&order.before), 0);
	wait_a_while(&order.raised); /* until the other one is about to take the last node out */
}

static void *replace(void *context)
{
	(void)context;
	trap_set("publish", lower);
	write_page(1 << 18, 4);
	trap_set("", NULL);
	EXPECT_EQUAL(sem_post(&order.written), 0);
	return NULL;
}

static void at_last_node(void)
{
	EXPECT_EQUAL(sem_post(&order.raised), 0);
	wait_a_while(&order.written); /* it must wait for us, or leave the map's shape alone */
}

static void test_prune(void)
{
	pthread_t thread;

	EXPECT_EQUAL(sem_init(&order.before, 0, 0), 0);
	EXPECT_EQUAL(sem_init(&order.raised, 0, 0), 0);
	EXPECT_EQUAL(sem_init(&order.written, 0, 0), 0);
	file = new_file();
	write_page(1 << 18, 1);
	share_everything();
	EXPECT_EQUAL(pthread_create(&thread, NULL, replace, NULL), 0);
	wait_a_while(&order.before);
	trap_set("prune", at_last_node);
	punch(1, 2);
	trap_set("", NULL);
	pthread_join(thread, NULL);
	EXPECT_EQUAL(read_page(1), 0);
	EXPECT_EQUAL(read_page(1 << 18), 4);
	finish();
	sem_destroy(&order.before);
	sem_destroy(&order.raised);
	sem_destroy(&order.written);
}

/* ---- Who copies a node while the map above it gets lower ------------------------------------------------------------------- */

static void drop_far_page(void) { punch(1 << 18, (1 << 18) + 1); }

static void test_lower(void)
{
	file = new_file();
	write_page(1, 1);
	write_page(1 << 18, 1);
	share_everything();
	write_page(1 << 18, 2); /* the root is ours now, and what is above page 1 is not */
	trap_set("copy", drop_far_page);
	write_page(1, 3);
	trap_set("", NULL);
	EXPECT_EQUAL(read_page(1), 3);
	finish();
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 8 << 20, .small_pages = true };

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	test_extent();
	test_prune();
	test_lower();
	rp_pool_destroy(pool);
	return 0;
}
