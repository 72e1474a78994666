/* Contents of files: sparse to the largest offset, truncation that leaves no old byte, allocation, punching, copying, holes. */
#define _GNU_SOURCE
#include <linux/falloc.h>
#include <unistd.h>
#include "tests/lib/namespace.h"

enum { PAGE = 4096 };

static rp_object file_make(struct rp_fs *fs, const char *name)
{
	rp_object ino;

	NEED_IS(ns_make(fs, rp_fs_root(fs), name, S_IFREG | 0644, &ino), 0);
	return ino;
}

static void fill(struct rp_fs *fs, rp_object ino, uint64_t offset, size_t size, int byte)
{
	char *bytes = malloc(size);

	NEED(bytes);
	memset(bytes, byte, size);
	NEED_IS(rp_fs_write(fs, ino, offset, bytes, size, 0), size);
	free(bytes);
}

/* [offset, offset + size) reads as that byte. */
static void need_bytes(struct rp_fs *fs, rp_object ino, uint64_t offset, size_t size, int byte)
{
	char *bytes = malloc(size);

	NEED(bytes);
	memset(bytes, ~byte, size);
	NEED_IS(rp_fs_read(fs, ino, offset, bytes, size), size);
	for (size_t i = 0; i < size; i++)
		NEED_IS((unsigned char)bytes[i], byte);
	free(bytes);
}

static void resize(struct rp_fs *fs, rp_object ino, uint64_t size_bytes)
{
	struct rp_attr attr = { .size_bytes = size_bytes }, out;

	NEED_IS(rp_fs_setattr(fs, ino, RP_SET_SIZE, &attr, &out), 0);
	NEED_IS(out.size_bytes, size_bytes);
	NEED_IS(out.page_count, ns_attr(fs, ino).page_count);
}

static void need_seek(struct rp_fs *fs, rp_object ino, uint64_t from, int whence, long long expected)
{
	uint64_t at = 0;
	int error = rp_fs_seek(fs, ino, from, whence, &at);

	if (expected < 0)
		NEED_IS(error, expected);
	else
		NEED_IS(error ? error : (long long)at, expected);
}

static void test_sparse(struct rp_fs *fs)
{
	const uint64_t last = INT64_MAX;
	struct rp_attr attr = { .size_bytes = last };
	uint64_t before = ns_frames(fs);
	rp_object ino = file_make(fs, "sparse");

	NEED_IS(rp_fs_write(fs, ino, last - 1, "z", 1, 0), 1);
	NEED_IS(ns_attr(fs, ino).size_bytes, last);
	NEED_IS(ns_attr(fs, ino).page_count, 1);
	need_bytes(fs, ino, last - 1, 1, 'z');
	need_bytes(fs, ino, last - 1000, 999, 0);
	need_bytes(fs, ino, 0, 100000, 0);
	NEED_IS(rp_fs_write(fs, ino, last, "z", 1, 0), -EFBIG);
	NEED_IS(rp_fs_write(fs, ino, last - 1, "yx", 2, 0), 1);
	need_bytes(fs, ino, last - 1, 1, 'y');
	need_seek(fs, ino, 0, SEEK_DATA, (last - 1) & ~(uint64_t)(PAGE - 1));
	need_seek(fs, ino, 0, SEEK_HOLE, 0);
	need_seek(fs, ino, last - 1, SEEK_HOLE, last);
	need_seek(fs, ino, last, SEEK_DATA, -ENXIO);
	attr.size_bytes = last + 1;
	NEED_IS(rp_fs_setattr(fs, ino, RP_SET_SIZE, &attr, NULL), -EFBIG);
	fill(fs, ino, UINT64_C(1) << 40, 3 * PAGE, 'm');
	need_seek(fs, ino, 5, SEEK_DATA, 1LL << 40);
	need_seek(fs, ino, 1LL << 40, SEEK_HOLE, (1LL << 40) + 3 * PAGE);
	NS_CHECK(fs);
	resize(fs, ino, 0);
	NEED_IS(ns_attr(fs, ino).page_count, 0);
	NEED_IS(rp_fs_fallocate(fs, ino, 0, last - 1, 2, false), -EFBIG);
	NEED_IS(rp_fs_fallocate(fs, ino, 0, 0, UINT64_C(1) << 50, false), -ENOSPC);
	NEED_IS(rp_fs_unlink(fs, rp_fs_root(fs), rp_name_from("sparse"), NULL), 0);
	NEED_IS(ns_frames(fs), before);
	NS_CHECK(fs);
}

