/* flush.c: bringing the kernel's dirty pages here, before snapshots, saves and answers about holes.
 *
 * Only system calls on the mount make the kernel write back, and a process that serves a mount must not wait for it: so
 * helper processes do it, which the server starts (`rampool flush`) and talks to through a socket. A helper does not
 * inherit the FUSE device (close-on-exec), holds nothing open in the mount between two requests, and ends when the
 * socket does. There are two, so that a long flush of everything does not hold up one of a file.
 *
 * syncfs(2) on a FUSE mount only submits the writes. After it the server waits until what was pending then has been
 * answered: until nothing waits at all on the connection (fusectl's `waiting`), or, under constant load, until as many
 * WRITE requests have been answered as were pending, in each queue; queues are first in, first out. Then until the
 * WRITE handlers that were running have ended.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "ramfs/server/flush.h"
#include "ramfs/server/internal.h"

/* The kernel gives a helper up to this long; what takes longer than that counts as not done. */
#define ANSWER_MS (300 * 1000)
/* No WRITE arrives for this long although some are pending: the kernel does not deliver. */
#define STUCK_MS 30000
/* A queue without work for this long has none pending. */
#define IDLE_MS 50
/* Without fusectl under constant load: as long as the wait may be. */
#define BLIND_MS 10000

enum { FOR_FILES, FOR_ALL, HELPERS };

struct helper {
	pthread_mutex_t lock; /* guards all below; held for a request and its answer: never taken by a request thread */
	int fd;                   /* -1: not running */
	pid_t pid;
	uint32_t sequence;
};

struct rp_flusher {
	struct helper helpers[HELPERS];
};

