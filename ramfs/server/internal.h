/* internal.h: what the files of the FUSE server share. DESIGN.md tells the reasons.
 *
 * Threads: libfuse's loop (classic device) and its ring threads (io_uring) run the handlers; `later` has threads that
 * answer what must wait and large reads; one watches over ring threads that give way; one waits for signals, one makes the
 * mount ready and ends; the control socket's threads call in for flush, rollback and status.
 */
#ifndef RAMPOOL_SERVER_INTERNAL_H
#define RAMPOOL_SERVER_INTERNAL_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 318
#endif
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <rampool/keep.h>
#include "ramfs/server/server.h"

/* Attributes and names stay with the kernel until the server takes them back: about 30 years. */
#define RP_FOREVER 1e9
#define RP_REQUEST_BYTES (1u << 20)

/* ---- Counting requests ------------------------------------------------------------------------------------------- */

#define RP_CALLS(X) \
	X(LOOKUP, "lookup") X(FORGET, "forget") X(GETATTR, "getattr") X(SETATTR, "setattr") X(STATX, "statx") \
	X(READLINK, "readlink") X(SYMLINK, "symlink") X(MKNOD, "mknod") X(MKDIR, "mkdir") X(UNLINK, "unlink") \
	X(RMDIR, "rmdir") X(RENAME, "rename") X(LINK, "link") X(CREATE, "create") X(TMPFILE, "tmpfile") \
	X(OPEN, "open") X(READ, "read") X(WRITE, "write") X(RELEASE, "release") X(FSYNC, "fsync") \
	X(OPENDIR, "opendir") X(READDIR, "readdir") X(READDIRPLUS, "readdirplus") X(RELEASEDIR, "releasedir") \
	X(FSYNCDIR, "fsyncdir") X(STATFS, "statfs") X(SETXATTR, "setxattr") X(GETXATTR, "getxattr") \
	X(LISTXATTR, "listxattr") X(REMOVEXATTR, "removexattr") X(LSEEK, "lseek") X(FALLOCATE, "fallocate") \
	X(COPY, "copy_file_range") X(ACCESS, "access")

enum rp_call {
#define X(symbol, name) RP_CALL_##symbol,
	RP_CALLS(X)
#undef X
	RP_CALL_COUNT
};

/* Counters stand in stripes, one a CPU as far as they go, so that counting shares no cache line. */
#define RP_STRIPES 16
struct rp_stripe {
	_Atomic uint64_t calls[RP_CALL_COUNT];
} __attribute__((aligned(128)));

/* ---- Where requests come from ------------------------------------------------------------------------------------ */

/* One for each ring thread, and one for all threads of the classic device. */
struct rp_ring {
	struct rp_ring *next;
	pthread_mutex_t lock;         /* between the ring's thread submitting and a worker answering: see ring.c */
	_Atomic uint64_t writes;      /* WRITE requests whose bytes are in the pool */
	_Atomic uint64_t awake;       /* how often the thread found something to do */
	_Atomic unsigned later;       /* requests handed to a worker and not yet answered */
	bool uring;

	/* giveway.c; set once: */
	struct rp_server *server;
	pid_t thread;
	clockid_t cpu_clock;          /* the thread's */
	/* its thread's own: how many requests came in a run, and when the last */
	unsigned run;
	uint64_t run_ms;
	/* changed under server->rings_lock; its thread reads the first two without */
	_Atomic bool gives_way;       /* the thread is a SCHED_IDLE task, or about to be */
	_Atomic uint64_t give_way_from_ms; /* not before */
	bool fresh;                   /* the watcher has not looked since it gives way */
	uint64_t awake_seen, ran_ms_seen; /* when the watcher looked last */
	unsigned pause_ms;            /* for how long it may not, when it is late next */
};

/* Who watches over rings that give way. */
struct rp_way {
	bool started;
	pthread_t watcher;
	_Atomic bool watched;         /* false: no ring may give way */
	/* guarded by server->rings_lock */
	pthread_cond_t changed;
	unsigned giving;              /* rings that do */
	uint64_t late;                /* how often one was in line for the CPU instead of answering */
};

/* ---- Views: snapshots under .snapshots --------------------------------------------------------------------------- */

