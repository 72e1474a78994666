/* keep.c: start and stop: pool, image and filesystem as one.
 *
 * Starting opens the image that is there, or makes pool and filesystem afresh and then the image of them. Every step
 * that fails undoes those before it and leaves one line that names what was given. Stopping saves a last time, marked
 * as a clean end, before anything is closed.
 */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

/* ---- Options ----------------------------------------------------------------------------------------------------- */

/* On error nothing is owned. */
static int options_copy(struct rp_keep_options *to, const struct rp_keep_options *from)
{
	*to = *from;
	to->image = from->image ? strdup(from->image) : NULL;
	to->directory = from->directory ? strdup(from->directory) : NULL;
	to->label = from->label ? strdup(from->label) : NULL;
	if (!to->image == !from->image && !to->directory == !from->directory && !to->label == !from->label)
		return 0;
	rp_keep_options_free(to);
	return -ENOMEM;
}

/* What promises saving needs somewhere to save to. */
static int options_agree(const struct rp_keep_options *o, char *message)
{
	const char *lonely = o->autosave_seconds || o->autosave_bytes ? "autosave" :
	                     o->sync_image ? "sync=image" :
	                     o->generation ? "generation" :
	                     o->keep ? "keep" :
	                     o->readonly_on_error ? "on-save-error" : NULL;

	if (!o->image && lonely)
		return rp_message(message, -EINVAL, "%s: there is nothing to save to; give image=FILE as well", lonely);
	if (o->directory && o->read_only && o->image)
		return rp_message(message, -EINVAL, "directory: an image cannot be filled with ro");
	return 0;
}

/* ---- Opening an image -------------------------------------------------------------------------------------------- */

static void image_options_fill(const struct rp_keep_options *o, const struct rp_hooks *hooks, char *message,
                               struct rp_image_options *to)
{
	*to = (struct rp_image_options){
		.hooks = hooks,
		.codec = o->codec,
		.codec_set = o->codec_set,
		.keep = o->keep,
		.generation = o->generation,
		.read_only = o->read_only,
		.any_owner = o->any_owner,
		.size_bytes = o->size_bytes,
		.small_pages = o->small_pages,
		.lock_memory = o->lock_memory,
		.message = message,
	};
}

/* The image's own line when it wrote one. */
static int image_failed(const struct rp_keep_options *o, int error, char *message)
{
	if (message && !message[0])
		rp_message(message, error, "%s: %s", o->image, strerror(-error));
	return error;
}

int rp_keep_resize(struct rp_pool *pool, uint64_t size_bytes, uint64_t *used_bytes)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	*used_bytes = (status.frame_used + status.unread_pages) * RP_PAGE_SIZE;
	if (size_bytes < *used_bytes && size_bytes < status.size_bytes)
		return -ENOSPC;
	return rp_pool_resize(pool, size_bytes);
}

/* A given size holds from now on; one that does not hold what is there is refused. */
static int size_apply(const struct rp_keep_options *o, struct rp_pool *pool, char *message)
{
	struct rp_pool_status status;
	char given[32], used[32];
	uint64_t used_bytes;
	int error;

	rp_pool_status(pool, &status);
	if (!o->size_bytes || o->read_only || status.size_bytes == (o->size_bytes & ~(uint64_t)(RP_PAGE_SIZE - 1)))
		return 0;
	error = rp_keep_resize(pool, o->size_bytes, &used_bytes);
	rp_size_print(o->size_bytes, given);
	rp_size_print(used_bytes, used);
	if (error == -ENOSPC)
		return rp_message(message, error, "size: %s is less than %s holds (%s)", given, o->image, used);
	if (error)
		return rp_message(message, error, "size: %s cannot be had: %s", given, strerror(-error));
	return 0;
}

static int open_image(const struct rp_keep_options *o, const struct rp_image_options *image_options, char *message,
                      struct rp_pool **pool, struct rp_image **image)
{
	int error;

	if (o->directory)
		return rp_message(message, -EEXIST, "directory: %s exists; only a new image can be filled", o->image);
	message[0] = 0;
	error = rp_image_open(o->image, image_options, pool, image);
	if (error)
		return image_failed(o, error, message);
	error = size_apply(o, *pool, message);
	if (error) {
		rp_image_close(*image);
		rp_pool_destroy(*pool);
	}
	return error;
}

/* 1: there; 0: to be made. */
static int image_is_there(const struct rp_keep_options *o, char *message)
{
	struct stat st;

	if (!stat(o->image, &st)) {
		if (S_ISDIR(st.st_mode))
			return rp_message(message, -EISDIR, "%s: is a directory, not an image", o->image);
		return 1;
	}
	if (errno != ENOENT)
		return rp_message(message, -errno, "%s: %s", o->image, strerror(errno));
	if (o->read_only || o->generation)
		return rp_message(message, -ENOENT, "%s: there is no such image", o->image);
	return 0;
}

