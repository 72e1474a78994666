/* helper.c: the helper process: flushes the mount's dirty pages when the server asks. See flush.c.
 *
 * It may hang in a system call when the mount does; nobody but the asker waits for it. It opens the mount for each
 * request and closes it before the answer, so that it never keeps the mount busy.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "ramfs/server/flush.h"
#include "ramfs/server/server.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

/* cachestat(2), Linux 6.5. */
struct cache_range {
	uint64_t offset, length;
};
struct cache_count {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* The mount's root, if it is the mount that is meant. */
static int root_open(const char *mountpoint, uint64_t device, int *out)
{
	struct statx stx;
	int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &stx) ||
	    makedev(stx.stx_dev_major, stx.stx_dev_minor) != device) {
		close(fd);
		return -ENODEV;
	}
	*out = fd;
	return 0;
}

/* Before 6.16 the kernel wrote copies of pages, and only fsync(2) waits for these. */
static bool waits_for_pages(void)
{
	struct utsname name;
	unsigned major, minor;

	return !uname(&name) && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 16));
}

static bool is_clean(int fd)
{
	struct cache_range range = { 0, 0 };
	struct cache_count count;

	return syscall(SYS_cachestat, fd, &range, &count, 0) == 0 && !count.dirty && !count.writeback;
}

static int file_flush(int root, const struct rp_flush_ask *ask)
{
	/* A FUSE file handle: node, high half first, and generation. */
	struct {
		struct file_handle head;
		uint32_t words[3];
	} handle = { .head = { .handle_bytes = sizeof(handle.words), .handle_type = 0x81 } };
	int fd;

	handle.words[0] = (uint32_t)(ask->number >> 32);
	handle.words[1] = (uint32_t)ask->number;
	handle.words[2] = ask->generation;
	fd = open_by_handle_at(root, &handle.head, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* An error of writing is told to the file's users; here it matters only that nothing is dirty any more. */
	if (!is_clean(fd)) {
		sync_file_range(fd, 0, 0,
		                SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		if (!waits_for_pages())
			fdatasync(fd);
	}
	close(fd);
	return 0;
}

/* Errors of writing are not ours: whoever wrote was or will be told, be it that there is no room or that a rollback took
 * the file away. */
static int all_flush(int root)
{
	if (syncfs(root) && (errno == ENOTCONN || errno == ECONNABORTED))
		return -errno;
	return 0;
}

static int flush(const char *mountpoint, const struct rp_flush_ask *ask)
{
	int root = -1, error = root_open(mountpoint, ask->device, &root);

	if (error)
		return error;
	if (ask->what == RP_FLUSH_FILE) {
		error = file_flush(root, ask);
	} else {
		error = all_flush(root);
		if (ask->what == RP_FLUSH_DETACH) {
			int detached = rp_mount_detach(mountpoint, true);

			error = all_flush(root);
			error = detached ? detached : error;
		}
	}
	close(root);
	return error;
}

/* What the server is protected by is inherited; here it would be in the way. So are the caller's descriptors: whoever reads
 * what `rampool mount` says until its end would wait for the unmount. */
static int inheritance_drop(const char *oom_score_adj)
{
	FILE *file;
	int null;

	prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "rampool-flush", 0, 0, 0);
	file = fopen("/proc/self/oom_score_adj", "we");
	if (file) {
		fputs(oom_score_adj, file);
		fclose(file);
	}
	if (fcntl(RP_FLUSH_FD, F_SETFD, FD_CLOEXEC) || chdir("/"))
		return -errno;
	close_range(RP_FLUSH_FD + 1, UINT_MAX, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; null >= 0 && i <= STDERR_FILENO; i++)
		dup2(null, i);
	if (null > STDERR_FILENO)
		close(null);
	return 0;
}

int rp_flush_serve(const char *mountpoint, const char *oom_score_adj)
{
	struct rp_flush_ask ask;

	if (inheritance_drop(oom_score_adj))
		return 1;
	while (recv(RP_FLUSH_FD, &ask, sizeof(ask), 0) == (ssize_t)sizeof(ask)) {
		struct rp_flush_answer answer = { .sequence = ask.sequence, .error = flush(mountpoint, &ask) };

		if (send(RP_FLUSH_FD, &answer, sizeof(answer), MSG_NOSIGNAL) != (ssize_t)sizeof(answer))
			break;
	}
	return 0;
}