static void test_truncate(struct rp_fs *fs)
{
	static const uint64_t sizes[] = { 0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 7, 3000 * PAGE, 3000 * PAGE + 1 };
	rp_object ino = file_make(fs, "truncate");

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t length = 3100 * PAGE;

		fill(fs, ino, 0, length, 'a');
		resize(fs, ino, sizes[i]);
		NEED_IS(ns_attr(fs, ino).page_count, (sizes[i] + PAGE - 1) / PAGE);
		NS_CHECK(fs);
		resize(fs, ino, length);
		if (sizes[i])
			need_bytes(fs, ino, 0, sizes[i], 'a');
		need_bytes(fs, ino, sizes[i], length - sizes[i], 0);
		resize(fs, ino, 0);
		NEED_IS(ns_attr(fs, ino).page_count, 0);
	}
	/* Growing by a write past the end shows zeroes in between. */
	fill(fs, ino, 0, 100, 'b');
	fill(fs, ino, 300, 10, 'c');
	need_bytes(fs, ino, 100, 200, 0);
	resize(fs, ino, 150);
	fill(fs, ino, 2 * PAGE, 1, 'd');
	need_bytes(fs, ino, 150, 2 * PAGE - 150, 0);
	NEED_IS(rp_fs_setattr(fs, rp_fs_root(fs), RP_SET_SIZE, &(struct rp_attr){ .size_bytes = 0 }, NULL), -EISDIR);
	NS_CHECK(fs);
}

static void test_fallocate(struct rp_fs *fs)
{
	const int keep = FALLOC_FL_KEEP_SIZE, punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	rp_object ino = file_make(fs, "fallocate");

	NEED_IS(rp_fs_fallocate(fs, ino, keep, 0, 10 * PAGE, false), 0);
	NEED_IS(ns_attr(fs, ino).size_bytes, 0);
	NEED_IS(ns_attr(fs, ino).page_count, 10);
	NS_CHECK(fs);
	NEED_IS(rp_fs_fallocate(fs, ino, 0, 100, 20 * PAGE, false), 0);
	NEED_IS(ns_attr(fs, ino).size_bytes, 20 * PAGE + 100);
	NEED_IS(ns_attr(fs, ino).page_count, 21);
	need_bytes(fs, ino, 0, 20 * PAGE, 0);
	fill(fs, ino, 0, 20 * PAGE, 'f');
	NEED_IS(rp_fs_fallocate(fs, ino, punch, 100, 50, false), 0);
	need_bytes(fs, ino, 100, 50, 0);
	need_bytes(fs, ino, 150, PAGE, 'f');
	NEED_IS(rp_fs_fallocate(fs, ino, punch, PAGE - 10, 3 * PAGE, false), 0);
	NEED_IS(ns_attr(fs, ino).page_count, 19);
	need_bytes(fs, ino, PAGE - 10, 3 * PAGE, 0);
	need_bytes(fs, ino, 4 * PAGE - 10, PAGE, 'f');
	NEED_IS(rp_fs_fallocate(fs, ino, FALLOC_FL_ZERO_RANGE | keep, 2 * PAGE + 5, 5 * PAGE, false), 0);
	need_bytes(fs, ino, 2 * PAGE, 5 * PAGE + 5, 0);
	need_bytes(fs, ino, 7 * PAGE + 5, PAGE, 'f');
	NEED_IS(ns_attr(fs, ino).page_count, 20 + 1 - 1);
	NEED_IS(rp_fs_fallocate(fs, ino, FALLOC_FL_ZERO_RANGE, 30 * PAGE, 2 * PAGE, false), 0);
	NEED_IS(ns_attr(fs, ino).size_bytes, 32 * PAGE);
	NEED_IS(rp_fs_fallocate(fs, ino, FALLOC_FL_PUNCH_HOLE, 0, 1, false), -EOPNOTSUPP);
	NEED_IS(rp_fs_fallocate(fs, ino, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE, false), -EOPNOTSUPP);
	NEED_IS(rp_fs_fallocate(fs, ino, 0, 0, 0, false), -EINVAL);
	NEED_IS(rp_fs_fallocate(fs, rp_fs_root(fs), 0, 0, 1, false), -ENODEV);
	NS_CHECK(fs);
	/* Pages kept past the end hold nothing that growing could show, and go with a truncation. */
	NEED_IS(rp_fs_fallocate(fs, ino, keep, 40 * PAGE, 10 * PAGE, false), 0);
	resize(fs, ino, 32 * PAGE);
	NEED_IS(ns_attr(fs, ino).size_bytes, 32 * PAGE);
	NEED(ns_attr(fs, ino).page_count <= 23);
	NS_CHECK(fs);
}

