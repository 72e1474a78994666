/* session.c: the life of a mount: start, serve, end, save.
 *
 * Order of starting: keeper (pool, image), mount, session, control socket, workers, loop. When the kernel's first
 * request has been answered, the ready thread makes sure that the mount answers, sets the kernel's knobs, starts
 * helpers, lets the control socket answer and tells the parent. So whoever got an answer from the mount finds the
 * socket. Order of ending: the mount goes (umount by somebody, or a signal), the loop ends,
 * control socket, workers and helpers stop, the keeper saves. The exit status says whether the save worked.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>
#include <fuse_log.h>
#include "ramfs/server/internal.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define LOOP_THREADS_MAX 32
/* Tries of 20 ms to unmount at a signal before the mount is cut off. */
#define DETACH_TRIES 50

/* ---- Telling the parent ------------------------------------------------------------------------------------------ */

static void tell_error(struct rp_server *server, const char *message)
{
	if (server->ready < 0) {
		fprintf(stderr, "rampool: %s\n", message);
		return;
	}
	if (dprintf(server->ready, "E%s\n", message) < 0)
		fprintf(stderr, "rampool: %s\n", message);
	close(server->ready);
	server->ready = -1;
}

static void tell_ready(struct rp_server *server)
{
	rp_keep_notify("READY=1\nSTATUS=mounted");
	if (server->ready < 0)
		return;
	/* The parent may have been killed: the mount stands all the same. */
	if (write(server->ready, "R", 1) != 1)
		errno = 0;
	close(server->ready);
	server->ready = -1;
}

/* ---- Init -------------------------------------------------------------------------------------------------------- */