extern char **environ;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int helper_spawn(struct rp_server *server, int fd, pid_t *pid)
{
	char *arguments[] = { (char *)"rampool", (char *)"flush", server->options->mountpoint, server->oom_score_adj, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int error;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	/* Its own process group: a Ctrl-C on the terminal is the server's to handle, which then needs the helper. */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	error = -posix_spawn_file_actions_adddup2(&actions, fd, RP_FLUSH_FD);
	if (!error)
		error = -posix_spawn(pid, "/proc/self/exe", &actions, &attr, arguments, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

static int helper_start(struct rp_server *server, struct helper *helper)
{
	int pair[2], error;

	if (helper->fd >= 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	/* dup2 onto itself would keep close-on-exec. */
	if (pair[1] == RP_FLUSH_FD) {
		int other = fcntl(pair[1], F_DUPFD_CLOEXEC, RP_FLUSH_FD + 1);

		close(pair[1]);
		pair[1] = other;
	}
	error = pair[1] < 0 ? -EMFILE : helper_spawn(server, pair[1], &helper->pid);
	if (pair[1] >= 0)
		close(pair[1]);
	if (error)
		close(pair[0]);
	else
		helper->fd = pair[0];
	return error;
}

static void helper_stop(struct helper *helper)
{
	if (helper->fd < 0)
		return;
	close(helper->fd);
	helper->fd = -1;
	/* One that hangs in a system call on the mount ends with the mount; it is not ours to wait for. */
	for (int i = 0; i < 100; i++) {
		if (waitpid(helper->pid, NULL, WNOHANG) != 0)
			return;
		usleep(10000);
	}
	kill(helper->pid, SIGKILL);
	waitpid(helper->pid, NULL, WNOHANG);
}

static int answer_wait(struct helper *helper, uint32_t sequence)
{
	int64_t end = now_ms() + ANSWER_MS;
	struct rp_flush_answer answer;

	for (;;) {
		struct pollfd p = { .fd = helper->fd, .events = POLLIN };
		int64_t left = end - now_ms();
		ssize_t got;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return -errno;
		if (!p.revents)
			continue;
		got = recv(helper->fd, &answer, sizeof(answer), MSG_DONTWAIT);
		if (got == (ssize_t)sizeof(answer) && answer.sequence == sequence)
			return answer.error;
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
			helper_stop(helper);
			return -EPIPE;
		}
		/* An answer that came too late for whoever asked. */
	}
}

static int helper_ask(struct rp_server *server, struct helper *helper, struct rp_flush_ask ask)
{
	int error;

	pthread_mutex_lock(&helper->lock);
	error = helper_start(server, helper);
	if (!error) {
		ask.sequence = ++helper->sequence;
		ask.device = server->device;
		if (send(helper->fd, &ask, sizeof(ask), MSG_NOSIGNAL) != (ssize_t)sizeof(ask)) {
			error = -errno;
			helper_stop(helper);
		} else {
			error = answer_wait(helper, ask.sequence);
		}
	}
	pthread_mutex_unlock(&helper->lock);
	return error;
}

int rp_flusher_start(struct rp_server *server)
{
	struct rp_flusher *flusher = calloc(1, sizeof(*flusher));
	int error = 0;

	if (!flusher)
		return -ENOMEM;
	for (int i = 0; i < HELPERS; i++) {
		pthread_mutex_init(&flusher->helpers[i].lock, NULL);
		flusher->helpers[i].fd = -1;
		/* Started now, while a process can surely be started. */
		if (!error)
			error = helper_start(server, &flusher->helpers[i]);
	}
	server->flusher = flusher;
	return error;
}

void rp_flusher_stop(struct rp_server *server)
{
	if (!server->flusher)
		return;
	for (int i = 0; i < HELPERS; i++) {
		helper_stop(&server->flusher->helpers[i]);
		pthread_mutex_destroy(&server->flusher->helpers[i].lock);
	}
	free(server->flusher);
	server->flusher = NULL;
}

/* ---- Waiting until the writes have arrived ----------------------------------------------------------------------- */

/* A WRITE counts in one of two phases; who waits changes the phase and waits for the old one to run empty. */
void rp_write_begin(struct rp_server *server, unsigned *phase)
{
	for (;;) {
		*phase = atomic_load(&server->write_phase);
		atomic_fetch_add(&server->writes_running[*phase], 1);
		if (atomic_load(&server->write_phase) == *phase)
			return;
		atomic_fetch_sub(&server->writes_running[*phase], 1);
	}
}

void rp_write_end(struct rp_server *server, unsigned phase, struct rp_ring *ring)
{
	atomic_fetch_add_explicit(&ring->writes, 1, memory_order_relaxed);
	atomic_fetch_sub(&server->writes_running[phase], 1);
}

static void wait_for_running(struct rp_server *server)
{
	unsigned phase = atomic_load(&server->write_phase);

	atomic_store(&server->write_phase, phase ^ 1);
	while (atomic_load(&server->writes_running[phase]) > 0)
		usleep(100);
}

/* What a ring had done, and when that was last seen to change. */
struct mark {
	struct rp_ring *ring;
	uint64_t writes_first, awake_last;
	int64_t changed_ms;
};

struct arrival {
	struct rp_server *server;
	struct mark marks[1024];  /* rings beyond these (CPUs) are covered by `waiting` alone */
	size_t count;
	bool too_many;
};

static void arrival_begin(struct arrival *a, struct rp_server *server)
{
	a->server = server;
	a->count = 0;
	a->too_many = false;
	pthread_mutex_lock(&server->rings_lock);
	for (struct rp_ring *r = server->rings ? server->rings : &server->classic; r; r = r->next) {
		if (a->count == sizeof(a->marks) / sizeof(a->marks[0])) {
			a->too_many = true;
			break;
		}
		a->marks[a->count++] = (struct mark){ .ring = r, .writes_first = atomic_load(&r->writes),
		                                      .awake_last = atomic_load(&r->awake), .changed_ms = now_ms() };
	}
	pthread_mutex_unlock(&server->rings_lock);
}

/* Has every queue answered `pending` writes since, or run out of work? */
static bool arrival_passed(struct arrival *a, uint64_t pending, int64_t now)
{
	bool passed = !a->too_many;

	for (size_t i = 0; i < a->count; i++) {
		struct mark *mark = &a->marks[i];
		uint64_t awake = atomic_load(&mark->ring->awake);

		if (awake != mark->awake_last) {
			mark->awake_last = awake;
			mark->changed_ms = now;
		}
		if (atomic_load(&mark->ring->writes) - mark->writes_first >= pending)
			continue;
		if (!mark->ring->uring || now - mark->changed_ms < IDLE_MS)
			passed = false;
	}
	return passed;
}

static uint64_t arrival_writes(const struct arrival *a)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < a->count; i++)
		sum += atomic_load(&a->marks[i].ring->writes);
	return sum;
}

/* Requests pending on the connection, without those that wait for us here. */
static int64_t pending_now(struct rp_server *server)
{
	int64_t waiting = rp_mount_waiting(server);

	if (waiting < 0)
		return waiting;
	pthread_mutex_lock(&server->rings_lock);
	for (struct rp_ring *r = server->rings; r; r = r->next)
		waiting -= atomic_load(&r->later);
	pthread_mutex_unlock(&server->rings_lock);
	waiting -= atomic_load(&server->classic.later);
	return waiting < 0 ? 0 : waiting;
}

static int arrival_wait(struct arrival *a)
{
	int64_t start = now_ms(), moved = start;
	int64_t pending = pending_now(a->server), left = pending;
	uint64_t writes = arrival_writes(a);

	while (left != 0) {
		int64_t now;
		uint64_t sum;

		usleep(500);
		now = now_ms();
		sum = arrival_writes(a);
		if (sum != writes) {
			writes = sum;
			moved = now;
		}
		left = pending_now(a->server);
		if (pending >= 0 && arrival_passed(a, (uint64_t)pending, now))
			break;
		/* fusectl cannot be read: idle is all that can be seen. */
		if (left < 0 && (now - moved >= IDLE_MS || now - start >= BLIND_MS))
			break;
		if (now - moved >= STUCK_MS)
			return -ETIMEDOUT;
	}
	return 0;
}

static int flush_and_wait(struct rp_server *server, uint32_t what)
{
	struct arrival *a;
	int error;

	if (!atomic_load(&server->is_ready))
		return 0;
	a = malloc(sizeof(*a));
	if (!a)
		return -ENOMEM;
	pthread_mutex_lock(&server->flush_lock);
	error = helper_ask(server, &server->flusher->helpers[FOR_ALL], (struct rp_flush_ask){ .what = what });
	if (!error) {
		arrival_begin(a, server);
		error = arrival_wait(a);
	}
	if (!error)
		wait_for_running(server);
	pthread_mutex_unlock(&server->flush_lock);
	free(a);
	return error;
}

int rp_flush_all(struct rp_server *server)
{
	return flush_and_wait(server, RP_FLUSH_ALL);
}

int rp_flush_detach(struct rp_server *server)
{
	return flush_and_wait(server, RP_FLUSH_DETACH);
}

int rp_flush_file(struct rp_server *server, fuse_ino_t number, uint64_t generation)
{
	struct rp_flush_ask ask = { .what = RP_FLUSH_FILE, .number = number, .generation = (uint32_t)generation };
	int error;

	/* Somebody may look for holes before the mount is quite ready. */
	while (!atomic_load(&server->is_ready) && !fuse_session_exited(server->session))
		usleep(1000);
	if (!atomic_load(&server->is_ready))
		return -ENOTCONN;
	error = helper_ask(server, &server->flusher->helpers[FOR_FILES], ask);
	/* Only the superuser may open a file by its number. */
	return error == -EPERM ? rp_flush_all(server) : error;
}
