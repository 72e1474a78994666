/* image.h: a pool on disk: commits, opening, reading in, compaction.
 *
 * An image is an ordinary file, append-only between compactions. A commit takes a snapshot and writes each frame that
 * has no image address yet, children before parents, then a root block, then one of two superblock slots.
 * pool/FORMAT.md says every byte.
 */
#ifndef RAMPOOL_IMAGE_H
#define RAMPOOL_IMAGE_H

#include <rampool/pool.h>

struct rp_image;

/* ---- Where the bytes go ------------------------------------------------------------------------------------------ */

/* All reading and writing of image files goes through one of these; tests put a simulated disk in its place. Calls
 * return 0 or a count, or -errno. A null table means the system's files. A handle is opaque. */
struct rp_io {
	/* flags: of open(2): O_RDONLY, O_RDWR, O_CREAT, O_EXCL. Files are made 0600. */
	int (*open)(void *context, const char *path, int flags, void **handle);
	void (*close)(void *context, void *handle);
	ssize_t (*read)(void *context, void *handle, void *to, size_t size, uint64_t offset);         /* may be short */
	/* may be short */
	ssize_t (*write)(void *context, void *handle, const void *from, size_t size, uint64_t offset);
	int (*sync)(void *context, void *handle);                    /* fdatasync */
	int (*size)(void *context, void *handle, uint64_t *size_bytes);
	int (*truncate)(void *context, void *handle, uint64_t size_bytes);
	int (*rename)(void *context, const char *from, const char *to);
	int (*unlink)(void *context, const char *path);
	int (*sync_directory)(void *context, const char *path_of_file); /* fsync of the directory the file is in */
	/* Exclusive lock for the handle's life. -EBUSY: held; `holder` says by whom ("process 123, rampool mount"). */
	int (*lock)(void *context, void *handle, char holder[256]);
	/* Are two handles of one file? Null: it is not asked. */
	bool (*same)(void *context, void *a, void *b);
	/* Where bytes are that were written, from offset on; UINT64_MAX: nowhere. Null: everywhere. */
	uint64_t (*next_data)(void *context, void *handle, uint64_t offset);
	void *context;
};

/* ---- Images and pools -------------------------------------------------------------------------------------------- */

enum rp_codec { RP_CODEC_NONE, RP_CODEC_LZ4, RP_CODEC_ZSTD };

struct rp_image_options {
	const struct rp_io *io;       /* null: files */
	const struct rp_hooks *hooks; /* null: the system's */
	enum rp_codec codec;
	bool codec_set;               /* false: the image's own (open), zstd (create) */
	unsigned keep;                /* commits that compaction keeps restorable; 0: 1 */
	/* open: this commit (sequence number) instead of the newest; 0: newest. Implies nothing is lost: the next
	 * commit stands after the newest */
	uint64_t generation;
	bool read_only;               /* no lock, no commit, the file is never written */
	bool any_owner;               /* accept a file of another owner or writable by others */
	uint64_t size_bytes;          /* open: a larger size for the pool; 0: the image's own */
	bool small_pages, lock_memory;
	bool no_read_ahead;           /* no background reader */
	bool look_only;               /* open: locked, but nothing is written, not even that a life began */
	char *message;                /* 512 bytes, or null: one line that says what went wrong, naming the file */
};

/* Make an image of a pool, as a first commit into path + ".new", then rename. The pool stays bound to it.
 * replace: a file of that name may exist (it is replaced at the end); otherwise -EEXIST.
 * returns  0; -EEXIST; -errno of the file; -EBUSY locked; then nothing is left behind. owns *out: rp_image_close(). */
int rp_image_create(struct rp_pool *pool, const char *path, bool replace, const struct rp_image_options *options,
                    struct rp_image **out);

/* Open an image and make a pool of it. Lazy: reads superblocks and the root; the rest comes in when touched, and
 * through a background thread. returns 0; -ENOENT; -EINVAL not an image; -EIO damaged (no whole commit); -ENOTSUP needs
 * a feature this version lacks (named in message); -EBUSY (holder named in message); -EPERM owner; -ESRCH no such
 * generation. */
int rp_image_open(const char *path, const struct rp_image_options *options, struct rp_pool **pool,
                  struct rp_image **out);

/* Ends the reader and lets go of the file; does not commit. Absent pages of the pool give -EIO afterwards. */
void rp_image_close(struct rp_image *image);

