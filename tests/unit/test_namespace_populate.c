/* Filling from a directory tree of the host: types, modes, owners, times, hard links, attributes, holes, depth. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "tests/lib/namespace.h"

#define DEPTH 1500

static char work[64] = "/tmp/rampool-populate-XXXXXX";

static void clean(void)
{
	char command[256];

	snprintf(command, sizeof(command), "chmod -R u+rwx %s; rm -rf %s", work, work);
	if (system(command) != 0)
		fprintf(stderr, "%s is left\n", work);
}

static void file_write(int dir, const char *name, off_t at, const char *text, mode_t mode)
{
	int file = openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	NEED(file >= 0);
	NEED_IS(pwrite(file, text, strlen(text), at), strlen(text));
	NEED_IS(fchmod(file, mode), 0);
	NEED_IS(close(file), 0);
}

/* Deeper than there are file descriptors, and than a path can be long. */
static void depth_make(int dir)
{
	int at = dup(dir);

	NEED(at >= 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		int next;

		NEED_IS(mkdirat(at, "deeper-and-deeper", 0755), 0);
		next = openat(at, "deeper-and-deeper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		NEED(next >= 0);
		close(at);
		at = next;
	}
	file_write(at, "bottom", 0, "here", 0644);
	close(at);
}

static void tree_make(int dir, bool *attributes)
{
	const struct timespec times[2] = { { -5, 1 }, { 1000000000, 999999999 } };

	file_write(dir, "plain", 0, "plain text", 06751);
	file_write(dir, "sparse", 100 << 20, "end", 0600);
	NEED_IS(linkat(dir, "plain", dir, "second name", 0), 0);
	NEED_IS(symlinkat("/nowhere/at/all", dir, "link"), 0);
	NEED_IS(mkfifoat(dir, "fifo", 0620), 0);
	NEED_IS(mkdirat(dir, "sub", 02750), 0);
	NEED_IS(fchmodat(dir, "sub", 02750, 0), 0);
	NEED_IS(linkat(dir, "plain", dir, "sub/third", 0), 0);
	if (geteuid() == 0) {
		NEED_IS(mknodat(dir, "null", S_IFCHR | 0666, makedev(1, 300)), 0);
		NEED_IS(fchownat(dir, "sparse", 1234, 5678, 0), 0);
	}
	*attributes = fsetxattr(dir, "user.root", "of root", 7, 0) == 0;
	depth_make(dir);
	NEED_IS(utimensat(dir, "plain", times, 0), 0);
	NEED_IS(utimensat(dir, "link", times, AT_SYMLINK_NOFOLLOW), 0);
	NEED_IS(utimensat(dir, "sub", times, 0), 0);
	NEED_IS(futimens(dir, times), 0);
}

static void progress(void *context, const struct rp_populate *so_far)
{
	NEED(so_far->byte_count > 0);
	++*(unsigned *)context;
}

static void times_compare(const struct rp_attr *attr)
{
	NEED_IS(attr->mtime.sec, 1000000000);
	NEED_IS(attr->mtime.nsec, 999999999);
	if (!S_ISDIR(attr->mode)) { /* reading a directory changes its own */
		NEED_IS(attr->atime.sec, -5);
		NEED_IS(attr->atime.nsec, 1);
	}
}

static void tree_compare(struct rp_fs *fs, bool attributes)
{
	struct rp_attr attr, other;
	char bytes[64], to[4096];
	rp_object at;

	NEED_IS(rp_fs_walk(fs, "plain", &attr), 0);
	NEED_IS(attr.mode, S_IFREG | 06751);
	NEED_IS(attr.nlink, 3);
	times_compare(&attr);
	NEED_IS(rp_fs_read(fs, attr.ino, 0, bytes, sizeof(bytes)), 10);
	NEED(memcmp(bytes, "plain text", 10) == 0);
	NEED_IS(rp_fs_walk(fs, "/second name", &other), 0);
	NEED_IS(other.ino, attr.ino);
	NEED_IS(rp_fs_walk(fs, "/sub/third", &other), 0);
	NEED_IS(other.ino, attr.ino);
	NEED_IS(rp_fs_walk(fs, "/sub", &attr), 0);
	NEED_IS(attr.mode, S_IFDIR | 02750);
	times_compare(&attr);
	NEED_IS(rp_fs_walk(fs, "/sparse", &attr), 0);
	NEED_IS(attr.size_bytes, (100 << 20) + 3);
	NEED(attr.page_count <= 32);
	NEED_IS(rp_fs_read(fs, attr.ino, 100 << 20, bytes, 10), 3);
	if (geteuid() == 0) {
		NEED_IS(attr.uid, 1234);
		NEED_IS(attr.gid, 5678);
		NEED_IS(rp_fs_walk(fs, "null", &attr), 0);
		NEED_IS(attr.mode, S_IFCHR | (0666 & 0755) | (attr.mode & 022));
		NEED_IS(attr.rdev, (300 & 0xff) | 1 << 8 | (300 & ~0xff) << 12);
	}
	NEED_IS(rp_fs_walk(fs, "link", &attr), 0);
	times_compare(&attr);
	NEED_IS(rp_fs_readlink(fs, attr.ino, to), 0);
	NEED_IS(strcmp(to, "/nowhere/at/all"), 0);
	NEED_IS(rp_fs_walk(fs, "fifo", &attr), 0);
	NEED_IS(attr.mode & S_IFMT, S_IFIFO);
	NEED_IS(rp_fs_getattr(fs, rp_fs_root(fs), &attr), 0);
	times_compare(&attr);
	NEED_IS(attr.mode, S_IFDIR | 0700);
	if (attributes) {
		NEED_IS(rp_fs_xattr_get(fs, rp_fs_root(fs), "user.root", bytes, sizeof(bytes)), 7);
		NEED(memcmp(bytes, "of root", 7) == 0);
	}
	at = rp_fs_root(fs);
	for (unsigned i = 0; i < DEPTH; i++) {
		NEED_IS(ns_lookup(fs, at, "deeper-and-deeper", &attr), 0);
		at = attr.ino;
	}
	NEED_IS(ns_lookup(fs, at, "bottom", &attr), 0);
}

int main(void)
{
	struct rp_fs *fs = ns_open(64 << 20, 0, NULL), *small;
	struct rp_populate populate = { .progress = progress };
	unsigned calls = 0;
	bool attributes;
	int dir;

	NEED(mkdtemp(work));
	atexit(clean);
	dir = open(work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	NEED(dir >= 0);
	tree_make(dir, &attributes);
	populate.context = &calls;
	NEED_IS(rp_fs_populate(fs, work, &populate), 0);
	NEED_IS(populate.message[0], 0);
	NEED_IS(populate.file_count, DEPTH + 6 + (geteuid() == 0));
	NEED(calls > 0);
	NS_CHECK(fs);
	tree_compare(fs, attributes);
	/* What cannot be done is said in one line. */
	NEED_IS(rp_fs_populate(fs, work, &populate), -ENOTEMPTY);
	NEED(strstr(populate.message, work));
	small = ns_open(1 << 20, 0, NULL);
	NEED_IS(rp_fs_populate(small, "/nowhere/at/all", &populate), -ENOENT);
	NEED(strstr(populate.message, "/nowhere/at/all"));
	NEED_IS(rp_fs_populate(small, work, &populate), -ENOSPC);
	NEED(populate.message[0]);
	NS_CHECK(small);
	ns_close(small);
	ns_close(fs);
	close(dir);
	printf("populate: pass\n");
	return 0;
}
