/* io_file.c: struct rp_io on the system's files: what images are kept in when no test puts a simulated disk in the way.
 *
 * Positional reads and writes, fdatasync, and flock for the one exclusive lock: it belongs to the open file description, so
 * closing some other descriptor of the same file in this process does not drop it (a POSIX lock would), and /proc/locks
 * names its holder (an OFD lock is listed without a process).
 * No retries here: EINTR and short counts go up to the store, which loops, so that tests reach that code too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "image.h"

struct image_file {
	int fd;
};

static int file_open(void *context, const char *path, int flags, void **handle)
{
	struct image_file *file = malloc(sizeof(*file));
	struct stat st;

	(void)context;
	if (!file)
		return -ENOMEM;
	/* A file that is to be made must not be somebody's symbolic link to elsewhere. O_NONBLOCK: a FIFO of that name
	 * must not hang the open; it has no effect on regular files. */
	if (flags & O_CREAT)
		flags |= O_NOFOLLOW;
	file->fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (file->fd < 0 || fstat(file->fd, &st) < 0) {
		int error = -errno;

		if (file->fd >= 0)
			close(file->fd);
		free(file);
		return error;
	}
	if (!S_ISREG(st.st_mode)) {
		close(file->fd);
		free(file);
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	}
	*handle = file;
	return 0;
}

static void file_close(void *context, void *handle)
{
	struct image_file *file = handle;

	(void)context;
	close(file->fd);
	free(file);
}

static ssize_t file_read(void *context, void *handle, void *to, size_t size, uint64_t offset)
{
	const struct image_file *file = handle;
	ssize_t n = pread(file->fd, to, size, (off_t)offset);

	(void)context;
	return n < 0 ? -errno : n;
}

static ssize_t file_write(void *context, void *handle, const void *from, size_t size, uint64_t offset)
{
	const struct image_file *file = handle;
	ssize_t n = pwrite(file->fd, from, size, (off_t)offset);

	(void)context;
	return n < 0 ? -errno : n;
}

static int file_sync(void *context, void *handle)
{
	const struct image_file *file = handle;

	(void)context;
	return fdatasync(file->fd) < 0 ? -errno : 0;
}

static int file_size(void *context, void *handle, uint64_t *size_bytes)
{
	const struct image_file *file = handle;
	struct stat st;

	(void)context;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	*size_bytes = (uint64_t)st.st_size;
	return 0;
}

static int file_truncate(void *context, void *handle, uint64_t size_bytes)
{
	const struct image_file *file = handle;

	(void)context;
	return ftruncate(file->fd, (off_t)size_bytes) < 0 ? -errno : 0;
}

static int file_rename(void *context, const char *from, const char *to)
{
	(void)context;
	return rename(from, to) < 0 ? -errno : 0;
}

static int file_unlink(void *context, const char *path)
{
	(void)context;
	return unlink(path) < 0 ? -errno : 0;
}

static int file_sync_directory(void *context, const char *path_of_file)
{
	const char *slash = strrchr(path_of_file, '/');
	char *directory;
	int fd, error = 0;

	(void)context;
	if (!slash)
		directory = strdup(".");
	else
		directory = strndup(path_of_file, slash == path_of_file ? 1 : (size_t)(slash - path_of_file));
	if (!directory)
		return -ENOMEM;
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		error = -errno;
	else if (fsync(fd) < 0)
		error = -errno;
	if (fd >= 0)
		close(fd);
	free(directory);
	return error;
}

/* The command line of a process, its words divided by spaces; "" when it cannot be read. */
static void process_describe(long pid, char *to, size_t size)
{
	char path[64];
	FILE *file;
	size_t n = 0;

	to[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%ld/cmdline", pid);
	file = fopen(path, "re");
	if (!file)
		return;
	n = fread(to, 1, size - 1, file);
	fclose(file);
	while (n > 0 && to[n - 1] == '\0')
		n--;
	to[n] = '\0';
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)to[i] < ' ' || to[i] == 0x7f)
			to[i] = ' ';
}

/* Look the holder up in /proc/locks: "3: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF". Where the line's process is not
 * visible from here (another container) it stays "another process". */
static void lock_holder(int fd, char holder[256])
{
	struct stat st;
	FILE *locks;
	char line[256], words[160];

	snprintf(holder, 256, "another process");
	if (fstat(fd, &st) < 0)
		return;
	locks = fopen("/proc/locks", "re");
	if (!locks)
		return;
	while (fgets(line, sizeof(line), locks)) {
		unsigned dev_major, dev_minor;
		unsigned long inode;
		long pid;

		if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%lu", &pid, &dev_major, &dev_minor, &inode) != 4)
			continue;
		if (inode != st.st_ino || dev_major != major(st.st_dev) || dev_minor != minor(st.st_dev) || pid <= 0)
			continue;
		process_describe(pid, words, sizeof(words));
		snprintf(holder, 256, words[0] ? "process %ld, %s" : "process %ld", pid, words);
		break;
	}
	fclose(locks);
}

static int file_lock(void *context, void *handle, char holder[256])
{
	const struct image_file *file = handle;
	struct stat st;

	(void)context;
	if (flock(file->fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return -errno;
		lock_holder(file->fd, holder);
		return -EBUSY;
	}
	/* Between our open and the lock the file may have been replaced: then the lock is on nothing anybody can open. */
	if (fstat(file->fd, &st) < 0)
		return -errno;
	return st.st_nlink == 0 ? -ESTALE : 0;
}

/* A copy of an image has its id: only this tells that another file stands under the name now. */
static bool file_same(void *context, void *a, void *b)
{
	const struct image_file *x = a, *y = b;
	struct stat of_x, of_y;

	(void)context;
	return fstat(x->fd, &of_x) == 0 && fstat(y->fd, &of_y) == 0 && of_x.st_dev == of_y.st_dev && of_x.st_ino == of_y.st_ino;
}

static uint64_t file_next_data(void *context, void *handle, uint64_t offset)
{
	const struct image_file *file = handle;
	off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);

	(void)context;
	/* ENXIO: nothing comes. Another error: this filesystem cannot tell. */
	return data >= 0 ? (uint64_t)data : errno == ENXIO ? UINT64_MAX : offset;
}

const struct rp_io rp_io_files = {
	.open = file_open,
	.close = file_close,
	.read = file_read,
	.write = file_write,
	.sync = file_sync,
	.size = file_size,
	.truncate = file_truncate,
	.rename = file_rename,
	.unlink = file_unlink,
	.sync_directory = file_sync_directory,
	.lock = file_lock,
	.same = file_same,
	.next_data = file_next_data,
};

int rp_io_file_owner_check(void *handle)
{
	const struct image_file *file = handle;
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || (st.st_mode & 0022))
		return -EPERM;
	return 0;
}
