/* pool.h: the page pool: frames, operations, objects, snapshots.
 *
 * A pool is memory cut into frames of 4 KiB. Everything in it, bytes of files as well as what describes them, stands in
 * frames that maps name. An object is a sparse array of pages, found by its number in the object table. A tree is one
 * state of the whole: the live one, which changes, or a snapshot, which does not.
 *
 * Errors are negative errno values. What every call inside an operation may also return:
 *   -ENOSPC   no frame is left (budget), or the object limit is reached
 *   -ENOMEM   the process itself got no memory (undo record)
 *   -EIO      a page of the image is damaged or could not be read (already reported through the pool's log function)
 *   RP_AGAIN  (a positive value) something must be waited for outside the operation: pass it on unchanged to
 *             rp_op_end()
 */
#ifndef RAMPOOL_POOL_H
#define RAMPOOL_POOL_H

#include <stddef.h>
#include <sys/types.h>
#include <rampool/format.h>

struct rp_pool;
struct rp_tree;
struct rp_snapshot;
struct rp_slot;

#define RP_AGAIN 1

/* ---- The pool ------------------------------------------------------------------------------------------------- */

/* How allocation and randomness are reached, so that tests can make them fail and repeat. Null members mean the
 * system's. */
struct rp_hooks {
	void *(*allocate)(void *context, size_t size);   /* zeroed memory, or null; freed with free() */
	void (*now)(void *context, int64_t *sec, uint32_t *nsec);
	void (*random)(void *context, void *to, size_t size);
	void (*log)(void *context, const char *line);    /* one line, no newline; null: stderr */
	void *context;
};

struct rp_pool_options {
	uint64_t size_bytes;      /* every frame counts; at least 1 MiB; rounded down to whole pages */
	uint64_t object_limit;    /* 0: none */
	const char *label;        /* at most 32 bytes; null: none */
	const uint8_t *uuid;      /* 16 bytes; null: random */
	const struct rp_hooks *hooks; /* null: the system's; must outlive the pool */
	bool small_pages;         /* memfd even as root */
	bool lock_memory;         /* mlock what is used (as it is first used) */
};

/* Make an empty pool: header, no objects.
 * returns  0; -EINVAL (size, label); -ENOMEM (address space or memory cannot be had); -errno of the arena's file.
 * owns     *out; end with rp_pool_destroy(), when no operation runs and no snapshot is held. */
int rp_pool_create(const struct rp_pool_options *options, struct rp_pool **out);
void rp_pool_destroy(struct rp_pool *pool);

/* Numbers people ask for; each is exact at one moment between the call's begin and end. O(1). */
struct rp_pool_status {
	uint64_t size_bytes;
	uint64_t frame_limit;        /* frames the size allows, the reserve included */
	uint64_t frame_reserve;      /* of these, kept for deleting and truncating */
	uint64_t frame_used;         /* includes frames being given back that some operation may still see */
	uint64_t frame_high;         /* the most ever used */
	uint64_t object_count, object_limit;
	uint64_t snapshot_count;
	uint64_t epoch;
	uint64_t arena_bytes;        /* memory the arena holds from the system */
	bool huge_pages;
	const char *arena_kind;      /* "tmpfs huge=always" or "memfd" */
	uint64_t gate_closed_max_ns; /* the longest time the gate was closed: for a snapshot, or a last try in a full pool */
	uint64_t gate_closings;
	uint64_t dirty_frames;       /* used frames with no image address: at most what a commit would write */
	uint64_t unread_pages;       /* always 0 without an image: pages not yet brought in, as far as known */
	uint8_t uuid[16];
	char label[33];
};
void rp_pool_status(struct rp_pool *pool, struct rp_pool_status *out);

/* Change the size. Smaller than what is used: -ENOSPC. Larger than what the arena reserved address space for (16 times
 * the first size, or 1 TiB, whichever is more): -ENOMEM. */
int rp_pool_resize(struct rp_pool *pool, uint64_t size_bytes);

