/* calls_file.c: calls on open files: opening, reading, writing, sizes, holes, mappings, locks. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/fs.h>
#include "difftest.h"

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

static int any_open_flags(struct world *w)
{
	static const int access[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR };
	static const int extra[] = { O_CREAT, O_CREAT, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW,
		O_PATH, O_SYNC, O_DSYNC, O_NOATIME, O_DIRECT };
	int flags = access[below(w, 5)];
	unsigned count = below(w, 4);

	if (one_in(w, 60))
		flags = O_WRONLY | O_RDWR;
	while (count--)
		flags |= extra[below(w, sizeof(extra) / sizeof(*extra))];
	if (one_in(w, 12))
		flags = (flags & ~(O_CREAT | O_DIRECTORY)) | O_TMPFILE;
	say(w, "flags %o, ", flags);
	return flags | O_NONBLOCK | O_CLOEXEC; /* or a FIFO would wait for ever */
}

/* A file without a name is to be made in a directory without one. */
static bool is_lost_tmpfile(struct world *w, int dir, const char *path, int flags)
{
	struct stat st;

	return (flags & O_TMPFILE) == O_TMPFILE && !compares(w, FIELD_TMPFILE_IN_REMOVED) &&
	       fstatat(dir, path, &st, 0) == 0 && st.st_nlink == 0;
}

static void c_open(struct world *w)
{
	const char *path = any_path(w);
	int flags = any_open_flags(w);
	mode_t mode = any_mode(w, 0666);
	int fd;

	if (is_lost_tmpfile(w, AT_FDCWD, path, flags)) {
		done(w, 0);
		return;
	}
	watch_path(w, path);
	fd = open(path, flags, mode);
	done(w, fd < 0 ? -1 : 0);
	show(w);
	put_slot(w, fd, flags);
}

static void c_openat(struct world *w)
{
	int dir = any_dirfd(w);
	const char *path = any_path(w);
	int flags = any_open_flags(w), fd;

	if (is_lost_tmpfile(w, dir, path, flags)) {
		done(w, 0);
		return;
	}
	fd = openat(dir, path, flags, any_mode(w, 0666));
	done(w, fd < 0 ? -1 : 0);
	put_slot(w, fd, flags);
}

static void c_creat(struct world *w)
{
	const char *path = any_path(w);
	mode_t mode = any_mode(w, 0666);
	struct stat st;
	int fd;

	if (stat(path, &st) == 0 && S_ISFIFO(st.st_mode)) { /* creat would wait for a reader */
		done(w, 0);
		return;
	}
	watch_path(w, path);
	fd = creat(path, mode);
	done(w, fd < 0 ? -1 : 0);
	show(w);
	put_slot(w, fd, O_WRONLY);
}

static void c_opendir(struct world *w)
{
	const char *path = any_path(w);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	done(w, fd < 0 ? -1 : 0);
	put_slot(w, fd, O_RDONLY);
}

static void c_tmpfile_link(struct world *w)
{
	const char *dir = any_path(w), *path = any_path(w);
	int flags = O_TMPFILE | O_RDWR | O_CLOEXEC | (one_in(w, 4) ? O_EXCL : 0);
	mode_t mode = any_mode(w, 0666);
	long result;
	int fd;

	if (is_lost_tmpfile(w, AT_FDCWD, dir, flags)) {
		done(w, 0);
		return;
	}
	result = fd = open(dir, flags, mode);
	if (fd >= 0) {
		fill(w, 5000);
		result = write(fd, w->data, below(w, 5000));
		watch_path(w, path);
		if (result >= 0)
			result = linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH);
	}
	done(w, result);
	show(w);
	put_slot(w, fd, O_RDWR);
}

static void c_close(struct world *w)
{
	struct slot *slot = any_slot(w, 0);

	done(w, close(slot->fd));
	*slot = (struct slot){ .fd = FD_CLOSED };
}

static void c_dup(struct world *w)
{
	struct slot *slot = any_slot(w, 0);
	int fd = one_in(w, 2) ? dup(slot->fd) : fcntl(slot->fd, F_DUPFD_CLOEXEC, 20);

	done(w, fd < 0 ? -1 : 0);
	put_slot(w, fd, slot->flags);
}

