/* internal.h: what the files of pool/ share. Nothing outside pool/ and the tests includes it.
 *
 * The rules of this folder, with their reasons, stand in DESIGN.md; I1, I2, ... below are its numbered invariants.
 */
#ifndef RAMPOOL_POOL_INTERNAL_H
#define RAMPOOL_POOL_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <rampool/pool.h>
#include "place.h"

#define RP_EXTENT_FRAMES 512u /* 2 MiB: a huge page, and what is given back to the system at once */
#define RP_SLOT_COUNT 64u     /* operations at one time; more wait their turn */
#define RP_CACHE_FRAMES 128u  /* free frames a slot keeps */
#define RP_CACHE_BATCH 32u    /* frames moved between a slot and the arena at once */

/* Copies of pages race by design with writers of the same file (as in a page cache): the thread sanitizer is not told. */
#if defined(__SANITIZE_THREAD__)
#define RP_RACY __attribute__((no_sanitize("thread"), noinline))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RP_RACY __attribute__((no_sanitize("thread"), noinline))
#endif
#endif
#ifdef RP_RACY
#define RP_RACY_LOOPS
#else
#define RP_RACY
#endif

/* Where another thread's step may come between two of ours. tests/model/test_mutants builds with RP_RACE_POINTS: then
 * others go first there. */
#ifdef RP_RACE_POINTS
void rp_race_point(const char *where);
#else
static inline void rp_race_point(const char *where) { (void)where; }
#endif

/* ---- Frames (frame.c) ----------------------------------------------------------------------------------------- */

/* One word of state and two halves: 16 bytes a frame.
 *   life     bits 0..47 birth epoch, 48..55 kind, 56..63 the image address's bits 32..39
 *   refs     how many entries, roots, snapshots and pins name the frame; 0: free or on its way there
 *   addr_low the image address's bits 0..31; of a retired or free frame: the next one in its list
 * A frame's life: taken (rp_frame_take: refs 1, born now) -> named by an entry -> shared, perhaps given an image address
 * -> refs falls to 0 -> retired in the slot of whoever dropped it -> after a grace period its children are dropped and it
 * is free again. */
struct rp_frame_info {
	_Atomic uint64_t life;
	_Atomic uint32_t refs;
	_Atomic uint32_t addr_low;
};
static_assert(sizeof(struct rp_frame_info) == 16, "16 bytes a frame");

/* One page can be shared as often as entries fit into the pool, which is more than the counter counts. From REFS_SHARED on a
 * share copies; what goes on counting then are copies of nodes, each of which takes a frame, and at REFS_MAX that ends too. */
#define RP_REFS_SHARED (UINT32_C(1) << 30)
#define RP_REFS_MAX (UINT32_MAX - (UINT32_C(1) << 20))

#define RP_EPOCH_BITS 48
#define RP_EPOCH_MASK ((UINT64_C(1) << RP_EPOCH_BITS) - 1)

/* ---- Arena (arena.c) ------------------------------------------------------------------------------------------ */

struct rp_extent {
	uint64_t used[RP_EXTENT_FRAMES / 64]; /* bit: the frame is out of the arena (in use or in a slot) */
	uint32_t used_count;
	uint32_t backed;                      /* the system's memory may stand behind it */
};

/* A set of extents: 64-ary tree of bits, so that the lowest member is found in three steps. */
struct rp_bitset {
	uint64_t *level[6];
	unsigned levels;
	uint64_t size;
	uint64_t count;
};
int rp_bitset_init(struct rp_bitset *set, uint64_t size);
void rp_bitset_free(struct rp_bitset *set);
void rp_bitset_add(struct rp_bitset *set, uint64_t i);
void rp_bitset_remove(struct rp_bitset *set, uint64_t i);
bool rp_bitset_has(const struct rp_bitset *set, uint64_t i);
uint64_t rp_bitset_first(const struct rp_bitset *set); /* UINT64_MAX: empty */

