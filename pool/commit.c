/* commit.c: saving: who does it, who waits for whom, and the steps of one commit.
 *
 * One thread at a time has the commit role. Whoever calls while a commit runs cannot know whether its snapshot was taken
 * before or after his changes, so he waits for the next; all who wait share that one. Tickets say who is covered: a commit
 * covers every ticket given before its snapshot was taken.
 *
 * Steps: snapshot; blocks; barrier; superblock; barrier; only then the callers are told. When anything fails, addresses
 * given to frames are taken back while the snapshot still holds the frames: what was written is never relied on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "image_state.h"

/* A tree without catalog has the address 0; one that stands nowhere in the file this. */
#define NOWHERE UINT64_MAX
#define TELL_SECONDS 60

rp_addr rp_image_root_addr(struct rp_pool *pool, rp_entry root)
{
	rp_addr addr;

	if (!root)
		return 0;
	if (rp_entry_is_addr(root))
		return rp_entry_addr(root);
	addr = rp_frame_addr(pool, rp_entry_frame(root));
	return addr ? addr : NOWHERE;
}

/* A change copies every page on its way from the root, so the root's address alone tells. */
static bool is_changed(struct rp_image *image)
{
	struct rp_pool *pool = image->pool;

	return rp_image_root_addr(pool, atomic_load(&pool->live.root)) != atomic_load(&image->committed_table) ||
	       rp_image_root_addr(pool, atomic_load(&pool->catalog)) != atomic_load(&image->committed_catalog);
}

bool rp_image_is_changed(struct rp_image *image)
{
	bool changed = is_changed(image);
	int64_t sec;
	uint32_t nsec;

	rp_image_now(&image->hooks, &sec, &nsec);
	pthread_mutex_lock(&image->lock);
	if (!changed)
		image->changed_since_sec = 0;
	else if (!image->changed_since_sec)
		image->changed_since_sec = sec;
	pthread_mutex_unlock(&image->lock);
	return changed;
}

void rp_image_mark_clean(struct rp_image *image)
{
	pthread_mutex_lock(&image->lock);
	image->clean_wanted = true;
	pthread_mutex_unlock(&image->lock);
}

void rp_image_role_take(struct rp_image *image)
{
	pthread_mutex_lock(&image->lock);
	while (image->running)
		pthread_cond_wait(&image->ended, &image->lock);
	image->running = true;
	pthread_mutex_unlock(&image->lock);
}

void rp_image_role_give(struct rp_image *image)
{
	pthread_mutex_lock(&image->lock);
	image->running = false;
	pthread_cond_broadcast(&image->ended);
	pthread_mutex_unlock(&image->lock);
}

void rp_image_wait_commit(void *context)
{
	struct rp_image *image = context;

	/* Rounds of reading in freeze frames too; they are short, and taking the lock is waiting for the end of one. */
	pthread_mutex_lock(&image->lock);
	if (image->committing) {
		while (image->committing)
			pthread_cond_wait(&image->ended, &image->lock);
		pthread_mutex_unlock(&image->lock);
		return;
	}
	pthread_mutex_unlock(&image->lock);
	pthread_mutex_lock(&image->reading_lock);
	pthread_mutex_unlock(&image->reading_lock);
}

/* With sync=image on a full disk each fsync fails: the first is told, another reason is, the rest in a line a minute. */
void rp_image_failure_note(struct rp_image *image, int error, const char *what)
{
	char untold[64] = "";
	struct timespec now;
	bool tell;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&image->lock);
	tell = !image->failure_told_sec || error != image->last_error || now.tv_sec >= image->failure_told_sec + TELL_SECONDS;
	image->commits_failed++;
	image->last_error = error;
	snprintf(image->last_error_text, sizeof(image->last_error_text), "%s: %s", what, strerror(-error));
	if (tell && image->failures_untold)
		snprintf(untold, sizeof(untold), "; so did %" PRIu64 " saves before it", image->failures_untold);
	image->failures_untold = tell ? 0 : image->failures_untold + 1;
	image->failure_told_sec = tell ? now.tv_sec + (now.tv_sec == 0) : image->failure_told_sec;
	pthread_mutex_unlock(&image->lock);
	if (tell)
		rp_image_log(&image->hooks, "%s: saving failed: %s: %s (the commit before stands%s)", image->path, what,
		             strerror(-error), untold);
}