/* Give back to the system what can be given back now (free extents). */
void rp_pool_trim(struct rp_pool *pool);

/* The checker: proves the numbered invariants of pool/DESIGN.md, counts every frame. Call with no operation running
 * (tests, fsck). Reports each violation through `report`. Returns how many. O(frames). */
unsigned rp_pool_check(struct rp_pool *pool, void (*report)(void *context, const char *line), void *context);

const struct rp_hooks *rp_pool_hooks(struct rp_pool *pool);

/* ---- Trees ---------------------------------------------------------------------------------------------------- */

struct rp_tree *rp_pool_live(struct rp_pool *pool);           /* valid as long as the pool */
struct rp_tree *rp_snapshot_tree(struct rp_snapshot *snapshot); /* valid as long as the reference to the snapshot */

/* ---- Operations ----------------------------------------------------------------------------------------------- */

/* An operation is what a snapshot holds wholly or not at all, and what fails wholly or not at all. It runs inside the
 * gate: it may spin but never wait for a disk, a client or a lock that someone outside the gate holds while he waits
 * for the gate. Pattern:
 *
 *     struct rp_op op;
 *     int error;
 *     do {
 *             rp_op_begin(&op, pool, 0);
 *             error = work(&op, ...);
 *     } while (rp_op_end(&op, &error));
 *
 * rp_op_end() keeps what was done when error is 0. Otherwise it undoes every change made through the calls marked
 * (undo) below; bytes written with rp_bytes_write() stay written, but frames stay accounted. Where error is RP_AGAIN,
 * or -ENOSPC while frames are on their way back, it waits (outside the gate) for what was missing and returns true: run
 * the work again. So `work` must be repeatable: it sets its results only from what it reads in this round.
 * Locks of the caller's that are taken before rp_op_begin() may be held throughout; locks taken inside must be released
 * before rp_op_end() unless they are only ever taken inside operations by all.
 */
enum rp_op_flag {
	RP_OP_RESERVE = 1, /* frees more than it takes: may use the reserve (delete, truncate, punch) */
	RP_OP_READ = 2,    /* changes nothing: the calls marked (undo) are refused with -EROFS */
};
struct rp_op {
	struct rp_pool *pool;
	struct rp_slot *slot;     /* the place in the gate: frame cache, undo record, retired frames */
	unsigned flags;
	unsigned tries;
	uint64_t epoch;
	bool wait_commit;         /* wait for a commit in progress to give frames back */
	bool starved;             /* an allocation found nothing */
	bool alone;               /* a last try, with the gate closed for everybody else */
	unsigned absent_count;    /* blocks of the image that RP_AGAIN waits for */
	rp_addr absent[16];
	uint8_t absent_kind[16];
	uint32_t absent_place[16]; /* where each was named */
	unsigned pin_count;
	rp_frame pins[16];        /* frames brought in for this operation, kept until it ends */
	uint64_t closed_ns;       /* when the gate was closed for it */
};
void rp_op_begin(struct rp_op *op, struct rp_pool *pool, unsigned flags);
bool rp_op_end(struct rp_op *op, int *error);

/* ---- Objects, inside an operation ------------------------------------------------------------------------------ */

/* A new, empty object (undo). meta: its pages are metadata (RP_RECORD_META). The record's size and user area are zero.
 * returns 0; -ENOSPC. O(1). */
int rp_object_create(struct rp_op *op, bool meta, rp_object *out, uint64_t *generation);

/* The object is gone: number free, all its pages given back (undo; the pages go when the operation is kept). The caller
 * knows that nobody uses it any more. O(1) here; the pages are walked afterwards, outside the gate. */
int rp_object_remove(struct rp_op *op, rp_object object);

/* The object's record, to read. The pointer is good until rp_op_end(). The bytes may change under the reader only
 * through rp_record_edit() calls of others: the owner's locks decide. page_count is atomic.
 * returns 0; -ENOENT no such object; -ESTALE with generation != 0 and not the object's. O(height of the table). */
