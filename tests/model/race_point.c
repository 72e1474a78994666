/* race_point.c: what rp_race_point() does in a pool that is built with RP_RACE_POINTS: the thread now and then gives the CPU
 * away, or sleeps long enough for others to do whole operations. */
#ifndef RP_RACE_POINTS
#define RP_RACE_POINTS
#endif
#include <sched.h>
#include <time.h>
#include "pool/internal.h"
#include "tests/lib/random.h"

void rp_race_point(const char *where)
{
	static atomic_uint threads;
	static _Thread_local uint64_t random;
	const struct timespec pause = { .tv_nsec = 50000 };

	(void)where;
	if (!random)
		random = number_from_environment("RP_SEED", 1) * 1000003 + atomic_fetch_add(&threads, 1) + 1;
	uint64_t die = random_below(&random, 512);

	if (die == 0)
		nanosleep(&pause, NULL);
	else if (die < 4)
		sched_yield();
}
