/* mount.c: `rampool mount`: checks what can be checked, then serves: in the foreground, or in a process of its own,
 * while this one waits until the mount answers or says why it does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/command/options.h"

/* The server's side of the fork: no terminal, no directory kept busy, nothing of what the caller had open (a lock, the end
 * of a pipe). Standard error stays until the mount is ready. */
static int serve_detached(struct rp_mount_options *options, int ready)
{
	int null;

	setsid();
	if (ready != 3 && dup3(ready, 3, O_CLOEXEC) == 3)
		ready = 3;
	if (ready == 3)
		close_range(4, UINT_MAX, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || chdir("/")) {
		dprintf(ready, "E%s\n", strerror(errno));
		return RP_EXIT_FAILED;
	}
	close(null);
	return rp_server_run(options, ready);
}

/* What the server says through the pipe: "R", or "E" and a line; nothing: it died. */
static int wait_ready(int fd, pid_t pid)
{
	char text[1024];
	size_t used = 0;
	ssize_t got;
	int status;

	while (used < sizeof(text) - 1 && (got = read(fd, text + used, sizeof(text) - 1 - used)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break;
		used += (size_t)got;
		if (text[0] == 'R')
			return RP_EXIT_OK;
	}
	text[used] = 0;
	text[strcspn(text, "\n")] = 0;
	if (text[0] == 'E') {
		waitpid(pid, &status, 0);
		return rp_fail(RP_EXIT_FAILED, "%s", text + 1);
	}
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		return rp_fail(RP_EXIT_FAILED, "the server was killed by signal %d", WTERMSIG(status));
	return rp_fail(RP_EXIT_FAILED, "the server ended without a word");
}

static int start_detached(struct rp_mount_options *options)
{
	int ends[2], status;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return rp_fail(RP_EXIT_FAILED, "%s", strerror(errno));
	pid = fork();
	if (pid < 0)
		return rp_fail(RP_EXIT_FAILED, "no process can be started: %s", strerror(errno));
	if (!pid) {
		close(ends[0]);
		_exit(serve_detached(options, ends[1]));
	}
	close(ends[1]);
	status = wait_ready(ends[0], pid);
	close(ends[0]);
	return status;
}

/* Standard descriptors that are closed would be taken by the files opened next. */
static int descriptors_open(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* Would the mount cover the image, or the place where it is to be made? Then it could not be found again to be saved to. */
static bool image_is_covered(const char *image, const char *mountpoint)
{
	char directory[4096], resolved[4096];
	const char *slash = strrchr(image, '/');
	size_t length = strlen(mountpoint);

	if (!realpath(image, resolved)) {
		snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - image) + 1 : 1, slash ? image : ".");
		if (!realpath(directory, resolved))
			return false; /* refused with a better reason when it is opened */
	}
	return !strncmp(resolved, mountpoint, length) && (!resolved[length] || resolved[length] == '/');
}

static int run(struct rp_mount_options *options, const char *mountpoint)
{
	char message[512];
	int error;

	/* The server changes its directory: whoever names a file means it from here. */
	options->mountpoint = realpath(mountpoint, NULL);
	if (!options->mountpoint)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", mountpoint, rp_mount_is_dead(errno) ?
		               "a FUSE mount whose server is gone; unmount it first (umount -l)" : strerror(errno));
	if (options->keep.image && image_is_covered(options->keep.image, options->mountpoint))
		return rp_fail(RP_EXIT_FAILED, "%s: an image cannot be inside the mount that it saves", options->keep.image);
	error = descriptors_open();
	if (error)
		return rp_fail(RP_EXIT_FAILED, "%s", strerror(-error));
	if (rp_mount_check(options, message) || rp_keep_check(&options->keep, message))
		return rp_fail(RP_EXIT_FAILED, "%s", message);
	return options->foreground ? rp_server_run(options, -1) : start_detached(options);
}

static void defaults(struct rp_mount_options *options)
{
	memset(options, 0, sizeof(*options));
	options->allow_other = geteuid() == 0;
}

int rp_command_mount(int count, char **arguments)
{
	struct rp_mount_options options;
	char message[512];
	int letter, status = RP_EXIT_OK;

	defaults(&options);
	optind = 1;
	opterr = 0;
	while (status == RP_EXIT_OK && (letter = getopt(count, arguments, "fo:d:")) != -1) {
		if (letter == 'f')
			options.foreground = true;
		else if (letter == 'o' && rp_mount_options_take(&options, optarg, message))
			status = rp_fail(RP_EXIT_USAGE, "%s", message);
		else if (letter == 'd' && rp_keep_option(&options.keep, "directory", optarg, message) != 1)
			status = rp_fail(RP_EXIT_USAGE, "%s", message);
		else if (letter == '?')
			status = rp_fail(RP_EXIT_USAGE, "-%c: %s", optopt, optopt == 'o' || optopt == 'd' ?
			                 "a value is missing" : "unknown option (rampool mount --help)");
	}
	if (status == RP_EXIT_OK && optind + 1 != count)
		status = rp_fail(RP_EXIT_USAGE, "mount: %s",
		                 optind < count ? "one mount point, please" : "the mount point is missing");
	if (status == RP_EXIT_OK)
		status = run(&options, arguments[optind]);
	rp_mount_options_free(&options);
	return status;
}

int rp_command_mount_helper(int count, char **arguments)
{
	struct rp_mount_options options;
	char message[512];
	int letter, status = RP_EXIT_OK;

	defaults(&options);
	opterr = 0;
	while (status == RP_EXIT_OK && (letter = getopt(count, arguments, "sfnvwro:N:t:")) != -1) {
		if (letter == 'o' && rp_mount_options_take(&options, optarg, message))
			status = rp_fail(RP_EXIT_USAGE, "%s", message);
		else if (letter == 'r' && rp_mount_options_take(&options, "ro", message))
			status = rp_fail(RP_EXIT_USAGE, "%s", message);
		else if (letter == 'f')
			return RP_EXIT_OK; /* mount(8): all but the system call */
		else if (letter == '?')
			status = rp_fail(RP_EXIT_USAGE, "-%c: unknown option", optopt);
	}
	if (status == RP_EXIT_OK && optind + 2 != count)
		status = rp_fail(RP_EXIT_USAGE, "usage: %s SOURCE MOUNTPOINT [-o OPTIONS]", arguments[0]);
	/* A source with a slash is an image; any other is a name to show. */
	if (status == RP_EXIT_OK && strchr(arguments[optind], '/') && !options.keep.image &&
	    rp_keep_option(&options.keep, "image", arguments[optind], message) != 1)
		status = rp_fail(RP_EXIT_USAGE, "%s", message);
	if (status == RP_EXIT_OK && !options.source)
		options.source = strdup(arguments[optind]);
	if (status == RP_EXIT_OK)
		status = run(&options, arguments[optind + 1]);
	rp_mount_options_free(&options);
	return status;
}

int rp_command_flush(int count, char **arguments)
{
	if (count != 3)
		return rp_fail(RP_EXIT_USAGE, "flush: started by the server, not by people");
	return rp_flush_serve(arguments[1], arguments[2]);
}
