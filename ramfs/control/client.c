/* client.c: the other end of the control socket: find it, ask, print the answer. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "internal.h"

/* ---- Where sockets live ------------------------------------------------------------------------------------------ */

static int path_for(uid_t uid, const char *runtime, dev_t device, char to[4096])
{
	char directory[3900];
	int length;

	if (uid == 0)
		length = snprintf(directory, sizeof(directory), "/run/rampool");
	else if (runtime && *runtime == '/')
		length = snprintf(directory, sizeof(directory), "%s/rampool", runtime);
	else
		length = snprintf(directory, sizeof(directory), "/tmp/rampool-%lu", (unsigned long)uid);
	if ((size_t)length >= sizeof(directory))
		return -ENAMETOOLONG;
	snprintf(to, 4096, "%s/%u:%u.sock", directory, major(device), minor(device));
	return 0;
}

int rp_control_path(dev_t device, char to[4096])
{
	return path_for(geteuid(), getenv("XDG_RUNTIME_DIR"), device, to);
}

/* The kernel's line about a mount, malloc'd; NULL: it has none. */
static char *mount_line(dev_t device)
{
	unsigned major_number, minor_number;
	char *line = NULL;
	bool found = false;
	size_t size = 0;
	FILE *file;

	file = fopen("/proc/self/mountinfo", "re");
	if (!file)
		return NULL;
	while (!found && getline(&line, &size, file) > 0)
		found = sscanf(line, "%*u %*u %u:%u", &major_number, &minor_number) == 2 &&
			makedev(major_number, minor_number) == device;
	fclose(file);
	if (!found)
		free(line);
	return found ? line : NULL;
}

/* The user a mount belongs to, from its options. */
static int mount_owner(dev_t device, uid_t *owner)
{
	char *line = mount_line(device), *field = line ? strstr(line, "user_id=") : NULL;
	unsigned long uid;
	int error = -ENOENT;

	if (field && sscanf(field, "user_id=%lu", &uid) == 1) {
		*owner = (uid_t)uid;
		error = 0;
	}
	free(line);
	return error;
}

/* Root may ask any user's mount; a user may try root's (and is refused there with a clear answer). */
static int mount_socket(dev_t device, char to[4096])
{
	char runtime[64];
	uid_t owner = 0;
	int error;

	error = rp_control_path(device, to);
	if (error || !access(to, F_OK) || mount_owner(device, &owner))
		return error;
	snprintf(runtime, sizeof(runtime), "/run/user/%lu", (unsigned long)owner);
	error = path_for(owner, runtime, device, to);
	if (!error && access(to, F_OK))
		error = path_for(owner, NULL, device, to);
	return error;
}

/* The kernel answers from what it knows: a server that hangs does not make its own diagnosis hang. */
int rp_control_find(const char *target, char to[4096], char message[512])
{
	struct statx st;
	int error;

	if (statx(AT_FDCWD, target, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st))
		return rp_message(message, -errno, "%s: %s", target, strerror(errno));
	if (S_ISSOCK(st.stx_mode)) {
		if (strlen(target) >= 4096)
			return rp_message(message, -ENAMETOOLONG, "%.200s...: the name is too long", target);
		strcpy(to, target);
		return 0;
	}
	error = mount_socket(makedev(st.stx_dev_major, st.stx_dev_minor), to);
	if (error)
		return rp_message(message, error, "%s: %s", target, strerror(-error));
	if (access(to, F_OK))
		return rp_message(message, -ENOENT, "%s: not on a rampool mount (%s: %s)", target, to, strerror(errno));
	return 0;
}

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

static int socket_connect(const char *path, char *message)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int fd, link = -1, error = 0;

	if (strlen(path) < sizeof(address.sun_path)) {
		strcpy(address.sun_path, path);
	} else { /* longer than an address: through a descriptor */
		link = open(path, O_PATH | O_CLOEXEC);
		snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", link);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		error = -errno;
	if (link >= 0)
		close(link);
	if (error == -ECONNREFUSED)
		rp_message(message, error, "%s: nobody answers: the program that made it has ended", path);
	else if (error)
		rp_message(message, error, "%s: %s", path, strerror(-error));
	else if (geteuid() != 0 && (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) ||
	                            (peer.uid != geteuid() && peer.uid != 0)))
		error = rp_message(message, -EACCES, "%s: belongs to another user", path);
	if (error && fd >= 0)
		close(fd);
	return error ? error : fd;
}

