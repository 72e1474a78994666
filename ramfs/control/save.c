/* save.c: every commit goes through here.
 *
 * A commit that fails leaves the one before it in the image; the RAM disk goes on. What follows from the failure is
 * decided in one place, save_ended(): status tells it, and with on-save-error=readonly changes are
 * refused until a commit works. The thread at the end saves by time and by bytes changed.
 */
#include <signal.h>
#include <time.h>
#include "internal.h"

/* How long the saving thread leaves a failing image alone when no interval was given. */
#define RETRY_SECONDS 30
/* How often it looks at the number of changed bytes: writers wake it as well, this covers what they do not count. */
#define LOOK_SECONDS 1

/* ---- Commits ----------------------------------------------------------------------------------------------------- */

/* The image's own record decides which of several commits ended last: their callers arrive here in any order. */
static void save_ended(struct rp_keep *keep)
{
	struct rp_image_status status;
	int before, now;

	pthread_mutex_lock(&keep->lock);
	rp_image_status(keep->image, &status);
	before = keep->save_error;
	now = status.last_error;
	if (now && !before)
		keep->save_error_sec = (int64_t)time(NULL);
	keep->save_error = now;
	atomic_store_explicit(&keep->failing, now != 0, memory_order_relaxed);
	pthread_mutex_unlock(&keep->lock);

	/* Why it failed was logged where it failed. */
	if (now && !before && keep->options.readonly_on_error)
		rp_keep_log(keep, "%s: changes are refused until a save works", status.path);
	else if (!now && before)
		rp_keep_log(keep, "%s: saving works again", status.path);
}

int rp_keep_commit(struct rp_keep *keep, int (*progress)(void *, const struct rp_progress *), void *context)
{
	int error;

	if (!keep->image)
		return -EINVAL;
	if (keep->options.read_only)
		return -EROFS;
	/* Before the commit takes its snapshot: what is written from here on counts for the next one at the latest. */
	atomic_store_explicit(&keep->changed_bytes, 0, memory_order_relaxed);
	error = rp_image_commit(keep->image, progress, context);
	if (error != -ECANCELED)
		save_ended(keep);
	return error;
}

int rp_keep_flush_client(struct rp_keep *keep)
{
	return keep->server.flush ? keep->server.flush(keep->server.context) : 0;
}

/* What is here is saved even when the client could not be flushed, but then the call does not claim to have worked. */
int rp_keep_save(struct rp_keep *keep, int (*progress)(void *, const struct rp_progress *), void *context)
{
	int flushed, error;

	if (!keep->image)
		return -EINVAL;
	flushed = rp_keep_flush_client(keep);
	error = rp_keep_commit(keep, progress, context);
	return error ? error : flushed;
}

int rp_keep_sync(struct rp_keep *keep)
{
	return rp_keep_syncs(keep) ? rp_keep_commit(keep, NULL, NULL) : 0;
}

bool rp_keep_syncs(struct rp_keep *keep)
{
	return keep->image && keep->options.sync_image && !keep->options.read_only;
}

bool rp_keep_refuses_changes(struct rp_keep *keep)
{
	return keep->options.read_only || (keep->options.readonly_on_error &&
	                                   atomic_load_explicit(&keep->failing, memory_order_relaxed));
}

void rp_keep_note_change(struct rp_keep *keep, uint64_t bytes)
{
	uint64_t limit = keep->options.autosave_bytes, before;

	if (!limit || !keep->saver_runs)
		return;
	before = atomic_fetch_add_explicit(&keep->changed_bytes, bytes, memory_order_relaxed);
	if (before < limit && before + bytes >= limit) {
		pthread_mutex_lock(&keep->lock);
		pthread_cond_signal(&keep->wake);
		pthread_mutex_unlock(&keep->lock);
	}
}

/* ---- Saving by itself -------------------------------------------------------------------------------------------- */

static uint64_t monotonic_seconds(void)
{
	return rp_clock_ns() / 1000000000u;
}

static bool enough_changed(struct rp_keep *keep)
{
	struct rp_image_status status;

	if (atomic_load_explicit(&keep->changed_bytes, memory_order_relaxed) >= keep->options.autosave_bytes)
		return true;
	rp_image_status(keep->image, &status);
	return status.changed_bytes >= keep->options.autosave_bytes;
}

/* Clients are flushed first: what they hold back is not seen as a change here, yet it would be lost. */
static int save_what_changed(struct rp_keep *keep)
{
	int error = rp_keep_flush_client(keep);

	if (error)
		rp_keep_log(keep, "autosave: the kernel's changed pages could not be had: %s", strerror(-error));
	return rp_image_is_changed(keep->image) ? rp_keep_commit(keep, NULL, NULL) : 0;
}

/* Times are kept as seconds of the monotonic clock. `again`: not before, after a failure. */
static void *saver_run(void *context)
{
	struct rp_keep *keep = context;
	uint64_t seconds = keep->options.autosave_seconds, retry = seconds ? seconds : RETRY_SECONDS;
	uint64_t start = monotonic_seconds(), due = start + seconds, again = start;
	struct timespec until = { 0 };
	int error;

	pthread_mutex_lock(&keep->lock);
	while (!keep->stopping) {
		start = monotonic_seconds();
		if (keep->options.autosave_bytes)
			until.tv_sec = (time_t)(start < again ? again : start + LOOK_SECONDS);
		if (seconds && (!keep->options.autosave_bytes || (uint64_t)until.tv_sec > due))
			until.tv_sec = (time_t)due;
		pthread_cond_timedwait(&keep->wake, &keep->lock, &until);
		if (keep->stopping)
			break;
		pthread_mutex_unlock(&keep->lock);

		start = monotonic_seconds();
		if ((seconds && start >= due) ||
		    (keep->options.autosave_bytes && start >= again && enough_changed(keep))) {
			error = save_what_changed(keep);
			due = start + seconds;
			again = error ? start + retry : 0;
		}
		pthread_mutex_lock(&keep->lock);
	}
	pthread_mutex_unlock(&keep->lock);
	return NULL;
}

int rp_thread_start(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *), void *context)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(out, attr, run, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

int rp_saver_start(struct rp_keep *keep)
{
	int error;

	if (!keep->image || keep->options.read_only || keep->options.no_save ||
	    (!keep->options.autosave_seconds && !keep->options.autosave_bytes))
		return 0;
	keep->saver_runs = true;
	error = rp_thread_start(&keep->saver, NULL, saver_run, keep);
	if (error)
		keep->saver_runs = false;
	return error;
}

void rp_saver_stop(struct rp_keep *keep)
{
	if (!keep->saver_runs)
		return;
	pthread_mutex_lock(&keep->lock);
	keep->stopping = true;
	pthread_cond_signal(&keep->wake);
	pthread_mutex_unlock(&keep->lock);
	pthread_join(keep->saver, NULL);
	keep->saver_runs = false;
}
