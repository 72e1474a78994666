/* Names: what may be one, finding, making, removing and moving them; link counts and errors as POSIX has them. */
#include <linux/fs.h>
#include "tests/lib/namespace.h"

static void test_any_bytes(struct rp_fs *fs)
{
	rp_object root = rp_fs_root(fs);
	char bytes[256], name_bytes[255];
	struct rp_attr attr, made;
	struct rp_name name;

	/* Every byte but '/' and NUL, alone and 255 times. */
	for (unsigned b = 1; b < 256; b++) {
		if (b == '/' || b == '.')
			continue;
		for (unsigned length = 1; length <= 255; length += 254) {
			memset(name_bytes, (int)b, length);
			name = (struct rp_name){ name_bytes, length };
			NEED_IS(rp_fs_make(fs, ns_root_cred(), root, name, S_IFREG | 0644, 0, NULL, false, &made), 0);
			NEED_IS(rp_fs_make(fs, ns_root_cred(), root, name, S_IFREG | 0644, 0, NULL, false, &attr), -EEXIST);
			NEED_IS(rp_fs_lookup(fs, root, name, false, &attr), 0);
			NEED_IS(attr.ino, made.ino);
		}
	}
	NS_CHECK(fs);
	for (unsigned b = 1; b < 256; b++) {
		if (b == '/' || b == '.')
			continue;
		for (unsigned length = 1; length <= 255; length += 254) {
			memset(name_bytes, (int)b, length);
			name = (struct rp_name){ name_bytes, length };
			NEED_IS(rp_fs_unlink(fs, root, name, NULL), 0);
			NEED_IS(rp_fs_lookup(fs, root, name, false, &attr), -ENOENT);
		}
	}
	memset(bytes, 'x', sizeof(bytes));
	name = (struct rp_name){ bytes, 256 };
	NEED_IS(rp_fs_make(fs, ns_root_cred(), root, name, S_IFREG, 0, NULL, false, &attr), -ENAMETOOLONG);
	NEED_IS(rp_fs_lookup(fs, root, name, false, &attr), -ENAMETOOLONG);
	NEED_IS(rp_fs_unlink(fs, root, name, NULL), -ENAMETOOLONG);
	NEED_IS(ns_make(fs, root, "", S_IFREG, NULL), -EINVAL);
	NEED_IS(ns_make(fs, root, "a/b", S_IFREG, NULL), -EINVAL);
	NEED_IS(ns_make(fs, root, ".", S_IFDIR, NULL), -EEXIST);
	NEED_IS(ns_make(fs, root, "..", S_IFDIR, NULL), -EEXIST);
	NEED_IS(ns_make(fs, root, "none", 0, NULL), -EINVAL);
	NS_CHECK(fs);
}

static void test_types_and_links(struct rp_fs *fs)
{
	static const uint32_t types[] = { S_IFREG, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK };
	rp_object root = rp_fs_root(fs), dir, ino;
	struct rp_attr attr;
	char to[4096], target[4097];

	NEED_IS(ns_make(fs, root, "d", S_IFDIR | 0777, &dir), 0);
	NEED_IS(ns_attr(fs, dir).mode, S_IFDIR | 0755);
	NEED_IS(ns_attr(fs, dir).nlink, 2);
	NEED_IS(ns_attr(fs, root).nlink, 3);
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		NEED_IS(ns_make(fs, dir, "a", types[i] | 0600, &ino), 0);
		NEED_IS(ns_attr(fs, ino).mode & S_IFMT, types[i]);
		NEED_IS(rp_fs_link(fs, ino, dir, rp_name_from("b"), false, &attr), 0);
		NEED_IS(attr.nlink, 2);
		NEED_IS(rp_fs_link(fs, ino, dir, rp_name_from("b"), false, &attr), -EEXIST);
		NEED_IS(rp_fs_rmdir(fs, dir, rp_name_from("a"), NULL), -ENOTDIR);
		NEED_IS(rp_fs_unlink(fs, dir, rp_name_from("a"), NULL), 0);
		NEED_IS(ns_attr(fs, ino).nlink, 1);
		NEED_IS(ns_make(fs, ino, "x", S_IFREG, NULL), -ENOTDIR);
		NEED_IS(ns_lookup(fs, ino, "x", &attr), -ENOTDIR);
		NEED_IS(rp_fs_unlink(fs, dir, rp_name_from("b"), NULL), 0);
		NEED_IS(rp_fs_getattr(fs, ino, &attr), -ENOENT);
	}
	NEED_IS(rp_fs_link(fs, dir, root, rp_name_from("e"), false, &attr), -EPERM);
	NEED_IS(ns_make(fs, dir, "sub", S_IFDIR | 0700, NULL), 0);
	NEED_IS(rp_fs_unlink(fs, root, rp_name_from("d"), NULL), -EISDIR);
	NEED_IS(rp_fs_rmdir(fs, root, rp_name_from("d"), NULL), -ENOTEMPTY);
	NEED_IS(rp_fs_rmdir(fs, dir, rp_name_from("sub"), NULL), 0);
	NEED_IS(rp_fs_rmdir(fs, root, rp_name_from("d"), &ino), 0);
	NEED_IS(ino, dir);
	NEED_IS(ns_attr(fs, root).nlink, 2);
	/* Targets inline, in a page, and too long. */
	for (size_t length = 1; length <= 4095; length += length < 100 ? 1 : 333) {
		memset(target, 't', length);
		target[length] = 0;
		NEED_IS(rp_fs_make(fs, ns_root_cred(), root, rp_name_from("l"), S_IFLNK | 0777, 0, target, false, &attr), 0);
		NEED_IS(attr.size_bytes, length);
		NEED_IS(rp_fs_readlink(fs, attr.ino, to), 0);
		NEED_IS(strcmp(to, target), 0);
		NEED_IS(rp_fs_unlink(fs, root, rp_name_from("l"), NULL), 0);
	}
	memset(target, 't', 4096);
	target[4096] = 0;
	NEED_IS(rp_fs_make(fs, ns_root_cred(), root, rp_name_from("l"), S_IFLNK, 0, target, false, &attr), -ENAMETOOLONG);
	NEED_IS(rp_fs_readlink(fs, root, to), -EINVAL);
	NS_CHECK(fs);
}