struct rp_arena {
	/* set once */
	int file;
	bool huge;
	const char *kind;
	uint8_t *base;
	uint64_t capacity;            /* frames there is address space for */
	struct rp_frame_info *frames; /* capacity of them */
	struct rp_extent *extents;
	/* the arena's lock guards the rest: held for a bounded number of frames, never while bytes are copied or zeroed. In lines
	 * of its own: every look at a page needs base and frames. */
	pthread_mutex_t lock __attribute__((aligned(64)));
	uint64_t limit;               /* frames the size allows */
	uint64_t reserve;             /* of these, frames kept for RP_OP_RESERVE */
	uint64_t taken;               /* frames out of the arena: in use, in slots' caches, retired */
	uint64_t taken_high;
	uint64_t extents_made;        /* extents [0, extents_made) were handed out at least once */
	struct rp_bitset partial;     /* backed, with a free frame */
	struct rp_bitset empty;       /* members of partial without a used frame */
	struct rp_bitset released;    /* given back to the system */
	/* written under the lock, read without: a hint that taken > limit - reserve, so caches must not hoard */
	atomic_bool tight;
};

/* How far an allocation may go: what is normal leaves the reserve; what frees more than it takes may use it; what replaces
 * a frame that will come back, or brings in what already counts, may pass the limit by an eighth. */
enum rp_class { RP_CLASS_NORMAL, RP_CLASS_RESERVE, RP_CLASS_OVERDRAFT };

int rp_arena_init(struct rp_arena *arena, const struct rp_pool_options *options);
void rp_arena_free(struct rp_arena *arena);
/* Up to `count` frames; returns how many (0: the class's limit is reached). */
unsigned rp_arena_take(struct rp_arena *arena, enum rp_class class, rp_frame *to, unsigned count);
void rp_arena_give(struct rp_arena *arena, const rp_frame *from, unsigned count);
/* Another limit, and the reserve that goes with it. false: smaller than what is taken, `more` and the reserve, and nothing
 * changes; force: it is the limit all the same. */
bool rp_arena_resize(struct rp_arena *arena, uint64_t limit, uint64_t more, bool force);
void rp_arena_trim(struct rp_arena *arena, uint64_t keep_extents);
uint64_t rp_arena_room(struct rp_arena *arena, enum rp_class class); /* frames the class could take now */
uint64_t rp_arena_resident_bytes(struct rp_arena *arena);

/* ---- Slots and the gate (gate.c) -------------------------------------------------------------------------------- */

/* A list of frames linked through addr_low. */
struct rp_frame_list {
	rp_frame first, last;
	uint64_t count;
};

struct rp_undo;

/* Where an operation stands. Whoever holds `busy` owns the rest, except `era`. */
struct rp_slot {
	_Atomic uint32_t busy;
	_Atomic uint64_t era;             /* reclamation era the operation inside began in; 0: nobody inside the gate */
	unsigned cached;                  /* changed with rp_slot_cached_set(): status reads it */
	rp_frame cache[RP_CACHE_FRAMES];
	struct rp_frame_list retired[3];  /* by era modulo 3 */
	uint64_t retired_era[3];
	struct rp_frame_list dying;       /* past their grace period, children still to be dropped */
	_Atomic uint64_t waiting;         /* frames in retired and dying, for whoever looks for work */
	struct rp_undo *undo;             /* grown as needed, kept for the next operation */
	size_t undo_count, undo_room;
	uint8_t *undo_bytes;
	size_t undo_bytes_used, undo_bytes_room;
} __attribute__((aligned(128)));

static inline void rp_slot_cached_set(struct rp_slot *slot, unsigned cached)
{
	__atomic_store_n(&slot->cached, cached, __ATOMIC_RELAXED);
}

/* ---- Trees, snapshots, the pool ----------------------------------------------------------------------------------- */

struct rp_tree {
	_Atomic rp_entry root;  /* of the object table */
	bool live;
};

struct rp_snapshot {
	struct rp_pool *pool;
	atomic_uint refs;
	struct rp_tree tree;
	rp_entry catalog;       /* root of the catalog at the same instant; 0 in handles of named snapshots */
	uint64_t epoch;         /* frames of this tree were born in it or before */
	uint64_t id;            /* of a named snapshot */
	struct rp_snapshot *next, *prev; /* pool->snapshots: all that are held, for the checker and for status */
};

struct rp_named {               /* heap index of the catalog: cache of what the pages say */
	uint64_t id;
	uint64_t index;         /* of the entry in the catalog */
	char name[RP_SNAPSHOT_NAME_MAX + 1];
};

