/* space.c: space that is on its way back.
 *
 * A file whose last name went is there until the kernel lets go of it, and says so by a FORGET that follows the answer to
 * unlink through another queue, some milliseconds later on a busy machine. A program that removes a file and then fills
 * the space must not be told meanwhile that there is none. So whoever finds none shortly after a removal waits and tries
 * again, at most some 60 ms in all; when that did not help, nobody waits until something else is removed. FORGETs come
 * through the classic device, so a waiting ring thread does not keep them from being served.
 */
#include <time.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

#define RECENT_NS UINT64_C(100000000)
#define FIRST_WAIT_US 500u
#define TRIES 7 /* each waits twice as long as the one before */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void rp_space_note_removal(struct rp_server *server)
{
	atomic_store_explicit(&server->removed_ns, now_ns(), memory_order_relaxed);
}

bool rp_space_await(struct rp_server *server, unsigned tries)
{
	uint64_t removed = atomic_load_explicit(&server->removed_ns, memory_order_relaxed);

	if (!removed || (!tries && now_ns() - removed > RECENT_NS))
		return false;
	if (tries == TRIES) {
		atomic_compare_exchange_strong(&server->removed_ns, &removed, 0);
		return false;
	}
	usleep(FIRST_WAIT_US << tries);
	return true;
}
