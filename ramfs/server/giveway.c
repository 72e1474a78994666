/* giveway.c: ring threads that let their callers go on at once.
 *
 * A ring's thread runs on its caller's CPU. When it wakes the caller with the answer, the scheduler sees that CPU taken and,
 * if another is idle, moves the caller there, so that on a machine with nothing else to do each request pays for waking a
 * CPU. So while requests follow each other a ring's thread is a task of SCHED_IDLE, which the scheduler treats as if it were
 * not there: the caller stays and goes on at once, and when it sleeps again the thread has the CPU back.
 *
 * Where other work wants that CPU a SCHED_IDLE task waits for it, some milliseconds for each request. So the thread goes
 * there by itself when requests follow each other (rp_way_give), and the watcher, an ordinary task that looks every TICK_MS
 * while any thread gives way, brings it back: when no request came, and when few came and the thread stands in line for the
 * CPU. Then it may not give way for a while, longer each time until it has been busy again. A caller that works long
 * between its requests looks the same, and has little to gain. Changing the policy for each answer instead, and leaving
 * the watcher out, costs a third of a short request.
 *
 * Whoever waits for what such a thread holds waits for that other work, too. So it is taken back before it takes a lock of
 * its ring, of the workers or of the watcher, and none gives way while a snapshot closes the gate (rp_way_bar): beside busy
 * programs the gate stayed closed for up to 12 ms. What else such a thread holds in the namespace and the pool it holds for
 * moments; if it loses the CPU in one of them, the watcher helps within two ticks.
 *
 * Coming back from SCHED_IDLE needs a right, which is root's; it is tried before, and without it no thread gives way.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

#define RUN_GAP_MS 2      /* requests follow each other: RUN_REQUESTS of them with no longer gap */
#define RUN_REQUESTS 4
#define TICK_MS 10
#define BUSY_REQUESTS 50 /* in one tick: whoever stands in line for the CPU answers fewer */
#define BAR_MS 100        /* from a flush to the snapshot that it is for */
#define PAUSE_MS_MIN 200
#define PAUSE_MS_MAX 800

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		return 0;
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

/* What a thread starts has its policy: a ring's thread starts nothing. */
static bool policy_set(pid_t thread, int policy)
{
	return !sched_setscheduler(thread, policy, &(struct sched_param){ 0 });
}

/* In a thread of its own, which is stuck at SCHED_IDLE where coming back is refused. */
static void *try_both_ways(void *context)
{
	bool *may = context;

	*may = sched_getscheduler(0) == SCHED_OTHER && policy_set(0, SCHED_IDLE) && policy_set(0, SCHED_OTHER);
	return NULL;
}

static bool allowed(void)
{
	bool may = false;
	pthread_t thread;

	if (!pthread_create(&thread, NULL, try_both_ways, &may))
		pthread_join(thread, NULL);
	return may;
}

/* ---- The ring's thread ------------------------------------------------------------------------------------------- */

/* Not before pause_ms from now again. First the word, then the policy: see rp_way_give_slowly(). */
static void take_back_locked(struct rp_ring *ring, unsigned pause_ms)
{
	struct rp_way *way = &ring->server->way;

	atomic_store(&ring->gives_way, false);
	atomic_store(&ring->give_way_from_ms, now_ms() + pause_ms);
	way->giving--;
	/* Refused although it was allowed: nothing can be done but not to go on. */
	if (!policy_set(ring->thread, SCHED_OTHER) && errno != ESRCH)
		atomic_store(&way->watched, false);
}

/* The ring's thread only, without a lock. */
static bool requests_follow(struct rp_ring *ring, uint64_t now)
{
	ring->run = now - ring->run_ms <= RUN_GAP_MS ? ring->run + 1 : 0;
	ring->run_ms = now;
	return ring->run >= RUN_REQUESTS && now >= atomic_load(&ring->give_way_from_ms);
}

static bool give_locked(struct rp_ring *ring)
{
	struct rp_way *way = &ring->server->way;

	if (!atomic_load(&way->watched) || now_ms() < atomic_load(&ring->give_way_from_ms))
		return false;
	atomic_store(&ring->gives_way, true);
	ring->fresh = true;
	if (way->giving++ == 0)
		pthread_cond_signal(&way->changed);
	return true;
}

void rp_way_give_slowly(struct rp_ring *ring)
{
	struct rp_server *server = ring->server;
	bool gives;

	if (!atomic_load_explicit(&server->way.watched, memory_order_relaxed) || !requests_follow(ring, now_ms()))
		return;
	pthread_mutex_lock(&server->rings_lock);
	gives = give_locked(ring);
	pthread_mutex_unlock(&server->rings_lock);
	if (!gives)
		return;
	/* Without the lock; and it may have been taken back before it is so. */
	if (!policy_set(0, SCHED_IDLE))
		rp_way_take_back(ring);
	else if (!atomic_load(&ring->gives_way))
		policy_set(0, SCHED_OTHER);
}

