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
 * Giving way: when an answer wakes its caller, the scheduler sees this thread on the caller's CPU and, if another is
 * idle, moves the caller there, so that on a machine with nothing else to do each request pays for waking a CPU (a
 * lookup on two CPUs: 35 us; 16 with what follows; 12 where the caller is tied to its CPU). So the thread submits answers
 * as a task of SCHED_IDLE, which the scheduler treats as if it were not there: the caller stays and goes on at once, and
 * when it sleeps again the thread has the CPU back. Where other work wants that CPU, the thread would wait for it: when
 * it did once, it does not give way for a while. Needs the right to come back from SCHED_IDLE: root's.
 *
 * The same place switches off cancellation (libfuse cancels its ring threads at the end, although an event ends them: a
 * handler must not be cut off with a lock held), counts how often a thread found work, and keeps a thread from ending
 * while a request of its ring is unanswered.
 */
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

/* What the replaced function, which has no context, needs to find. */
static struct {
	_Atomic(struct rp_server *) server;
	pthread_key_t key;
	bool give_way;
} rings;

static _Thread_local struct rp_ring *ring_here;

/* So late back on the CPU, and for so long no more. */
#define LATE_NS UINT64_C(1000000)
#define PAUSE_NS UINT64_C(200000000)

int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr);

/* ---- Giving way -------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool policy_set(int policy)
{
	return !sched_setscheduler(0, policy, &(struct sched_param){ 0 });
}

/* In a thread of its own, which is stuck at SCHED_IDLE where coming back is refused. */
static void *give_way_try(void *context)
{
	bool *may = context;

	*may = sched_getscheduler(0) == SCHED_OTHER && policy_set(SCHED_IDLE) && policy_set(SCHED_OTHER);
	return NULL;
}

static bool give_way_allowed(void)
{
	bool may = false;
	pthread_t thread;

	if (!pthread_create(&thread, NULL, give_way_try, &may))
		pthread_join(thread, NULL);
	return may;
}

/* As io_uring_submit(). */
static int submit_giving_way(struct io_uring *ring)
{
	uint64_t begun = io_uring_sq_ready(ring) ? now_ns() : 0, ended;
	int submitted;

	if (!begun || begun < ring_here->give_way_from_ns || !policy_set(SCHED_IDLE))
		return io_uring_submit(ring);
	submitted = io_uring_submit(ring);
	policy_set(SCHED_OTHER);
	ended = now_ns();
	if (ended - begun > LATE_NS)
		ring_here->give_way_from_ns = ended + PAUSE_NS;
	return submitted;
}

/* ---- The ring's thread ------------------------------------------------------------------------------------------- */

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
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_mutex_lock(&server->rings_lock);
	ring->next = server->rings;
	server->rings = ring;
	pthread_mutex_unlock(&server->rings_lock);
	atomic_store(&server->uring, true);
	return ring;
}

/* No worker has a request of this ring, and only this thread could hand it one. */
static int submit_and_wait_alone(struct io_uring *ring, unsigned wait_nr)
{
	struct io_uring_cqe *cqe;
	int submitted, error;

	if (!rings.give_way)
		return io_uring_submit_and_wait_timeout(ring, &cqe, wait_nr, NULL, NULL);
	submitted = submit_giving_way(ring);
	error = submitted < 0 ? submitted : io_uring_wait_cqe_nr(ring, &cqe, wait_nr);
	return error ? error : submitted;
}

/* Stands in for liburing's function: see above. Two system calls where that makes one; measured (round trips of a lookup on
 * one CPU, alternating runs) this is no slower: 11.8 against 13.1 us at best, as the answered caller is woken earlier. */
int io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
	struct rp_server *server = atomic_load_explicit(&rings.server, memory_order_acquire);
	struct io_uring_cqe *cqe;
	int submitted, error;

	if (!ring_here && server)
		ring_here = ring_register(server);
	if (ring_here && atomic_load(&ring_here->later) == 0) {
		error = submit_and_wait_alone(ring, wait_nr);
		atomic_fetch_add_explicit(&ring_here->awake, 1, memory_order_relaxed);
		return error;
	}
	if (ring_here)
		pthread_mutex_lock(&ring_here->lock);
	submitted = io_uring_submit(ring);
	if (ring_here)
		pthread_mutex_unlock(&ring_here->lock);
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
}

int rp_rings_init(struct rp_server *server)
{
	int error = pthread_key_create(&rings.key, ring_thread_end);

	if (error)
		return -error;
	pthread_mutex_init(&server->rings_lock, NULL);
	pthread_mutex_init(&server->classic.lock, NULL);
	rings.give_way = give_way_allowed();
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
