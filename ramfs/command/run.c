/* run.c: other programs: nbdkit, nbd-client, modprobe. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/command/run.h"

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

void rp_arguments_add(struct rp_arguments *arguments, const char *format, ...)
{
	va_list values;
	char **list;

	if (arguments->error)
		return;
	if (arguments->count + 2 > arguments->space) {
		size_t space = arguments->space ? 2 * arguments->space : 16;

		list = reallocarray(arguments->list, space, sizeof(*list));
		if (!list) {
			arguments->error = -ENOMEM;
			return;
		}
		arguments->list = list;
		arguments->space = space;
	}
	va_start(values, format);
	if (vasprintf(&arguments->list[arguments->count], format, values) < 0)
		arguments->error = -ENOMEM;
	else
		arguments->count++;
	va_end(values);
	arguments->list[arguments->count] = NULL;
}

void rp_arguments_free(struct rp_arguments *arguments)
{
	for (size_t i = 0; i < arguments->count; i++)
		free(arguments->list[i]);
	free(arguments->list);
	*arguments = (struct rp_arguments){ 0 };
}

/* ---- Programs ---------------------------------------------------------------------------------------------------- */

/* Where root's programs are, which not every PATH names. */
static const char system_directory[] = "/usr/sbin";

int rp_program_become(char *const arguments[])
{
	char path[256];
	int error;

	execvp(arguments[0], arguments);
	error = -errno;
	if (error != -ENOENT || strchr(arguments[0], '/'))
		return error;
	snprintf(path, sizeof(path), "%s/%s", system_directory, arguments[0]);
	execv(path, arguments);
	return -errno;
}

/* In the child: what goes wrong is written to `report`, which a successful start closes. */
static void child_run(char *const arguments[], int output, int report)
{
	int null = open("/dev/null", O_RDWR), error;
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
	    dup2(output, STDERR_FILENO) < 0)
		error = -errno;
	else
		error = rp_program_become(arguments);
	if (write(report, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

/* Read until the program has ended; what it leaves running does not keep us. */
static int output_read(pid_t pid, int from, char output[RP_OUTPUT_SIZE])
{
	size_t used = 0;
	ssize_t got;
	char rest[512];
	bool ended = false;
	int status = 0;

	fcntl(from, F_SETFL, O_NONBLOCK);
	for (;;) {
		got = used < RP_OUTPUT_SIZE - 1 ? read(from, output + used, RP_OUTPUT_SIZE - 1 - used)
		                                : read(from, rest, sizeof(rest));
		if (got > 0) {
			used += used < RP_OUTPUT_SIZE - 1 ? (size_t)got : 0;
			continue;
		}
		if (ended)
			break;
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			usleep(2000);
		ended = waitpid(pid, &status, got ? WNOHANG : 0) == pid;
	}
	output[used] = 0;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int rp_program_run(char *const arguments[], char output[RP_OUTPUT_SIZE])
{
	int ends[2], report[2], error = 0, status;
	pid_t pid;

	output[0] = 0;
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	if (pipe2(report, O_CLOEXEC)) {
		error = -errno;
		close(ends[0]);
		close(ends[1]);
		return error;
	}
	pid = fork();
	if (!pid)
		child_run(arguments, ends[1], report[1]);
	if (pid < 0)
		error = -errno;
	close(ends[1]);
	close(report[1]);
	status = error ? error : output_read(pid, ends[0], output);
	if (!error && read(report[0], &error, sizeof(error)) == (ssize_t)sizeof(error))
		status = error;
	close(ends[0]);
	close(report[0]);
	return status;
}

char *rp_program_line(char output[RP_OUTPUT_SIZE])
{
	char *line = output + strspn(output, "\n"), *at;

	line[strcspn(line, "\n")] = 0;
	at = strstr(line, "error: ");
	return at && at < line + 40 ? at + 7 : line;
}

/* ---- Where sockets live ------------------------------------------------------------------------------------------ */

int rp_runtime_path(const char *name, const char *suffix, char to[4096])
{
	char *slash;
	int error;

	if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 64)
		return -EINVAL;
	error = rp_control_path(0, to);
	slash = error ? NULL : strrchr(to, '/');
	if (!slash)
		return error ? error : -EINVAL;
	if ((size_t)snprintf(slash + 1, (size_t)(to + 4096 - slash - 1), "%s.%s", name, suffix) >=
	    (size_t)(to + 4096 - slash - 1))
		return -ENAMETOOLONG;
	return 0;
}
