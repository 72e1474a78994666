/* socket.c: the control socket.
 *
 * One thread accepts; each connection has a thread of its own, for one request. At most CONNECTIONS_MAX at a time; a
 * request must arrive within RECEIVE_MS, and an answer that is not taken for SEND_SECONDS ends the connection: so a
 * slow or silent client costs one thread for a known time, and nothing else. Threads are joined, never detached: the
 * program may be a plugin whose code is unmapped after the stop.
 *
 * Locks: `lock` guards the list and the flags in it; held for a few instructions.
 */
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "internal.h"

#define CONNECTIONS_MAX 32
#define RECEIVE_MS 10000
#define SEND_SECONDS 10
#define WORDS_MAX 16

struct connection {
	struct rp_control *control;
	struct connection *next;
	pthread_t thread;
	int fd;
	bool in_verb; /* waited for; otherwise a stop cuts it off */
	bool done;    /* the thread is about to end: join it */
};

struct rp_control {
	/* set once */
	struct rp_keep *keep;
	char *path;
	int listener, stop_event;
	dev_t device; /* of the socket's name, so that no other's is removed */
	ino_t inode;
	pthread_t thread; /* when serving */
	bool serving;
	bool replace; /* the name is ours whoever has it: the directory is private, and its lock guards the name */
	/* guarded by lock */
	pthread_mutex_t lock;
	struct connection *first;
	unsigned count;
	bool stopping;
};

/* ---- One connection ---------------------------------------------------------------------------------------------- */

static bool peer_allowed(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) && (peer.uid == geteuid() || peer.uid == 0);
}

/* A whole line without its newline, malloc'd, before the time is over. */
static int line_receive(int fd, char **out)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	uint64_t end_ns = rp_clock_ns() + RECEIVE_MS * UINT64_C(1000000), now;
	char *line = malloc(RP_REQUEST_MAX + 1), *newline = NULL;
	size_t used = 0;
	int error = -ENOMEM;
	ssize_t got;

	while (line && !newline) {
		now = rp_clock_ns();
		error = -ETIMEDOUT;
		if (now >= end_ns || poll(&poll_fd, 1, (int)((end_ns - now) / 1000000u) + 1) == 0)
			break;
		got = recv(fd, line + used, RP_REQUEST_MAX - used, MSG_DONTWAIT);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		error = got < 0 ? -errno : -ECONNRESET;
		if (got <= 0)
			break;
		newline = memchr(line + used, '\n', (size_t)got);
		used += (size_t)got;
		error = -E2BIG;
		if (!newline && used == RP_REQUEST_MAX)
			break;
	}
	if (newline && memchr(line, 0, (size_t)(newline - line))) {
		newline = NULL;
		error = -EINVAL;
	}
	if (!newline) {
		free(line);
		return error;
	}
	*newline = 0;
	*out = line;
	return 0;
}

/* false: the server is stopping. */
static bool verb_begins(struct connection *connection)
{
	struct rp_control *control = connection->control;

	pthread_mutex_lock(&control->lock);
	connection->in_verb = !control->stopping;
	pthread_mutex_unlock(&control->lock);
	return connection->in_verb;
}

static void request_serve(struct connection *connection, struct rp_reply *reply)
{
	char message[RP_MESSAGE_SIZE] = "", *line = NULL, *words[WORDS_MAX];
	int error, count;

	error = line_receive(connection->fd, &line);
	if (error) {
		rp_message(message, error, "no request: %s", strerror(-error));
	} else if (!verb_begins(connection)) {
		error = rp_message(message, -ESHUTDOWN, "it is stopping");
	} else {
		count = rp_words_split(line, words, WORDS_MAX);
		if (count < 0)
			error = rp_message(message, count, "not a request");
		else
			error = rp_verb_run(connection->control->keep, words, (size_t)count, reply, message);
	}
	if (error && !message[0])
		rp_message(message, error, "%s", strerror(-error));
	rp_reply_end(reply, error, message);
	free(line);
}