/* Where absent pages come from: the image. */
struct rp_source {
	/* Bring the block at addr in, named in `place` (rp_place()). Runs outside the gate, may sleep. *out: a frame in the
	 * resident index, with one reference for the caller (rp_frame_put_outside). 0; -EIO; -ENOSPC; -ENOMEM. */
	int (*fetch)(void *context, rp_addr addr, unsigned kind, uint32_t place, rp_frame *out);
	/* Wait for the commit that runs now, if any, to end. */
	void (*wait_commit)(void *context);
	void *context;
};

struct rp_resident; /* resident.c: image address -> frame, for what was read in */

struct rp_pool {
	/* set once */
	struct rp_hooks hooks;
	struct rp_arena arena;
	uint8_t uuid[16];
	char label[33];
	uint8_t zero_page[RP_PAGE_SIZE] __attribute__((aligned(64)));
	struct rp_slot *slots;            /* RP_SLOT_COUNT */
	pthread_rwlock_t *shapes;         /* RP_SHAPE_LOCKS: see map.c */

	/* changed with the gate closed, read inside it */
	_Atomic uint64_t epoch;
	struct rp_tree live;
	_Atomic rp_entry catalog;         /* root of the catalog's map */
	_Atomic uint64_t tree_id;

	/* the gate */
	pthread_mutex_t gate_lock;        /* one closer at a time; outermost lock of this folder */
	_Atomic uint32_t gate_closed;     /* futex word */
	_Atomic uint64_t gate_closed_max_ns, gate_closings;
	_Atomic uint64_t era;             /* of reclamation; starts at 1 */

	/* numbers_lock guards the header's numbers, the table's heads and the bitmap; taken inside operations, held for a few
	 * edits */
	pthread_mutex_t numbers_lock;
	uint64_t numbers_cursor;          /* no bit of the bitmap is set below it */

	/* catalog_lock guards the index, and who changes the catalog's pages; taken before operations and the gate */
	pthread_mutex_t catalog_lock;
	struct rp_named *named;
	size_t named_count, named_room;
	uint64_t named_id_next;

	/* held_lock guards the list of held snapshots; innermost */
	pthread_mutex_t held_lock;
	struct rp_snapshot *snapshots;

	/* image: set while no operation runs (creation, opening, closing) */
	struct rp_source source;          /* fetch null: no image, nothing is absent */
	struct rp_resident *resident;
	atomic_uint commits;              /* commits under way: what they freeze comes back, so overdraft is allowed */
	/* counters that change with every page brought in or replaced, apart from what every operation reads */
	_Atomic uint64_t unread __attribute__((aligned(64))); /* pages not yet read in, as far as known; the image's business */
	_Atomic uint64_t addressed;       /* used frames that have an image address */

	/* the reclaimer */
	pthread_t reclaimer;
	pthread_mutex_t reclaim_lock;
	pthread_cond_t reclaim_wake;
	bool reclaim_running, reclaim_stop;
	atomic_bool reclaim_wanted;
};

static inline struct rp_frame_info *rp_info(const struct rp_pool *pool, rp_frame f) { return &pool->arena.frames[f]; }
static inline void *rp_bytes(const struct rp_pool *pool, rp_frame f)
{
	return pool->arena.base + ((size_t)f << RP_PAGE_SHIFT);
}
static inline _Atomic rp_entry *rp_node(const struct rp_pool *pool, rp_frame f) { return rp_bytes(pool, f); }
static inline uint64_t rp_frame_birth(const struct rp_pool *pool, rp_frame f)
{
	return atomic_load_explicit(&rp_info(pool, f)->life, memory_order_relaxed) & RP_EPOCH_MASK;
}
static inline unsigned rp_frame_kind(const struct rp_pool *pool, rp_frame f)
{
	return (unsigned)(atomic_load_explicit(&rp_info(pool, f)->life, memory_order_relaxed) >> RP_EPOCH_BITS) & 0xff;
}
/* The image address, 0: none. Exact for whoever holds a reference while no commit runs, and for the committing thread. */
static inline rp_addr rp_frame_addr(const struct rp_pool *pool, rp_frame f)
{
	const struct rp_frame_info *i = rp_info(pool, f);
	return atomic_load_explicit(&i->life, memory_order_acquire) >> 56 << 32 |
	       atomic_load_explicit(&i->addr_low, memory_order_relaxed);
}
/* Give a frame an image address, or take it away (0). Only for frames of an older epoch that the caller holds (I6). Keeps
 * pool->addressed. */
