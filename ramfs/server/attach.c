/* attach.c: putting the mount into the tree and taking it out, and the kernel's settings for it.
 *
 * root mounts with mount(2); an ordinary user through fusermount3, which is set-user-ID root and hands the opened
 * device over. libfuse's own mounting is not used: its messages name what it called, not what is wrong, and it has no
 * word for some options.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

#define FUSE_DEVICE "/dev/fuse"
#define URING_PARAMETER "/sys/module/fuse/parameters/enable_uring"
#define FIRST_USER_NAMESPACE 0xeffffffdu /* its number in every kernel (PROC_USER_INIT_INO) */

extern char **environ;

/* ---- Before ------------------------------------------------------------------------------------------------------ */

static int directory_is_empty(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int result = 1;

	if (!dir)
		return -errno;
	while (result == 1 && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			result = 0;
	}
	closedir(dir);
	return result;
}

static int device_check(char message[512])
{
	int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
	int error = errno;

	if (fd >= 0)
		close(fd);
	/* For an ordinary user fusermount3 opens it. */
	if (fd >= 0 || (error == EACCES && geteuid() != 0))
		return 0;
	if (error == ENOENT || error == ENODEV || error == ENXIO)
		snprintf(message, 512, "there is no FUSE device (%s): the kernel's fuse module is not loaded",
		         FUSE_DEVICE);
	else
		snprintf(message, 512, "%s: %s", FUSE_DEVICE, strerror(error));
	return -error;
}

static int path_error(const char *path, int error, char message[512])
{
	const char *why = strerror(-error);

	if (rp_mount_is_dead(-error))
		why = "a FUSE mount whose server is gone; unmount it first (umount -l)";
	snprintf(message, 512, "%s: %s", path, why);
	return error;
}

int rp_mount_check(const struct rp_mount_options *options, char message[512])
{
	const char *path = options->mountpoint;
	struct stat st;
	int empty;

	if (stat(path, &st))
		return path_error(path, -errno, message);
	if (!S_ISDIR(st.st_mode)) {
		snprintf(message, 512, "%s: not a directory", path);
		return -ENOTDIR;
	}
	empty = options->nonempty ? 1 : directory_is_empty(path);
	if (empty < 0)
		return path_error(path, empty, message);
	if (!empty) {
		snprintf(message, 512, "%s: not empty (mount over it with -o nonempty)", path);
		return -ENOTEMPTY;
	}
	if (options->uring == RP_URING_ON && !rp_uring_allowed(options)) {
		snprintf(message, 512, "io_uring=on: the kernel does not offer FUSE over io_uring (%s)",
		         URING_PARAMETER);
		return -EOPNOTSUPP;
	}
	return device_check(message);
}

/* Whether the kernel offers rings; root switches them on where that is all that is missing. */
bool rp_uring_allowed(const struct rp_mount_options *options)
{
	char value = 'N';
	int fd;

	if (options->uring == RP_URING_OFF)
		return false;
	fd = open(URING_PARAMETER, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, &value, 1) != 1)
		value = 'N';
	close(fd);
	if (value == 'Y')
		return true;
	fd = open(URING_PARAMETER, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	value = write(fd, "Y", 1) == 1 ? 'Y' : 'N';
	close(fd);
	return value == 'Y';
}

/* ---- Mounting ---------------------------------------------------------------------------------------------------- */

static const char *source_of(const struct rp_mount_options *options)
{
	return options->source ? options->source : "rampool";
}

/* Where nobody but root may enter, permission checks decide nothing; DESIGN.md, "Who may enter". In a user namespace they
 * do, for files of users that are none there. */
static bool is_unchecked(const struct rp_mount_options *options)
{
	struct stat st;

	return !options->allow_other && !options->default_permissions && getuid() == 0 && geteuid() == 0 &&
	       !stat("/proc/self/ns/user", &st) && st.st_ino == FIRST_USER_NAMESPACE;
}

static int attach_as_root(const struct rp_mount_options *options, bool unchecked, int fd, char message[512])
{
	char *data;
	int error = 0;

	if (asprintf(&data, "fd=%d,rootmode=40000,user_id=%u,group_id=%u%s%s%s%s", fd, getuid(), getgid(),
	             unchecked ? "" : ",default_permissions", options->allow_other ? ",allow_other" : "",
	             options->context ? "," : "", options->context ? options->context : "") < 0) {
		snprintf(message, 512, "no memory");
		return -ENOMEM;
	}
	if (mount(source_of(options), options->mountpoint, "fuse.rampool", options->flags, data)) {
		error = -errno;
		snprintf(message, 512, "%s: cannot be mounted on: %s", options->mountpoint,
		         error == -EPERM ? "no permission to mount here" : strerror(-error));
	}
	free(data);
	return error;
}

static const struct {
	unsigned long flag;
	const char *on, *off;
} flag_names[] = {
	{ MS_RDONLY, "ro", "rw" },           { MS_NOEXEC, "noexec", NULL }, { MS_SYNCHRONOUS, "sync", NULL },
	{ MS_DIRSYNC, "dirsync", NULL },     { MS_NOATIME, "noatime", NULL }, { MS_NODIRATIME, "nodiratime", NULL },
};

/* Options for fusermount3, which takes them from one string with commas escaped. */
static char *user_options(const struct rp_mount_options *options)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		return NULL;
	fputs("nosuid,nodev,default_permissions,subtype=rampool,fsname=", to);
	for (const char *c = source_of(options); *c; c++) {
		if (*c == ',' || *c == '\\')
			fputc('\\', to);
		fputc(*c, to);
	}
	if (options->allow_other)
		fputs(",allow_other", to);
	for (size_t i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++) {
		const char *name = options->flags & flag_names[i].flag ? flag_names[i].on : flag_names[i].off;

		if (name)
			fprintf(to, ",%s", name);
	}
	if (fclose(to)) {
		free(text);
		return NULL;
	}
	return text;
}