static const char *reason_of(int error)
{
	switch (error) {
	case -ENOENT:
	case -ESTALE:
		return "the image is no longer under its name";
	case -ENOSPC:
	case -EDQUOT:
		return "the disk with the image is full";
	case -EROFS:
		return "the image cannot be written";
	default:
		return "writing the image";
	}
}

uint64_t rp_image_frames(struct rp_pool *pool, uint64_t *limit)
{
	uint64_t taken;

	pthread_mutex_lock(&pool->arena.lock);
	taken = pool->arena.taken;
	if (limit)
		*limit = pool->arena.limit;
	pthread_mutex_unlock(&pool->arena.lock);
	return taken;
}

void rp_image_root_fill(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_root *root)
{
	const struct rp_header *header;
	struct rp_op op;
	int error;

	root->epoch = snapshot->epoch;
	rp_image_now(&pool->hooks, &root->sec, &root->nsec);
	rp_image_frames(pool, &root->size_bytes);
	root->size_bytes <<= RP_PAGE_SHIFT;
	memcpy(root->uuid, pool->uuid, sizeof(root->uuid));
	memcpy(root->label, pool->label, sizeof(root->label));
	/* Shown in listings only: a header that cannot be read leaves it 0. */
	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_header_get(&op, &snapshot->tree, &header);
		if (!error)
			root->object_count = header->object_count;
	} while (rp_op_end(&op, &error));
}

void rp_image_super_fill(unsigned keep, const struct rp_root *root, rp_addr addr, uint64_t checksum, struct rp_super *super)
{
	super->generation = super->generation_last = root->generation;
	super->root = addr;
	super->root_checksum = checksum;
	super->sec = root->sec;
	super->nsec = root->nsec;
	super->flags = root->flags;
	super->keep = keep;
	super->size_bytes = root->size_bytes;
	memcpy(super->uuid, root->uuid, sizeof(super->uuid));
	memcpy(super->label, root->label, sizeof(super->label));
	snprintf(super->writer, sizeof(super->writer), "rampool %s", RP_VERSION);
}

/* Blocks and root block of the snapshot into the buffer, and out of it as it fills. */
static int blocks_write(struct rp_image *image, struct rp_writer *writer, struct rp_snapshot *snapshot, bool clean,
                        struct rp_super *super)
{
	struct rp_root root = { .start = image->store->end };
	uint64_t checksum;
	rp_addr addr;
	int error;

	rp_image_root_fill(image->pool, snapshot, &root);
	root.generation = image->generation_last + 1;
	root.flags = clean ? RP_ROOT_CLEAN : 0;
	root.previous = image->root;
	error = rp_writer_tree(writer, atomic_load(&snapshot->tree.root), RP_KIND_TABLE, &root.table);
	if (!error)
		error = rp_writer_tree(writer, snapshot->catalog, RP_KIND_CATALOG, &root.catalog);
	if (error)
		return error;
	root.page_count = atomic_load(&image->pool->addressed) + atomic_load(&image->pool->unread);
	root.live_bytes = rp_image_live_bytes(image, writer->byte_count, writer->page_count);
	error = rp_writer_root(writer, &root, &addr, &checksum);
	if (error)
		return error;
	rp_image_super_fill(image->keep, &root, addr, checksum, super);
	return 0;
}