struct rp_progress {
	uint64_t done_bytes, total_bytes;  /* total: an estimate that only shrinks */
};

/* Save the pool: returns when a commit holds everything that was in the pool when it was called. Callers at the same
 * time share commits: whoever comes while one runs waits for the next, one for all. Without changes since the last:
 * returns at once. returns  0; -EIO, -ENOSPC, … : that commit failed, the one before stands, the pool goes on; -EROFS;
 * -ECANCELED. progress (may be null) is called from the committing thread; nonzero return cancels the commit if it is
 * the caller's own. */
int rp_image_commit(struct rp_image *image, int (*progress)(void *context, const struct rp_progress *), void *context);

/* Write the whole pool as it is now into another new file, which is complete and separate; the pool stays bound to its
 * own image (if any; image may be null). */
int rp_image_save_as(struct rp_pool *pool, struct rp_image *image, const char *path, bool replace,
                     const struct rp_image_options *options,
                     int (*progress)(void *context, const struct rp_progress *), void *context);

/* Rewrite the file without dead blocks, keeping `keep` commits; beside it, then rename. Runs by itself after a commit
 * when dead bytes exceed live ones. -EAGAIN: pages are still to be read in. */
int rp_image_compact(struct rp_image *image);

/* Wait until everything was brought into memory. -EIO: something could not be; it stays absent. */
int rp_image_read_all(struct rp_image *image);

struct rp_image_status {
	char path[4096];
	uint64_t generation;          /* sequence number of the last commit */
	int64_t saved_sec;            /* when; 0: never in this life and unknown */
	bool opened_clean;            /* the commit that was opened was marked as a clean end */
	uint64_t file_bytes, live_bytes;
	uint64_t written_bytes;       /* by commits in this life */
	uint64_t commits, commits_failed;
	int last_error;               /* 0, or the last commit's -errno */
	char last_error_text[256];
	bool committing;
	struct rp_progress progress;
	uint64_t changed_bytes;       /* at most what would be lost now */
	int64_t changed_since_sec;    /* when the first change after the last commit was made; 0: nothing changed */
	uint64_t unread_pages, damaged_pages;
	enum rp_codec codec;
	unsigned keep;
	bool read_only;
};
void rp_image_status(struct rp_image *image, struct rp_image_status *out);

/* The next commit is marked as a clean end (unmount). */
void rp_image_mark_clean(struct rp_image *image);

/* Is there anything a commit would save? O(1). */
bool rp_image_is_changed(struct rp_image *image);

/* ---- Offline: fsck, dump ----------------------------------------------------------------------------------------- */

struct rp_commit_info {
	uint64_t generation;
	int64_t sec;
	uint32_t nsec;
	bool clean;
	bool whole;               /* verified as far as asked */
	uint64_t file_end;        /* the file's length this commit needs */
	rp_addr root;
};
/* Commits that can still be reached, newest first; a malloc'd array. Reads superblocks and root blocks only; but when the
 * chain of commits is broken, the whole file in search of those before the break. */
int rp_image_commits(const char *path, const struct rp_image_options *options, struct rp_commit_info **out,
                     size_t *count);

struct rp_image_check {
	uint64_t block_count, byte_count, bad_count;
	uint64_t newest_whole;    /* generation of the newest commit with every block whole; 0: none */
	bool newest_is_whole;
	int superblocks_good;     /* 0..2 */
	unsigned superblock_copies_bad; /* of the four: neither whole nor empty; counted in bad_count too */
	void (*report)(void *context, const char *line);
	void (*progress)(void *context, uint64_t done, uint64_t total);
	void *context;
};
/* Verify every block of every reachable commit: checksum, kind, order of addresses. Memory follows the number of
 * blocks. */
int rp_image_verify(const char *path, const struct rp_image_options *options, struct rp_image_check *check);
/* Make `generation` the newest commit (writes superblocks only). */
int rp_image_roll_back(const char *path, uint64_t generation, const struct rp_image_options *options);

/* What the superblocks say, for dump: text lines through `line`. */
int rp_image_describe(const char *path, const struct rp_image_options *options,
                      void (*line)(void *context, const char *text),
                      void *context);

const char *rp_codec_name(enum rp_codec codec);
int rp_codec_parse(const char *name, enum rp_codec *out); /* -EINVAL */

#endif
