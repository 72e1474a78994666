/* umount.c: `rampool umount` and `rampool stop`: unmount, or ask nbdkit to end; then wait until the server has ended,
 * because only then the last save is durable.
 *
 * The server is no child of this process: its end is seen through a pidfd, and that its save failed through the word it
 * leaves beside its control socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/server/server.h"

/* Ask the server who it is; `key` begins the line that tells. */
static int server_find(const char *mountpoint, const char *key, pid_t *pid, char message[512])
{
	const char *words[] = { "status" };
	char *text = NULL, *at;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int error;

	if (!out) {
		snprintf(message, 512, "no memory");
		return -ENOMEM;
	}
	error = rp_control_call(mountpoint, words, 1, out, false, message);
	fclose(out);
	at = error ? NULL : strstr(text, key);
	*pid = at ? (pid_t)strtol(at + strlen(key), NULL, 10) : 0;
	free(text);
	if (!error && *pid <= 0) {
		snprintf(message, 512, "%s: not a mount of rampool", mountpoint);
		error = -EINVAL;
	}
	return error;
}

/* Print the word a failed save left; true: there is one. */
static bool save_failed(const char *socket, pid_t pid)
{
	char line[512];

	if (!rp_failure_take(socket, pid, line))
		return false;
	rp_fail(RP_EXIT_FAILED, "%s", line);
	return true;
}

static void server_wait(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	bool told = !isatty(STDERR_FILENO);
	int got;

	do {
		got = poll(&p, 1, told ? -1 : 2000);
		if (!got) {
			fputs("rampool: waiting until everything is saved\n", stderr);
			told = true;
		}
	} while (!got || (got < 0 && errno == EINTR));
}

/* The server was killed: what is left is a mount point that answers nothing. It goes, and so does the socket. */
static int unmount_dead(const char *mountpoint, dev_t device)
{
	char path[4096];
	int error = rp_mount_detach(mountpoint, true);

	if (error)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", mountpoint, strerror(-error));
	if (!rp_control_path(device, path))
		unlink(path);
	return rp_fail(RP_EXIT_FAILED, "%s: unmounted; its server had ended before, and what it had not saved is lost", mountpoint);
}

static bool is_dead(const char *mountpoint)
{
	struct statfs st;

	return statfs(mountpoint, &st) != 0 && rp_mount_is_dead(errno);
}

static int unmount(const char *mountpoint, bool lazy)
{
	char message[512], path[4096];
	struct statx stx;
	int pidfd, error;
	pid_t pid;
	dev_t device;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &stx))
		return rp_fail(RP_EXIT_FAILED, "%s: %s", mountpoint, strerror(errno));
	if (!(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return rp_fail(RP_EXIT_FAILED, "%s: not a mount point", mountpoint);
	device = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	if (is_dead(mountpoint))
		return unmount_dead(mountpoint, device);
	if (server_find(mountpoint, "server process: ", &pid, message) || rp_control_find(mountpoint, path, message))
		return rp_fail(RP_EXIT_FAILED, "%s", message);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return rp_fail(RP_EXIT_FAILED, "server process %d: %s", (int)pid, strerror(errno));
	error = rp_mount_detach(mountpoint, lazy);
	if (error) {
		close(pidfd);
		return rp_fail(RP_EXIT_FAILED, "%s: %s", mountpoint, error == -EBUSY ?
		               "busy: files are open there (fuser -vm names who has them)" : strerror(-error));
	}
	server_wait(pidfd);
	close(pidfd);
	return save_failed(path, pid) ? RP_EXIT_FAILED : RP_EXIT_OK;
}

/* nbdkit leaves its socket behind; it lies beside the control socket that `serve` names. */
static void socket_remove(const char *control)
{
	static const char suffix[] = ".control";
	size_t length = strlen(control);
	struct stat st;
	char path[4096];

	if (length <= strlen(suffix) || length >= sizeof(path) || strcmp(control + length - strlen(suffix), suffix) != 0)
		return;
	memcpy(path, control, length - strlen(suffix));
	strcpy(path + length - strlen(suffix), ".nbd");
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
}

static int stop(const char *target)
{
	const char *words[] = { "stop" };
	int pidfd, status = RP_EXIT_OK;
	char message[512];
	FILE *nowhere;
	pid_t pid;

	if (server_find(target, "\nprocess: ", &pid, message))
		return rp_fail(RP_EXIT_FAILED, "%s", message);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return rp_fail(RP_EXIT_FAILED, "server process %d: %s", (int)pid, strerror(errno));
	nowhere = fopen("/dev/null", "we");
	if (rp_control_call(target, words, 1, nowhere ? nowhere : stdout, false, message))
		status = rp_fail(RP_EXIT_FAILED, "%s", message);
	if (nowhere)
		fclose(nowhere);
	if (status == RP_EXIT_OK) {
		server_wait(pidfd);
		socket_remove(target);
		status = save_failed(target, pid) ? RP_EXIT_FAILED : RP_EXIT_OK;
	}
	close(pidfd);
	return status;
}

int rp_command_stop(int count, char **arguments)
{
	struct stat st;

	if (count != 2)
		return rp_fail(RP_EXIT_USAGE, "stop: one control socket, please");
	/* A mount ends by unmounting, which also tells whether its last save worked. */
	if (stat(arguments[1], &st) || !S_ISSOCK(st.st_mode))
		return rp_fail(RP_EXIT_USAGE, "stop: %s: not a control socket (rampool umount ends a mount)", arguments[1]);
	return stop(arguments[1]);
}

int rp_command_umount(int count, char **arguments)
{
	bool lazy = false;
	char *mountpoint;
	int letter, status;

	optind = 1;
	opterr = 0;
	while ((letter = getopt(count, arguments, "l")) != -1) {
		if (letter != 'l')
			return rp_fail(RP_EXIT_USAGE, "-%c: unknown option (rampool umount --help)", optopt);
		lazy = true;
	}
	if (optind + 1 != count)
		return rp_fail(RP_EXIT_USAGE, "umount: one mount point, please");
	mountpoint = realpath(arguments[optind], NULL);
	if (!mountpoint)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", arguments[optind], strerror(errno));
	status = unmount(mountpoint, lazy);
	free(mountpoint);
	return status;
}
