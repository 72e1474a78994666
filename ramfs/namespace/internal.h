/* internal.h: what the files of ramfs/namespace share. Nothing outside this folder and its tests includes it.
 *
 * The numbered invariants N1.., the layout of pages and the reasons stand in DESIGN.md.
 *
 * Locks, outermost first. All of them are taken before an operation of the pool begins and held until it has ended, except
 * where "inside" is said; so an operation never waits, inside the gate, for somebody outside of it.
 *
 *   renames   one for the filesystem. Held by renames between two directories. Guards the `parent` of every directory that
 *             has a name: who holds it may walk up the tree.
 *   inodes    read-write locks, striped by number. Exclusive: the record but for its orphan links and, in a directory,
 *             its pages; and the attribute holder with its values. Shared: to read these; and to write bytes inside a
 *             file's size, with the times that changes (see times). Several at once in the order of stripes; out of order
 *             only by trying, and when that fails all are let go and taken again in order (-ERESTART in this folder).
 *   orphans   the list of inodes without a name: its head in the header, the links in the records, the flag ORPHAN.
 *   limit     taken by who makes an inode while the number of inodes is near its limit, so that the limit is exact.
 *   times     inside; striped. mtime and ctime of a regular file, for writers that hold the inode shared. Held for a few
 *             stores, as the last step of an operation, so that no undo can put back what another writer stored since.
 *   holds     inside; striped. One stripe of the table of held inodes. Innermost.
 *
 * Nobody sleeps inside an operation. Waiting at its end (a page from the image, frames on their way back) happens outside the
 * gate with the inode locks held: that is a disk's time for others who want the same inode.
 */
#ifndef RAMPOOL_NAMESPACE_INTERNAL_H
#define RAMPOOL_NAMESPACE_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <rampool/fs.h>
#include "layout.h"

#define RP_NAME_MAX 255u
#define RP_LINK_MAX INT32_MAX
#define RP_LOCK_STRIPES 1024u
#define RP_TIMES_STRIPES 256u
#define RP_HOLD_STRIPES 256u
#define RP_LIMIT_NEAR 1024u   /* so many inodes below the limit creators begin to take turns */

/* ---- The filesystem (fs.c) ------------------------------------------------------------------------------------ */

struct rp_inode_lock {
	pthread_rwlock_t lock;
} __attribute__((aligned(64)));

struct rp_hold {
	struct rp_hold *next;
	rp_object ino;
	uint64_t generation;
	uint64_t count;
	bool orphan;              /* may be without a name: look when the last hold goes */
	bool stale;               /* gone with a rollback */
};

struct rp_hold_stripe {
	pthread_mutex_t lock;
	struct rp_hold **buckets; /* bucket_count of them, a power of two; guarded by lock */
	size_t bucket_count;
	size_t count;
} __attribute__((aligned(64)));

struct rp_fs {
	/* set once */
	struct rp_pool *pool;
	struct rp_tree *tree;
	struct rp_snapshot *snapshot; /* null: live */
	bool read_only;
	uint64_t hash_seed;
	uint64_t hash_mask;           /* all ones; tests force collisions with fewer */
	atomic_uint_fast64_t *visits; /* counts index pages entered, for tests; null: nobody counts */

	_Atomic uint64_t root;        /* changes with a rollback at most */
	_Atomic uint64_t count_seen;  /* inodes when somebody last looked, for RP_LIMIT_NEAR */
	_Atomic uint64_t limit_seen;
	_Atomic uint64_t stale_count; /* holds that are stale */

	pthread_mutex_t renames, limit, orphans;
	struct rp_inode_lock inodes[RP_LOCK_STRIPES];
	pthread_mutex_t times[RP_TIMES_STRIPES];
	struct rp_hold_stripe holds[RP_HOLD_STRIPES];
};