static void op_init(void *context, struct fuse_conn_info *conn)
{
	struct rp_server *server = context;

	static const uint64_t unwanted[] = {
		/* Truncation is lost when open is no request; splicing copies more; what the server changes it takes
		   back itself. */
		FUSE_CAP_ATOMIC_O_TRUNC,  FUSE_CAP_SPLICE_READ, FUSE_CAP_SPLICE_WRITE,    FUSE_CAP_SPLICE_MOVE,
		FUSE_CAP_AUTO_INVAL_DATA, FUSE_CAP_IOCTL_DIR,   FUSE_CAP_HANDLE_KILLPRIV,
	};
	static const uint64_t wanted[] = {
		FUSE_CAP_ASYNC_READ, FUSE_CAP_ASYNC_DIO, FUSE_CAP_PARALLEL_DIROPS, FUSE_CAP_READDIRPLUS,
		FUSE_CAP_READDIRPLUS_AUTO, FUSE_CAP_CACHE_SYMLINKS, FUSE_CAP_EXPORT_SUPPORT, FUSE_CAP_DONT_MASK,
		FUSE_CAP_HANDLE_KILLPRIV_V2, FUSE_CAP_EXPLICIT_INVAL_DATA, FUSE_CAP_EXPIRE_ONLY,
	};

	for (size_t i = 0; i < sizeof(unwanted) / sizeof(unwanted[0]); i++)
		fuse_unset_feature_flag(conn, unwanted[i]);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		fuse_set_feature_flag(conn, wanted[i]);
	/* ACLs imply that permissions are checked. */
	if (!server->options->no_xattr && !server->unchecked)
		fuse_set_feature_flag(conn, FUSE_CAP_POSIX_ACL);
	if (!server->options->write_through)
		fuse_set_feature_flag(conn, FUSE_CAP_WRITEBACK_CACHE);
	server->no_open = (conn->capable_ext & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
	server->no_opendir = (conn->capable_ext & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
	/* The kernel looks at the maker's supplementary groups, too, which no request tells. Since 6.0; 7.37 is of 6.1. */
	server->kernel_strips_sgid = conn->proto_major > 7 || (conn->proto_major == 7 && conn->proto_minor >= 37);
	conn->max_write = RP_REQUEST_BYTES;
	conn->max_background = 128;
	conn->congestion_threshold = 96;
	conn->no_interrupt = 1;
	pthread_mutex_lock(&server->ready_lock);
	server->init_done = true;
	pthread_cond_signal(&server->ready_changed);
	pthread_mutex_unlock(&server->ready_lock);
}

/* ---- Ready ------------------------------------------------------------------------------------------------------- */

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif

/* The kernel knows this without asking us, who do not answer yet. */
static int mount_identity(struct rp_server *server)
{
	struct statx stx;

	if (statx(AT_FDCWD, server->options->mountpoint, AT_STATX_DONT_SYNC, STATX_MNT_ID_UNIQUE, &stx))
		return -errno;
	server->device = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	server->mount_id = stx.stx_mask & STATX_MNT_ID_UNIQUE ? stx.stx_mnt_id : 0;
	return 0;
}

/* The device number is this mount's: a socket of that name is left from an earlier one, whose server may be saving. */
static int control_open(struct rp_server *server, char message[512])
{
	char path[4096];
	int error = mount_identity(server);

	if (!error)
		error = rp_control_path(server->device, path);
	if (error) {
		snprintf(message, 512, "no place for the control socket: %s", strerror(-error));
		return error;
	}
	return rp_control_open(server->keep, path, true, &server->control, message);
}

static int make_ready(struct rp_server *server, char message[512])
{
	struct statfs fs;
	int error;

	/* A request that must reach the server: the first proof that it answers. */
	if (statfs(server->options->mountpoint, &fs)) {
		error = -errno;
		snprintf(message, 512, "%s: does not answer: %s", server->options->mountpoint, strerror(-error));
		return error;
	}
	rp_mount_tune(server->device);
	server->control_fs = rp_control_fs_open();
	error = rp_flusher_start(server);
	if (error) {
		snprintf(message, 512, "no helper process can be started: %s", strerror(-error));
		return error;
	}
	/* From here on flushes are possible, and the control socket may ask for them. */
	atomic_store(&server->is_ready, true);
	return rp_control_serve(server->control, message);
}

static void *ready_thread(void *context)
{
	struct rp_server *server = context;
	char message[512];

	pthread_mutex_lock(&server->ready_lock);
	while (!server->init_done && !atomic_load(&server->ending))
		pthread_cond_wait(&server->ready_changed, &server->ready_lock);
	pthread_mutex_unlock(&server->ready_lock);
	if (atomic_load(&server->ending))
		return NULL;
	if (make_ready(server, message)) {
		tell_error(server, message);
		atomic_store(&server->failed, true);
		rp_mount_detach(server->options->mountpoint, true);
		fuse_session_exit(server->session);
	} else {
		tell_ready(server);
		if (!server->options->foreground) {
			int null = open("/dev/null", O_RDWR | O_CLOEXEC);

			if (null >= 0)
				dup2(null, STDERR_FILENO);
		}
	}
	return NULL;
}

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

/* Unmount because of a signal. Processes with open files get a second to let go; then their dirty pages are brought in
 * and the mount is cut off: for whoever still has something open it is gone (ENOTCONN). */
static void end_by_signal(struct rp_server *server)
{
	const char *mountpoint = server->options->mountpoint;
	int error = -EBUSY;

	rp_keep_notify("STOPPING=1\nSTATUS=unmounting");
	for (int i = 0; i < DETACH_TRIES && error == -EBUSY && !atomic_load(&server->ending); i++) {
		error = rp_mount_detach(mountpoint, false);
		if (error == -EBUSY)
			usleep(20000);
	}
	if (error && !atomic_load(&server->ending)) {
		rp_server_log(server, "files are open: they are cut off now");
		rp_flush_detach(server);
	}
	for (int i = 0; i < DETACH_TRIES && !atomic_load(&server->ending); i++)
		usleep(20000);
	if (!atomic_load(&server->ending))
		fuse_session_exit(server->session);
}

static void *signal_thread(void *context)
{
	struct rp_server *server = context;
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	while (!sigwait(&set, &number)) {
		/* Our own word that the loop has ended. */
		if (number == SIGUSR2)
			break;
		/* A service outlives the terminal it was started from. */
		if (number == SIGHUP && !server->options->foreground)
			continue;
		end_by_signal(server);
	}
	return NULL;
}

static void signals_block(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Memory that the kernel must reclaim through this process must not wait for this process; nor may it be the one to
 * die. */
static void protect(struct rp_server *server)
{
	FILE *file;

	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	strcpy(server->oom_score_adj, "0");
	file = fopen("/proc/self/oom_score_adj", "r+e");
	if (!file)
		return;
	if (!fgets(server->oom_score_adj, sizeof(server->oom_score_adj), file))
		strcpy(server->oom_score_adj, "0");
	/* Refused to who may not: then it stays as it was. */
	if (geteuid() == 0 && !fseek(file, 0, SEEK_SET))
		fputs("-1000", file);
	fclose(file);
}

/* ---- The server -------------------------------------------------------------------------------------------------- */

static int server_flush(void *context)
{
	int error = rp_flush_all(context);

	/* What is flushed for, a snapshot or a commit, waits at the gate for all that are inside. */
	rp_way_bar(context);
	return error;
}

static int server_device(void *context, dev_t *out)
{
	struct rp_server *server = context;

	if (!atomic_load(&server->is_ready))
		return -ENOTCONN;
	*out = server->device;
	return 0;
}

static int server_init(struct rp_server *server)
{
	int error = rp_rings_init(server);

	if (error)
		return error;
	error = -pthread_key_create(&server->buffer_key, free);
	if (error)
		goto fail_rings;
	error = rp_eras_init(&server->eras);
	if (error)
		goto fail_key;
	rp_views_init(&server->views);
	pthread_mutex_init(&server->ready_lock, NULL);
	pthread_cond_init(&server->ready_changed, NULL);
	pthread_mutex_init(&server->flush_lock, NULL);
	return 0;
fail_key:
	pthread_key_delete(server->buffer_key);
fail_rings:
	rp_rings_end(server);
	return error;
}

static void server_destroy(struct rp_server *server)
{
	pthread_mutex_destroy(&server->flush_lock);
	pthread_cond_destroy(&server->ready_changed);
	pthread_mutex_destroy(&server->ready_lock);
	rp_eras_end(&server->eras);
	pthread_key_delete(server->buffer_key);
	rp_rings_end(server);
}

static void log_line(enum fuse_log_level level, const char *format, va_list arguments)
{
	if (level <= LOG_WARNING)
		vsyslog((int)level, format, arguments);
}

static int session_start(struct rp_server *server, int fd, char message[512])
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_lowlevel_ops ops = { .init = op_init };
	char path[32];
	int error = 0;

	rp_names_ops(&ops);
	rp_attrs_ops(&ops);
	rp_data_ops(&ops);
	rp_dirs_ops(&ops);
	snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	if (!server->options->foreground)
		fuse_set_log_func(log_line);
	if (fuse_opt_add_arg(&args, "rampool") || (server->options->debug && fuse_opt_add_arg(&args, "-odebug")) ||
	    (rp_uring_allowed(server->options) && fuse_opt_add_arg(&args, "-oio_uring")))
		error = -ENOMEM;
	if (!error)
		server->session = fuse_session_new(&args, &ops, sizeof(ops), server);
	fuse_opt_free_args(&args);
	if (!server->session || fuse_session_mount(server->session, path)) {
		snprintf(message, 512, "libfuse cannot start a session");
		if (server->session)
			fuse_session_destroy(server->session);
		else
			close(fd);
		server->session = NULL;
		return error ? error : -ENOMEM;
	}
	return 0;
}

static int serve(struct rp_server *server)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int error;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(config, LOOP_THREADS_MAX);
	fuse_loop_cfg_set_idle_threads(config, UINT32_MAX);
	fuse_loop_cfg_set_clone_fd(config, 0);
	error = fuse_session_loop_mt(server->session, config);
	fuse_loop_cfg_destroy(config);
	return error;
}

/* Without the device whoever waits for an answer is told that there is none, so nothing that follows can hang on the
 * mount. The descriptor goes on as /dev/null: the session, which others may still use to notify, will close it. */
static void device_drop(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup3(null, fd, O_CLOEXEC) < 0)
		close(fd);
	if (null >= 0)
		close(null);
}

