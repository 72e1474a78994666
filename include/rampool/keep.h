/* keep.h: keeping a pool on disk while it is served: what a mount and a block export promise alike.
 *
 * Owns the pool, its image and the thread that saves. The serving program parses its options with rp_keep_option(),
 * calls rp_keep_start(), serves, and calls rp_keep_stop(), which returns only when the last save is durable or has
 * failed.
 */
#ifndef RAMPOOL_KEEP_H
#define RAMPOOL_KEEP_H

#include <errno.h>
#include <stdio.h>
#include <rampool/fs.h>
#include <rampool/image.h>

struct rp_keep;

struct rp_keep_options {
	uint64_t size_bytes;         /* size=: 0: not given (the image's, or half of memory) */
	uint64_t inode_limit;        /* inodes= */
	uint32_t mode, uid, gid;     /* of a fresh root directory: mode=, uid=, gid= */
	bool mode_set, uid_set, gid_set;
	bool read_only;              /* ro */
	char *image;                 /* image=FILE; null: memory alone */
	uint64_t autosave_seconds, autosave_bytes; /* autosave=300s/64M: either may be 0 */
	bool sync_image;             /* sync=image; false: sync=ram */
	bool no_save;                /* nosave: not at the end, not by time; only when asked */
	bool readonly_on_error;      /* on-save-error=readonly; false: continue */
	unsigned keep;               /* keep=N */
	enum rp_codec codec;         /* codec= */
	bool codec_set;
	uint64_t generation;         /* generation=N: start from this commit */
	bool any_owner;              /* any-owner */
	bool small_pages;            /* nohuge */
	bool lock_memory;            /* mlock */
	char *directory;             /* fill a fresh pool from this directory */
	char *label;
};

/* Take one option `key` (value null: given without '='). Returns 1 taken; 0 not one of these; -EINVAL with one line in
 * message that names the option, what was given and what would do. Values are copied. */
int rp_keep_option(struct rp_keep_options *options, const char *key, const char *value, char message[512]);
void rp_keep_options_free(struct rp_keep_options *options);
/* Text that lists the options, one a line, for --help. */
const char *rp_keep_options_help(void);

/* Sizes: "512", "64K", "1.5G", "2T", and "50%" (of memory) where allowed. -EINVAL. */
int rp_size_parse(const char *text, bool percent, uint64_t *bytes);
/* "1.5 GiB" into to; returns to. */
const char *rp_size_print(uint64_t bytes, char to[32]);

/* What the serving side does for the keeper. All may be null. */
struct rp_keep_server {
	const char *program;   /* "rampool mount", "nbdkit": named as the image's holder */
	/* Have the client's dirty pages brought here: before snapshots and saves. From no request thread, no lock
	 * held. */
	int (*flush)(void *context);
	/* The live tree was replaced by another (rollback): invalidate what differs. */
	void (*rolled_back)(void *context, struct rp_snapshot *before);
	/* May the live tree be replaced now? 0, or -EBUSY with a line why. */
	int (*rollback_allowed)(void *context, bool forced, char message[512]);
	/* Lines for `rampool status`, as "name: value". */
	void (*status)(void *context, FILE *to);
	/* One line for whoever runs the program, from any thread. Null: stderr. */
	void (*log)(void *context, const char *line);
	/* Device number of the mount, so that no image is put inside it. -errno: not mounted. */
	int (*device)(void *context, dev_t *out);
	void *context;
};

/* Would rp_keep_start() do? For a program that forks between telling its user and starting threads. Opens an image that
 * is there (and lets go of it), looks at the directory of one that is to be made; changes nothing. */
int rp_keep_check(const struct rp_keep_options *options, char message[512]);

/* Tell systemd ("READY=1", "STATUS=..."), when it asked to be told ($NOTIFY_SOCKET). */
void rp_keep_notify(const char *state);

/* Open or create image, pool and filesystem; start saving. On error: one line in message, nothing left behind. */
int rp_keep_start(const struct rp_keep_options *options, const struct rp_keep_server *server, struct rp_keep **out,
                  char message[512]);