void *rp_fs_allocate(struct rp_fs *fs, size_t size); /* zeroed; null: no memory; free() */
struct rp_time rp_fs_now(struct rp_fs *fs);
void rp_fs_log(struct rp_fs *fs, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Log and return -EIO: what an image says cannot be. */
int rp_fs_damaged(struct rp_fs *fs, rp_object object, const char *what);
uint64_t rp_fs_hash(struct rp_fs *fs, struct rp_name name); /* the first key names of this hash may have */
bool rp_name_is_dot(struct rp_name name);
bool rp_name_is_dotdot(struct rp_name name);
int rp_name_check(struct rp_name name); /* 0, -EINVAL, -ENAMETOOLONG */

static inline bool rp_fs_is_changeable(const struct rp_fs *fs) { return !fs->read_only; }

/* Run `work` (an expression that gives 0 or an error) in operations until it is done; the last error goes to `error`. */
#define RP_RUN(op, fs, flags, error, work) \
	do { \
		rp_op_begin(&(op), (fs)->pool, (flags)); \
		(error) = (work); \
	} while (rp_op_end(&(op), &(error)))

/* ---- Locks (lock.c) --------------------------------------------------------------------------------------------- */

struct rp_lock_want {
	rp_object ino;
	bool exclusive;
};

struct rp_locks {
	struct rp_fs *fs;
	unsigned count;
	struct {
		unsigned stripe;
		bool exclusive;
	} held[6];
	bool orphans;        /* the orphan mutex is held */
	bool orphans_wanted; /* take it next time: trying failed */
};

int rp_fs_locks_init(struct rp_fs *fs);
void rp_fs_locks_free(struct rp_fs *fs);
/* Take all in order. `locks` may come from a former round: orphans_wanted is heeded. ino 0 is passed over. */
void rp_locks_take(struct rp_fs *fs, struct rp_locks *locks, const struct rp_lock_want *wants, unsigned count);
void rp_locks_take_one(struct rp_fs *fs, struct rp_locks *locks, rp_object ino, bool exclusive);
/* One more, without waiting: 0 or -ERESTART. Inside an operation too. */
int rp_locks_try(struct rp_locks *locks, rp_object ino, bool exclusive);
int rp_locks_try_orphans(struct rp_locks *locks);
void rp_locks_drop(struct rp_locks *locks);

/* ---- Holds (hold.c) ----------------------------------------------------------------------------------------------- */

int rp_holds_init(struct rp_fs *fs);
void rp_holds_free(struct rp_fs *fs);
/* Memory for one hold, so that taking it cannot fail. free() when it is not used. */
struct rp_hold *rp_hold_prepare(struct rp_fs *fs);
/* Count one hold; `spare` from rp_hold_prepare() is used up. The caller's locks keep the inode there. */
void rp_hold_add(struct rp_fs *fs, rp_object ino, uint64_t generation, struct rp_hold *spare);
/* Is it held? Then note that it is losing its last name. A hold of another generation, from before a rollback, is none. */
bool rp_hold_orphan(struct rp_fs *fs, rp_object ino, uint64_t generation);
bool rp_hold_is_held(struct rp_fs *fs, rp_object ino, uint64_t generation);
bool rp_hold_is_stale(struct rp_fs *fs, rp_object ino);
/* Mark what a rollback took away. */
int rp_holds_check_stale(struct rp_fs *fs);

/* ---- Inodes (inode.c) --------------------------------------------------------------------------------------------- */

/* The record of an inode a caller named: -ENOENT no such inode, -ESTALE gone with a rollback. generation 0: any. */
int rp_inode_get(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, const struct rp_record **out);
/* The record of an inode the tree names: -EIO when it is not there or not an inode. */
int rp_inode_get_named(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record **out);
/* The same for a directory that still has a place: also -ENOTDIR; removed: -ENOENT. */
int rp_inode_get_dir(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record **out);

/* Fields to change, kept for undo. front: mode .. xattrs. back: entry_count, tree, tree2. */
int rp_inode_edit_front(struct rp_op *op, rp_object ino, struct rp_inode **out);
int rp_inode_edit_back(struct rp_op *op, rp_object ino, struct rp_inode **out);
int rp_inode_edit_size(struct rp_op *op, rp_object ino, struct rp_record **out);
/* mtime and ctime of a directory whose names changed; links is added to nlink. */
int rp_inode_touch_dir(struct rp_op *op, rp_object dir, struct rp_time now, int links);
/* mtime and ctime of a file, by a writer that holds it shared. The last step of an operation. */
int rp_inode_touch_shared(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_time now);
void rp_attr_fill(struct rp_fs *fs, rp_object ino, const struct rp_record *record, struct rp_attr *out);
bool rp_mode_is_valid(uint32_t mode);

/* A new inode's record with everything but names, attributes and contents. Counts it; -ENOSPC at the limit. */
struct rp_new_inode {
	uint32_t mode, uid, gid, rdev, nlink, flags;
	uint64_t parent;
	struct rp_time now;
};
int rp_inode_create(struct rp_op *op, struct rp_fs *fs, const struct rp_new_inode *new, rp_object *ino, uint64_t *generation);
/* Is the number of inodes near its limit, so that the limit lock is to be held around rp_inode_create()? */
bool rp_inode_limit_is_near(struct rp_fs *fs);
/* Everything of an inode without a name goes: attributes, pages, number. */
int rp_inode_destroy(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record *record);

/* ---- Orphans (orphan.c) ------------------------------------------------------------------------------------------- */

/* With the orphan lock and the inode exclusive. */
int rp_orphan_add(struct rp_op *op, struct rp_fs *fs, rp_object ino);
int rp_orphan_remove(struct rp_op *op, struct rp_fs *fs, rp_object ino);
/* The inode lost a name (directories: their only one). With parent and inode exclusive, the inode's record edited to its
 * new nlink already. Destroys it, or puts it into the list when it is held. -ERESTART: without the orphan lock. */
int rp_orphan_drop(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, rp_object ino);
/* Remove what the list holds and nobody holds. */
int rp_orphans_clean(struct rp_fs *fs);

/* ---- Indexes (index*.c) --------------------------------------------------------------------------------------------- */

/* A B+tree in pages [0, pages) of one object; page 0 is its root; no pages: empty (N4). */
struct rp_index {
	struct rp_fs *fs;
	struct rp_op *op;
	rp_object object;
	uint64_t pages;
};

struct rp_item {
	uint64_t key, ref;
	const uint8_t *name, *data;
	unsigned name_length, data_length, kind;
};

struct rp_index_page {      /* a copy */
	uint8_t bytes[RP_PAGE_SIZE] __attribute__((aligned(8)));
};

struct rp_index_step {
	rp_page page;
	unsigned slot;            /* of the link followed; of the cell, in the last step */
	uint64_t low, high;       /* keys the page may hold: [low, high) */
};
struct rp_index_path {
	unsigned depth;           /* steps; the last is the leaf */
	struct rp_index_step step[RP_INDEX_LEVELS];
};

/* Look a name up, beginning at its hash. -ENOENT: *free_key (may be null) is the key to insert it under, 0 when there is no
 * free one. *path leads to it when found. */
int rp_index_find(struct rp_index *ix, struct rp_name name, struct rp_index_path *path, struct rp_item *out,
		  uint64_t *free_key);
int rp_index_insert(struct rp_index *ix, const struct rp_item *item);
int rp_index_remove(struct rp_index *ix, struct rp_index_path *path);
/* index_remove.c: after a cell went from the leaf at the end of the path. */
int rp_index_shrink(struct rp_index *ix, struct rp_index_path *path);
/* Change what a cell refers to. */
int rp_index_set(struct rp_index *ix, const struct rp_index_path *path, uint64_t ref, unsigned kind);
/* A copy of the leaf that holds the first key >= key, verified whole; *slot is that cell's. -ENOENT: there is none. */
int rp_index_leaf(struct rp_index *ix, uint64_t key, struct rp_index_page *leaf, unsigned *slot);

/* Pages (index_page.c). */
static inline struct rp_index_head *rp_index_head(void *page) { return page; }
static inline const struct rp_index_head *rp_index_head_const(const void *page) { return page; }
static inline struct rp_index_link *rp_index_links(void *page)
{
	return (struct rp_index_link *)((uint8_t *)page + sizeof(struct rp_index_head));
}
static inline const struct rp_index_link *rp_index_links_const(const void *page)
{
	return (const struct rp_index_link *)((const uint8_t *)page + sizeof(struct rp_index_head));
}
static inline uint16_t *rp_index_offsets(void *page) { return (uint16_t *)((uint8_t *)page + sizeof(struct rp_index_head)); }
static inline unsigned rp_item_size(const struct rp_item *item) /* with its offset */
{
	return (unsigned)sizeof(struct rp_index_cell) + item->name_length + item->data_length + 2;
}
/* Is the head what the page at this place must have? level: UINT_MAX for any (a root). */
bool rp_index_page_is_plausible(const void *page, rp_object object, unsigned level, uint64_t low, uint64_t high);
/* Every cell or link, their order and bounds. `links_below`: links are below this page number. */
bool rp_index_page_is_sound(const void *page, rp_object object, unsigned level, uint64_t low, uint64_t high,
			    uint64_t links_below);
void rp_index_page_init(void *page, rp_object object, unsigned level);
bool rp_index_cell_get(const void *page, unsigned slot, struct rp_item *out); /* false: outside the page */
unsigned rp_index_cell_seek(const void *page, uint64_t key); /* first slot with a key >= key, count: none */
unsigned rp_index_link_seek(const void *page, uint64_t key); /* the link that covers key */
unsigned rp_index_fill(const void *page);                    /* bytes taken, heads not counted */
bool rp_index_cell_add(void *page, unsigned slot, const struct rp_item *item); /* false: no room, or the page is unsound */
bool rp_index_cell_remove(void *page, unsigned slot);
bool rp_index_cells_copy(void *to, const void *from, unsigned first, unsigned count); /* appended */
void rp_index_link_add(void *page, unsigned slot, uint64_t key, rp_page child);
void rp_index_link_remove(void *page, unsigned slot);
/* A page entered on the way down (index.c). */
int rp_index_enter(struct rp_index *ix, rp_page page, unsigned level, uint64_t low, uint64_t high, const void **out);
int rp_index_descend(struct rp_index *ix, uint64_t key, unsigned stop_level, struct rp_index_path *path, const void **leaf);
int rp_index_damaged(struct rp_index *ix, rp_page page, const char *what);

/* ---- Directories (dir.c) ---------------------------------------------------------------------------------------------- */

int rp_index_open(struct rp_op *op, struct rp_fs *fs, rp_object object, const struct rp_record *record, struct rp_index *out);
int rp_dir_find(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, struct rp_item *out,
		uint64_t *free_key);
/* All three change entry_count and tree of the directory's record, not its times. insert: key is what rp_dir_find() gave
 * for the name in the same operation, when nothing was put into the directory since. */
int rp_dir_insert(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, uint64_t key, rp_object ino,
		  uint32_t mode);
int rp_dir_remove(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object ino);
int rp_dir_replace(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object ino, rp_object by,
		   uint32_t mode);

/* ---- Attributes: xattr.c, acl.c ----------------------------------------------------------------------------------------- */

#define RP_XATTR_ACL_ACCESS "system.posix_acl_access"
#define RP_XATTR_ACL_DEFAULT "system.posix_acl_default"
#define RP_XATTR_CAPABILITY "security.capability"
#define RP_XATTR_VALUE_MAX 65536u
#define RP_XATTR_LIST_MAX 65536u

/* Inside an operation, with the inode's lock. */
int rp_xattr_read(struct rp_op *op, struct rp_fs *fs, const struct rp_record *record, struct rp_name name, void *to,
		  size_t size, size_t *length); /* size 0: the length only; -ENODATA, -ERANGE */
int rp_xattr_write(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_name name, const void *from, size_t size,
		   int flags);
int rp_xattr_erase(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_name name); /* -ENODATA */
int rp_xattr_destroy(struct rp_op *op, struct rp_fs *fs, const struct rp_inode *inode);
int rp_xattr_holder_open(struct rp_op *op, struct rp_fs *fs, rp_object holder, struct rp_index *ix);

/* ACLs as the kernel passes them: a version and entries of 8 bytes. */
int rp_acl_check(const void *acl, size_t size);                     /* -EINVAL, -EOPNOTSUPP */
bool rp_acl_to_mode(const void *acl, size_t size, uint32_t *mode);  /* true: the mode alone says all */
void rp_acl_chmod(void *acl, size_t size, uint32_t mode);
bool rp_acl_create(void *acl, size_t size, uint32_t *mode);         /* true: the new inode needs the ACL */
/* The access ACL follows a changed mode. */
int rp_acl_follow_mode(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record *record, uint32_t mode);
/* The parent's default ACL for a new inode: *mode gets the umask or the ACL's limits; *acl (free()) is null without one. */
struct rp_acl_inherited {
	uint8_t *acl;        /* the default ACL; null: none */
	uint8_t *access;     /* the new inode's access ACL; null: none */
	size_t size;
};
int rp_acl_inherit(struct rp_op *op, struct rp_fs *fs, const struct rp_record *dir, uint32_t umask, uint32_t *mode,
		   struct rp_acl_inherited *out);
int rp_acl_inherit_store(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint32_t mode,
			 const struct rp_acl_inherited *from);
void rp_acl_inherited_free(struct rp_acl_inherited *inherited);

/* ---- Contents: data.c, size.c --------------------------------------------------------------------------------------------- */

/* Set-user-ID, set-group-ID and capability go, where there are any. Inode exclusive. */
bool rp_inode_has_priv(const struct rp_inode *inode);
int rp_inode_kill_priv(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record *record);
/* A regular file's record. -EISDIR, -EINVAL. */
int rp_file_get(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, const struct rp_record **out);
/* Finish what a shrinking left (N8). Inode exclusive, outside operations. */
int rp_file_trim(struct rp_fs *fs, rp_object ino, uint64_t generation);
/* Change the size: the last step of an operation, between two rp_file_trim(). Times are the caller's. */
int rp_file_resize(struct rp_op *op, rp_object ino, uint64_t size_bytes);
/* Write a piece, growing the file where it must. Inode exclusive, N8 finished. *done on success: at least 1. */
int rp_file_write_exclusive(struct rp_fs *fs, rp_object ino, uint64_t generation, uint64_t offset, const void *from,
			    size_t size, unsigned flags, size_t *done);

/* ---- The checker (check.c, check_index.c, check_inode.c) -------------------------------------------------------- */

/* What is known of an object that was reached. */
struct rp_checked {
	rp_object object;
	uint32_t mode;        /* 0: a holder of attributes or a value */
	uint32_t nlink;       /* as the record says */
	uint64_t names;       /* found */
};

struct rp_check {
	struct rp_fs *fs;
	void (*report)(void *context, const char *line);
	void *context;
	unsigned faults;
	bool no_memory;
	struct rp_checked *table;  /* open addressing, table_size a power of two; object 0: free */
	size_t table_size, table_count;
	rp_object *queue;          /* directories still to be read */
	size_t queue_count, queue_room;
	uint64_t inodes;
};

void rp_check_fault(struct rp_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The entry of an object, made when it is new (*fresh). Null: no memory. */
struct rp_checked *rp_check_reach(struct rp_check *check, rp_object object, bool *fresh);
/* A copy of a record; false (reported): it cannot be had. */
bool rp_check_record(struct rp_check *check, rp_object object, struct rp_record *out);
void rp_check_inode(struct rp_check *check, rp_object ino, const struct rp_record *record);
/* Walk an index wholly; `item` is called for each cell. Its pages and cells are compared with what the record says. */
void rp_check_index(struct rp_check *check, rp_object object, const struct rp_record *record,
		    void (*item)(struct rp_check *check, const struct rp_item *item, void *context), void *context);

#endif
