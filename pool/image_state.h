/* image_state.h: struct rp_image and what its files share: image.c, commit.c, write.c, readin.c, copy.c, compact.c, open.c.
 *
 * Locks, outermost first:
 *   the commit role (image->running under image->lock): one thread at a time commits, compacts or saves elsewhere. Held as
 *       long as that takes; waiting for it is waiting on image->ended.
 *   reading_lock: one thread at a time brings everything in. Held for a round; sleeps on the file.
 *   store_lock: shared by whoever reads blocks, exclusive for the moment in which compaction changes the store and all
 *       addresses. Never held while waiting for another lock of this list.
 *   lock: the numbers below it; held for a few instructions.
 */
#ifndef RP_POOL_IMAGE_STATE_H
#define RP_POOL_IMAGE_STATE_H

#include "image.h"
#include "internal.h"

struct rp_image {
	/* set once */
	struct rp_pool *pool;
	struct rp_hooks hooks;
	const struct rp_io *io;
	bool read_only;
	unsigned keep;
	uint64_t epoch_limit;           /* blocks read in must be older */
	bool opened_clean;

	/* store_lock */
	pthread_rwlock_t store_lock;
	struct rp_store *store;

	/* the commit role's own */
	bool directory_doubtful;        /* a rename may not be durable: the file must be made and renamed again */
	uint64_t compacted_bytes;       /* the file's length when compaction last ended or was given up */
	uint64_t generation_last;
	rp_addr root;                   /* of the newest commit; 0: there is none yet */

	/* lock guards; `ended` and `wanted` are its conditions */
	pthread_mutex_t lock;
	pthread_cond_t ended, wanted;
	bool running;                   /* somebody has the commit role */
	uint64_t asked, done, good;     /* tickets: given, covered by some commit, covered by one that succeeded */
	int done_error;
	bool clean_wanted;              /* the next commit is a clean end */
	bool stop, compact_wanted;
	char *path;
	uint64_t generation, commits, commits_failed, file_bytes, written_bytes;
	uint64_t saved_bytes, saved_pages; /* blocks written since the file was made or compacted, and the pages they are for */
	int64_t saved_sec, changed_since_sec;
	int last_error;
	char last_error_text[256];
	int64_t failure_told_sec;       /* by the monotonic clock, 0: no save failed since one worked */
	uint64_t failures_untold;
	struct rp_progress progress;
	bool committing;
	enum rp_codec codec;

	/* atomic */
	atomic_bool complete;           /* no entry in memory is absent any more */
	_Atomic uint64_t committed_table, committed_catalog; /* addresses of the roots of the newest commit */
	_Atomic uint64_t damaged;                            /* blocks that could not be brought in */

	/* reading_lock guards the set of pages below which all was looked at and something is damaged */
	pthread_mutex_t reading_lock;
	struct rp_addrmap spoilt_set; /* address -> the run of readings that found it so */

	/* damaged_lock guards the set of damaged addresses; held for a probe, or for growing it */
	pthread_mutex_t damaged_lock;
	struct rp_addrmap damaged_set; /* address -> the run of readings it was last found in */
	_Atomic uint64_t reading_run;  /* each run tries once more what was damaged, and once only */

	pthread_t worker;
	bool worker_runs;
};

/* ---- Writing a tree (write.c) ---------------------------------------------------------------------------------------- */

/* Frames that got an address from a commit that has not succeeded yet. */
struct rp_written {
	struct rp_written *next;
	uint32_t count;
	rp_frame frames[16380];
};

struct rp_copier;

#define RP_WRITER_DEPTH 32 /* pages on the way from the catalog's root to a byte: 3 maps of 6 levels, 2 pages between, 1 */

