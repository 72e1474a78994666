/* The namespace in snapshots: read as it was, never changed; and after a rollback: what is held and gone is stale, what
 * differs is told, and what had no name goes. */
#include "tests/lib/namespace.h"

static int count_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	(void)name, (void)attr, (void)next_cookie;
	++*(unsigned *)context;
	return 0;
}

static void test_read_only(struct rp_fs *fs)
{
	rp_object root = rp_fs_root(fs), dir, ino;
	struct rp_snapshot *snapshot;
	struct rp_attr attr, out;
	unsigned entries = 0;
	char bytes[10], to[4096];
	struct rp_fs *old;

	NEED_IS(ns_make(fs, root, "dir", S_IFDIR | 0755, &dir), 0);
	NEED_IS(ns_make(fs, dir, "file", S_IFREG | 0644, &ino), 0);
	NEED_IS(ns_make(fs, dir, "link", S_IFLNK | 0777, NULL), 0);
	NEED_IS(rp_fs_write(fs, ino, 0, "before", 6, 0), 6);
	NEED_IS(rp_fs_xattr_set(fs, ino, "user.a", "1", 1, 0, false), 0);
	NEED_IS(rp_snapshot_take(rp_fs_pool(fs), &snapshot), 0);
	NEED_IS(rp_fs_open_snapshot(rp_fs_pool(fs), snapshot, &old), 0);
	rp_snapshot_put(snapshot);
	/* The live one goes on. */
	NEED_IS(rp_fs_write(fs, ino, 0, "after!!", 7, 0), 7);
	NEED_IS(rp_fs_xattr_set(fs, ino, "user.a", "22", 2, 0, false), 0);
	NEED_IS(ns_rename(fs, dir, "file", root, "moved", 0), 0);
	NEED_IS(rp_fs_unlink(fs, dir, rp_name_from("link"), NULL), 0);
	NEED_IS(rp_fs_rmdir(fs, root, rp_name_from("dir"), NULL), 0);
	NS_CHECK(fs);
	NS_CHECK(old);
	NEED_IS(rp_fs_walk(old, "/dir//file", &attr), 0);
	NEED_IS(attr.ino, ino);
	NEED_IS(rp_fs_read(old, ino, 0, bytes, 10), 6);
	NEED(memcmp(bytes, "before", 6) == 0);
	NEED_IS(rp_fs_xattr_get(old, ino, "user.a", bytes, 10), 1);
	NEED_IS(ns_lookup(old, dir, "link", &attr), 0);
	NEED_IS(rp_fs_readlink(old, attr.ino, to), 0);
	NEED_IS(rp_fs_readdir(old, dir, 0, true, false, count_entry, &entries), 0);
	NEED_IS(entries, 4);
	NEED_IS(rp_fs_hold(old, ino, 0), 0);
	rp_fs_release(old, ino, 1);
	/* Every change is refused. */
	NEED_IS(ns_make(old, dir, "x", S_IFREG, NULL), -EROFS);
	NEED_IS(rp_fs_tmpfile(old, ns_root_cred(), dir, 0600, &out), -EROFS);
	NEED_IS(rp_fs_link(old, ino, dir, rp_name_from("x"), false, &out), -EROFS);
	NEED_IS(rp_fs_unlink(old, dir, rp_name_from("file"), NULL), -EROFS);
	NEED_IS(rp_fs_rmdir(old, root, rp_name_from("dir"), NULL), -EROFS);
	NEED_IS(ns_rename(old, dir, "file", dir, "x", 0), -EROFS);
	NEED_IS(rp_fs_setattr(old, ino, RP_SET_MODE, &attr, &out), -EROFS);
	NEED_IS(rp_fs_xattr_set(old, ino, "user.a", "3", 1, 0, false), -EROFS);
	NEED_IS(rp_fs_xattr_remove(old, ino, "user.a"), -EROFS);
	NEED_IS(rp_fs_write(old, ino, 0, "x", 1, 0), -EROFS);
	NEED_IS(rp_fs_fallocate(old, ino, 0, 0, 10, false), -EROFS);
	NEED_IS(rp_fs_copy(old, ino, 0, ino, 4096, 1), -EROFS);
	NEED_IS(rp_fs_inode_limit_set(old, 7), -EROFS);
	rp_fs_close(old);
	NS_CHECK(fs);
	NEED_IS(rp_fs_unlink(fs, root, rp_name_from("moved"), NULL), 0);
}

struct changes {
	rp_object ino[64];
	unsigned count;
};

static void note_change(void *context, rp_object ino, bool directory)
{
	struct changes *changes = context;

	(void)directory;
	NEED(changes->count < 64);
	changes->ino[changes->count++] = ino;
}

static bool has_change(const struct changes *changes, rp_object ino)
{
	for (unsigned i = 0; i < changes->count; i++)
		if (changes->ino[i] == ino)
			return true;
	return false;
}