static int device_receive(int socket)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
	                          .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *cmsg;
	ssize_t got;
	int fd;

	do
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	cmsg = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
		return -EIO;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/* Start fusermount3 with its standard error into a pipe. */
static int fusermount_spawn(char *const arguments[], int pass, int errors, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int error;

	posix_spawn_file_actions_init(&actions);
	error = errors >= 0 ? posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO) : 0;
	if (!error && pass >= 0)
		error = posix_spawn_file_actions_adddup2(&actions, pass, 3);
	if (!error)
		error = posix_spawnp(pid, "fusermount3", &actions, NULL, arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

static void first_line(int fd, char *to, size_t size)
{
	size_t used = 0;
	ssize_t got;

	while (used + 1 < size && (got = read(fd, to + used, size - 1 - used)) > 0)
		used += (size_t)got;
	to[used] = 0;
	to[strcspn(to, "\n")] = 0;
}

static int attach_as_user(const struct rp_mount_options *options, int *out, char message[512])
{
	char *text = user_options(options);
	char *arguments[] = { (char *)"fusermount3", (char *)"-o", text, (char *)"--", options->mountpoint, NULL };
	int pair[2] = { -1, -1 }, errors[2] = { -1, -1 }, error = text ? 0 : -ENOMEM;
	char line[400];
	pid_t pid;

	if (!error && (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || pipe2(errors, O_CLOEXEC)))
		error = -errno;
	if (!error && setenv("_FUSE_COMMFD", "3", 1))
		error = -errno;
	if (!error && pair[1] == 3)
		error = fcntl(pair[1], F_SETFD, 0) ? -errno : 0;
	if (!error)
		error = fusermount_spawn(arguments, pair[1], errors[1], &pid);
	unsetenv("_FUSE_COMMFD");
	if (pair[1] >= 0)
		close(pair[1]);
	if (errors[1] >= 0)
		close(errors[1]);
	if (error) {
		snprintf(message, 512, "fusermount3: %s",
		         error == -ENOENT ? "not installed (package fuse3)" : strerror(-error));
	} else {
		*out = device_receive(pair[0]);
		first_line(errors[0], line, sizeof(line));
		waitpid(pid, NULL, 0);
		error = *out < 0 ? -EPERM : 0;
		if (error)
			snprintf(message, 512, "%s: %s", options->mountpoint,
			         line[0] ? line : "fusermount3 did not mount");
	}
	if (pair[0] >= 0)
		close(pair[0]);
	if (errors[0] >= 0)
		close(errors[0]);
	free(text);
	return error;
}

int rp_mount_attach(struct rp_server *server, int *out, char message[512])
{
	const struct rp_mount_options *options = server->options;
	int fd, error;

	server->user_mount = geteuid() != 0;
	if (server->user_mount)
		return attach_as_user(options, out, message);
	server->unchecked = is_unchecked(options);
	/* The kernel says what it offers in its first request, which it makes while it mounts: the switch comes before. */
	rp_uring_allowed(options);
	fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return device_check(message) ? -ENODEV : -EIO;
	error = attach_as_root(options, server->unchecked, fd, message);
	if (error)
		close(fd);
	else
		*out = fd;
	return error;
}

int rp_mount_detach(const char *mountpoint, bool lazy)
{
	char *arguments[] = { (char *)"fusermount3", (char *)(lazy ? "-uz" : "-u"), (char *)"-q", (char *)"--",
	                      (char *)mountpoint, NULL };
	int status, error;
	pid_t pid;

	if (!umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
		return 0;
	error = -errno;
	if (error != -EPERM || geteuid() == 0)
		return error;
	error = fusermount_spawn(arguments, -1, -1, &pid);
	if (error)
		return error;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	/* fusermount3 has one code for all failures; the usual one is that files are open. */
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

/* ---- The kernel's settings --------------------------------------------------------------------------------------- */

static void bdi_set(dev_t device, const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major(device), minor(device), name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* A kernel that refuses goes on with what it had: only speed depends on it. */
	if (write(fd, value, strlen(value)) < 0)
		errno = 0;
	close(fd);
}

void rp_mount_tune(dev_t device)
{
	bdi_set(device, "strict_limit", "0");
	bdi_set(device, "max_ratio", "100");
	/* Two requests and more at once: cold sequential reads at 3.2 GiB/s, where one at a time brings 2.65. */
	bdi_set(device, "read_ahead_kb", "2048");
}

int rp_control_fs_open(void)
{
#if defined(SYS_fsopen) && defined(SYS_fsconfig) && defined(SYS_fsmount)
	int fs = (int)syscall(SYS_fsopen, "fusectl", 1 /* FSOPEN_CLOEXEC */);
	int fd = -1;

	if (fs < 0)
		return -1;
	if (syscall(SYS_fsconfig, fs, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) == 0)
		fd = (int)syscall(SYS_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, 0);
	close(fs);
	return fd;
#else
	return -1;
#endif
}

int64_t rp_mount_waiting(const struct rp_server *server)
{
	char path[128], text[32];
	ssize_t got;
	int fd;

	/* A connection is named after its device, as it stands in the kernel: minor and major in one number. */
	snprintf(path, sizeof(path), "%s%u/waiting", server->control_fs >= 0 ? "" : "/sys/fs/fuse/connections/",
	         minor(server->device) | major(server->device) << 20);
	fd = openat(server->control_fs >= 0 ? server->control_fs : AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return -EIO;
	text[got] = 0;
	return strtoll(text, NULL, 10);
}