static void *connection_run(void *context)
{
	struct connection *connection = context;
	struct rp_control *control = connection->control;
	struct timeval limit = { .tv_sec = SEND_SECONDS };
	struct rp_reply reply = { .fd = connection->fd };

	setsockopt(connection->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (peer_allowed(connection->fd))
		request_serve(connection, &reply);
	else
		rp_reply_end(&reply, -EACCES, "only root and the user it runs as may ask");
	pthread_mutex_lock(&control->lock);
	close(connection->fd); /* under the lock: a stop must not cut off whoever got the number next */
	connection->fd = -1;
	connection->done = true;
	pthread_mutex_unlock(&control->lock);
	return NULL;
}

/* ---- Accepting --------------------------------------------------------------------------------------------------- */

/* Join the threads that ended; all of them when `wait`. */
static void connections_reap(struct rp_control *control, bool wait)
{
	struct connection **at, *connection, *ended = NULL;

	pthread_mutex_lock(&control->lock);
	for (at = &control->first; (connection = *at);) {
		if (!connection->done && !wait) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		connection->next = ended;
		ended = connection;
		control->count--;
	}
	pthread_mutex_unlock(&control->lock);
	while ((connection = ended)) {
		ended = connection->next;
		pthread_join(connection->thread, NULL);
		free(connection);
	}
}

static void refuse(int fd, const char *line)
{
	ssize_t sent = send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)sent; /* a client that does not listen needs no answer */
	close(fd);
}

static void connection_start(struct rp_control *control, int fd)
{
	struct connection *connection;
	int error;

	connections_reap(control, false);
	if (control->count >= CONNECTIONS_MAX) { /* only this thread adds */
		refuse(fd, "! 11 too many connections\n");
		return;
	}
	connection = calloc(1, sizeof(*connection));
	if (!connection) {
		refuse(fd, "! 12 no memory\n");
		return;
	}
	connection->control = control;
	connection->fd = fd;
	pthread_mutex_lock(&control->lock);
	error = control->stopping ? -ESHUTDOWN : rp_thread_start(&connection->thread, NULL, connection_run, connection);
	if (!error) {
		connection->next = control->first;
		control->first = connection;
		control->count++;
	}
	pthread_mutex_unlock(&control->lock);
	if (error) {
		free(connection);
		refuse(fd, "! 11 no thread for this connection\n");
	}
}

static void *accept_run(void *context)
{
	struct rp_control *control = context;
	struct pollfd fds[2] = {
		{ .fd = control->stop_event, .events = POLLIN },
		{ .fd = control->listener, .events = POLLIN },
	};
	int fd;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents)
			return NULL;
		fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			connection_start(control, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			poll(fds, 1, 100); /* nothing to take it with: not at full speed */
	}
}

/* ---- The socket's name ------------------------------------------------------------------------------------------- */

/* The directory is made when it is missing. One that a stranger owns or anyone may change is refused: whoever can put
 * another socket in our place could answer for us. */
static int directory_open(const char *path, bool lock, char *message)
{
	char directory[4096];
	const char *slash = strrchr(path, '/');
	struct stat st;
	int fd, error;

	if (!slash)
		strcpy(directory, ".");
	else if ((size_t)(slash - path) >= sizeof(directory))
		return rp_message(message, -ENAMETOOLONG, "control socket: the name is too long");
	else
		snprintf(directory, sizeof(directory), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (mkdir(directory, 0700) && errno != EEXIST)
		return rp_message(message, -errno, "%s: %s", directory, strerror(errno));
	fd = open(directory, (lock ? O_RDONLY : O_PATH) | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		error = rp_message(message, -errno, "%s: %s", directory, strerror(errno));
		if (fd >= 0)
			close(fd);
		return error;
	}
	if ((st.st_uid != geteuid() && st.st_uid != 0) || ((st.st_mode & 022) && !(st.st_mode & S_ISVTX))) {
		close(fd);
		return rp_message(message, -EPERM,
		                  "%s: others may change this directory: no place for a control socket", directory);
	}
	if (lock)
		flock(fd, LOCK_EX);
	return fd;
}

/* A name of any length fits through the directory's descriptor. */
static int address_make(int directory, const char *path, struct sockaddr_un *address)
{
	const char *name = strrchr(path, '/');
	int length;

	name = name ? name + 1 : path;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) < sizeof(address->sun_path)) {
		strcpy(address->sun_path, path);
		return 0;
	}
	length = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", directory, name);
	return (size_t)length < sizeof(address->sun_path) ? 0 : -ENAMETOOLONG;
}