static void said_read(struct world *w, ssize_t n)
{
	done(w, n);
	if (n > 0)
		say_data(w, w->data, (size_t)n);
	show(w);
}

static void c_read(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	size_t length = any_length(w);

	watch_fd(w, slot->fd);
	said_read(w, read(slot->fd, w->data, length));
}

static void c_pread(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t offset = any_offset(w);

	said_read(w, pread(slot->fd, w->data, any_length(w), offset));
}

static int any_vector(struct world *w, struct iovec vector[4])
{
	int count = one_in(w, 30) ? 0 : 1 + (int)below(w, 4), i;
	size_t at = 0;

	for (i = 0; i < count; i++) {
		vector[i].iov_base = w->data + at;
		vector[i].iov_len = below(w, 6000);
		at += vector[i].iov_len;
	}
	return count;
}

static void c_readv(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	struct iovec vector[4];

	said_read(w, readv(slot->fd, vector, any_vector(w, vector)));
}

static void c_preadv2(struct world *w)
{
	static const int flags[] = { 0, 0, RWF_HIPRI, RWF_DSYNC, RWF_APPEND, 1 << 30 };
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t offset = any_offset(w);
	int flag = flags[below(w, 6)];
	struct iovec vector[4];
	int count = any_vector(w, vector);

	say(w, "flags %x", flag);
	said_read(w, preadv2(slot->fd, vector, count, offset, flag));
}

static void c_write(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	size_t length = any_length(w);

	fill(w, length);
	watch_fd(w, slot->fd);
	done(w, write(slot->fd, w->data, length));
	show(w);
}

static void c_pwrite(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t offset = any_offset(w);
	size_t length = any_length(w);

	fill(w, length);
	watch_fd(w, slot->fd);
	done(w, pwrite(slot->fd, w->data, length, offset));
	show(w);
}

static void c_writev(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	struct iovec vector[4];
	int count = any_vector(w, vector);

	fill(w, 24000);
	watch_fd(w, slot->fd);
	done(w, writev(slot->fd, vector, count));
	show(w);
}

static void c_pwritev2(struct world *w)
{
	static const int flags[] = { 0, RWF_DSYNC, RWF_SYNC, RWF_APPEND, RWF_NOAPPEND, 1 << 30 };
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t offset = any_offset(w);
	int flag = flags[below(w, 6)];
	struct iovec vector[4];
	int count = any_vector(w, vector);

	say(w, "flags %x", flag);
	fill(w, 24000);
	watch_fd(w, slot->fd);
	done(w, pwritev2(slot->fd, vector, count, offset, flag));
	show(w);
}

static void c_lseek(struct world *w)
{
	static const int whence[] = { SEEK_SET, SEEK_CUR, SEEK_END, 7 };
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t offset = any_offset(w);
	unsigned i = below(w, 12);

	/* Positions of directories are the filesystem's own. */
	if (slot->type != S_IFREG)
		offset = i = 0;
	say(w, "whence %u", i % 4);
	done(w, lseek(slot->fd, offset, i < 9 ? whence[i % 3] : whence[i % 4]));
	if (one_in(w, 2) && slot->type == S_IFREG)
		lseek(slot->fd, 0, SEEK_SET);
}

/* From `from` to `to` (at most CALL_DATA_MAX bytes of it are looked at) nothing but zeroes? */
static bool is_zero(struct world *w, int fd, int64_t from, int64_t to)
{
	size_t length = to - from > CALL_DATA_MAX ? CALL_DATA_MAX : (size_t)(to - from);
	ssize_t n = pread(fd, w->data, length, from), i;

	for (i = 0; i < n; i++)
		if (w->data[i])
			return false;
	return n == (ssize_t)length;
}