/* save-as names a file of the caller's: relative to the caller's directory, not to the server's. */
static int word_add(const char *word, bool path, char *line, size_t *used)
{
	char directory[PATH_MAX], *whole;
	int error;

	if (!path || *word == '/')
		return rp_word_encode(word, line, RP_REQUEST_MAX, used);
	if (!getcwd(directory, sizeof(directory)))
		return -errno;
	if (asprintf(&whole, "%s/%s", directory, word) < 0)
		return -ENOMEM;
	error = rp_word_encode(whole, line, RP_REQUEST_MAX, used);
	free(whole);
	return error;
}

static int request_send(int fd, const char *const *words, size_t count, char *message)
{
	char *line = malloc(RP_REQUEST_MAX + 2);
	size_t used = 0, sent = 0, i;
	int error = line && count ? 0 : -EINVAL;
	ssize_t got;

	for (i = 0; !error && i < count; i++) {
		if (i)
			line[used++] = ' ';
		error = word_add(words[i], i == 1 && !strcmp(words[0], "save-as"), line, &used);
		if (used > RP_REQUEST_MAX - 8)
			error = -E2BIG;
	}
	if (error) {
		free(line);
		return rp_message(message, error, "%s", error == -EINVAL ? "an argument is empty" : strerror(-error));
	}
	line[used++] = '\n';
	while (sent < used) {
		got = send(fd, line + sent, used - sent, MSG_NOSIGNAL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break; /* it may have been refused already: the answer says why */
		sent += (size_t)got;
	}
	free(line);
	return 0;
}

/* One line of an answer. Returns 1 when it was the last; *error is the verb's. */
static int answer_line(char *line, FILE *out, struct rp_bar *bar, int *error, char *message)
{
	unsigned long long done, total;
	char *text;
	long number;

	line[strcspn(line, "\n")] = 0;
	if (!strcmp(line, "."))
		return 1;
	if (!strncmp(line, "= ", 2)) {
		if (bar)
			rp_bar_end(bar);
		fprintf(out, "%s\n", line + 2);
	} else if (sscanf(line, "P %llu %llu", &done, &total) == 2) {
		if (bar)
			rp_bar_show(bar, done, total);
	} else if (!strncmp(line, "! ", 2)) {
		number = strtol(line + 2, &text, 10);
		*error = number > 0 && number < 4096 ? -(int)number : -EPROTO;
		rp_message(message, *error, "%s", text + (*text == ' '));
		return 1;
	}
	return 0;
}

static int answer_receive(int fd, FILE *out, bool progress, char *message)
{
	struct rp_bar bar;
	char *line = NULL;
	size_t size = 0;
	int error = 0;
	bool ended = false;
	FILE *from;

	from = fdopen(fd, "r");
	if (!from) {
		close(fd);
		return rp_message(message, -ENOMEM, "no memory");
	}
	rp_bar_start(&bar);
	while (!ended && getline(&line, &size, from) > 0)
		ended = answer_line(line, out, progress ? &bar : NULL, &error, message);
	if (progress)
		rp_bar_end(&bar);
	free(line);
	fclose(from);
	if (!ended)
		return rp_message(message, -ECONNRESET, "the answer broke off");
	if (!error && (fflush(out) || ferror(out)))
		return rp_message(message, -EIO, "the answer cannot be written");
	return error;
}

static int target_connect(const char *target, char *message)
{
	char path[4096];
	int error = rp_control_find(target, path, message);

	return error ? error : socket_connect(path, message);
}

/* A mount of ours whose socket is not there is just starting, or dead. The first request that it answers says which: the
 * socket is made before. */
static int mount_await(const char *target, char *message)
{
	struct statx stx;
	struct statfs fs;
	char *line;
	bool ours;

	if (statx(AT_FDCWD, target, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &stx) || S_ISSOCK(stx.stx_mode))
		return -ENOENT;
	line = mount_line(makedev(stx.stx_dev_major, stx.stx_dev_minor));
	ours = line && strstr(line, " - fuse.rampool ");
	free(line);
	if (!ours)
		return -ENOENT;
	if (!statfs(target, &fs))
		return 0;
	return rp_message(message, -errno, "%s: %s", target, rp_mount_is_dead(errno) ?
	                  "the server of this mount has ended (rampool umount takes the mount away)" : strerror(errno));
}

int rp_control_call(const char *target, const char *const *words, size_t count, FILE *out, bool progress,
                    char message[512])
{
	int fd, error;

	message[0] = 0;
	fd = target_connect(target, message);
	if ((fd == -ENOENT || fd == -ECONNREFUSED) && !mount_await(target, message))
		fd = target_connect(target, message);
	if (fd < 0)
		return fd;
	error = request_send(fd, words, count, message);
	if (error) {
		close(fd);
		return error;
	}
	return answer_receive(fd, out, progress, message);
}