int rp_record_get(struct rp_op *op, struct rp_tree *tree, rp_object object, uint64_t generation,
                  const struct rp_record **out);

/* The live record, to change bytes [offset, offset + length) of it, which are kept for undo (undo). Only `size_bytes`
 * and `user` may be changed so. */
int rp_record_edit(struct rp_op *op, rp_object object, size_t offset, size_t length, struct rp_record **out);

/* Shorthands: the whole user area as struct rp_inode. */
static inline const struct rp_inode *rp_record_inode(const struct rp_record *r)
{
	return (const struct rp_inode *)r->user;
}

/* The filesystem's part of the header, to read; and a number in it to add to (undo, by subtracting again). */
int rp_header_get(struct rp_op *op, struct rp_tree *tree, const struct rp_header **out);
int rp_header_add(struct rp_op *op, size_t offset, int64_t delta);
/* Bytes of the header's user area; the caller's own lock guards them, from here until rp_op_end() (undo). */
int rp_header_edit(struct rp_op *op, size_t offset, size_t length, struct rp_header **out);

/* ---- Pages of metadata, inside an operation ------------------------------------------------------------------- */

/* Page `page` of the object, 4096 bytes, to read; a hole gives a page of zeroes. Good until rp_op_end(). */
int rp_page_get(struct rp_op *op, struct rp_tree *tree, rp_object object, rp_page page, const void **out);

/* The live page, to change bytes [offset, offset + length), kept for undo (undo). A hole becomes a page of zeroes. The
 * pointer is to the page's first byte, good until rp_op_end(). The owner's locks keep others away from these bytes. */
int rp_page_edit(struct rp_op *op, rp_object object, rp_page page, size_t offset, size_t length, void **out);

/* The page becomes a hole (undo). */
int rp_page_drop(struct rp_op *op, rp_object object, rp_page page);

/* ---- Bytes of data, inside an operation ------------------------------------------------------------------------ */

/* One operation should move at most this much, so that the gate can close soon. The calls below do not check. */
#define RP_BYTES_PER_OP (1u << 20)

/* Read [offset, offset + length) of the tree's object: holes are zeroes. No lock, whatever else happens to the
 * object. */
int rp_bytes_read(struct rp_op *op, struct rp_tree *tree, rp_object object, uint64_t offset, void *to, size_t length);

/* Write. Not undone. *done says how many bytes were written when it fails (-ENOSPC after a part). A page wholly covered
 * is neither read nor zeroed first. Any number of threads may write the same object at once; pages are the unit in
 * which one of two overlapping writes wins, or both partly. */
int rp_bytes_write(struct rp_op *op, rp_object object, uint64_t offset, const void *from, size_t length, size_t *done);

/* Whole pages [first, first + count) become holes / own frames of zeroes where they were holes (allocate). Bounded work
 * a call: *next says where to go on, in a new operation (== first + count: finished). Frames that are shared stay
 * shared in allocate; a page wholly zero stays. Not undone.
 * Punch needs frames itself only for nodes that are shared; run it with RP_OP_RESERVE. */
int rp_pages_punch(struct rp_op *op, rp_object object, rp_page first, rp_page count, rp_page *next);
int rp_pages_allocate(struct rp_op *op, rp_object object, rp_page first, rp_page count, rp_page *next);
/* Zero bytes within one page without taking a frame for a hole. Not undone. */
int rp_bytes_zero(struct rp_op *op, rp_object object, uint64_t offset, size_t length);

/* The extent at `offset`: hole or data, and where it ends, looking no further than `end`, and no further than some
 * bounded work (then *extent_end is where the search stopped: the next call may find the same type). Not in memory
 * counts as data. Nodes are skipped whole where they are holes. */
int rp_extent_get(struct rp_op *op, struct rp_tree *tree, rp_object object, uint64_t offset, uint64_t end,
                  bool *is_data,
                  uint64_t *extent_end);

