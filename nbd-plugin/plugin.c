/* plugin.c: what nbdkit calls: start, end, connections.
 *
 * Everything that owns a thread starts after nbdkit's fork and ends in cleanup, which returns when the last save is
 * durable or has failed; then the process ends with a failure too.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "plugin.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define BLOCK_MAX (32u << 20)

struct rp_plugin rp_plugin = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- What the keeper asks of us ---------------------------------------------------------------------------------- */

static int rollback_allowed(void *context, bool forced, char message[512])
{
	unsigned count = rp_counters_connections();

	(void)context;
	if (!count || forced)
		return 0;
	snprintf(message, 512, "%u clients are connected, who do not expect their disk to change; force does it anyway",
	         count);
	return -EBUSY;
}

static void status_print(void *context, FILE *to)
{
	(void)context;
	rp_counters_print(to);
}

static void log_line(void *context, const char *line)
{
	(void)context;
	nbdkit_error("%s", line);
}

static const struct rp_keep_server server = {
	.program = "nbdkit",
	.rollback_allowed = rollback_allowed,
	.status = status_print,
	.log = log_line,
};

/* ---- Start and end ----------------------------------------------------------------------------------------------- */

/* A client on the same machine may be the kernel itself, writing pages back to get memory: then this process must
 * neither wait for that in turn nor be the one that is ended for lack of memory. Both need privileges; without them
 * it works, too. */
static void process_protect(void)
{
	int file;

	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (file < 0)
		return;
	if (write(file, "-900", 4) < 0)
		nbdkit_debug("oom_score_adj stays: %m");
	close(file);
}

static int plugin_after_fork(void)
{
	char message[512] = "";
	int error;

	process_protect();
	error = rp_keep_start(&rp_plugin.options, &server, &rp_plugin.keep, message);
	if (error)
		goto fail;
	error = rp_plugin_disk_make(rp_plugin.keep, message);
	if (!error && rp_plugin.socket)
		error = rp_control_open(rp_plugin.keep, rp_plugin.socket, false, &rp_plugin.control, message);
	if (!error && rp_plugin.control)
		error = rp_control_serve(rp_plugin.control, message);
	if (!error) {
		error = rp_ending_start();
		if (!error)
			return 0;
		snprintf(message, sizeof(message), "no thread: %s", strerror(-error));
	}
	if (rp_plugin.control)
		rp_control_stop(rp_plugin.control);
	rp_keep_stop(rp_plugin.keep, NULL);
fail:
	rp_plugin.keep = NULL;
	nbdkit_error("%s", message);
	return -1;
}

static void plugin_cleanup(void)
{
	char message[512] = "";

	if (!rp_plugin.keep)
		return;
	rp_ending_stop();
	if (rp_plugin.control)
		rp_control_stop(rp_plugin.control);
	rp_plugin.stop_error = rp_keep_stop(rp_plugin.keep, message);
	rp_plugin.keep = NULL;
	if (!rp_plugin.stop_error)
		return;
	nbdkit_error("%s", message);
	if (rp_plugin.socket)
		rp_failure_leave(rp_plugin.socket, message); /* in the background only the system's log has the line above */
}

/* nbdkit would end with success whatever happened here: a save that failed must be seen in the exit status. */
static void plugin_unload(void)
{
	rp_keep_options_free(&rp_plugin.options);
	free(rp_plugin.disk_name);
	free(rp_plugin.socket);
	if (rp_plugin.stop_error)
		_exit(EXIT_FAILURE);
}

static void plugin_dump(void)
{
	printf("rampool_version=%s\n", RP_VERSION);
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

static void *plugin_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct rp_export *export;
	int error;

	if (!name)
		return NULL;
	error = rp_export_open(rp_plugin.keep, name, readonly, &export);
	if (!error)
		return export;
	if (error == -ENOENT)
		nbdkit_error("there is no export '%.256s'", name);
	else
		nbdkit_error("export '%.256s': %s", name, strerror(-error));
	nbdkit_set_error(-error);
	return NULL;
}

static void plugin_close(void *handle)
{
	rp_export_close(handle);
}

static int64_t plugin_get_size(void *handle)
{
	return (int64_t)((struct rp_export *)handle)->size_bytes;
}

static const char *plugin_description(void *handle)
{
	return ((struct rp_export *)handle)->description;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = 1;
	*preferred = RP_PAGE_SIZE;
	*maximum = BLOCK_MAX;
	return 0;
}

static int plugin_can_write(void *handle)
{
	return ((struct rp_export *)handle)->writable;
}

static int plugin_yes(void *handle)
{
	(void)handle;
	return 1;
}

static int plugin_no(void *handle)
{
	(void)handle;
	return 0;
}

static int plugin_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int plugin_can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_NATIVE;
}

static struct nbdkit_plugin plugin = {
	.name = "rampool",
	.longname = "rampool RAM disk",
	.version = RP_VERSION,
	.description = "A RAM disk with snapshots that can be saved to a file",
	.magic_config_key = "size",
	.config = rp_plugin_config,
	.config_complete = rp_plugin_config_complete,
	.config_help = rp_plugin_config_help,
	.dump_plugin = plugin_dump,
	.get_ready = rp_plugin_get_ready,
	.after_fork = plugin_after_fork,
	.cleanup = plugin_cleanup,
	.unload = plugin_unload,
	.list_exports = rp_exports_list,
	.default_export = rp_exports_default,
	.open = plugin_open,
	.close = plugin_close,
	.get_size = plugin_get_size,
	.export_description = plugin_description,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = plugin_yes,
	.can_trim = plugin_yes,
	.can_zero = plugin_yes,
	.can_fast_zero = plugin_yes,
	.can_extents = plugin_yes,
	.can_multi_conn = plugin_yes,
	.can_fua = plugin_can_fua,
	.can_cache = plugin_can_cache,
	.is_rotational = plugin_no,
	.pread = rp_io_read,
	.pwrite = rp_io_write,
	.zero = rp_io_zero,
	.trim = rp_io_trim,
	.flush = rp_io_flush,
	.extents = rp_io_extents,
	.cache = rp_io_cache,
	.errno_is_preserved = 0,
};

/* Declared by no header: nbdkit looks it up by name. */
struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