/* A mount that outlived its server, because the loop ended for another reason than an unmount, must not stay. */
static void detach_rest(struct rp_server *server)
{
	const char *mountpoint = server->options->mountpoint;
	struct statx stx;

	if (!atomic_load(&server->is_ready)) {
		rp_mount_detach(mountpoint, true);
		return;
	}
	/* Somebody may have mounted another RAM disk there since, and the device number of this one may be its now. */
	if (!statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_MNT_ID_UNIQUE, &stx) &&
	    makedev(stx.stx_dev_major, stx.stx_dev_minor) == server->device &&
	    (!server->mount_id || stx.stx_mnt_id == server->mount_id))
		rp_mount_detach(mountpoint, true);
}

/* Mount, serve, and take everything down again but the keeper. */
static int session_run(struct rp_server *server, char message[512])
{
	bool join_ready = false;
	int fd, error;

	error = rp_mount_attach(server, &fd, message);
	if (error)
		return error;
	error = session_start(server, fd, message);
	if (error)
		goto out_detach;
	error = control_open(server, message);
	if (error)
		goto out_session;
	rp_way_start(server);
	error = rp_later_start(server);
	if (!error)
		error = -pthread_create(&server->ready_thread, NULL, ready_thread, server);
	if (error)
		goto out_session;
	join_ready = true;
	error = -pthread_create(&server->signal_thread, NULL, signal_thread, server);
	if (!error) {
		serve(server);
		atomic_store(&server->ending, true);
		pthread_kill(server->signal_thread, SIGUSR2);
		pthread_join(server->signal_thread, NULL);
	}
	pthread_mutex_lock(&server->ready_lock);
	atomic_store(&server->ending, true);
	pthread_cond_signal(&server->ready_changed);
	pthread_mutex_unlock(&server->ready_lock);
out_session:
	device_drop(fd);
	if (join_ready)
		pthread_join(server->ready_thread, NULL);
	if (server->control)
		rp_control_stop(server->control);
	rp_later_stop(server);
	rp_way_stop(server);
	rp_flusher_stop(server);
out_detach:
	detach_rest(server);
	if (server->session)
		fuse_session_destroy(server->session);
	if (server->control_fs >= 0)
		close(server->control_fs);
	if (error && !message[0])
		snprintf(message, 512, "cannot start serving: %s", strerror(-error));
	return error;
}