/* Node numbers, which the kernel calls nodeid:
 *   bits 0..39   object number
 *   bits 40..62  live tree: the era of a file: the last rollback that changed it, 0 almost always;
 *                with bit 63: 0 is the directory .snapshots itself, otherwise 1 + the index of a view
 * Node 1 is the root, whatever its object number; object 1, if it is not the root, has the root's number. */
#define RP_NODE_OBJECT_BITS 40
#define RP_NODE_OBJECT_MASK ((UINT64_C(1) << RP_NODE_OBJECT_BITS) - 1)
#define RP_NODE_VIEW (UINT64_C(1) << 63)
#define RP_NODE_CATALOG RP_NODE_VIEW
#define RP_CATALOG_NAME ".snapshots"

/* A snapshot that the kernel has looked into. Lives as long as the kernel holds any of its nodes. */
struct rp_view {
	struct rp_fs *fs;
	struct rp_snapshot *snapshot;
	uint64_t id;              /* of the snapshot */
	uint64_t node_base;       /* upper bits of its nodes */
	size_t index;
	uint64_t lookups;         /* guarded by views.lock */
};

struct rp_views {
	pthread_mutex_t lock;     /* guards all below; held while a view is opened or closed, never by the data path */
	struct rp_view **slots;
	size_t slot_count;
};

enum rp_node_kind { RP_NODE_LIVE, RP_NODE_IN_VIEW, RP_NODE_IS_CATALOG };
struct rp_node {
	enum rp_node_kind kind;
	struct rp_fs *fs;         /* null for the catalog */
	rp_object object;
	struct rp_view *view;     /* IN_VIEW only; good while the kernel holds the node: during a request */
};

/* ---- Eras -------------------------------------------------------------------------------------------------------- */

/* Regular files that a rollback changed get another node number, because with the writeback cache the kernel believes
 * its own size and times of a file it knows. Requests for the old number are answered ESTALE. */
struct rp_era {
	rp_object object;         /* 0: free place */
	uint32_t era;
};
struct rp_eras {
	pthread_rwlock_t lock;    /* guards places; taken only when some file has an era */
	struct rp_era *places;    /* open addressing; size a power of two */
	size_t place_count, used;
	_Atomic uint32_t last;    /* 0: no rollback changed a file yet */
};

/* ---- The server -------------------------------------------------------------------------------------------------- */

struct rp_later;
struct rp_flusher;

struct rp_server {
	/* set once, before the loop starts */
	struct rp_mount_options *options;
	struct rp_keep *keep;
	struct rp_fs *fs;
	struct rp_pool *pool;
	rp_object root;
	struct fuse_session *session;
	struct rp_later *later;
	struct rp_flusher *flusher;
	bool user_mount;          /* through fusermount3 */
	bool unchecked;           /* only root may enter: the kernel checks no permissions and knows no ACLs */
	int ready;                /* pipe to the parent, or -1 */
	char oom_score_adj[16];   /* before this process protected itself: for its children */
	int control_fs;           /* detached mount of fusectl, or -1 */

	/* set by the init request and the ready thread */
	bool no_open, no_opendir;
	bool kernel_strips_sgid;  /* set-group-ID of a new file that its maker may not have is gone before it is asked for */
	_Atomic bool uring;       /* ring threads serve */
	_Atomic bool is_ready;
	_Atomic bool failed;      /* the mount never got ready; the user was told why */
	_Atomic bool ending;
	dev_t device;
	uint64_t mount_id;        /* the kernel never gives it to another mount; 0: it gives none (before 6.8) */
	struct rp_control *control;
	pthread_t signal_thread, ready_thread;
	pthread_mutex_t ready_lock;   /* guards init_done and its condition */
	pthread_cond_t ready_changed;
	bool init_done;