/* All or nothing. */
static void test_fallocate_full(struct rp_fs *fs)
{
	struct rp_fs_status status;
	rp_object ino = file_make(fs, "full");
	uint64_t before;

	fill(fs, ino, 50 * PAGE, PAGE, 'x');
	fill(fs, ino, 150 * PAGE, 2 * PAGE, 'y');
	before = ns_frames(fs);
	NEED_IS(rp_fs_status(fs, &status), 0);
	NEED_IS(rp_fs_fallocate(fs, ino, 0, 0, (status.block_free + 3) * PAGE, false), -ENOSPC);
	NEED_IS(ns_attr(fs, ino).page_count, 3);
	NEED_IS(ns_attr(fs, ino).size_bytes, 152 * PAGE);
	/* The map may have become higher for the pages it did not get. */
	NEED(ns_frames(fs) <= before + 2);
	need_bytes(fs, ino, 50 * PAGE, PAGE, 'x');
	need_bytes(fs, ino, 150 * PAGE, 2 * PAGE, 'y');
	need_bytes(fs, ino, 51 * PAGE, 99 * PAGE, 0);
	NS_CHECK(fs);
	resize(fs, ino, 0);
}

static void test_copy(struct rp_fs *fs)
{
	rp_object from = file_make(fs, "from"), to = file_make(fs, "to");
	uint64_t frames;

	for (unsigned i = 0; i < 100; i++)
		fill(fs, from, i * PAGE, PAGE, 'A' + (int)i % 26);
	frames = ns_frames(fs);
	/* Whole pages are shared: what it takes is nodes. */
	NEED_IS(rp_fs_copy(fs, from, 0, to, 0, 100 * PAGE), 100 * PAGE);
	NEED(ns_frames(fs) <= frames + 4);
	for (unsigned i = 0; i < 100; i++)
		need_bytes(fs, to, i * PAGE, PAGE, 'A' + (int)i % 26);
	NS_CHECK(fs);
	/* A change of one is not seen in the other. */
	fill(fs, from, 10 * PAGE, PAGE, '!');
	need_bytes(fs, to, 10 * PAGE, PAGE, 'A' + 10);
	fill(fs, to, 20 * PAGE + 5, 10, '?');
	need_bytes(fs, from, 20 * PAGE, PAGE, 'A' + 20);
	NS_CHECK(fs);
	/* Same place within the page, odd ends; other places; past the source's end. */
	NEED_IS(rp_fs_copy(fs, from, 30 * PAGE + 7, to, 200 * PAGE + 7, 40 * PAGE), 40 * PAGE);
	NEED_IS(ns_attr(fs, to).size_bytes, 240 * PAGE + 7);
	need_bytes(fs, to, 200 * PAGE + 7, PAGE - 7, 'A' + 30 % 26);
	need_bytes(fs, to, 239 * PAGE, PAGE, 'A' + 69 % 26);
	need_bytes(fs, to, 100 * PAGE, 100 * PAGE + 7, 0);
	NEED_IS(rp_fs_copy(fs, from, 99 * PAGE, to, 1, 5 * PAGE), PAGE);
	need_bytes(fs, to, 1, PAGE, 'A' + 99 % 26);
	NEED_IS(rp_fs_copy(fs, from, 100 * PAGE, to, 0, 10), 0);
	NEED_IS(rp_fs_copy(fs, from, 0, from, PAGE, 2 * PAGE), -EINVAL);
	NEED_IS(rp_fs_copy(fs, from, 0, from, 100 * PAGE, 50 * PAGE), 50 * PAGE);
	need_bytes(fs, from, 149 * PAGE, PAGE, 'A' + 49 % 26);
	NEED_IS(rp_fs_copy(fs, rp_fs_root(fs), 0, to, 0, 10), -EISDIR);
	NS_CHECK(fs);
	resize(fs, from, 0);
	need_bytes(fs, to, 50 * PAGE, PAGE, 'A' + 50 % 26);
	resize(fs, to, 0);
	NS_CHECK(fs);
}