static void test_rollback(struct rp_fs *fs)
{
	rp_object root = rp_fs_root(fs), same, changed, gone;
	struct rp_snapshot *snapshot, *before;
	struct changes changes = { .count = 0 };
	struct rp_attr filler, young, reused, attr, orphan;
	struct rp_fs_status status;
	char bytes[10];

	NEED_IS(ns_make(fs, root, "same", S_IFREG | 0644, &same), 0);
	NEED_IS(ns_make(fs, root, "changed", S_IFREG | 0644, &changed), 0);
	NEED_IS(ns_make(fs, root, "gone", S_IFREG | 0644, &gone), 0);
	NEED_IS(rp_fs_write(fs, changed, 0, "old", 3, 0), 3);
	/* Without a name at the time of the snapshot, and let go after it. */
	NEED_IS(rp_fs_tmpfile(fs, ns_root_cred(), root, 0600, &orphan), 0);
	NEED_IS(rp_snapshot_take(rp_fs_pool(fs), &snapshot), 0);
	rp_fs_release(fs, orphan.ino, 1);
	NEED_IS(rp_fs_write(fs, changed, 0, "new!", 4, 0), 4);
	/* One under a number that the snapshot does not have, one perhaps under a number that it does. */
	NEED_IS(rp_fs_make(fs, ns_root_cred(), root, rp_name_from("filler"), S_IFREG | 0644, 0, NULL, true, &filler), 0);
	NEED_IS(rp_fs_make(fs, ns_root_cred(), root, rp_name_from("young"), S_IFREG | 0644, 0, NULL, true, &young), 0);
	NEED_IS(rp_fs_unlink(fs, root, rp_name_from("gone"), NULL), 0);
	NEED_IS(rp_fs_make(fs, ns_root_cred(), root, rp_name_from("reused"), S_IFREG | 0644, 0, NULL, true, &reused), 0);
	NEED_IS(rp_fs_hold(fs, changed, 0), 0);
	NEED_IS(rp_snapshot_take(rp_fs_pool(fs), &before), 0);
	NEED_IS(rp_snapshot_rollback(rp_fs_pool(fs), snapshot), 0);
	NEED_IS(rp_fs_rolled_back(fs, before, note_change, &changes), 0);
	NEED_IS(rp_fs_rolled_back(fs, before, NULL, NULL), 0); /* asks nobody to be told */
	NS_CHECK(fs);
	NEED(has_change(&changes, root));
	NEED(has_change(&changes, changed));
	NEED(has_change(&changes, gone));
	NEED(has_change(&changes, young.ino));
	NEED(!has_change(&changes, same));
	NEED_IS(rp_fs_read(fs, changed, 0, bytes, 10), 3);
	NEED_IS(rp_fs_getattr(fs, gone, &attr), reused.ino == gone ? -ESTALE : 0);
	NEED_IS(rp_fs_read(fs, young.ino, 0, bytes, 10), -ESTALE);
	NEED_IS(rp_fs_write(fs, young.ino, 0, bytes, 10, 0), -ESTALE);
	NEED_IS(rp_fs_getattr(fs, orphan.ino, &attr), filler.ino == orphan.ino ? -ESTALE : -ENOENT);
	NEED_IS(rp_fs_status(fs, &status), 0);
	NEED_IS(status.inode_count, 4);
	/* A number that is still held from before does not become another file. */
	for (unsigned i = 0; i < 40; i++) {
		char name[16];
		rp_object ino;

		snprintf(name, sizeof(name), "r%u", i);
		NEED_IS(ns_make(fs, root, name, S_IFREG | 0644, &ino), 0);
		NEED(ino != young.ino && ino != filler.ino);
	}
	NS_CHECK(fs);
	/* Reached again under its own generation. */
	if (reused.ino == gone) {
		NEED_IS(rp_fs_lookup(fs, root, rp_name_from("gone"), true, &attr), 0);
		NEED(attr.generation != reused.generation);
		NEED_IS(rp_fs_getattr(fs, gone, &attr), 0);
		rp_fs_release(fs, gone, 1);
	}
	rp_fs_release(fs, young.ino, 1);
	rp_fs_release(fs, filler.ino, 1);
	rp_fs_release(fs, reused.ino, 1);
	rp_fs_release(fs, changed, 1);
	NEED_IS(ns_attr(fs, changed).size_bytes, 3);
	rp_snapshot_put(before);
	rp_snapshot_put(snapshot);
	NS_CHECK(fs);
}

int main(void)
{
	struct rp_fs *fs = ns_open(64 << 20, 0, NULL);

	test_read_only(fs);
	test_rollback(fs);
	ns_close(fs);
	printf("snapshot: pass\n");
	return 0;
}
