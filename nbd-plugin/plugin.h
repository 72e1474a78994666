/* plugin.h: what the files of the plugin share.
 *
 *   plugin.c    what nbdkit calls: start, end, connections
 *   config.c    parameters; how large the pool must be
 *   exports.c   names: which files there are, how one is opened
 *   io.c        reading, writing, zeroing, trimming, extents
 *   counters.c  what clients did, for status
 *   ending.c    saves when nbdkit is told to end, before its clients have gone
 */
#ifndef RAMPOOL_NBD_PLUGIN_H
#define RAMPOOL_NBD_PLUGIN_H

#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <nbdkit-plugin.h>
#include <rampool/keep.h>

#define RP_EXPORT_NAME_MAX 4096u /* bytes of a string of the NBD protocol */
#define RP_EXPORTS_MAX 10000u    /* nbdkit lists no more */

#define RP_END_SIGNALS 4

enum rp_request {
	RP_REQUEST_READ, RP_REQUEST_WRITE, RP_REQUEST_ZERO, RP_REQUEST_TRIM, RP_REQUEST_FLUSH, RP_REQUEST_EXTENTS,
	RP_REQUEST_CACHE, RP_REQUEST_KINDS,
};

struct rp_counters {
	_Atomic uint64_t requests[RP_REQUEST_KINDS];
	_Atomic uint64_t bytes_read, bytes_written;
};

/* One connection to one export. */
struct rp_export {
	/* set once */
	struct rp_fs *fs;              /* the live filesystem, or that of the snapshot */
	struct rp_snapshot *snapshot;  /* null: live */
	struct rp_tree *tree;
	rp_object ino;
	uint64_t generation;
	uint64_t size_bytes;           /* when it was opened: what the client was told */
	bool writable;
	char description[160];
	/* atomic, relaxed */
	atomic_bool touched;           /* written since the time of modification was last set */
	struct rp_counters counters;
	/* guarded by plugin.lock */
	struct rp_export *next, *prev;
};

/* nbdkit's callbacks have no context: this is the only state outside of connections. */
struct rp_plugin {
	/* set before connections come */
	struct rp_keep_options options;
	uint64_t disk_bytes;           /* size=; 0: not given */
	uint64_t pool_bytes;           /* pool=; 0: not given */
	char *disk_name;               /* export= */
	char *socket;                  /* socket= */
	struct rp_keep *keep;          /* null: not serving */
	struct rp_control *control;
	struct rp_ending {
		bool runs;
		atomic_bool stop;
		int event;             /* eventfd: a signal came, or stop */
		pthread_t thread;
		struct sigaction before[RP_END_SIGNALS];
	} ending;
	int stop_error;                /* of the last save */
	/* `lock` guards the list and the sums; held for a few instructions */
	pthread_mutex_t lock;
	struct rp_export *first;
	unsigned connection_count;
	struct rp_counters past;       /* of connections that ended */
};
extern struct rp_plugin rp_plugin;

/* ---- config.c ---------------------------------------------------------------------------------------------------- */

int rp_plugin_config(const char *key, const char *value);
int rp_plugin_config_complete(void);
/* Before the fork: everything that can be known to fail then. */
int rp_plugin_get_ready(void);
/* After it: make the disk that size= asks for, or let it grow. */
int rp_plugin_disk_make(struct rp_keep *keep, char message[512]);
extern const char rp_plugin_config_help[];

/* ---- exports.c --------------------------------------------------------------------------------------------------- */

int rp_export_open(struct rp_keep *keep, const char *name, bool read_only, struct rp_export **out);
void rp_export_close(struct rp_export *export);
int rp_exports_list(int read_only, int is_tls, struct nbdkit_exports *exports);
const char *rp_exports_default(int read_only, int is_tls);

/* ---- io.c -------------------------------------------------------------------------------------------------------- */

int rp_io_read(void *handle, void *to, uint32_t count, uint64_t offset, uint32_t flags);
int rp_io_write(void *handle, const void *from, uint32_t count, uint64_t offset, uint32_t flags);
int rp_io_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags);
int rp_io_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags);
int rp_io_flush(void *handle, uint32_t flags);
int rp_io_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents);
int rp_io_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags);
/* Set the time of modification when there were changes. */
void rp_io_touch(struct rp_export *export);

/* ---- ending.c ---------------------------------------------------------------------------------------------------- */

int rp_ending_start(void);
void rp_ending_stop(void);

/* ---- counters.c -------------------------------------------------------------------------------------------------- */

void rp_counters_connect(struct rp_export *export);
void rp_counters_disconnect(struct rp_export *export);
void rp_counters_print(FILE *to);
unsigned rp_counters_connections(void);
static inline void rp_count(_Atomic uint64_t *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

#endif