void rp_way_take_back(struct rp_ring *ring)
{
	if (!atomic_load_explicit(&ring->gives_way, memory_order_relaxed))
		return;
	/* Before the lock: the watcher, who could help, would wait for it. */
	policy_set(0, SCHED_OTHER);
	pthread_mutex_lock(&ring->server->rings_lock);
	if (atomic_load_explicit(&ring->gives_way, memory_order_relaxed))
		take_back_locked(ring, TICK_MS);
	pthread_mutex_unlock(&ring->server->rings_lock);
}

void rp_way_bar(struct rp_server *server)
{
	pthread_mutex_lock(&server->rings_lock);
	for (struct rp_ring *ring = server->rings; ring; ring = ring->next) {
		if (atomic_load_explicit(&ring->gives_way, memory_order_relaxed))
			take_back_locked(ring, BAR_MS);
		else
			atomic_store(&ring->give_way_from_ms, now_ms() + BAR_MS);
	}
	pthread_mutex_unlock(&server->rings_lock);
}

/* ---- The watcher ------------------------------------------------------------------------------------------------- */

/* Runs or stands in line for a CPU: the state in proc(5)'s stat. So it is too where that cannot be read. */
static bool is_runnable(pid_t thread)
{
	char path[64], text[128] = "";
	const char *name_end;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	name_end = strrchr(text, ')');
	return !name_end || !strncmp(name_end, ") R", 3);
}

static void look_locked(struct rp_ring *ring)
{
	uint64_t awake = atomic_load_explicit(&ring->awake, memory_order_relaxed);
	uint64_t served = awake - ring->awake_seen;
	uint64_t ran_ms = clock_ms(ring->cpu_clock);
	bool working = ran_ms - ring->ran_ms_seen >= TICK_MS / 2; /* on few, but large requests */
	bool fresh = ring->fresh;

	ring->fresh = false;
	ring->awake_seen = awake;
	ring->ran_ms_seen = ran_ms;
	if (fresh)
		return; /* since less than a tick */
	if (served >= BUSY_REQUESTS) {
		ring->pause_ms = PAUSE_MS_MIN;
	} else if (!working && is_runnable(ring->thread)) {
		ring->server->way.late++;
		take_back_locked(ring, ring->pause_ms);
		ring->pause_ms = ring->pause_ms < PAUSE_MS_MAX ? ring->pause_ms * 2 : PAUSE_MS_MAX;
	} else if (!served && !working) {
		take_back_locked(ring, 0);
	}
}

static void sleep_locked(struct rp_server *server)
{
	struct rp_way *way = &server->way;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_MS * 1000000l;
	until.tv_sec += until.tv_nsec / 1000000000l;
	until.tv_nsec %= 1000000000l;
	while (atomic_load(&way->watched) && pthread_cond_timedwait(&way->changed, &server->rings_lock, &until) != ETIMEDOUT)
		;
}

static void *watch(void *context)
{
	struct rp_server *server = context;
	struct rp_way *way = &server->way;

	pthread_mutex_lock(&server->rings_lock);
	while (atomic_load(&way->watched)) {
		if (way->giving == 0) {
			pthread_cond_wait(&way->changed, &server->rings_lock);
			continue;
		}
		sleep_locked(server);
		for (struct rp_ring *ring = server->rings; ring; ring = ring->next)
			if (atomic_load_explicit(&ring->gives_way, memory_order_relaxed))
				look_locked(ring);
	}
	for (struct rp_ring *ring = server->rings; ring; ring = ring->next)
		if (atomic_load_explicit(&ring->gives_way, memory_order_relaxed))
			take_back_locked(ring, 0);
	pthread_mutex_unlock(&server->rings_lock);
	return NULL;
}

void rp_way_ring_init(struct rp_ring *ring)
{
	ring->thread = gettid();
	ring->pause_ms = PAUSE_MS_MIN;
	pthread_getcpuclockid(pthread_self(), &ring->cpu_clock);
}

void rp_way_start(struct rp_server *server)
{
	struct rp_way *way = &server->way;
	pthread_condattr_t clock;

	if (!allowed())
		return;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&way->changed, &clock);
	pthread_condattr_destroy(&clock);
	atomic_store(&way->watched, true);
	way->started = !pthread_create(&way->watcher, NULL, watch, server);
	if (!way->started) {
		atomic_store(&way->watched, false);
		pthread_cond_destroy(&way->changed);
	}
}

void rp_way_stop(struct rp_server *server)
{
	struct rp_way *way = &server->way;

	if (!way->started)
		return;
	pthread_mutex_lock(&server->rings_lock);
	atomic_store(&way->watched, false);
	pthread_cond_signal(&way->changed);
	pthread_mutex_unlock(&server->rings_lock);
	pthread_join(way->watcher, NULL);
	pthread_cond_destroy(&way->changed);
}