/* What was saved is there. */
static void failure_forget(struct rp_image *image)
{
	pthread_mutex_lock(&image->lock);
	image->last_error = 0;
	image->last_error_text[0] = '\0';
	image->failure_told_sec = 0;
	image->failures_untold = 0;
	pthread_mutex_unlock(&image->lock);
}

/* The commit counts: say so everywhere. */
static void commit_settle(struct rp_image *image, const struct rp_writer *writer, const struct rp_snapshot *snapshot)
{
	const struct rp_super *super = &image->store->super;

	image->generation_last = super->generation_last;
	image->root = super->root;
	atomic_store(&image->committed_table, rp_image_root_addr(image->pool, atomic_load(&snapshot->tree.root)));
	atomic_store(&image->committed_catalog, rp_image_root_addr(image->pool, snapshot->catalog));
	pthread_mutex_lock(&image->lock);
	image->saved_bytes += writer->byte_count;
	image->saved_pages += writer->page_count;
	image->generation = super->generation;
	image->saved_sec = super->sec;
	image->commits++;
	image->file_bytes = image->store->end;
	image->written_bytes = image->store->written_bytes;
	image->changed_since_sec = 0;
	image->progress.done_bytes = image->progress.total_bytes;
	pthread_mutex_unlock(&image->lock);
	failure_forget(image);
}

uint64_t rp_image_live_bytes(const struct rp_image *image, uint64_t more_bytes, uint64_t more_pages)
{
	uint64_t bytes = image->saved_bytes + more_bytes, pages = image->saved_pages + more_pages;
	uint64_t here = atomic_load(&image->pool->addressed) + atomic_load(&image->pool->unread);

	return here < pages ? (uint64_t)((double)bytes / (double)pages * (double)here) : bytes;
}

/* Only the mark of a clean end is missing. */
static int clean_publish(struct rp_image *image)
{
	struct rp_super super = image->store->super;
	int error = rp_store_begin(image->store);

	super.flags |= RP_ROOT_CLEAN;
	if (!error)
		error = rp_store_publish(image->store, &super);
	if (error)
		rp_store_abort(image->store, error);
	return error;
}

/* One commit, from the snapshot to the second barrier. */
static int snapshot_commit(struct rp_image *image, bool clean, int (*progress)(void *, const struct rp_progress *),
                           void *context)
{
	uint64_t used, addressed;
	struct rp_snapshot *snapshot;
	struct rp_super super = { 0 };
	struct rp_writer writer = {
		.pool = image->pool, .store = image->store, .hooks = &image->hooks, .image = image,
		.absent_allowed = image->store->named, .progress = progress, .progress_context = context,
	};
	int error = rp_writer_init(&writer);

	if (error)
		return error;
	error = rp_snapshot_take(image->pool, &snapshot);
	if (error)
		goto free_writer;
	used = rp_image_frames(image->pool, NULL);
	addressed = atomic_load(&image->pool->addressed);
	writer.total_pages = used > addressed ? used - addressed : 0;
	error = rp_store_begin(image->store);
	if (!error)
		error = blocks_write(image, &writer, snapshot, clean, &super);
	if (!error)
		error = rp_store_barrier(image->store);
	if (!error)
		error = rp_store_publish(image->store, &super);
	if (error) {
		rp_writer_undo(&writer);
		rp_store_abort(image->store, error);
	} else {
		commit_settle(image, &writer, snapshot);
	}
	rp_snapshot_put(snapshot);
free_writer:
	rp_writer_free(&writer);
	return error;
}

/* Blocks that earlier commits wrote are gone. All that they held is in memory, or nothing can be saved any more: then
 * everything is written again, behind where the file ended, and no commit before is left. */