void rp_frame_addr_set(struct rp_pool *pool, rp_frame f, rp_addr addr);

/* Take a frame inside an operation: refs 1, born in the current epoch, bytes unknown. -ENOSPC (op->starved set) or
 * RP_AGAIN (a commit must end first). */
int rp_frame_take(struct rp_op *op, enum rp_class class, unsigned kind, rp_frame *out);
static inline void rp_frame_get(struct rp_pool *pool, rp_frame f)
{
	atomic_fetch_add_explicit(&rp_info(pool, f)->refs, 1, memory_order_relaxed);
}
/* One more reference unless there is none left, or no room for one: then what the frame holds must be had from elsewhere. */
bool rp_frame_get_live(struct rp_pool *pool, rp_frame f);
/* Drop a reference; the last one retires the frame. Inside an operation. */
void rp_frame_put(struct rp_op *op, rp_frame f);

/* The same from outside operations (image code). birth: the block's; addr: its image address, may be 0. Uses the overdraft. */
int rp_frame_take_outside(struct rp_pool *pool, unsigned kind, uint64_t birth, rp_addr addr, rp_frame *out);
void rp_frame_put_outside(struct rp_pool *pool, rp_frame f);

/* Words in a page that are entries naming children: 512 of a node, the records' roots of a table page (every 32nd word from
 * word 32 on), the roots of a catalog page (every 64th word). Returns how many; *first and *step in words. 0 for others. */
unsigned rp_kind_children(unsigned kind, unsigned *first, unsigned *step);
/* What a child of a page of this kind is: for nodes the level below, or `leaf` (what the map's pages are); for a record's
 * root it depends on the word's height and the record's flags: rp_child_kind() looks. Used by image code and the checker. */
unsigned rp_child_kind(unsigned kind, unsigned leaf, const void *page, unsigned word);
/* Which kind the pages of the map are, that a page of this kind belongs to or (table, catalog) whose record starts a map:
 * RP_KIND_TABLE's records: DATA or META; a catalog's roots: TABLE. */
static inline bool rp_kind_is_node(unsigned kind) { return kind >= RP_KIND_NODE && kind <= RP_KIND_LAST; }

/* ---- Gate ----------------------------------------------------------------------------------------------------------- */

int rp_gate_init(struct rp_pool *pool);
void rp_gate_free(struct rp_pool *pool);
/* Claim a slot without entering the gate (era stays 0) / let go of it. */
struct rp_slot *rp_slot_claim(struct rp_pool *pool);
void rp_slot_release(struct rp_slot *slot);
/* Exclusive: no operation is inside between these two. `op` is a normal operation for everything but rp_op_end(). open:
 * bumps the epoch when `shared`; then undoes (error != 0) or keeps what was logged. Return value as rp_op_end(). */
void rp_gate_close(struct rp_op *op, struct rp_pool *pool, unsigned flags);
bool rp_gate_open(struct rp_op *op, bool shared, int *error);

/* Reclamation (reclaim.c). */
void rp_retire(struct rp_op *op, rp_frame f);
/* Work off retired frames of a claimed slot that nobody can see any more, at most `budget` of them. */
void rp_slot_reclaim(struct rp_pool *pool, struct rp_slot *slot, uint64_t budget);
/* Everything: empties all slots' caches and retired lists as far as running operations allow. Outside the gate. Returns how
 * many frames are left there; 0 when no operation runs. */
uint64_t rp_pool_reclaim(struct rp_pool *pool);
/* The same, waiting a little for running operations, until the class could take a frame. Could it? */
bool rp_pool_reclaim_wait(struct rp_pool *pool, enum rp_class class);
int rp_reclaimer_start(struct rp_pool *pool);
void rp_reclaimer_stop(struct rp_pool *pool);

/* ---- Undo (undo.c) ---------------------------------------------------------------------------------------------------- */

