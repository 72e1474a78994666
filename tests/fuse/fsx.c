/* fsx.c: one file, random operations on it, and a copy in memory that says what it must hold.
 *
 * After the idea of Apple's fsx: reads, writes, mappings, sizes, holes, copies, direct I/O and dropped caches in any
 * order, each read compared at once. One process; no crash, no concurrency.
 *
 *     fsx [--seed N] [--ops N] [--size BYTES] [--no-direct] FILE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_SIZE 30

struct fsx {
	const char *path;
	uint64_t random;
	uint64_t op;
	size_t size_max;
	size_t size;            /* of the file now */
	uint8_t *good;          /* what it holds; zeroes behind its end */
	uint8_t *scratch;
	int fd, direct_fd;
	bool direct;
	char log[LOG_SIZE][100];
};

static uint64_t any(struct fsx *f)
{
	uint64_t z = (f->random += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static size_t below(struct fsx *f, size_t n) { return n ? (size_t)(any(f) % n) : 0; }

__attribute__((noreturn, format(printf, 2, 3))) static void fail(struct fsx *f, const char *format, ...)
{
	uint64_t i;
	va_list list;

	fprintf(stderr, "fsx: the last operations, size now %zu:\n", f->size);
	for (i = f->op >= LOG_SIZE ? f->op - LOG_SIZE + 1 : 0; i <= f->op; i++)
		fprintf(stderr, "  %llu %s\n", (unsigned long long)i, f->log[i % LOG_SIZE]);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, " (%s)\n", strerror(errno));
	exit(1);
}

__attribute__((format(printf, 2, 3))) static void note(struct fsx *f, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(f->log[f->op % LOG_SIZE], sizeof(f->log[0]), format, list);
	va_end(list);
}

static void compare(struct fsx *f, const uint8_t *got, size_t offset, size_t length, const char *how)
{
	size_t i;

	if (!memcmp(got, f->good + offset, length))
		return;
	for (i = 0; got[i] == f->good[offset + i]; i++)
		;
	errno = 0;
	fail(f, "fsx: %s: byte %zu (%zu of %zu) is %02x, must be %02x", how, offset + i, i, length, got[i],
	     f->good[offset + i]);
}

static void fill(struct fsx *f, uint8_t *to, size_t length)
{
	uint64_t x = any(f);
	size_t i;

	for (i = 0; i < length; i++)
		to[i] = (uint8_t)((x >> i % 8 * 8) + i / 512 + f->op);
}

/* A range, half of the time on page borders. */
static void any_range(struct fsx *f, size_t limit, size_t *offset, size_t *length)
{
	size_t most = below(f, 4) ? 70000 : limit;

	*offset = below(f, limit);
	*length = 1 + below(f, most < limit - *offset ? most : limit - *offset);
	if (below(f, 2)) {
		*offset &= ~(size_t)4095;
		if (below(f, 2))
			*length = (*length + 4095) & ~(size_t)4095;
		if (*length > limit - *offset)
			*length = limit - *offset;
	}
}

static int any_fd(struct fsx *f) { return f->direct && !below(f, 4) ? f->direct_fd : f->fd; }

static void op_read(struct fsx *f)
{
	size_t offset, length, want;
	int fd = any_fd(f);
	ssize_t n;

	any_range(f, f->size_max, &offset, &length);
	note(f, "read%s %zu + %zu", fd == f->fd ? "" : " direct", offset, length);
	want = offset >= f->size ? 0 : length < f->size - offset ? length : f->size - offset;
	n = pread(fd, f->scratch, length, (off_t)offset);
	if (n != (ssize_t)want)
		fail(f, "fsx: read gave %zd, not %zu", n, want);
	compare(f, f->scratch, offset, want, "read");
}

static void wrote(struct fsx *f, size_t end) { f->size = end > f->size ? end : f->size; }

static void op_write(struct fsx *f)
{
	size_t offset, length;
	int fd = any_fd(f);
	ssize_t n;

	any_range(f, f->size_max, &offset, &length);
	note(f, "write%s %zu + %zu", fd == f->fd ? "" : " direct", offset, length);
	fill(f, f->good + offset, length);
	n = pwrite(fd, f->good + offset, length, (off_t)offset);
	if (n != (ssize_t)length)
		fail(f, "fsx: write gave %zd, not %zu", n, length);
	wrote(f, offset + length);
}

static void op_map(struct fsx *f, bool writes)
{
	size_t offset, length, start;
	uint8_t *map;

	if (!f->size) {
		note(f, "nothing to map");
		return;
	}
	any_range(f, f->size, &offset, &length);
	note(f, "map %s %zu + %zu", writes ? "write" : "read", offset, length);
	start = offset & ~(size_t)4095;
	map = mmap(NULL, offset + length - start, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED, f->fd,
	           (off_t)start);
	if (map == MAP_FAILED)
		fail(f, "fsx: mmap");
	if (writes) {
		fill(f, f->good + offset, length);
		memcpy(map + offset - start, f->good + offset, length);
		if (!below(f, 3) && msync(map, offset + length - start, MS_SYNC))
			fail(f, "fsx: msync");
	}
	compare(f, map + offset - start, offset, length, "map");
	munmap(map, offset + length - start);
}

static void op_truncate(struct fsx *f)
{
	size_t size = below(f, 3) ? below(f, f->size_max) : below(f, f->size_max / 4096) * 4096;

	note(f, "truncate to %zu from %zu", size, f->size);
	if (below(f, 2) ? ftruncate(f->fd, (off_t)size) : truncate(f->path, (off_t)size))
		fail(f, "fsx: truncate");
	if (size < f->size)
		memset(f->good + size, 0, f->size - size);
	f->size = size;
}

static void op_fallocate(struct fsx *f)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, FALLOC_FL_KEEP_SIZE };
	int mode = modes[below(f, 6)];
	size_t offset, length;

	any_range(f, f->size_max, &offset, &length);
	note(f, "fallocate mode %x %zu + %zu", (unsigned)mode, offset, length);
	if (fallocate(f->fd, mode, (off_t)offset, (off_t)length)) {
		if (errno == EOPNOTSUPP)
			return;
		fail(f, "fsx: fallocate");
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(f->good + offset, 0, length);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		wrote(f, offset + length);
}