/* ---- Sharing frames between objects, outside operations -------------------------------------------------------- */

/* Pages [from, from + count) of one live object become pages [to, ...) of another (or the same, not overlapping),
 * sharing the frames. Closes the gate for a bounded time, several times for long ranges. *done counts pages when it
 * fails. returns 0; -ENOSPC; -ENOENT; -EIO. locks: the caller keeps other writers away from the target range. */
int rp_pages_share(struct rp_pool *pool, rp_object from_object, rp_page from, rp_object to_object, rp_page to,
                   rp_page count,
                   rp_page *done);

/* ---- Snapshots, outside operations ----------------------------------------------------------------------------- */

/* Take a snapshot of everything, unnamed: for commits, tests and comparisons. O(1); pauses operations for as long as
 * those already running need. *out holds a reference; rp_snapshot_put() drops it, and what only it held goes back to
 * the pool. */
int rp_snapshot_take(struct rp_pool *pool, struct rp_snapshot **out);
void rp_snapshot_get(struct rp_snapshot *snapshot);
void rp_snapshot_put(struct rp_snapshot *snapshot);

/* Named snapshots are entries of the catalog; the catalog is part of a commit.
 * create: -EEXIST; -EINVAL (empty, longer than 255 bytes, or with '/', '@', a control character, or "." and "..");
 * -ENOSPC delete: -ENOENT; a snapshot that is open stays readable until it is put
 * open:   -ENOENT; *out holds a reference
 * rename: -ENOENT, -EEXIST, -EINVAL */
int rp_snapshot_create(struct rp_pool *pool, const char *name);
int rp_snapshot_delete(struct rp_pool *pool, const char *name);
int rp_snapshot_open(struct rp_pool *pool, const char *name, struct rp_snapshot **out);
int rp_snapshot_rename(struct rp_pool *pool, const char *name, const char *to);

struct rp_snapshot_info {
	uint64_t id;
	int64_t sec;
	uint32_t nsec;
	uint64_t frame_count;   /* used when it was taken */
	/* What deleting it would free, at the least: a page that it alone holds but names several times, because copies in it
	 * share it, is not counted. UINT64_MAX: not asked for. */
	uint64_t alone_frames;
	char name[RP_SNAPSHOT_NAME_MAX + 1];
};
/* All named snapshots, oldest first, into a malloc'd array the caller frees. measure: count alone_frames, which walks
 * what each snapshot does not share with its neighbours in time and live tree. */
int rp_snapshot_list(struct rp_pool *pool, bool measure, struct rp_snapshot_info **out, size_t *count);

/* The live tree becomes the snapshot's, at one instant. The named snapshots stay as they are. Whoever caches what he
 * read from the live tree must forget it: rp_pool_tree_id() changes.
 * returns 0; -ENOSPC. */
int rp_snapshot_rollback(struct rp_pool *pool, struct rp_snapshot *snapshot);
/* The same, and *before holds the state that was replaced, to the last operation: nothing can be written in between.
 * -ENOMEM; on error *before is untouched. */
int rp_snapshot_exchange(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_snapshot **before);
uint64_t rp_pool_tree_id(struct rp_pool *pool);

/* What differs between two trees of a pool: calls `object` for each object number whose record differs (its generation
 * or any byte of the record, root included; both records may be null: not there), in rising order. Cost follows the
 * difference. A nonzero return of the callback ends it. Pages of one object likewise with rp_diff_pages(): `page` is
 * called for each page that may differ. For live trees take an unnamed snapshot first. */
int rp_diff_objects(struct rp_pool *pool, struct rp_snapshot *a, struct rp_snapshot *b,
                    int (*object)(void *context, rp_object object, const struct rp_record *in_a,
                                  const struct rp_record *in_b),
                    void *context);
int rp_diff_pages(struct rp_pool *pool, struct rp_snapshot *a, struct rp_snapshot *b, rp_object object,
                  int (*page)(void *context, rp_page page), void *context);

#endif