/* Remove what a server that is gone left behind, or one that still answers when `replace`; nothing else. */
static int stale_remove(const struct sockaddr_un *address, const char *path, bool replace, char *message)
{
	struct stat st;
	int fd, error;

	if (lstat(address->sun_path, &st))
		return errno == ENOENT ? 0 : rp_message(message, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return rp_message(message, -EEXIST, "%s: exists and is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return rp_message(message, -errno, "control socket: %s", strerror(errno));
	error = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	if (error != ECONNREFUSED && !replace)
		return rp_message(message, -EADDRINUSE, "%s: another program answers there", path);
	if (unlink(address->sun_path) && errno != ENOENT)
		return rp_message(message, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

/* fchmod() before bind() decides the name's permissions, without a moment in which it has others. */
static int listener_bind(struct rp_control *control, const struct sockaddr_un *address, char *message)
{
	struct stat st;
	int fd, error;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return rp_message(message, -errno, "control socket: %s", strerror(errno));
	if (fchmod(fd, 0600) || bind(fd, (const struct sockaddr *)address, sizeof(*address)) ||
	    listen(fd, CONNECTIONS_MAX) || lstat(address->sun_path, &st)) {
		error = rp_message(message, -errno, "%s: %s", control->path, strerror(errno));
		close(fd);
		return error;
	}
	control->listener = fd;
	control->device = st.st_dev;
	control->inode = st.st_ino;
	return 0;
}

static int listener_open(struct rp_control *control, char *message)
{
	struct sockaddr_un address;
	int directory, error;

	directory = directory_open(control->path, control->replace, message);
	if (directory < 0)
		return directory;
	error = address_make(directory, control->path, &address);
	if (error)
		rp_message(message, error, "control socket: the name is too long");
	if (!error)
		error = stale_remove(&address, control->path, control->replace, message);
	if (!error)
		error = listener_bind(control, &address, message);
	close(directory);
	return error;
}

/* ---- Start and stop ---------------------------------------------------------------------------------------------- */

static void name_remove(struct rp_control *control)
{
	char ignored[RP_MESSAGE_SIZE];
	int directory = control->replace ? directory_open(control->path, true, ignored) : -1;
	struct stat st;

	if (!lstat(control->path, &st) && st.st_dev == control->device && st.st_ino == control->inode)
		unlink(control->path);
	if (directory >= 0)
		close(directory);
}

static void control_free(struct rp_control *control)
{
	if (control->listener >= 0) {
		name_remove(control);
		close(control->listener);
	}
	if (control->stop_event >= 0)
		close(control->stop_event);
	pthread_mutex_destroy(&control->lock);
	free(control->path);
	free(control);
}

/* The program may change its directory: the name is kept absolute. */
static char *path_absolute(const char *path)
{
	char *directory, *whole = NULL;

	if (*path == '/')
		return strdup(path);
	directory = getcwd(NULL, 0);
	if (directory && asprintf(&whole, "%s/%s", directory, path) < 0)
		whole = NULL;
	free(directory);
	return whole;
}

int rp_control_open(struct rp_keep *keep, const char *path, bool replace, struct rp_control **out, char message[512])
{
	struct rp_control *control = calloc(1, sizeof(*control));
	int error;

	if (!control)
		return rp_message(message, -ENOMEM, "no memory");
	control->keep = keep;
	control->replace = replace;
	control->listener = -1;
	pthread_mutex_init(&control->lock, NULL);
	control->path = path_absolute(path);
	control->stop_event = eventfd(0, EFD_CLOEXEC);
	if (!control->path || control->stop_event < 0)
		error = rp_message(message, -ENOMEM, "control socket: %s", strerror(errno));
	else
		error = listener_open(control, message);
	if (error) {
		control_free(control);
		return error;
	}
	rp_failure_forget(control->path);
	*out = control;
	return 0;
}

int rp_control_serve(struct rp_control *control, char message[512])
{
	int error = rp_thread_start(&control->thread, NULL, accept_run, control);

	if (error)
		return rp_message(message, error, "control socket: no thread: %s", strerror(-error));
	control->serving = true;
	return 0;
}

void rp_control_stop(struct rp_control *control)
{
	struct connection *connection;

	pthread_mutex_lock(&control->lock);
	control->stopping = true;
	for (connection = control->first; connection; connection = connection->next)
		if (connection->fd >= 0 && !connection->in_verb)
			shutdown(connection->fd, SHUT_RD);
	pthread_mutex_unlock(&control->lock);
	eventfd_write(control->stop_event, 1);
	if (control->serving)
		pthread_join(control->thread, NULL);
	connections_reap(control, true);
	control_free(control);
}