static void op_copy(struct fsx *f)
{
	size_t from, to, length, done = 0;
	off_t in, out;
	ssize_t n;

	any_range(f, f->size_max, &from, &length);
	to = below(f, f->size_max - length + 1);
	if (below(f, 2))
		to = (to & ~(size_t)4095) | (from & 4095);
	if (to + length > f->size_max || (from < to + length && to < from + length)) {
		note(f, "no copy");
		return;
	}
	length = from >= f->size ? 0 : length < f->size - from ? length : f->size - from;
	note(f, "copy %zu + %zu to %zu", from, length, to);
	in = (off_t)from;
	out = (off_t)to;
	while (done < length) {
		n = copy_file_range(f->fd, &in, f->fd, &out, length - done, 0);
		if (n <= 0)
			fail(f, "fsx: copy_file_range gave %zd after %zu", n, done);
		done += (size_t)n;
	}
	memcpy(f->good + to, f->good + from, length);
	if (length)
		wrote(f, to + length);
}

/* What is told to be a hole holds zeroes, and the end is where it should be. */
static void op_seek(struct fsx *f)
{
	size_t offset = below(f, f->size_max);
	off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA), hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
	size_t end = data < 0 ? f->size : (size_t)data, i;

	note(f, "seek %zu: data %lld hole %lld", offset, (long long)data, (long long)hole);
	if (offset >= f->size) {
		if (data >= 0 || hole >= 0)
			fail(f, "fsx: seek behind the end");
		return;
	}
	if (hole < (off_t)offset || hole > (off_t)f->size || (data >= 0 && (data < (off_t)offset || end >= f->size)))
		fail(f, "fsx: seek");
	for (i = offset; i < end; i++)
		if (f->good[i])
			fail(f, "fsx: byte %zu is no zero, but told to be in a hole", i);
}

static void reopen(struct fsx *f)
{
	if (f->fd >= 0 && close(f->fd))
		fail(f, "fsx: close");
	if (f->direct_fd >= 0 && close(f->direct_fd))
		fail(f, "fsx: close");
	f->fd = open(f->path, O_RDWR | O_CREAT, 0600);
	if (f->fd < 0)
		fail(f, "fsx: open");
	f->direct_fd = f->direct ? open(f->path, O_RDWR | O_DIRECT) : -1;
	if (f->direct && f->direct_fd < 0)
		fail(f, "fsx: open for direct I/O");
}

static void op_sync(struct fsx *f)
{
	size_t kind = below(f, 4);

	note(f, "sync kind %zu", kind);
	if (kind == 0 && fsync(f->fd))
		fail(f, "fsx: fsync");
	if (kind == 1)
		reopen(f);
	if (kind >= 2) { /* what the kernel kept is dropped */
		if (fdatasync(f->fd))
			fail(f, "fsx: fdatasync");
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	}
}

static void op_whole(struct fsx *f)
{
	struct stat st;
	ssize_t n;

	note(f, "compare all");
	if (fstat(f->fd, &st) || (size_t)st.st_size != f->size)
		fail(f, "fsx: size is %lld, must be %zu", (long long)st.st_size, f->size);
	n = pread(any_fd(f), f->scratch, f->size_max, 0);
	if (n != (ssize_t)f->size)
		fail(f, "fsx: read gave %zd of %zu", n, f->size);
	compare(f, f->scratch, 0, f->size, "compare all");
}

static void step(struct fsx *f)
{
	switch (below(f, 30)) {
	case 0 ... 6: op_read(f); break;
	case 7 ... 13: op_write(f); break;
	case 14 ... 15: op_map(f, false); break;
	case 16 ... 18: op_map(f, true); break;
	case 19 ... 20: op_truncate(f); break;
	case 21 ... 23: op_fallocate(f); break;
	case 24 ... 25: op_copy(f); break;
	case 26: op_seek(f); break;
	case 27 ... 28: op_sync(f); break;
	default: op_whole(f); break;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", 1, NULL, 's' }, { "ops", 1, NULL, 'o' },
		{ "size", 1, NULL, 'z' }, { "no-direct", 0, NULL, 'd' }, { NULL, 0, NULL, 0 } };
	struct fsx f = { .size_max = 512 << 10, .fd = -1, .direct_fd = -1, .direct = true };
	uint64_t seed = 1, ops = 20000;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'o': ops = strtoull(optarg, NULL, 0); break;
		case 'z': f.size_max = strtoull(optarg, NULL, 0); break;
		case 'd': f.direct = false; break;
		default: return 2;
		}
	if (argc - optind != 1 || f.size_max < 8192) {
		fprintf(stderr, "usage: fsx [--seed N] [--ops N] [--size BYTES] [--no-direct] FILE\n");
		return 2;
	}
	f.path = argv[optind];
	f.random = seed;
	f.good = calloc(1, f.size_max);
	f.scratch = calloc(1, f.size_max);
	if (!f.good || !f.scratch)
		return 2;
	unlink(f.path);
	reopen(&f);
	for (f.op = 0; f.op < ops; f.op++)
		step(&f);
	op_whole(&f);
	printf("fsx: seed %llu, %llu operations, well\n", (unsigned long long)seed, (unsigned long long)ops);
	return 0;
}