int rp_undo_reserve(struct rp_op *op, size_t count); /* room for so many records, which then cannot fail. -EROFS; -ENOMEM */
int rp_undo_bytes(struct rp_op *op, void *where, size_t length);                 /* bytes about to change */
struct rp_map;
/* The map's entry for a page was changed from old to new: undo puts old back, drops new, and corrects page_count by -delta. */
int rp_undo_entry(struct rp_op *op, const struct rp_map *map, _Atomic rp_entry *where, rp_entry old, rp_entry new, int delta);
int rp_undo_add(struct rp_op *op, size_t header_offset, int64_t delta);
int rp_undo_create(struct rp_op *op, rp_object object);
int rp_finish_remove(struct rp_op *op, rp_object object);                        /* when kept */
int rp_finish_put(struct rp_op *op, rp_frame f);                                 /* when kept */
int rp_finish_prune(struct rp_op *op, rp_object object, rp_page page);           /* when kept or undone: free empty nodes */
void rp_undo_keep(struct rp_op *op);
void rp_undo_back(struct rp_op *op);

/* ---- Maps (map.c) ------------------------------------------------------------------------------------------------------ */

/* A map: where its root stands and what its pages are. The memory of `root` is ours when the map is to be changed. */
struct rp_map {
	_Atomic rp_entry *root;
	unsigned leaf;            /* kind of its pages */
	uint64_t *page_count;     /* null: not counted */
	rp_object object;         /* for the shape lock; 0 and SIZE_MAX... of table and catalog: none is taken */
};

#define RP_SHAPE_LOCKS 256u
static inline pthread_rwlock_t *rp_shape(struct rp_pool *pool, rp_object object)
{
	return &pool->shapes[(object * UINT64_C(0x9e3779b97f4a7c15)) >> 56];
}

static inline bool rp_frame_is_ours(const struct rp_op *op, rp_frame f) { return rp_frame_birth(op->pool, f) == op->epoch; }

/* The frame that holds the page, 0: hole. */
int rp_map_find(struct rp_op *op, const struct rp_map *map, rp_page page, rp_frame *out);
/* The entry, in memory that is ours, that names the page (stop 0) or the node of level `stop` above it. make: nodes are made
 * where there is a hole, and the caller keeps others from taking nodes out (the shape lock shared, or what stands for it);
 * otherwise *out is null there. */
int rp_map_own(struct rp_op *op, const struct rp_map *map, rp_page page, unsigned stop, bool make, _Atomic rp_entry **out);
/* The page's frame, ours: copied, or made of zeroes. logged: a page that was a hole becomes one again on undo. */
int rp_map_edit(struct rp_op *op, const struct rp_map *map, rp_page page, bool logged, rp_frame *out);
/* An entry that is an address becomes a frame's, if it is in memory; otherwise RP_AGAIN. *e: the entry as it is now. spot:
 * where the entry stands, and what it names. */
int rp_entry_resolve(struct rp_op *op, _Atomic rp_entry *where, rp_entry *e, const struct rp_spot *spot);
/* The spot in a map at which a page, or the node of level `level` above it, stands. */
static inline struct rp_spot rp_map_spot(const struct rp_map *map, rp_page page, unsigned level)
{
	return (struct rp_spot){ level ? RP_KIND_NODE + level - 1 : map->leaf, map->leaf, map->object, page };
}
/* The page's entry as it stands, which may be an address; nodes above it are brought in. */
int rp_map_peek(struct rp_op *op, const struct rp_map *map, rp_page page, _Atomic rp_entry **at, rp_entry *e);
/* A frame for a page, the new bytes in it already: publish it where entry `old` (0: hole) stands. Returns 0; RP_RACE:
 * something else stands there now, look again (the frame is dropped); an error (the frame is dropped). */
#define RP_RACE 2
int rp_map_publish(struct rp_op *op, const struct rp_map *map, rp_page page, rp_entry old, rp_frame new);
/* What stands at `page`: *node the level-1 node above it, and *end the first page behind the node's; or *node 0, and *end
 * the first page behind the hole, or 1: the page itself, the only one, stands in the root. */
int rp_map_leaf(struct rp_op *op, const struct rp_map *map, rp_page page, rp_frame *node, rp_page *end);
/* Copy a page that is not ours, children referenced. RP_RACE: another copy has replaced it meanwhile, and a child is gone.
 * -ENOSPC also when a child has as many references as can be counted. */
int rp_frame_copy(struct rp_op *op, rp_frame from, rp_frame *out);
/* Drop the reference of an entry that names the copy now. When it was the last one, the children, which the copy names too,
 * lose theirs here and not after the frame's grace period: so they are known to be named once, and can be replaced in their
 * turn although the pool is full. Safe because the frame does not change, and whoever copies it now asks each child whether
 * it lives. */