struct rp_writer {
	struct rp_pool *pool;
	struct rp_store *store;
	const struct rp_hooks *hooks;
	/* null: addresses go to the frame table. Otherwise the file is not the pool's own: they go here, and blocks not in memory
	 * are copied by the copier. */
	struct rp_addrmap *map;
	struct rp_copier *copier;
	bool absent_allowed;      /* an absent block already stands in this file */
	struct rp_written *written;
	uint64_t block_count, byte_count, page_count;
	uint64_t total_pages;
	int (*progress)(void *context, const struct rp_progress *);
	void *progress_context;
	struct rp_image *image;   /* whose status shows the progress; may be null */
	uint64_t (*pages)[RP_PAGE_SIZE / 8];
};
int rp_writer_init(struct rp_writer *writer);
void rp_writer_free(struct rp_writer *writer);
/* Take back what was given to frames: the commit failed. */
void rp_writer_undo(struct rp_writer *writer);
int rp_writer_tree(struct rp_writer *writer, rp_entry root, unsigned leaf, rp_entry *out);
/* The root block; fills in what the writer knows. */
int rp_writer_root(struct rp_writer *writer, struct rp_root *root, rp_addr *out, uint64_t *checksum);

/* ---- Copying blocks from file to file (copy.c) ------------------------------------------------------------------------- */

struct rp_copier {
	struct rp_store *from, *to;
	struct rp_reader *reader;
	struct rp_addrmap *map;   /* old address -> new */
	uint64_t block_count, byte_count;
	int (*progress)(void *context, uint64_t done_bytes);
	void *progress_context;
	const char *why;
	rp_addr where;            /* what -EIO is about */
	uint64_t (*pages)[RP_PAGE_SIZE / 8];
};
int rp_copier_init(struct rp_copier *copier, const struct rp_hooks *hooks);
void rp_copier_free(struct rp_copier *copier);
int rp_copier_entry(struct rp_copier *copier, unsigned depth, rp_entry e, unsigned kind, unsigned leaf, rp_entry *out);
int rp_copier_tree(struct rp_copier *copier, rp_entry root, unsigned leaf, rp_entry *out);

/* ---- The rest --------------------------------------------------------------------------------------------------------- */

/* commit.c. The commit role: taken and given back. */
void rp_image_role_take(struct rp_image *image);
void rp_image_role_give(struct rp_image *image);
/* One commit by whoever has the role. */
int rp_image_commit_run(struct rp_image *image, bool clean, int (*progress)(void *, const struct rp_progress *), void *context);
void rp_image_super_fill(unsigned keep, const struct rp_root *root, rp_addr addr, uint64_t checksum, struct rp_super *super);
/* All of the root but the trees, the generation and the chain, as the pool is at the snapshot. */
void rp_image_root_fill(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_root *root);
/* What the newest state takes in the file: how much a block takes is not kept for each frame, so this is the average of all that
 * were written, for as many frames as stand in the file now. Exact when nothing was freed since. */
uint64_t rp_image_live_bytes(const struct rp_image *image, uint64_t more_bytes, uint64_t more_pages);
/* Frames out of the arena, and (may be null) how many its size allows. */
uint64_t rp_image_frames(struct rp_pool *pool, uint64_t *limit);
rp_addr rp_image_root_addr(struct rp_pool *pool, rp_entry root);
void rp_image_failure_note(struct rp_image *image, int error, const char *what);

/* readin.c */
int rp_image_fetch(void *context, rp_addr addr, unsigned kind, uint32_t place, rp_frame *out);
void rp_image_wait_commit(void *context);
void rp_image_damage_note(struct rp_image *image, rp_addr addr, const char *why);
/* Bring in for about `budget_ms`. 0: everything is in memory; -EAGAIN: more to do; -EIO: only damaged blocks are left;
 * -ENOSPC, -ENOMEM. */
int rp_image_read_round(struct rp_image *image, unsigned budget_ms);
int rp_image_worker_start(struct rp_image *image);
void rp_image_worker_stop(struct rp_image *image);

/* image.c */
int rp_image_new(const struct rp_image_options *options, const struct rp_hooks *hooks, struct rp_image **out);
void rp_image_free(struct rp_image *image);
/* Every frame's address through the map (null: all are forgotten). No absent entry may be left. */
void rp_image_readdress(struct rp_pool *pool, const struct rp_addrmap *map);

/* compact.c; with the commit role. */
int rp_image_compact_run(struct rp_image *image);

/* resident.c: has everything below this frame been brought in? mark: it has. The mark goes when the frame goes. */
bool rp_resident_walked(struct rp_pool *pool, rp_addr addr, rp_frame f, bool mark);

#endif
