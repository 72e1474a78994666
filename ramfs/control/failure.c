/* failure.c: the word that a server leaves when its last save failed.
 *
 * Whoever asked it to end waits for the process but cannot see its exit status, and nobody answers at the control
 * socket any more: so the reason stands in a file beside the socket until it is read. It bears the process's number:
 * the socket's name, and the device number it is made of, may be another server's while this one still saves. The
 * directory may be one in which others can put things of their own, as in /tmp: so the file is always a new one, and a
 * name that leads elsewhere is not followed.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

static int failure_path(const char *socket, pid_t pid, char to[PATH_MAX])
{
	return (size_t)snprintf(to, PATH_MAX, "%s.%d.failed", socket, (int)pid) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

void rp_failure_forget(const char *socket)
{
	char path[PATH_MAX];

	if (!failure_path(socket, getpid(), path))
		unlink(path);
}

void rp_failure_leave(const char *socket, const char *message)
{
	char path[PATH_MAX];
	int fd;

	rp_failure_forget(socket);
	if (failure_path(socket, getpid(), path))
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	dprintf(fd, "%s\n", message);
	close(fd);
}

bool rp_failure_take(const char *socket, pid_t pid, char line[RP_MESSAGE_SIZE])
{
	char path[PATH_MAX];
	struct stat st;
	ssize_t got;
	int fd;

	fd = failure_path(socket, pid, path) ? -1 : open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (geteuid() && st.st_uid != geteuid() && st.st_uid)) {
		close(fd); /* somebody else's */
		return false;
	}
	got = read(fd, line, RP_MESSAGE_SIZE - 1);
	close(fd);
	unlink(path);
	line[got > 0 ? got : 0] = 0;
	line[strcspn(line, "\n")] = 0;
	if (!*line)
		snprintf(line, RP_MESSAGE_SIZE, "the last save failed");
	return true;
}
