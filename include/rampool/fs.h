/* fs.h: the namespace: POSIX files in the pages of a pool. Knows no FUSE and no NBD.
 *
 * All calls return 0 or -errno, may be called from any thread, take their own locks (one per inode, striped; see
 * ramfs/namespace/internal.h) and run their own operations on the pool: each is wholly in a snapshot or not at all
 * (reads and writes larger than RP_BYTES_PER_OP, truncating and removing of long files excepted: these go in steps,
 * each a state a file may be in). Call them with no lock held that an operation of the pool might wait for.
 *
 * Permission bits are the caller's business (the kernel's, with default_permissions); what the namespace does itself:
 * set-group-ID inheritance, default ACLs, clearing of set-user-ID, set-group-ID and security.capability, sticky types
 * and limits. Beyond what is listed, every call may return -EIO (damaged image page), -ENOMEM, -ENOSPC, -ENOENT/-ESTALE
 * (no such inode), -EROFS (a snapshot's namespace, or the filesystem is read-only).
 */
#ifndef RAMPOOL_FS_H
#define RAMPOOL_FS_H

#include <rampool/pool.h>

struct rp_fs;

struct rp_attr {
	rp_object ino;
	uint64_t generation;
	uint32_t mode, nlink, uid, gid, rdev;   /* rdev: encoded as in struct rp_inode */
	uint32_t flags;                         /* enum rp_inode_flag */
	uint64_t size_bytes, page_count;
	struct rp_time atime, mtime, ctime, btime;
};

struct rp_cred {
	uint32_t uid, gid;
	uint32_t umask;
	bool fsetid;            /* may keep set-ID bits (CAP_FSETID, or nobody to ask: root) */
};

/* ---- The filesystem -------------------------------------------------------------------------------------------- */

struct rp_fs_options {
	uint32_t mode, uid, gid;  /* of the root directory; mode 0 means 01777 as for tmpfs */
	uint64_t inode_limit;     /* 0: none */
};
/* Make a filesystem in an empty pool. */
int rp_fs_format(struct rp_pool *pool, const struct rp_fs_options *options);
/* The live filesystem of a pool that has one. Removes what an earlier life left without a name. read_only: every change
 * is -EROFS. One at a time for a pool. owns *out: rp_fs_close(), before the pool. */
int rp_fs_open(struct rp_pool *pool, bool read_only, struct rp_fs **out);
/* The filesystem as a snapshot holds it, read-only; takes its own reference to the snapshot. */
int rp_fs_open_snapshot(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_fs **out);
void rp_fs_close(struct rp_fs *fs);
struct rp_pool *rp_fs_pool(struct rp_fs *fs);
rp_object rp_fs_root(struct rp_fs *fs);

struct rp_fs_status {
	uint64_t block_count, block_free;    /* of 4 KiB; free without the reserve */
	uint64_t inode_count, inode_limit;   /* limit 0: none */
};
int rp_fs_status(struct rp_fs *fs, struct rp_fs_status *out);
int rp_fs_inode_limit_set(struct rp_fs *fs, uint64_t inode_limit);  /* -ENOSPC: below what is used */

/* After rp_snapshot_rollback(): forget what was cached; inodes that are held but no longer exist give -ESTALE from now
 * on. `changed` is called for each inode of either state that differs: for invalidating what a kernel keeps (null: nobody
 * is told). The caller has the snapshot of the state before. */
int rp_fs_rolled_back(struct rp_fs *fs, struct rp_snapshot *before,
                      void (*changed)(void *context, rp_object ino, bool directory), void *context);

/* Prove the namespace: every directory's tree, every name's inode, link counts, parents, reachability, attribute
 * holders, orphans, counts. With no other call running. Reports through `report`; returns how many faults.
 * O(everything). */
unsigned rp_fs_check(struct rp_fs *fs, void (*report)(void *context, const char *line), void *context);

/* ---- Holding inodes -------------------------------------------------------------------------------------------- */

/* Inodes that someone outside may still name (a kernel's lookup counts, open files). A held inode without a name lives
 * on until its count is 0; then its pages go. lookup, make, link, tmpfile and readdir never hold by themselves: hold
 * says -ENOENT when the inode is gone (generation 0: any). Counts are memory only: an image's unnamed inodes go at the
 * next open. */