static int attach_opened(struct rp_keep *keep, char *message)
{
	const struct rp_keep_options *o = &keep->options;
	struct rp_image_options image_options;
	int error;

	image_options_fill(o, &keep->hooks, message, &image_options);
	error = open_image(o, &image_options, message, &keep->pool, &keep->image);
	if (error)
		return error;
	error = rp_fs_open(keep->pool, o->read_only, &keep->fs);
	if (error) {
		rp_message(message, error, "%s: its filesystem cannot be used: %s", o->image, strerror(-error));
		goto fail;
	}
	if (o->inode_limit && !o->read_only) {
		error = rp_fs_inode_limit_set(keep->fs, o->inode_limit);
		if (error) {
			rp_message(message, error, "inodes=%llu: cannot be set: %s", (unsigned long long)o->inode_limit,
			           error == -ENOSPC ? "more are in use" : strerror(-error));
			goto fail_fs;
		}
	}
	return 0;
fail_fs:
	rp_fs_close(keep->fs);
fail:
	rp_image_close(keep->image);
	rp_pool_destroy(keep->pool);
	return error;
}

/* ---- Making afresh ----------------------------------------------------------------------------------------------- */

static int make_pool(struct rp_keep *keep, char *message)
{
	const struct rp_keep_options *o = &keep->options;
	uint64_t size = o->size_bytes ? o->size_bytes : rp_memory_total() / 2;
	struct rp_pool_options pool_options = {
		.size_bytes = size,
		.label = o->label,
		.hooks = &keep->hooks,
		.small_pages = o->small_pages,
		.lock_memory = o->lock_memory,
	};
	char text[32];
	int error;

	error = rp_pool_create(&pool_options, &keep->pool);
	rp_size_print(size, text);
	if (error == -EINVAL)
		return rp_message(message, error, "size: %s is not possible: a pool has 1 MiB to 14 TiB", text);
	if (error)
		return rp_message(message, error, "size: %s cannot be had: %s", text, strerror(-error));
	return 0;
}

static int make_filesystem(struct rp_keep *keep, char *message)
{
	const struct rp_keep_options *o = &keep->options;
	struct rp_fs_options fs_options = {
		.mode = o->mode_set ? o->mode : 01777,
		.uid = o->uid_set ? o->uid : geteuid(),
		.gid = o->gid_set ? o->gid : getegid(),
		.inode_limit = o->inode_limit,
	};
	struct rp_populate populate = { 0 };
	int error;

	error = rp_fs_format(keep->pool, &fs_options);
	if (!error) /* ro: the directory is still to be copied; the callers refuse changes */
		error = rp_fs_open(keep->pool, false, &keep->fs);
	if (error)
		return rp_message(message, error, "the filesystem cannot be made: %s", strerror(-error));
	if (!o->directory)
		return 0;
	error = rp_fs_populate(keep->fs, o->directory, &populate);
	if (error) {
		rp_message(message, error, "%s", populate.message[0] ? populate.message : strerror(-error));
		rp_fs_close(keep->fs);
	}
	return error;
}

static int attach_fresh(struct rp_keep *keep, char *message)
{
	const struct rp_keep_options *o = &keep->options;
	struct rp_image_options image_options;
	int error;

	error = make_pool(keep, message);
	if (error)
		return error;
	error = make_filesystem(keep, message);
	if (error)
		goto fail;
	if (o->image) {
		image_options_fill(o, &keep->hooks, message, &image_options);
		message[0] = 0;
		error = rp_image_create(keep->pool, o->image, false, &image_options, &keep->image);
		if (error) {
			image_failed(o, error, message);
			goto fail_fs;
		}
	}
	keep->fresh = true;
	return 0;
fail_fs:
	rp_fs_close(keep->fs);
fail:
	rp_pool_destroy(keep->pool);
	return error;
}

/* ---- Start and stop ---------------------------------------------------------------------------------------------- */

/* What the pool, the image and the filesystem say, with the time: it may be read long after. */
static void log_line(void *context, const char *line)
{
	struct rp_keep *keep = context;
	char when[32], timed[1200];

	snprintf(timed, sizeof(timed), "%s %s", rp_time_print((int64_t)time(NULL), when), line);
	if (keep->server.log)
		keep->server.log(keep->server.context, timed);
	else
		fprintf(stderr, "%s: %s\n", keep->server.program ? keep->server.program : "rampool", timed);
}