static int cut_mend(struct rp_image *image)
{
	bool is_cut;
	int error = rp_store_cut_check(image->store, &is_cut);

	if (error || !is_cut)
		return error;
	rp_image_log(&image->hooks, "%s: somebody cut it short; %s", image->path,
	             atomic_load(&image->complete) ? "everything is written again" : "what was not read in yet may be lost");
	if (!atomic_load(&image->complete))
		return -EIO;
	pthread_rwlock_wrlock(&image->store_lock);
	rp_image_readdress(image->pool, NULL);
	atomic_store(&image->committed_table, NOWHERE - 1);
	atomic_store(&image->committed_catalog, NOWHERE - 1);
	image->root = 0;
	pthread_rwlock_unlock(&image->store_lock);
	pthread_mutex_lock(&image->lock);
	image->saved_bytes = image->saved_pages = 0;
	pthread_mutex_unlock(&image->lock);
	return 0;
}

int rp_image_commit_run(struct rp_image *image, bool clean, int (*progress)(void *, const struct rp_progress *), void *context)
{
	int error = 0;

	if (image->read_only)
		return -EROFS;
	if (image->directory_doubtful)
		error = rp_image_compact_run(image);
	if (!error)
		error = cut_mend(image);
	if (error)
		return error;
	if (!is_changed(image) && image->root) {
		error = rp_store_name_check(image->store);
		if (error)
			return error;
		failure_forget(image);
		if (!clean || (image->store->super.flags & RP_ROOT_CLEAN))
			return 0;
		return clean_publish(image);
	}
	pthread_mutex_lock(&image->lock);
	image->committing = true;
	image->progress = (struct rp_progress){ 0, 0 };
	pthread_mutex_unlock(&image->lock);
	rp_pool_commit_begin(image->pool);
	error = snapshot_commit(image, clean, progress, context);
	rp_pool_commit_end(image->pool);
	pthread_mutex_lock(&image->lock);
	image->committing = false;
	pthread_cond_broadcast(&image->ended);
	pthread_mutex_unlock(&image->lock);
	return error;
}

/* After a commit: has the file become mostly dead? Dead are the bytes no state needs any more. Not again before the file has
 * doubled since it was last compacted: what `keep` holds on to is dead by this count, but stays. */
static bool compact_is_due(struct rp_image *image)
{
	uint64_t bytes = image->store->end, live = rp_image_live_bytes(image, 0, 0);
	const uint64_t floor = 4u << 20; /* below, the few bytes are not worth a second file */

	return bytes > floor && bytes - RP_BLOCKS_START > 2 * live && bytes >= 2 * image->compacted_bytes;
}

/* With the lock held: end of a commit that covered `covers`. Canceled by its own caller, it covers nobody. */
static void ticket_settle(struct rp_image *image, uint64_t covers, int error)
{
	image->running = false;
	if (error != -ECANCELED) {
		image->done = covers;
		image->done_error = error;
		if (!error)
			image->good = covers;
	}
	pthread_cond_broadcast(&image->ended);
}

int rp_image_commit(struct rp_image *image, int (*progress)(void *context, const struct rp_progress *), void *context)
{
	uint64_t ticket, covers;
	bool clean;
	int error;

	pthread_mutex_lock(&image->lock);
	ticket = ++image->asked;
	while (image->running && image->done < ticket)
		pthread_cond_wait(&image->ended, &image->lock);
	if (image->done >= ticket) {
		error = image->good >= ticket ? 0 : image->done_error;
		pthread_mutex_unlock(&image->lock);
		return error;
	}
	image->running = true;
	covers = image->asked;
	clean = image->clean_wanted;
	pthread_mutex_unlock(&image->lock);

	error = rp_image_commit_run(image, clean, progress, context);
	if (error && error != -ECANCELED)
		rp_image_failure_note(image, error, reason_of(error));

	pthread_mutex_lock(&image->lock);
	if (!error && clean)
		image->clean_wanted = false;
	if (!error && !image->read_only && compact_is_due(image)) {
		image->compact_wanted = true;
		pthread_cond_broadcast(&image->wanted);
	}
	ticket_settle(image, covers, error);
	pthread_mutex_unlock(&image->lock);
	return error;
}