int rp_fs_hold(struct rp_fs *fs, rp_object ino, uint64_t generation);
void rp_fs_release(struct rp_fs *fs, rp_object ino, uint64_t count);

/* ---- Names ----------------------------------------------------------------------------------------------------- */

/* Names are byte strings without '/' and NUL, 1..255 bytes (-ENAMETOOLONG; -EINVAL for empty or with '/'); length
 * given. */
struct rp_name {
	const char *bytes;
	size_t length;
};
struct rp_name rp_name_from(const char *string);

/* "." and ".." work too. hold: as rp_fs_hold() in the same step, so that the inode cannot go in between; also below.
 * -ENOENT, -ENOTDIR. A bounded number of pages is read. */
int rp_fs_lookup(struct rp_fs *fs, rp_object dir, struct rp_name name, bool hold, struct rp_attr *out);
/* Walk a path from the root: components divided by '/'; symbolic links are not followed. */
int rp_fs_walk(struct rp_fs *fs, const char *path, struct rp_attr *out);

/* mknod, mkdir, symlink and create in one: the type is in mode. target: of a symlink. -EEXIST, -ENOTDIR, -EMLINK,
 * -ENOSPC (frames or inode limit). The umask applies unless the parent has a default ACL. */
int rp_fs_make(struct rp_fs *fs, const struct rp_cred *cred, rp_object dir, struct rp_name name, uint32_t mode,
               uint32_t rdev,
               const char *target, bool hold, struct rp_attr *out);
/* A regular file without a name, held once. */
int rp_fs_tmpfile(struct rp_fs *fs, const struct rp_cred *cred, rp_object dir, uint32_t mode, struct rp_attr *out);
/* -EMLINK past 2^31-1 links; -EPERM for directories; -EEXIST. A tmpfile may be linked; an inode whose last name was
 * removed may not (-ENOENT). */
int rp_fs_link(struct rp_fs *fs, rp_object ino, rp_object dir, struct rp_name name, bool hold, struct rp_attr *out);
/* removed (may be null): the inode whose name went. -EISDIR / -ENOTDIR / -ENOTEMPTY / -EBUSY (root). Works in a full
 * pool. */
int rp_fs_unlink(struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object *removed);
int rp_fs_rmdir(struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object *removed);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of <linux/fs.h>, combined as the kernel allows (-EINVAL
 * otherwise, and for a directory moved below itself). cred: for the whiteout. */
int rp_fs_rename(struct rp_fs *fs, const struct rp_cred *cred, rp_object dir, struct rp_name name, rp_object to_dir,
                 struct rp_name to_name, unsigned flags);

/* Names of a directory from `cookie` on (0: from the start, "." and ".." first). `entry` is called with each name, the
 * cookie to go on behind it, and attributes when asked for; it returns nonzero when its buffer is full. Cookies fit in
 * 63 bits, and stay good while names come and go: a name that was there all the time is seen once. No operation is open
 * while `entry` runs. with_hold: each inode for which `entry` returned 0 is held once, except "." and "..". */
typedef int (*rp_entry_fn)(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie);
int rp_fs_readdir(struct rp_fs *fs, rp_object dir, uint64_t cookie, bool with_attr, bool with_hold, rp_entry_fn entry,
                  void *context);

/* Up to 4095 bytes and a NUL. -EINVAL: not a symlink. */
int rp_fs_readlink(struct rp_fs *fs, rp_object ino, char to[4096]);

/* ---- Attributes ------------------------------------------------------------------------------------------------ */

int rp_fs_getattr(struct rp_fs *fs, rp_object ino, struct rp_attr *out);

enum rp_set {
	RP_SET_MODE = 1, RP_SET_UID = 2, RP_SET_GID = 4, RP_SET_SIZE = 8,
	RP_SET_ATIME = 16, RP_SET_MTIME = 32, RP_SET_CTIME = 64,
	RP_SET_ATIME_NOW = 128, RP_SET_MTIME_NOW = 256,
	RP_SET_KILLPRIV = 512,   /* clear set-user-ID, set-group-ID (when group-executable) and security.capability */
};
/* mode: permissions only, the type stays; set-group-ID is the kernel's to clear except with KILLPRIV and on chown. With
 * an access ACL a changed mode changes the ACL. size: -EFBIG above RP_FILE_SIZE_MAX; -EISDIR, -EINVAL for other types.
 * ctime becomes now unless RP_SET_CTIME gives it. Shrinking works in a full pool. */