/* Where holes are is each filesystem's own business; that no byte other than zero is in one is not. */
static void c_lseek_data(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t offset = any_offset(w), at;
	bool hole = one_in(w, 2);
	bool readable = (slot->flags & O_ACCMODE) == O_RDONLY || (slot->flags & O_ACCMODE) == O_RDWR;
	struct stat st;

	if (offset > INT64_MAX / 2) /* tmpfs rounds up to the next page without looking where that ends */
		offset = 0;
	say(w, hole ? "hole" : "data");
	if (slot->type != S_IFREG || slot->flags & O_PATH || fstat(slot->fd, &st) ||
	    compares(w, FIELD_SEEK_GRANULARITY)) {
		done(w, slot->type == S_IFREG ? lseek(slot->fd, offset, hole ? SEEK_HOLE : SEEK_DATA) : 0);
		return;
	}
	at = lseek(slot->fd, offset, hole ? SEEK_HOLE : SEEK_DATA);
	if (at < 0 && (errno != ENXIO || offset < 0 || offset >= st.st_size || hole)) {
		done(w, at);
	} else if (hole) {
		done(w, at >= offset && at <= st.st_size ? 0 : at);
		at = lseek(slot->fd, at, SEEK_DATA); /* the end of that hole */
		if (at > 0 && readable && !is_zero(w, slot->fd, lseek(slot->fd, offset, SEEK_HOLE), at))
			say(w, " data in a hole");
	} else {
		if (at < 0)
			at = st.st_size;
		done(w, at >= offset && at <= st.st_size ? 0 : at);
		if (readable && !is_zero(w, slot->fd, offset, at))
			say(w, " data before SEEK_DATA's answer");
	}
	lseek(slot->fd, 0, SEEK_SET);
}

static void c_truncate(struct world *w)
{
	const char *path = any_path(w);
	int64_t length = any_offset(w);
	struct stat st;

	if (!compares(w, FIELD_TRUNCATE_TO_SAME) && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_size == length) {
		done(w, 0);
		return;
	}
	watch_path(w, path);
	done(w, truncate(path, length));
	show(w);
}

static void c_ftruncate(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	int64_t length = any_offset(w);

	watch_fd(w, slot->fd);
	done(w, ftruncate(slot->fd, length));
	show(w);
}

/* What FALLOC_FL_ZERO_RANGE does, of calls that the reference has. */
static int zero_range(int fd, int mode, int64_t offset, int64_t length)
{
	struct stat st;

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) || fstat(fd, &st))
		return -1;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + length > st.st_size)
		return ftruncate(fd, offset + length);
	return 0;
}

static void c_fallocate(struct world *w)
{
	static const int modes[] = { 0, 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, 1 << 20 };
	struct slot *slot = any_slot(w, S_IFREG);
	int mode = modes[below(w, sizeof(modes) / sizeof(*modes))], result;
	int64_t offset = any_offset(w);
	int64_t length = one_in(w, 20) ? -1 : (int64_t)any_length(w);

	say(w, "mode %x", mode);
	watch_fd(w, slot->fd);
	result = fallocate(slot->fd, mode, offset, length);
	if (result < 0 && errno == EOPNOTSUPP && mode & FALLOC_FL_ZERO_RANGE && !compares(w, FIELD_EMULATE_ZERO_RANGE))
		result = zero_range(slot->fd, mode, offset, length);
	done(w, result);
	show(w);
}

/* Calls that may move less than they were asked for are repeated: the sum is what is compared. */
static void c_copy_file_range(struct world *w)
{
	struct slot *from = any_slot(w, S_IFREG), *to = any_slot(w, S_IFREG);
	off_t from_at = any_offset(w), to_at = any_offset(w);
	size_t left = any_length(w);
	unsigned flags = one_in(w, 30) ? 1 : 0;
	long sum = 0;
	ssize_t n;

	watch_fd(w, to->fd);
	do {
		n = copy_file_range(from->fd, &from_at, to->fd, &to_at, left, flags);
		sum += n > 0 ? n : 0;
		left -= n > 0 ? (size_t)n : 0;
	} while (n > 0 && left);
	done(w, n < 0 && !sum ? n : sum);
	show(w);
}

static bool is_same_file(struct world *w, const struct slot *a, const struct slot *b)
{
	struct stat x, y;

	return !compares(w, FIELD_SEND_TO_ITSELF) && fstat(a->fd, &x) == 0 && fstat(b->fd, &y) == 0 &&
	       x.st_ino == y.st_ino;
}

