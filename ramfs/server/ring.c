/* ring.c: making libfuse's io_uring threads fit for answers from other threads.
 *
 * libfuse takes a queue's lock while it handles completions and while another thread answers, but its own thread calls
 * io_uring_submit_and_wait() without it: that call may publish an entry of the submission queue that the other thread
 * has taken and not yet filled in; the answer would be lost and its caller would wait for ever. So this file defines
 * that one function, which the linker prefers to liburing's: while a request of the ring is with another thread, it
 * submits under a lock of the ring (struct rp_ring.lock), which whoever answers from there holds too, and then waits
 * without touching the submission queue; otherwise, nearly always, one system call submits and waits as before. Where
 * libfuse comes to use another function, no ring is ever registered here, and rp_later_*() decline: requests are then
 * answered in place.
 *
 * An answer wakes its caller: before it the thread gives way (giveway.c).
 *
 * The same place switches off cancellation (libfuse cancels its ring threads at the end, although an event ends them: a
 * handler must not be cut off with a lock held), counts how often a thread found work, and keeps a thread from ending
 * while a request of its ring is unanswered.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

/* What the replaced function, which has no context, needs to find. */
static struct {
	_Atomic(struct rp_server *) server;
	pthread_key_t key;
} rings;

static _Thread_local struct rp_ring *ring_here;

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr);

static struct rp_ring *ring_register(struct rp_server *server)
{
	struct rp_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	if (pthread_mutex_init(&ring->lock, NULL)) {
		free(ring);
		return NULL;
	}
	if (pthread_setspecific(rings.key, ring)) {
		pthread_mutex_destroy(&ring->lock);
		free(ring);
		return NULL;
	}
	ring->uring = true;
	ring->server = server;
	rp_way_ring_init(ring);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_mutex_lock(&server->rings_lock);
	ring->next = server->rings;
	server->rings = ring;
	pthread_mutex_unlock(&server->rings_lock);
	atomic_store(&server->uring, true);
	return ring;
}

/* Under the lock of whoever answers for this ring from elsewhere. A thread that gives way loses the CPU as soon as it has
 * woken a caller, here with the lock. */
static int submit_beside_workers(struct io_uring *ring)
{
	int submitted;

	rp_way_take_back(ring_here);
	pthread_mutex_lock(&ring_here->lock);
	submitted = io_uring_submit(ring);
	pthread_mutex_unlock(&ring_here->lock);
	return submitted;
}

/* Stands in for liburing's function: see above. Two system calls where that makes one; measured (round trips of a lookup,
 * alternating runs) this is faster, 10 against 11 us: the answered caller takes the CPU at the end of the first, and often
 * the thread finds the next request there instead of sleeping in the second. */
int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
	struct rp_server *server = atomic_load_explicit(&rings.server, memory_order_acquire);
	struct io_uring_cqe *cqe;
	int submitted, error;

	if (!ring_here && server)
		ring_here = ring_register(server);
	if (ring_here && atomic_load(&ring_here->later)) {
		submitted = submit_beside_workers(ring);
	} else {
		/* No worker has a request of this ring, and only this thread could hand it one. */
		if (ring_here && io_uring_sq_ready(ring))
			rp_way_give(ring_here);
		submitted = io_uring_submit(ring);
	}
	if (submitted < 0)
		return submitted;
	error = io_uring_wait_cqe_nr(ring, &cqe, wait_nr);
	if (ring_here)
		atomic_fetch_add_explicit(&ring_here->awake, 1, memory_order_relaxed);
	return error ? error : submitted;
}

/* A ring's thread ends: its entries go next, so let the workers answer first. */
static void ring_thread_end(void *value)
{
	struct rp_ring *ring = value;

	while (atomic_load(&ring->later))
		usleep(1000);
	rp_way_take_back(ring);
}

int rp_rings_init(struct rp_server *server)
{
	int error = pthread_key_create(&rings.key, ring_thread_end);

	if (error)
		return -error;
	pthread_mutex_init(&server->rings_lock, NULL);
	pthread_mutex_init(&server->classic.lock, NULL);
	atomic_store_explicit(&rings.server, server, memory_order_release);
	return 0;
}

void rp_rings_end(struct rp_server *server)
{
	atomic_store(&rings.server, NULL);
	while (server->rings) {
		struct rp_ring *ring = server->rings;

		server->rings = ring->next;
		pthread_mutex_destroy(&ring->lock);
		free(ring);
	}
	pthread_mutex_destroy(&server->classic.lock);
	pthread_mutex_destroy(&server->rings_lock);
	pthread_key_delete(rings.key);
}

struct rp_ring *rp_ring_here(struct rp_server *server)
{
	return ring_here ? ring_here : &server->classic;
}