struct rp_pool *rp_keep_pool(struct rp_keep *keep);
struct rp_fs *rp_keep_fs(struct rp_keep *keep);

/* A client asked that its data be durable (fsync, FUA, flush): with sync=image waits for a commit that holds everything
 * written before this call; with sync=ram returns 0 at once. */
int rp_keep_sync(struct rp_keep *keep);
bool rp_keep_syncs(struct rp_keep *keep);      /* sync=image? */
/* Changes must be refused now (-EROFS: a save failed and on-save-error=readonly; ro). O(1), no lock. */
bool rp_keep_refuses_changes(struct rp_keep *keep);
/* Something changed (for autosave by bytes): O(1), may be called from data paths. */
void rp_keep_note_change(struct rp_keep *keep, uint64_t bytes);
/* Flush the client, then commit; also for `rampool save`. -ENOENT... no image: -EINVAL. */
int rp_keep_save(struct rp_keep *keep, int (*progress)(void *, const struct rp_progress *), void *context);
/* Ends saving threads, saves a last time (unless nosave, ro), closes filesystem, image, pool. 0 or the last save's
 * error. */
int rp_keep_stop(struct rp_keep *keep, char message[512]);

/* ---- The control socket ------------------------------------------------------------------------------------------ */

/* A Unix stream socket, 0600, whose peers must be the same user or root (SO_PEERCRED). A request is one line: the verb
 * and its arguments, each percent-encoded, divided by spaces. The answer is any number of lines; each begins with a
 * letter and a space: "=" text to print, "P done total" progress, then exactly one "." (well) or "! ERRNO text"
 * (failed). Verbs: status, snapshot NAME, snapshots, rollback NAME [force], delete NAME, rename NAME TO, diff A [B],
 * save, save-as FILE [force], compact, check, flush-done, stop, resize SIZE. */
struct rp_control;
/* Makes the socket; whoever connects waits for rp_control_serve(). Refused, with a line in message: a name that is
 * taken (-EEXIST; -EADDRINUSE: by a server that answers, unless `replace`), a directory that others may change
 * (-EPERM). What a server that is gone left behind is replaced. */
int rp_control_open(struct rp_keep *keep, const char *path, bool replace, struct rp_control **out, char message[512]);
int rp_control_serve(struct rp_control *control, char message[512]);
/* Removes the socket; waits for verbs under way. Served or not. */
void rp_control_stop(struct rp_control *control);

/* Where the socket of a mount lives: /run/rampool/ (root) or $XDG_RUNTIME_DIR/rampool/, named after the mount's device
 * number ("0:57.sock"). It is there before the mount answers its first request. */
int rp_control_path(dev_t device, char to[4096]);
/* The socket behind a target, which is one, or a path in a mount of this user's or, for root, anyone's. */
int rp_control_find(const char *target, char to[4096], char message[512]);

/* The reason why the last save of the server `pid` failed, left beside its control socket for whoever waits for its end
 * (the next server may have the same socket by then). leave: this process's, in a new file of mode 0600; a failure to
 * write it changes nothing. take: true when there is one; it is removed. */
void rp_failure_leave(const char *socket, const char *message);
bool rp_failure_take(const char *socket, pid_t pid, char line[512]);
void rp_failure_forget(const char *socket);    /* what an earlier process of this one's number left */

/* Is this errno what calls into a FUSE mount get when its server is gone? The first may be aborted, or, on its way to the
 * server through io_uring, be cancelled. */
static inline bool rp_mount_is_dead(int error)
{
	return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED;
}

/* Client: send one request, print "=" lines to out, draw progress when `progress` (a terminal bar on stderr), return 0
 * or -errno with the text in message. target: a mount point (or a path inside it) or a socket. */
int rp_control_call(const char *target, const char *const *words, size_t count, FILE *out, bool progress,
                    char message[512]);

#endif