static int locks_init(struct rp_keep *keep)
{
	pthread_condattr_t attr;
	int error;

	error = pthread_condattr_init(&attr);
	if (error)
		return -error;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	error = pthread_cond_init(&keep->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (error)
		return -error;
	pthread_mutex_init(&keep->lock, NULL);
	pthread_mutex_init(&keep->rollback_lock, NULL);
	return 0;
}

static void keep_free(struct rp_keep *keep)
{
	pthread_mutex_destroy(&keep->rollback_lock);
	pthread_mutex_destroy(&keep->lock);
	pthread_cond_destroy(&keep->wake);
	rp_keep_options_free(&keep->options);
	free(keep);
}

static void detach(struct rp_keep *keep)
{
	rp_fs_close(keep->fs);
	if (keep->image)
		rp_image_close(keep->image);
	rp_pool_destroy(keep->pool);
}

/* A limit on the size of files is an error of a save (EFBIG), not the end of the RAM disk. */
static void limit_signal_ignore(void)
{
	struct sigaction action;

	if (!sigaction(SIGXFSZ, NULL, &action) && action.sa_handler == SIG_DFL)
		signal(SIGXFSZ, SIG_IGN);
}

int rp_keep_start(const struct rp_keep_options *options, const struct rp_keep_server *server, struct rp_keep **out,
                  char message[512])
{
	struct rp_keep *keep;
	int error;

	error = options_agree(options, message);
	if (error)
		return error;
	limit_signal_ignore();
	keep = calloc(1, sizeof(*keep));
	if (!keep || options_copy(&keep->options, options)) {
		free(keep);
		return rp_message(message, -ENOMEM, "no memory");
	}
	if (server)
		keep->server = *server;
	keep->hooks = (struct rp_hooks){ .log = log_line, .context = keep };
	error = locks_init(keep);
	if (error) {
		rp_keep_options_free(&keep->options);
		free(keep);
		return rp_message(message, error, "%s", strerror(-error));
	}
	error = options->image ? image_is_there(options, message) : 0;
	if (error >= 0)
		error = error ? attach_opened(keep, message) : attach_fresh(keep, message);
	if (error)
		goto fail;
	error = rp_saver_start(keep);
	if (error) {
		rp_message(message, error, "autosave: no thread: %s", strerror(-error));
		goto fail_attached;
	}
	*out = keep;
	return 0;
fail_attached:
	detach(keep);
fail:
	keep_free(keep);
	return error;
}

/* systemd gives up on a service that takes long to stop unless it is told that work goes on. */
static int stop_progress(void *context, const struct rp_progress *progress)
{
	uint64_t *told_ns = context, now = rp_clock_ns();
	char state[160], done[32], total[32];

	if (now - *told_ns < 1000000000u)
		return 0;
	*told_ns = now;
	snprintf(state, sizeof(state), "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=saving: %s of %s",
	         rp_size_print(progress->done_bytes, done), rp_size_print(progress->total_bytes, total));
	rp_keep_notify(state);
	return 0;
}

/* A second try: what made the first one fail may have passed, and there is no later chance. */
static int save_last(struct rp_keep *keep, char *message)
{
	struct rp_image_status status;
	uint64_t told_ns = 0;
	int error, tries;

	if (!keep->image || keep->options.no_save || keep->options.read_only)
		return 0;
	for (tries = 0; tries < 2; tries++) {
		rp_image_mark_clean(keep->image);
		error = rp_keep_commit(keep, stop_progress, &told_ns);
		if (!error)
			return 0;
	}
	rp_image_status(keep->image, &status);
	return rp_message(message, error,
	                  "%s: the last save failed (%s); it holds generation %llu, what came after is lost",
	                  status.path,
	                  status.last_error_text[0] ? status.last_error_text : strerror(-error),
	                  (unsigned long long)status.generation);
}

int rp_keep_stop(struct rp_keep *keep, char message[512])
{
	int error;

	rp_keep_notify("STOPPING=1");
	rp_saver_stop(keep);
	error = save_last(keep, message);
	detach(keep);
	keep_free(keep);
	return error;
}

struct rp_pool *rp_keep_pool(struct rp_keep *keep) { return keep->pool; }
struct rp_fs *rp_keep_fs(struct rp_keep *keep) { return keep->fs; }

/* ---- Looking without starting ------------------------------------------------------------------------------------ */

static int check_new_place(const struct rp_keep_options *o, char *message)
{
	char directory[PATH_MAX], *slash;

	if (strlen(o->image) >= sizeof(directory))
		return rp_message(message, -ENAMETOOLONG, "image: the name is too long");
	strcpy(directory, o->image);
	slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = 0;
	else
		strcpy(directory, ".");
	if (access(directory, W_OK | X_OK))
		return rp_message(message, -errno, "%s: %s: %s", o->image, directory, strerror(errno));
	return 0;
}

int rp_keep_check(const struct rp_keep_options *options, char message[512])
{
	struct rp_image_options image_options;
	struct rp_image *image;
	struct rp_pool *pool;
	struct stat st;
	int there;

	there = options_agree(options, message);
	if (there)
		return there;
	if (options->directory && (stat(options->directory, &st) || (!S_ISDIR(st.st_mode) && (errno = ENOTDIR))))
		return rp_message(message, -errno, "directory: %s: %s", options->directory, strerror(errno));
	if (!options->image)
		return 0;
	there = image_is_there(options, message);
	if (there < 0)
		return there;
	if (!there)
		return check_new_place(options, message);
	image_options_fill(options, NULL, message, &image_options);
	image_options.no_read_ahead = true;
	image_options.look_only = true;
	there = open_image(options, &image_options, message, &pool, &image);
	if (there)
		return there;
	rp_image_close(image);
	rp_pool_destroy(pool);
	return 0;
}