/* For `rampool umount`, which waits for this process but cannot see its exit status. */
static void leave_word(struct rp_server *server, const char *message)
{
	char path[4096];

	rp_server_log(server, message);
	if (server->device && !rp_control_path(server->device, path))
		rp_failure_leave(path, message);
}

static int keep_start(struct rp_server *server, char message[512])
{
	const struct rp_keep_server callbacks = {
		.program = "rampool mount",
		.flush = server_flush,
		.rolled_back = rp_server_rolled_back,
		.status = rp_server_status,
		.log = rp_server_log,
		.device = server_device,
		.context = server,
	};
	int error = rp_keep_start(&server->options->keep, &callbacks, &server->keep, message);

	if (error)
		return error;
	server->pool = rp_keep_pool(server->keep);
	server->fs = rp_keep_fs(server->keep);
	server->root = rp_fs_root(server->fs);
	return 0;
}

int rp_server_run(struct rp_mount_options *options, int ready)
{
	struct rp_server *server = aligned_alloc(_Alignof(struct rp_server), sizeof(*server));
	char message[512] = "";
	int error;

	if (!server) {
		fprintf(stderr, "rampool: no memory\n");
		return 1;
	}
	memset(server, 0, sizeof(*server));
	server->options = options;
	server->ready = ready;
	server->control_fs = -1;
	openlog("rampool", LOG_PID, LOG_DAEMON);
	signals_block();
	protect(server);
	error = server_init(server);
	if (error) {
		snprintf(message, sizeof(message), "cannot start: %s", strerror(-error));
		goto out_free;
	}
	error = keep_start(server, message);
	if (error)
		goto out_destroy;
	error = session_run(server, message);
	if (!error && atomic_load(&server->failed))
		error = -EIO;
	/* What could not even be mounted is not worth an image's new commit: nobody changed anything. */
	rp_views_end(&server->views);
	if (!error)
		rp_keep_notify("STOPPING=1\nSTATUS=saving");
	if (error) {
		char ignored[512];

		rp_keep_stop(server->keep, ignored);
	} else {
		error = rp_keep_stop(server->keep, message);
		if (error)
			leave_word(server, message);
		message[0] = 0;
	}
out_destroy:
	server_destroy(server);
out_free:
	if (error && message[0] && !atomic_load(&server->failed))
		tell_error(server, message);
	free(server);
	return error ? 1 : 0;
}