	struct rp_views views;
	struct rp_eras eras;
	pthread_mutex_t rings_lock;   /* guards the list and who gives way; rings stay until the server ends */
	struct rp_ring *rings;
	struct rp_way way;
	struct rp_ring classic;
	_Atomic unsigned write_phase;         /* which of the two below new WRITE requests count in */
	_Atomic int64_t writes_running[2];
	_Atomic uint64_t removed_ns;  /* when a name was last removed; 0: nothing is expected of it any more (space.c) */
	pthread_mutex_t flush_lock;   /* one flush at a time; may be held for long, never by a request thread */
	pthread_key_t buffer_key;     /* per thread: RP_REQUEST_BYTES for answers on the classic device */
	struct rp_stripe stripes[RP_STRIPES];
};

/* Count the request and find the server. */
struct rp_server *rp_request_begin(fuse_req_t req, enum rp_call call);

/* Space for an answer of up to size bytes (at most RP_REQUEST_BYTES): the ring's own payload where there is one. Null:
 * no memory. Good until the answer. */
char *rp_request_buffer(struct rp_server *server, fuse_req_t req, size_t size);

/* Answer with an error (0 or -errno). */
static inline void rp_reply_error(fuse_req_t req, int error)
{
	fuse_reply_err(req, error < 0 ? -error : 0);
}

/* ---- node.c: node numbers ---------------------------------------------------------------------------------------- */

/* What a node number names. -ESTALE. */
int rp_node_find(struct rp_server *server, fuse_ino_t number, struct rp_node *out);
/* The same for a change: -EROFS in a snapshot, or when changes are refused. */
int rp_node_find_to_change(struct rp_server *server, fuse_ino_t number, struct rp_node *out);
/* The number of an inode of the tree that node is in. */
fuse_ino_t rp_node_number(struct rp_server *server, const struct rp_node *node, rp_object object);
void rp_attr_to_stat(struct rp_server *server, const struct rp_node *node, const struct rp_attr *attr, struct stat *to);
int rp_node_getattr(struct rp_server *server, const struct rp_node *node, struct rp_attr *out);
/* An answer to a lookup. */
void rp_entry_fill(struct rp_server *server, const struct rp_node *node, const struct rp_attr *attr,
                   struct fuse_entry_param *entry);
/* The kernel lets go of `count` lookups. */
void rp_node_forget(struct rp_server *server, fuse_ino_t number, uint64_t count);

int rp_eras_init(struct rp_eras *eras);
void rp_eras_end(struct rp_eras *eras);
/* From now on these files have other node numbers. -ENOMEM: some have not. */
int rp_eras_begin(struct rp_eras *eras, const rp_object *objects, size_t count);

/* ---- view.c ------------------------------------------------------------------------------------------------------ */

void rp_views_init(struct rp_views *views);
void rp_views_end(struct rp_views *views);
/* The view behind the upper bits of a node number; null: none. */
struct rp_view *rp_view_find(struct rp_views *views, fuse_ino_t number);
/* The view of the snapshot of that name, opened where it is not yet, with one lookup counted. */
int rp_view_open(struct rp_server *server, const char *name, struct rp_view **out);
/* One more lookup of a node in it. */
void rp_view_hold(struct rp_views *views, struct rp_view *view);
void rp_view_forget(struct rp_views *views, fuse_ino_t number, uint64_t count);
/* Attributes of .snapshots and, in it, of the view's root. */
void rp_catalog_attr(struct rp_server *server, struct rp_attr *out);
/* .snapshots as the answer to a lookup. */
void rp_catalog_entry(struct rp_server *server, struct fuse_entry_param *entry);
int rp_catalog_lookup(struct rp_server *server, const char *name, struct fuse_entry_param *entry);
/* Names of .snapshots; cookie n: from the nth on. plus: add attributes. Returns bytes in buffer, or -errno. */
ssize_t rp_catalog_read(struct rp_server *server, fuse_req_t req, off_t cookie, char *buffer, size_t size, bool plus);

/* ---- ring.c: where requests come from ---------------------------------------------------------------------------- */

int rp_rings_init(struct rp_server *server);
void rp_rings_end(struct rp_server *server);
/* The ring this thread serves; the classic device's where it is none. */
struct rp_ring *rp_ring_here(struct rp_server *server);

/* ---- giveway.c: letting the caller go on at once ----------------------------------------------------------------- */