static void c_sendfile(struct world *w)
{
	struct slot *from = any_slot(w, S_IFREG), *to = any_slot(w, S_IFREG);
	off_t from_at = any_offset(w);
	size_t left = any_length(w);
	long sum = 0;
	ssize_t n;

	if (is_same_file(w, from, to)) {
		done(w, 0);
		return;
	}
	watch_fd(w, to->fd);
	do {
		n = sendfile(to->fd, from->fd, &from_at, left);
		sum += n > 0 ? n : 0;
		left -= n > 0 ? (size_t)n : 0;
	} while (n > 0 && left);
	done(w, n < 0 && !sum ? n : sum);
	show(w);
}

static void c_splice(struct world *w)
{
	struct slot *from = any_slot(w, S_IFREG), *to = any_slot(w, S_IFREG);
	loff_t from_at = any_offset(w), to_at = any_offset(w);
	size_t length = below(w, 8192);
	int pipes[2];
	ssize_t n;

	if (is_same_file(w, from, to)) {
		done(w, 0);
		return;
	}
	if (pipe2(pipes, O_NONBLOCK))
		_exit(2);
	watch_fd(w, to->fd);
	n = splice(from->fd, &from_at, pipes[1], NULL, length, 0);
	if (n > 0)
		n = splice(pipes[0], NULL, to->fd, &to_at, (size_t)n, 0);
	done(w, n);
	show(w);
	close(pipes[0]);
	close(pipes[1]);
}

static void c_mmap_read(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	off_t offset = (off_t)below(w, 20) * 4096;
	size_t length = 1 + below(w, 50000);
	int flags = one_in(w, 2) ? MAP_SHARED : MAP_PRIVATE;
	struct stat st;
	void *map = mmap(NULL, length, PROT_READ, flags, slot->fd, offset);

	say(w, "flags %x offset %lld length %zu", flags, (long long)offset, length);
	done(w, map == MAP_FAILED ? -1 : 0);
	if (map == MAP_FAILED)
		return;
	if (fstat(slot->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > offset)
		say_data(w, map, st.st_size - offset < (off_t)length ? (size_t)(st.st_size - offset) : length);
	munmap(map, length);
}

static void c_mmap_write(struct world *w)
{
	static const int sync_flags[] = { 0, MS_SYNC, MS_ASYNC, MS_SYNC | MS_ASYNC };
	struct slot *slot = any_slot(w, S_IFREG);
	off_t offset = (off_t)below(w, 20) * 4096;
	size_t length = 1 + below(w, 50000), room = 0;
	int sync_flag = sync_flags[below(w, 4)];
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000 } };
	struct stat st;
	char *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, slot->fd, offset);

	say(w, "offset %lld length %zu sync %d", (long long)offset, length, sync_flag);
	done(w, map == MAP_FAILED ? -1 : 0);
	if (map == MAP_FAILED)
		return;
	if (fstat(slot->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > offset)
		room = st.st_size - offset < (off_t)length ? (size_t)(st.st_size - offset) : length;
	fill(w, room);
	if (room > 100 && one_in(w, 2)) /* a part in the middle */
		memcpy(map + room / 3, w->data, room / 4);
	else
		memcpy(map, w->data, room);
	if (sync_flag)
		done(w, msync(map, length, sync_flag));
	munmap(map, length);
	if (!compares(w, FIELD_MMAP_TIMES))
		done(w, futimens(slot->fd, times));
}