static void test_flags(struct rp_fs *fs)
{
	rp_object ino = file_make(fs, "flags");
	struct rp_attr attr = { .mode = 06755 }, was, is;

	NEED_IS(rp_fs_setattr(fs, ino, RP_SET_MODE, &attr, NULL), 0);
	NEED_IS(rp_fs_write(fs, ino, 0, "12345", 5, 0), 5);
	NEED_IS(ns_attr(fs, ino).mode, S_IFREG | 06755);
	NEED_IS(rp_fs_write(fs, ino, 0, "1", 1, RP_WRITE_KILLPRIV), 1);
	NEED_IS(ns_attr(fs, ino).mode, S_IFREG | 0755);
	attr.mtime = (struct rp_time){ 5, 6 };
	attr.atime = (struct rp_time){ -7, 8 };
	NEED_IS(rp_fs_setattr(fs, ino, RP_SET_MTIME | RP_SET_ATIME, &attr, &was), 0);
	NEED_IS(was.atime.sec, -7);
	NEED_IS(rp_fs_write(fs, ino, 100, "1", 1, RP_WRITE_QUIET), 1);
	is = ns_attr(fs, ino);
	NEED_IS(is.mtime.sec, 5);
	NEED_IS(is.mtime.nsec, 6);
	NEED_IS(is.size_bytes, 101);
	NEED_IS(rp_fs_write(fs, ino, 99, "abc", 3, RP_WRITE_VOLUME), 2);
	NEED(ns_attr(fs, ino).mtime.sec > 5);
	NEED_IS(rp_fs_write(fs, ino, 101, "abc", 3, RP_WRITE_VOLUME), -ENOSPC);
	NEED_IS(rp_fs_write(fs, rp_fs_root(fs), 0, "abc", 3, 0), -EISDIR);
	NEED_IS(rp_fs_prefetch(fs, ino, 0, UINT64_MAX), 0);
}

int main(void)
{
	struct rp_fs *fs = ns_open(256 << 20, 0, NULL);

	test_sparse(fs);
	test_truncate(fs);
	test_fallocate(fs);
	test_fallocate_full(fs);
	test_copy(fs);
	test_flags(fs);
	NS_CHECK(fs);
	ns_close(fs);
	printf("contents: pass\n");
	return 0;
}
