/* internal.h: what the files of ramfs/control share.
 *
 *   sizes.c     sizes as people write them; how much memory there is
 *   options.c   options of a mount or an export
 *   keep.c      start and stop: pool, image and filesystem as one
 *   save.c      every commit goes through here; what happens when one fails; the thread that saves by itself
 *   status.c    what `rampool status` says
 *   notify.c    systemd
 *   words.c     how requests and names are written
 *   socket.c    the control socket: who may speak, how long, how many
 *   reply.c     answers: text, progress, errors
 *   verbs.c     what may be asked
 *   diff.c      what changed between two snapshots; names.c finds the names
 *   client.c    the other end of the socket; progress.c draws
 */
#ifndef RAMPOOL_CONTROL_INTERNAL_H
#define RAMPOOL_CONTROL_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <rampool/keep.h>

#define RP_MESSAGE_SIZE 512
#define RP_REQUEST_MAX 65536 /* bytes of a request line */

/* ---- The keeper (keep.c, save.c) -------------------------------------------------------------------------------- */

struct rp_keep {
	/* set once, by rp_keep_start() */
	struct rp_keep_options options;
	struct rp_keep_server server;
	struct rp_hooks hooks;
	struct rp_pool *pool;
	struct rp_fs *fs;
	struct rp_image *image;         /* null: memory alone */
	bool fresh;                     /* made now, not opened */

	/* `lock` guards these; held for some instructions, also while a status of the image is read, never while
	 * waiting for a commit. It is the innermost lock here. */
	pthread_mutex_t lock;
	pthread_cond_t wake;            /* of the saving thread; by the monotonic clock */
	bool stopping;
	int save_error;                 /* of the last commit that ended; 0 */
	int64_t save_error_sec;         /* when the first of the failures in a row was */

	/* One rollback at a time: held while client and tree change over. Outside `lock`. */
	pthread_mutex_t rollback_lock;

	/* owned by whoever starts and stops */
	pthread_t saver;
	bool saver_runs;

	/* atomic, relaxed: a hint for when to look, and a gate that may close one request late */
	_Atomic uint64_t changed_bytes; /* since the last commit began; counted only with autosave by bytes */
	atomic_bool failing;            /* the last commit failed */
};

/* One line to whoever runs the program. */
void rp_keep_log(struct rp_keep *keep, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Commit, and act on how it went. 0; -EINVAL without an image; -EROFS; -errno of the commit. */
int rp_keep_commit(struct rp_keep *keep, int (*progress)(void *, const struct rp_progress *), void *context);
int rp_keep_flush_client(struct rp_keep *keep);
int rp_saver_start(struct rp_keep *keep);
void rp_saver_stop(struct rp_keep *keep);

/* A thread with every signal blocked: signals are the main thread's. 0 or -errno. */
int rp_thread_start(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *), void *context);

/* A pool's new size. What an image holds counts in full, also what was not read yet. -ENOSPC: more is used. */
int rp_keep_resize(struct rp_pool *pool, uint64_t size_bytes, uint64_t *used_bytes);

void rp_keep_status_print(struct rp_keep *keep, FILE *to);

/* Bytes of memory this process may use: the machine's, or its control group's where that is less. */
uint64_t rp_memory_total(void);

/* 2026-11-21 14:20:11 in local time. */
const char *rp_time_print(int64_t sec, char to[32]);

/* Format into a message of RP_MESSAGE_SIZE bytes, as one line, cut if it must be; returns error. */
int rp_message(char *message, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- Words and answers (words.c, reply.c) ------------------------------------------------------------------------ */

/* Percent-encode bytes of a word of a request. 0; -EINVAL for an empty word, -E2BIG. */
int rp_word_encode(const char *word, char *to, size_t size, size_t *used);
/* Cut a request line into words, in place. Returns how many; -EINVAL, -E2BIG. */
int rp_words_split(char *line, char **words, size_t max);
/* A path for people: control characters, '%', '>' and what is not UTF-8 are percent-encoded. malloc'd; null: no
 * memory. */
char *rp_path_print(const char *bytes, size_t length);

struct rp_reply {
	int fd;
	bool broken;             /* the client is gone: nothing more is sent */
	uint64_t progress_ns;    /* when progress was sent last */
	size_t used;
	char buffer[8192];
};
void rp_reply_text(struct rp_reply *reply, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Each line of a text. */
void rp_reply_lines(struct rp_reply *reply, const char *text);
/* The last line. */
void rp_reply_end(struct rp_reply *reply, int error, const char *message);
/* For rp_image_commit(): context is the reply. Nonzero when the client is gone. */
int rp_reply_progress(void *context, const struct rp_progress *progress);

/* ---- Verbs (verbs.c, diff.c, names.c) ---------------------------------------------------------------------------- */

/* Do what is asked, with text in reply; 0 or -errno with one line in message. */
int rp_verb_run(struct rp_keep *keep, char **words, size_t count, struct rp_reply *reply,
                char message[RP_MESSAGE_SIZE]);
int rp_verb_diff(struct rp_keep *keep, char **words, size_t count, struct rp_reply *reply,
                 char message[RP_MESSAGE_SIZE]);

/* All names of one directory, without "." and "..". */
struct rp_listed {
	rp_object ino;
	uint64_t generation;
	uint32_t mode;
	uint32_t name_length;
	char *name;
};
struct rp_listing {
	struct rp_listed *names;
	size_t count, room;
};
int rp_listing_load(struct rp_fs *fs, rp_object directory, struct rp_listing *to);
void rp_listing_free(struct rp_listing *listing);

/* Finds paths in one state of the filesystem that does not change; each directory that is looked at is read once. */
struct rp_names;
int rp_names_open(struct rp_fs *fs, struct rp_names **out);
void rp_names_close(struct rp_names *names);
/* Path of a directory: "" for the root, "/a/b". Good until close. -ENOENT: no path leads there. */
int rp_names_directory(struct rp_names *names, rp_object directory, const char **path);
/* Path of an inode of which `hint` may be a directory that names it; malloc'd. -ENOENT: it has no name there. */
int rp_names_within(struct rp_names *names, rp_object hint, rp_object ino, char **path);

/* ---- Progress on a terminal or as lines (progress.c) ------------------------------------------------------------- */

struct rp_bar {
	bool terminal;
	bool drawn;
	uint64_t start_ns, last_ns;
};
void rp_bar_start(struct rp_bar *bar);
void rp_bar_show(struct rp_bar *bar, uint64_t done_bytes, uint64_t total_bytes);
void rp_bar_end(struct rp_bar *bar);
uint64_t rp_clock_ns(void);

#endif
