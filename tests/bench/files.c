/* files.c: what programs do with files, timed, in one directory of whatever filesystem is to be measured.
 *
 *   files stream DIR MIB [nomap]   one file of that size: writing, reading, mapping, cold reading
 *   files names DIR COUNT     small files and directories: create, stat, open, rename, unlink
 *   files fill DIR COUNT      empty files for the next
 *   files list DIR            readdir and the attributes of each name
 *   files threads DIR MIB N   random reads and writes of 4 KiB by N threads in one file
 *
 * Everything a workload makes it removes, but for fill. Times of writing come twice: until the calls have returned, and
 * until close has, which with a writeback cache is when the data are with the server.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "measure.h"

#define BLOCK ((size_t)1 << 20)
#define PAGE ((size_t)4096)
#define THREADS_MAX 64

static char *buffer;

static int open_in(const char *dir, const char *name, int flags)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags, 0644);
	must(fd >= 0, path);
	return fd;
}

/* ---- One large file ------------------------------------------------------------------------------------------------- */

static void write_through(const char *dir, size_t size, int flags, const char *name, const char *closed)
{
	int fd = open_in(dir, "file", O_RDWR | flags);
	double start = now_s();

	for (size_t done = 0; done < size; done += BLOCK)
		must(write(fd, buffer, BLOCK) == (ssize_t)BLOCK, "write");
	say_bytes(name, now_s() - start, (double)size);
	must(close(fd) == 0, "close");
	say_bytes(closed, now_s() - start, (double)size);
}

static void read_through(int fd, size_t size, const char *name)
{
	double start = now_s();

	for (size_t done = 0; done < size; done += BLOCK)
		must(pread(fd, buffer, BLOCK, (off_t)done) == (ssize_t)BLOCK, "read");
	if (name)
		say_bytes(name, now_s() - start, (double)size);
}

static void read_anywhere(int fd, size_t size, const char *name)
{
	uint64_t random = 1, pages = size / PAGE, count = pages < 100000 ? pages : 100000;
	double start = now_s();

	for (uint64_t i = 0; i < count; i++) {
		off_t at = (off_t)(next_random(&random) % pages * PAGE);

		must(pread(fd, buffer, PAGE, at) == (ssize_t)PAGE, "read");
	}
	say_iops(name, now_s() - start, (double)count);
}

static void write_anywhere(const char *dir, size_t size)
{
	uint64_t random = 2, pages = size / PAGE, count = pages < 100000 ? pages : 100000;
	int fd = open_in(dir, "file", O_RDWR);
	double start = now_s();

	for (uint64_t i = 0; i < count; i++) {
		off_t at = (off_t)(next_random(&random) % pages * PAGE);

		must(pwrite(fd, buffer, PAGE, at) == (ssize_t)PAGE, "write");
	}
	say_iops("write_4k_random", now_s() - start, (double)count);
	must(close(fd) == 0, "close");
	say_iops("write_4k_random_closed", now_s() - start, (double)count);
}

/* The first write to each page tells the filesystem (which counts dirty pages; tmpfs has none); what follows does not. */
static void map_anywhere(int fd, size_t size)
{
	uint64_t random = 3, pages = size / PAGE, count = pages * 4, sum = 0;
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	double start;

	must(map != MAP_FAILED, "mmap");
	for (uint64_t i = 0; i < pages; i++)
		sum += (uint64_t)map[i * PAGE];
	start = now_s();
	for (uint64_t i = 0; i < pages; i++)
		map[i * PAGE] = (char)sum;
	say_iops("mmap_first_write", now_s() - start, (double)pages);
	start = now_s();
	for (uint64_t i = 0; i < count; i++) {
		char *at = map + next_random(&random) % size;

		sum += (uint64_t)*at;
		if (i & 1)
			*at = (char)sum;
	}
	say_iops("mmap_random", now_s() - start, (double)count);
	must(munmap(map, size) == 0, "munmap");
}