static void c_sync(struct world *w)
{
	unsigned kind = below(w, 5);
	struct slot *slot = any_slot(w, kind ? S_IFREG : 0);

	say(w, "kind %u", kind);
	switch (kind) {
	case 0:
		done(w, fsync(slot->fd));
		break;
	case 1:
		done(w, fdatasync(slot->fd));
		break;
	case 2:
		done(w, sync_file_range(slot->fd, 0, below(w, 100000), SYNC_FILE_RANGE_WAIT_BEFORE |
		                        SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
		break;
	case 3: /* syncfs is slow where much is dirty: seldom */
		done(w, one_in(w, 8) ? syncfs(slot->fd) : fsync(slot->fd));
		break;
	default: /* what the kernel cached is dropped, and asked for again */
		fdatasync(slot->fd);
		errno = posix_fadvise(slot->fd, 0, 0, POSIX_FADV_DONTNEED);
		done(w, errno ? -1 : 0);
	}
}

static void c_readahead(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);

	if (slot->type != S_IFREG) {
		done(w, 0);
		return;
	}
	done(w, readahead(slot->fd, 0, below(w, 100000)));
}

static void c_flock(struct world *w)
{
	static const int kinds[] = { LOCK_SH, LOCK_EX, LOCK_UN, 0 };
	struct slot *slot = any_slot(w, 0);
	int kind = kinds[below(w, 4)] | LOCK_NB;

	say(w, "kind %d", kind);
	done(w, flock(slot->fd, kind));
}

static void c_lock(struct world *w)
{
	static const int kinds[] = { F_OFD_SETLK, F_OFD_SETLK, F_OFD_GETLK, F_SETLK, F_GETLK };
	struct slot *slot = any_slot(w, S_IFREG);
	int kind = kinds[below(w, 5)];
	struct flock lock = { .l_type = (short)below(w, 4), .l_whence = (short)below(w, 3), .l_start = below(w, 1000),
		.l_len = below(w, 1000) };

	say(w, "kind %d type %d whence %d", kind, lock.l_type, lock.l_whence);
	done(w, fcntl(slot->fd, kind, &lock));
	if (kind == F_OFD_GETLK)
		say(w, " type %d start %lld length %lld", lock.l_type, (long long)lock.l_start, (long long)lock.l_len);
}

static void c_fcntl_flags(struct world *w)
{
	struct slot *slot = any_slot(w, 0);
	int flags = (one_in(w, 2) ? O_APPEND : 0) | O_NONBLOCK;

	if (one_in(w, 2)) {
		done(w, fcntl(slot->fd, F_SETFL, flags));
		return;
	}
	flags = fcntl(slot->fd, F_GETFL);
	done(w, flags);
}

static void c_ioctl(struct world *w)
{
	static const unsigned long kinds[] = { FIONREAD, 0x1234567, FIGETBSZ, TIOCGWINSZ, FICLONE };
	struct slot *slot = any_slot(w, one_in(w, 2) ? S_IFREG : 0);
	unsigned kind = below(w, 5);
	char buffer[256] = { 0 };
	int result;

	if (slot->type == S_IFCHR || slot->type == S_IFBLK)
		kind = 1;
	say(w, "%lx", kinds[kind]);
	if (kind == 4) /* of a file that is not open: the other errors differ by design */
		result = ioctl(slot->fd, FICLONE, FD_CLOSED);
	else
		result = ioctl(slot->fd, kinds[kind], buffer);
	done(w, result);
	if (!result && kind == 0)
		say(w, " %d", *(int *)buffer);
}

static void c_ioctl_flags(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	long flags = 0;

	if (compares(w, FIELD_INODE_FLAGS))
		done(w, ioctl(slot->fd, FS_IOC_GETFLAGS, &flags));
	else
		done(w, 0);
}

const struct call file_calls[] = {
	{ "open", 60, c_open },
	{ "openat", 25, c_openat },
	{ "creat", 12, c_creat },
	{ "opendir", 15, c_opendir },
	{ "tmpfile_link", 8, c_tmpfile_link },
	{ "close", 15, c_close },
	{ "dup", 8, c_dup },
	{ "read", 15, c_read },
	{ "pread", 20, c_pread },
	{ "readv", 8, c_readv },
	{ "preadv2", 8, c_preadv2 },
	{ "write", 25, c_write },
	{ "pwrite", 40, c_pwrite },
	{ "writev", 8, c_writev },
	{ "pwritev2", 10, c_pwritev2 },
	{ "lseek", 12, c_lseek },
	{ "lseek_data", 12, c_lseek_data },
	{ "truncate", 15, c_truncate },
	{ "ftruncate", 15, c_ftruncate },
	{ "fallocate", 30, c_fallocate },
	{ "copy_file_range", 15, c_copy_file_range },
	{ "sendfile", 8, c_sendfile },
	{ "splice", 8, c_splice },
	{ "mmap_read", 12, c_mmap_read },
	{ "mmap_write", 15, c_mmap_write },
	{ "sync", 10, c_sync },
	{ "readahead", 3, c_readahead },
	{ "flock", 6, c_flock },
	{ "lock", 8, c_lock },
	{ "fcntl_flags", 4, c_fcntl_flags },
	{ "ioctl", 5, c_ioctl },
	{ "ioctl_flags", 2, c_ioctl_flags },
	{ NULL, 0, NULL },
};