static void test_rename(struct rp_fs *fs)
{
	rp_object root = rp_fs_root(fs), a, b, c, f, g;
	struct rp_attr attr;

	NEED_IS(ns_make(fs, root, "a", S_IFDIR | 0755, &a), 0);
	NEED_IS(ns_make(fs, a, "b", S_IFDIR | 0755, &b), 0);
	NEED_IS(ns_make(fs, b, "c", S_IFDIR | 0755, &c), 0);
	NEED_IS(ns_make(fs, a, "f", S_IFREG | 0644, &f), 0);
	NEED_IS(ns_make(fs, b, "g", S_IFREG | 0644, &g), 0);
	NEED_IS(ns_rename(fs, root, "a", c, "x", 0), -EINVAL);
	NEED_IS(ns_rename(fs, root, "a", a, "x", 0), -EINVAL);
	NEED_IS(ns_rename(fs, root, "a", b, "c", RENAME_EXCHANGE), -EINVAL);
	NEED_IS(ns_rename(fs, b, "c", root, "a", RENAME_EXCHANGE), -EINVAL);
	NEED_IS(ns_rename(fs, b, "g", root, "a", 0), -EISDIR);
	NEED_IS(ns_rename(fs, b, "c", root, "a", 0), -ENOTEMPTY);
	NEED_IS(ns_rename(fs, b, "c", a, "f", 0), -ENOTDIR);
	NEED_IS(ns_rename(fs, b, "none", a, "f", 0), -ENOENT);
	NEED_IS(ns_rename(fs, b, "g", a, "f", RENAME_NOREPLACE), -EEXIST);
	NEED_IS(ns_rename(fs, b, "g", a, "none", RENAME_EXCHANGE), -ENOENT);
	NEED_IS(ns_rename(fs, b, "g", a, "f", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	NEED_IS(ns_rename(fs, b, "g", a, "f", RENAME_EXCHANGE | RENAME_WHITEOUT), -EINVAL);
	NEED_IS(ns_rename(fs, b, "g", a, "f", 64), -EINVAL);
	NS_CHECK(fs);
	/* A file over a file, which goes. */
	NEED_IS(ns_rename(fs, b, "g", a, "f", 0), 0);
	NEED_IS(rp_fs_getattr(fs, f, &attr), -ENOENT);
	NEED_IS(ns_lookup(fs, a, "f", &attr), 0);
	NEED_IS(attr.ino, g);
	/* Two names of one inode: nothing happens. */
	NEED_IS(rp_fs_link(fs, g, b, rp_name_from("same"), false, &attr), 0);
	NEED_IS(ns_rename(fs, b, "same", a, "f", 0), 0);
	NEED_IS(ns_lookup(fs, b, "same", &attr), 0);
	NEED_IS(attr.nlink, 2);
	/* A directory to another parent: link counts and "..". */
	NEED_IS(ns_rename(fs, b, "c", root, "c", 0), 0);
	NEED_IS(ns_attr(fs, b).nlink, 2);
	NEED_IS(ns_attr(fs, root).nlink, 4);
	NEED_IS(ns_lookup(fs, c, "..", &attr), 0);
	NEED_IS(attr.ino, root);
	/* A directory over an empty one. */
	NEED_IS(ns_make(fs, b, "empty", S_IFDIR | 0755, NULL), 0);
	NEED_IS(ns_rename(fs, root, "c", b, "empty", 0), 0);
	NEED_IS(ns_attr(fs, root).nlink, 3);
	NEED_IS(ns_attr(fs, b).nlink, 3);
	/* A directory against a file, across parents. */
	NEED_IS(ns_rename(fs, b, "empty", a, "f", RENAME_EXCHANGE), 0);
	NEED_IS(ns_attr(fs, b).nlink, 2);
	NEED_IS(ns_attr(fs, a).nlink, 4);
	NEED_IS(ns_lookup(fs, c, "..", &attr), 0);
	NEED_IS(attr.ino, a);
	NS_CHECK(fs);
	NEED_IS(ns_rename(fs, b, "empty", b, "moved", RENAME_WHITEOUT), 0);
	NEED_IS(ns_lookup(fs, b, "empty", &attr), 0);
	NEED_IS(attr.mode, S_IFCHR);
	NEED_IS(attr.rdev, 0);
	NEED_IS(ns_lookup(fs, b, "moved", &attr), 0);
	NEED_IS(attr.ino, g);
	NEED_IS(ns_rename(fs, b, "..", b, "x", 0), -EBUSY);
	NS_CHECK(fs);
}

static void test_held(struct rp_fs *fs)
{
	rp_object root = rp_fs_root(fs), dir, ino;
	struct rp_attr attr, held;
	char bytes[10000];

	memset(bytes, 'h', sizeof(bytes));
	NEED_IS(rp_fs_make(fs, ns_root_cred(), root, rp_name_from("h"), S_IFREG | 0644, 0, NULL, true, &held), 0);
	NEED_IS(rp_fs_write(fs, held.ino, 0, bytes, sizeof(bytes), 0), sizeof(bytes));
	NEED_IS(rp_fs_unlink(fs, root, rp_name_from("h"), NULL), 0);
	NS_CHECK(fs);
	NEED_IS(rp_fs_hold(fs, held.ino, held.generation), 0);
	NEED_IS(rp_fs_hold(fs, held.ino, held.generation + 1), -ESTALE);
	rp_fs_release(fs, held.ino, 1);
	NEED_IS(rp_fs_read(fs, held.ino, 9999, bytes, 10), 1);
	NEED_IS(rp_fs_link(fs, held.ino, root, rp_name_from("again"), false, &attr), -ENOENT);
	rp_fs_release(fs, held.ino, 1);
	NEED_IS(rp_fs_getattr(fs, held.ino, &attr), -ENOENT);
	/* A removed directory that is held: empty, without a parent, nothing can be made in it. */
	NEED_IS(ns_make(fs, root, "d", S_IFDIR | 0755, &dir), 0);
	NEED_IS(rp_fs_hold(fs, dir, 0), 0);
	NEED_IS(rp_fs_rmdir(fs, root, rp_name_from("d"), NULL), 0);
	NEED_IS(ns_make(fs, dir, "x", S_IFREG, NULL), -ENOENT);
	NEED_IS(ns_lookup(fs, dir, "..", &attr), -ENOENT);
	NEED_IS(ns_attr(fs, dir).nlink, 0);
	NS_CHECK(fs);
	rp_fs_release(fs, dir, 1);
	NEED_IS(rp_fs_getattr(fs, dir, &attr), -ENOENT);
	/* Files without a name: gone when let go, or given one. */
	NEED_IS(rp_fs_tmpfile(fs, ns_root_cred(), root, 0600, &held), 0);
	NEED_IS(held.nlink, 0);
	NS_CHECK(fs);
	rp_fs_release(fs, held.ino, 1);
	NEED_IS(rp_fs_getattr(fs, held.ino, &attr), -ENOENT);
	NEED_IS(rp_fs_tmpfile(fs, ns_root_cred(), root, 0600, &held), 0);
	NEED_IS(rp_fs_link(fs, held.ino, root, rp_name_from("t"), false, &attr), 0);
	rp_fs_release(fs, held.ino, 1);
	NEED_IS(ns_lookup(fs, root, "t", &attr), 0);
	ino = attr.ino;
	NEED_IS(ino, held.ino);
	NS_CHECK(fs);
}

/* What was without a name when the process ended goes when the filesystem is opened again. */
static void test_orphans_at_open(struct rp_fs **fs)
{
	struct rp_pool *pool = rp_fs_pool(*fs);
	rp_object root = rp_fs_root(*fs);
	struct rp_fs_status before, after;
	struct rp_attr attr;
	char name[16];

	NEED_IS(rp_fs_status(*fs, &before), 0);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "o%u", i);
		NEED_IS(rp_fs_make(*fs, ns_root_cred(), root, rp_name_from(name), S_IFREG | 0644, 0, NULL, true, &attr), 0);
		NEED_IS(rp_fs_write(*fs, attr.ino, 0, name, sizeof(name), 0), sizeof(name));
		NEED_IS(rp_fs_unlink(*fs, root, rp_name_from(name), NULL), 0);
	}
	NEED_IS(rp_fs_status(*fs, &after), 0);
	NEED_IS(after.inode_count, before.inode_count + 100);
	rp_fs_close(*fs);
	NEED_IS(rp_fs_open(pool, false, fs), 0);
	NEED_IS(rp_fs_status(*fs, &after), 0);
	NEED_IS(after.inode_count, before.inode_count);
	NS_CHECK(*fs);
}

int main(void)
{
	struct rp_fs *fs = ns_open(64 << 20, 0, NULL);

	NS_CHECK(fs);
	test_any_bytes(fs);
	test_types_and_links(fs);
	test_rename(fs);
	test_held(fs);
	test_orphans_at_open(&fs);
	ns_close(fs);
	printf("names: pass\n");
	return 0;
}