/* The watcher. Where it cannot be, no ring gives way. */
void rp_way_start(struct rp_server *server);
void rp_way_stop(struct rp_server *server);
/* This thread serves the ring. */
void rp_way_ring_init(struct rp_ring *ring);
void rp_way_give_slowly(struct rp_ring *ring);
/* The same thread is about to answer: it may give way from now on. Stands before each answer, so it is short. */
static inline void rp_way_give(struct rp_ring *ring)
{
	if (!atomic_load_explicit(&ring->gives_way, memory_order_relaxed))
		rp_way_give_slowly(ring);
}
/* The same thread is about to take a lock that others wait for: an ordinary task again, for the next moments. */
void rp_way_take_back(struct rp_ring *ring);
/* The gate will be closed soon: no ring gives way for the next moments, so that none is inside without its CPU for long. From
 * any other thread. */
void rp_way_bar(struct rp_server *server);

/* ---- later.c: answering from another thread ---------------------------------------------------------------------- */

int rp_later_start(struct rp_server *server);
/* Hand over; false: it could not be (no memory), answer here. */
bool rp_later_fsync(struct rp_server *server, fuse_req_t req);
bool rp_later_lseek(struct rp_server *server, fuse_req_t req, fuse_ino_t number, off_t offset, int whence);
bool rp_later_read(struct rp_server *server, fuse_req_t req, fuse_ino_t number, size_t size, off_t offset);
void rp_later_stop(struct rp_server *server);

/* ---- space.c ----------------------------------------------------------------------------------------------------- */

/* A name went, and with it perhaps a file. */
void rp_space_note_removal(struct rp_server *server);
/* There was no space, for the (tries + 1)th time: sleep a little; false: it is no use to try again. */
bool rp_space_await(struct rp_server *server, unsigned tries);
/* result = call, again while that is -ENOSPC and space may be on its way back. One statement, with its semicolon. */
#define RP_WITH_SPACE(server, result, call) \
	for (unsigned tries_ = 0; ((result) = (call)) == -ENOSPC && rp_space_await(server, tries_); tries_++)

/* ---- flush.c, attach.c, rollback.c, status.c, session.c ---------------------------------------------------------- */

int rp_flusher_start(struct rp_server *server);
void rp_flusher_stop(struct rp_server *server);
/* Have the kernel's dirty pages of the whole mount, or of one file, brought here, and wait until they are in the pool.
 * From no request thread. -ETIMEDOUT: the kernel does not deliver; -errno of the helper. */
int rp_flush_all(struct rp_server *server);
int rp_flush_file(struct rp_server *server, fuse_ino_t number, uint64_t generation);
/* Flush, take the mount out of the tree, flush again. */
int rp_flush_detach(struct rp_server *server);
void rp_write_begin(struct rp_server *server, unsigned *phase);
void rp_write_end(struct rp_server *server, unsigned phase, struct rp_ring *ring);

/* Mount: *out is the device's descriptor. */
int rp_mount_attach(struct rp_server *server, int *out, char message[512]);
/* Lift the throttle on dirty pages and read further ahead, where this process may. */
void rp_mount_tune(dev_t device);
/* fusectl without a place in the tree, or -1. */
int rp_control_fs_open(void);
/* Requests the kernel waits for on this connection, or -errno. */
int64_t rp_mount_waiting(const struct rp_server *server);
bool rp_uring_allowed(const struct rp_mount_options *options);

void rp_server_rolled_back(void *context, struct rp_snapshot *before);
void rp_server_status(void *context, FILE *to);
void rp_server_log(void *context, const char *line);

/* The handlers. */
void rp_names_ops(struct fuse_lowlevel_ops *ops);
void rp_attrs_ops(struct fuse_lowlevel_ops *ops);
void rp_data_ops(struct fuse_lowlevel_ops *ops);
void rp_dirs_ops(struct fuse_lowlevel_ops *ops);

/* Bytes of a file into *buffer, rp_request_buffer()'s: how many, or -errno. At most RP_REQUEST_BYTES. */
ssize_t rp_read(struct rp_server *server, fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, char **buffer);
/* SEEK_DATA and SEEK_HOLE by what the pool holds. */
int rp_seek(struct rp_server *server, fuse_ino_t number, off_t offset, int whence, uint64_t *out);

#endif