void rp_frame_put_replaced(struct rp_op *op, rp_frame f);
void rp_page_copy(void *to, const void *from);
void rp_page_zero(void *to);
/* What class a copy of frame f may be taken with: one that frees f, or whose f a commit will free, may use the overdraft. */
enum rp_class rp_class_for_copy(const struct rp_op *op, rp_frame f);
/* Nodes of the path to the page that are ours and empty leave the map. Whoever calls these two keeps others from making nodes
 * and putting pages in (the shape lock alone, or what stands for it). */
void rp_map_prune(struct rp_op *op, const struct rp_map *map, rp_page page);
/* Where only the beginning is left of a high map, the nodes above it leave; that of level 1 stays. */
void rp_map_lower(struct rp_op *op, const struct rp_map *map);
static inline rp_page rp_height_pages(unsigned height) { return (rp_page)1 << (RP_NODE_SHIFT * height); }
unsigned rp_height_for(rp_page page);

/* ---- Objects (object.c) --------------------------------------------------------------------------------------------------- */

int rp_record_map(struct rp_op *op, struct rp_tree *tree, rp_object object, struct rp_record **record, struct rp_map *map);
int rp_record_own(struct rp_op *op, rp_object object, struct rp_record **record, struct rp_map *map);
int rp_table_page_own(struct rp_op *op, rp_page page, void **out);
void rp_object_free_now(struct rp_op *op, rp_object object);   /* rp_undo_*'s end of create and remove */
void rp_page_drop_table(struct rp_op *op, rp_page page);
int rp_objects_format(struct rp_pool *pool, const struct rp_pool_options *options);

/* ---- Catalog (catalog.c) ----------------------------------------------------------------------------------------------------- */

/* Read all entries of the catalog into the index: after an image was opened (fetches pages as needed). */
int rp_catalog_load(struct rp_pool *pool);
int rp_snapshot_measure(struct rp_pool *pool, const char *name, uint64_t *frames);
/* A handle without a state; free() as long as it has none. null: no memory. */
struct rp_snapshot *rp_snapshot_new(struct rp_pool *pool);
/* Its state: the tree of `root`, whose reference is handed over, and the catalog as it is. With the gate closed. */
void rp_snapshot_fill(struct rp_snapshot *snapshot, rp_entry root);

/* ---- For the image ----------------------------------------------------------------------------------------------------------- */

/* A pool whose trees are the given roots (addresses), with what the root block says of it; no record is read. The source
 * must be set with rp_pool_source_set() before the first operation. epoch: larger than that of any block. */
struct rp_pool_restored {
	rp_entry root, catalog;
	uint64_t epoch;
	uint64_t size_bytes;
	uint64_t page_total;     /* counts for pool->unread */
	uint8_t uuid[16];
	char label[32];
};
int rp_pool_restore(const struct rp_pool_options *options, const struct rp_pool_restored *restored,
                    const struct rp_source *source, struct rp_pool **out);
/* Between operations: waits until none runs. A null source: absent pages are -EIO from now on. */
void rp_pool_source_set(struct rp_pool *pool, const struct rp_source *source);
/* Begin/end of a commit: between them overdraft is allowed. */
void rp_pool_commit_begin(struct rp_pool *pool);
void rp_pool_commit_end(struct rp_pool *pool);

/* ---- Resident index (resident.c): image address -> frame, weak --------------------------------------------------------------- */

int rp_resident_init(struct rp_pool *pool);
void rp_resident_free(struct rp_pool *pool);
/* The frame that holds the block, with one more reference, and the place it was first named in; 0: not in memory. Cheap,
 * sharded locks, never sleeps. */
rp_frame rp_resident_get(struct rp_pool *pool, rp_addr addr, uint32_t *place);
/* Enter a frame (its addr is set, refs 1). When another was entered meanwhile: that one, referenced, is *out and the caller
 * drops his own; else *out == f. -ENOMEM; -EIO: it was, in another place. */
int rp_resident_add(struct rp_pool *pool, rp_addr addr, uint32_t place, rp_frame f, rp_frame *out);
/* The frame is about to be retired, or its address changes: forget it if it is entered. Never fails. */
void rp_resident_remove(struct rp_pool *pool, rp_addr addr, rp_frame f);

#endif