int rp_fs_setattr(struct rp_fs *fs, rp_object ino, unsigned set, const struct rp_attr *from, struct rp_attr *out);

/* Extended attributes: "user.", "trusted.", "security.", "system.posix_acl_access" and "..._default"; other names
 * -EOPNOTSUPP. Values to 64 KiB (-E2BIG... as setxattr(2)); names to 255 bytes (-ERANGE). get, list: size 0 asks for
 * the length, -ERANGE when it does not fit, -ENODATA. Return the length. set: flags XATTR_CREATE, XATTR_REPLACE. ACLs
 * are checked for form (-EINVAL) and change the mode. user.* only on regular files and directories (-EPERM). */
ssize_t rp_fs_xattr_get(struct rp_fs *fs, rp_object ino, const char *name, void *to, size_t size);
int rp_fs_xattr_set(struct rp_fs *fs, rp_object ino, const char *name, const void *from, size_t size, int flags,
                    bool clear_sgid);
int rp_fs_xattr_remove(struct rp_fs *fs, rp_object ino, const char *name);
ssize_t rp_fs_xattr_list(struct rp_fs *fs, rp_object ino, char *to, size_t size);

/* ---- Contents -------------------------------------------------------------------------------------------------- */

/* Bytes read, short only at the file's end. touch: set atime to now. */
ssize_t rp_fs_read(struct rp_fs *fs, rp_object ino, uint64_t offset, void *to, size_t size);

enum rp_write_flag {
	RP_WRITE_KILLPRIV = 1,  /* as RP_SET_KILLPRIV */
	/* the kernel keeps the times (writeback cache): leave mtime and ctime, and only grow the size */
	RP_WRITE_QUIET = 2,
	RP_WRITE_VOLUME = 4,    /* never grows: -ENOSPC past the end. For block devices. */
};
/* Bytes written, less than asked only when space ran out after a part; -ENOSPC, -EFBIG. */
ssize_t rp_fs_write(struct rp_fs *fs, rp_object ino, uint64_t offset, const void *from, size_t size, unsigned flags);

/* mode as fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others -EOPNOTSUPP. ALLOCATE is all
 * or nothing where it fails with -ENOSPC. */
int rp_fs_fallocate(struct rp_fs *fs, rp_object ino, int mode, uint64_t offset, uint64_t length, bool killpriv);
/* SEEK_DATA, SEEK_HOLE. -ENXIO past the end. */
int rp_fs_seek(struct rp_fs *fs, rp_object ino, uint64_t offset, int whence, uint64_t *out);
/* Shares whole pages where both offsets allow and enough of them are moved, copies the rest. Bytes copied, short at the
 * source's end. -EINVAL overlapping ranges of one file. */
ssize_t rp_fs_copy(struct rp_fs *fs, rp_object from, uint64_t from_offset, rp_object to, uint64_t to_offset,
                   uint64_t size);

/* Extents for NBD: as rp_extent_get(), waiting for pages where it must. */
int rp_fs_extent(struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t end, bool *is_data, uint64_t *extent_end);
/* Bring pages of the range into memory. */
int rp_fs_prefetch(struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t length);

/* ---- Filling from a directory tree ------------------------------------------------------------------------------- */

/* Copy the tree at `path` of the host into the (empty) root: modes, owners, times, hard links, xattrs, ACLs, holes, all
 * types. The source's own root directory gives the root its mode, owner, times and xattrs. Stays on one filesystem of
 * the host. `message` takes one line that names the path where it went wrong. progress (may be null) is called now and
 * then. Locks: none needed; others may use the filesystem meanwhile. */
struct rp_populate {
	uint64_t file_count, byte_count;    /* so far */
	void (*progress)(void *context, const struct rp_populate *so_far);
	void *context;
	char message[512];
};
int rp_fs_populate(struct rp_fs *fs, const char *path, struct rp_populate *populate);

#endif
