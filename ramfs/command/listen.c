/* listen.c: the Unix sockets of a served disk, which only their user may use: not for a moment somebody else.
 *
 * nbdkit sets its own umask before it makes a socket, 0755. In the foreground it is therefore given one that is there
 * already (socket activation). In the background it cannot take one: then it makes its socket in a directory where nobody
 * else can come, and the socket gets its name when it has its mode, and the server answers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/command/listen.h"

#define ACTIVATION_FD 3         /* the first, for every program that knows socket activation */

/* A socket and the address that `path` makes; -errno. */
static int socket_for(const char *path, struct sockaddr_un *address)
{
	int fd;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	strcpy(address->sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

int rp_listen_connect(const char *path)
{
	struct sockaddr_un to;
	int fd = socket_for(path, &to), error;

	if (fd < 0 || !connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

int rp_listen_directory(const char *path)
{
	char directory[4096];
	struct stat st;

	snprintf(directory, sizeof(directory), "%s", path);
	*strrchr(directory, '/') = 0;
	if (mkdir(directory, 0700) && errno != EEXIST)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", directory, strerror(errno));
	if (lstat(directory, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return rp_fail(RP_EXIT_FAILED, "%s: others may change this directory: no place for sockets", directory);
	return RP_EXIT_OK;
}

int rp_listen_free(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st))
		return errno == ENOENT ? RP_EXIT_OK : rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return rp_fail(RP_EXIT_FAILED, "%s: there is something else in the socket's place", path);
	fd = rp_listen_connect(path);
	if (fd >= 0) {
		close(fd);
		return rp_fail(RP_EXIT_FAILED, "%s: something is served there already (-n gives another name)", path);
	}
	if (fd != -ECONNREFUSED || unlink(path))
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(fd != -ECONNREFUSED ? -fd : errno));
	return RP_EXIT_OK;
}

/* ---- Made here --------------------------------------------------------------------------------------------------- */

/* fchmod() before bind() decides the name's permissions. */
static int socket_bind(const char *path)
{
	struct sockaddr_un at;
	int fd = socket_for(path, &at), error;

	if (fd < 0)
		return fd;
	if (!fchmod(fd, 0600) && !bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		if (!listen(fd, SOMAXCONN))
			return fd;
		error = -errno;
		unlink(path);
	} else {
		error = -errno;
	}
	close(fd);
	return error;
}

/* Without the flag that closes it in the next program. */
static int descriptor_place(int fd)
{
	if (fd == ACTIVATION_FD)
		return fcntl(fd, F_SETFD, 0) ? -errno : 0;
	if (dup2(fd, ACTIVATION_FD) < 0)
		return -errno;
	close(fd);
	return 0;
}

int rp_listen_inherit(const char *path)
{
	int fd = socket_bind(path), error;
	char number[16];

	if (fd < 0)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(-fd));
	snprintf(number, sizeof(number), "%d", (int)getpid());
	error = descriptor_place(fd);
	if (!error && (setenv("LISTEN_PID", number, 1) || setenv("LISTEN_FDS", "1", 1) || unsetenv("LISTEN_FDNAMES")))
		error = -errno;
	if (!error)
		return RP_EXIT_OK;
	unlink(path);
	return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(-error));
}

/* ---- Made by another program ------------------------------------------------------------------------------------- */

int rp_stage_open(struct rp_stage *stage, const char *path)
{
	int length = (int)(strrchr(path, '/') - path);

	if ((size_t)snprintf(stage->path, sizeof(stage->path), "%.*s/.XXXXXX/nbd", length, path) >= sizeof(stage->path)) {
		stage->path[0] = 0;
		return rp_fail(RP_EXIT_FAILED, "%.*s: %s", length, path, strerror(ENAMETOOLONG));
	}
	stage->path[strlen(stage->path) - 4] = 0;
	if (!mkdtemp(stage->path)) {
		stage->path[0] = 0;
		return rp_fail(RP_EXIT_FAILED, "%.*s: %s", length, path, strerror(errno));
	}
	strcat(stage->path, "/nbd");
	return RP_EXIT_OK;
}

/* A link, unlike a new name, does not take the place of a socket that came there meanwhile. */
int rp_stage_publish(struct rp_stage *stage, const char *path)
{
	if (chmod(stage->path, 0600) || link(stage->path, path))
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(errno));
	rp_stage_close(stage);
	return RP_EXIT_OK;
}

void rp_stage_close(struct rp_stage *stage)
{
	if (!stage->path[0])
		return;
	unlink(stage->path);
	*strrchr(stage->path, '/') = 0;
	rmdir(stage->path);
	stage->path[0] = 0;
}