/* The file's clean pages leave the kernel's cache, and only they: for tmpfs, whose cache is the store, nothing happens. */
static void make_cold(int fd)
{
	must(fsync(fd) == 0, "fsync");
	must(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
}

static void stream(const char *dir, size_t size, int maps)
{
	char path[4096];
	int fd;

	write_through(dir, size, O_CREAT | O_EXCL, "write_1m_first", "write_1m_first_closed");
	write_through(dir, size, 0, "write_1m_again", "write_1m_again_closed");
	fd = open_in(dir, "file", O_RDWR);
	read_through(fd, size, NULL);
	read_through(fd, size, "read_1m_cached");
	read_anywhere(fd, size, "read_4k_random_cached");
	must(close(fd) == 0, "close");
	write_anywhere(dir, size);
	fd = open_in(dir, "file", O_RDWR);
	if (maps)
		map_anywhere(fd, size);
	make_cold(fd);
	read_through(fd, size, "read_1m_cold");
	make_cold(fd);
	read_anywhere(fd, size, "read_4k_random_cold");
	must(close(fd) == 0, "close");
	snprintf(path, sizeof(path), "%s/file", dir);
	must(unlink(path) == 0, "unlink");
}

/* ---- Many names ----------------------------------------------------------------------------------------------------- */

static const char *name_of(char to[4096], const char *dir, const char *kind, unsigned i)
{
	snprintf(to, 4096, "%s/%s.%u", dir, kind, i);
	return to;
}

static void create_files(const char *dir, unsigned count, const char *kind, size_t bytes, const char *row)
{
	char path[4096];
	double start = now_s();

	for (unsigned i = 0; i < count; i++) {
		int fd = open(name_of(path, dir, kind, i), O_CREAT | O_EXCL | O_WRONLY, 0644);

		must(fd >= 0, path);
		if (bytes)
			must(write(fd, buffer, bytes) == (ssize_t)bytes, "write");
		must(close(fd) == 0, "close");
	}
	say_us(row, now_s() - start, count);
}

static void remove_files(const char *dir, unsigned count, const char *kind, const char *row)
{
	char path[4096];
	double start = now_s();

	for (unsigned i = 0; i < count; i++)
		must(unlink(name_of(path, dir, kind, i)) == 0, path);
	if (row)
		say_us(row, now_s() - start, count);
}

static void look_at_files(const char *dir, unsigned count)
{
	struct stat st;
	char path[4096];
	double start = 0;

	for (int round = 0; round < 2; round++) {
		start = now_s();
		for (unsigned i = 0; i < count; i++)
			must(stat(name_of(path, dir, "data", i), &st) == 0, path);
	}
	say_us("stat_known", now_s() - start, count);
	start = now_s();
	for (unsigned i = 0; i < count; i++) {
		int fd = open(name_of(path, dir, "data", i), O_RDONLY);

		must(fd >= 0, path);
		must(read(fd, buffer, PAGE) == (ssize_t)PAGE, "read");
		must(close(fd) == 0, "close");
	}
	say_us("open_read_close", now_s() - start, count);
	for (int round = 0; round < 2; round++) {
		start = now_s();
		for (unsigned i = 0; i < count; i++)
			must(stat(name_of(path, dir, "none", i), &st) != 0 && errno == ENOENT, path);
	}
	say_us("stat_missing_again", now_s() - start, count);
}

static void rename_files(const char *dir, unsigned count)
{
	char path[4096], to[4096];
	double start = now_s();

	for (unsigned i = 0; i < count; i++)
		must(rename(name_of(path, dir, "empty", i), name_of(to, dir, "moved", i)) == 0, path);
	say_us("rename", now_s() - start, count);
}

static void directories(const char *dir, unsigned count)
{
	char path[4096];
	double start = now_s();

	for (unsigned i = 0; i < count; i++)
		must(mkdir(name_of(path, dir, "dir", i), 0755) == 0, path);
	say_us("mkdir", now_s() - start, count);
	start = now_s();
	for (unsigned i = 0; i < count; i++)
		must(rmdir(name_of(path, dir, "dir", i)) == 0, path);
	say_us("rmdir", now_s() - start, count);
}

static void names(const char *dir, unsigned count)
{
	create_files(dir, count, "empty", 0, "create_empty");
	create_files(dir, count, "data", PAGE, "create_4k");
	look_at_files(dir, count);
	rename_files(dir, count);
	remove_files(dir, count, "moved", "unlink_empty");
	remove_files(dir, count, "data", "unlink_4k");
	directories(dir, count);
}

/* Names of the length that files have, so that the listing has its usual size. */
static void fill(const char *dir, unsigned count)
{
	create_files(dir, count, "a-file-with-a-name", 0, "fill");
}

static void list(const char *dir)
{
	struct dirent *entry;
	struct stat st;
	unsigned count = 0;
	double start = now_s();
	DIR *d = opendir(dir);

	must(d != NULL, dir);
	while ((entry = readdir(d))) {
		must(fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0, entry->d_name);
		count++;
	}
	closedir(d);
	say_us("readdir_attr", now_s() - start, count);
}

/* ---- Threads -------------------------------------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	int fd;
	uint64_t random, pages, count;
	int writes;
};

static void *work(void *context)
{
	struct worker *w = context;
	char page[4096] = { 1 };

	for (uint64_t i = 0; i < w->count; i++) {
		off_t at = (off_t)(next_random(&w->random) % w->pages * PAGE);
		ssize_t n = w->writes ? pwrite(w->fd, page, PAGE, at) : pread(w->fd, page, PAGE, at);

		must(n == (ssize_t)PAGE, "read or write");
	}
	return NULL;
}

static void run_threads(int fd, size_t size, unsigned count, int writes, const char *row)
{
	struct worker workers[THREADS_MAX];
	uint64_t each = 100000 / count;
	double start = now_s();

	for (unsigned i = 0; i < count; i++) {
		workers[i] = (struct worker){ .fd = fd, .random = i, .pages = size / PAGE, .count = each,
		                              .writes = writes };
		errno = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
		must(errno == 0, "pthread_create");
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(workers[i].thread, NULL);
	say_iops(row, now_s() - start, (double)(each * count));
}

static void threads(const char *dir, size_t size, unsigned count)
{
	int fd = open_in(dir, "file", O_RDWR | O_CREAT | O_EXCL);
	char row[64];

	if (count < 1 || count > THREADS_MAX) {
		errno = EINVAL;
		die("threads");
	}
	for (size_t done = 0; done < size; done += BLOCK)
		must(write(fd, buffer, BLOCK) == (ssize_t)BLOCK, "write");
	must(fsync(fd) == 0, "fsync");
	snprintf(row, sizeof(row), "threads_read_%u", count);
	run_threads(fd, size, count, 0, row);
	snprintf(row, sizeof(row), "threads_write_%u", count);
	run_threads(fd, size, count, 1, row);
	must(close(fd) == 0, "close");
	must(unlinkat(AT_FDCWD, strcat(strcpy(buffer, dir), "/file"), 0) == 0, "unlink");
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	unsigned long n = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

	buffer = malloc(BLOCK);
	must(buffer != NULL, "malloc");
	memset(buffer, 0x5a, BLOCK);
	if (!strcmp(what, "stream") && n)
		stream(argv[2], n << 20, argc < 5);
	else if (!strcmp(what, "names") && n)
		names(argv[2], (unsigned)n);
	else if (!strcmp(what, "fill") && n)
		fill(argv[2], (unsigned)n);
	else if (!strcmp(what, "list"))
		list(argv[2]);
	else if (!strcmp(what, "threads") && n && argc > 4)
		threads(argv[2], n << 20, (unsigned)strtoul(argv[4], NULL, 10));
	else {
		fprintf(stderr, "usage: files stream|names|fill|list|threads DIR [MIB|COUNT [nomap|THREADS]]\n");
		return 2;
	}
	free(buffer);
	return 0;
}
