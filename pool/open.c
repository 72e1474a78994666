/* open.c: an image made from a pool, a pool made from an image, and a pool saved under another name.
 *
 * A new file is made under PATH.new, made durable, renamed, and its directory synced: a crash leaves the old file, or none,
 * or the whole new one. Opening reads superblocks, one root block and the catalog of snapshots; everything else waits until
 * it is touched or the background thread comes by.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "image_state.h"
#include "store.h"

/* ---- Names ----------------------------------------------------------------------------------------------------------- */

/* The path so that it stays right when the process changes its directory. Links are followed for a file that is opened, and
 * up to the directory for one that is made. Null: out of memory. */
static char *path_resolve(const struct rp_io *io, const char *path, bool exists)
{
	const char *slash = strrchr(path, '/');
	char *directory, *resolved, *joined = NULL;

	if (io != &rp_io_files)
		return strdup(path);
	if (exists) {
		resolved = realpath(path, NULL);
		return resolved || errno == ENOMEM ? resolved : strdup(path);
	}
	directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	if (!directory)
		return NULL;
	resolved = realpath(directory, NULL);
	free(directory);
	if (!resolved)
		return errno == ENOMEM ? NULL : strdup(path);
	if (asprintf(&joined, "%s/%s", strcmp(resolved, "/") ? resolved : "", slash ? slash + 1 : path) < 0)
		joined = NULL;
	free(resolved);
	return joined;
}

/* A file under this name: may it be replaced? *lock is kept until then, so that nobody opens what goes away. */
static int target_check(const struct rp_io *io, const char *path, bool replace, const struct rp_image_options *options,
                        void **lock)
{
	char holder[256] = "another process";
	struct stat st;
	void *handle;
	int error = io->open(io->context, path, O_RDONLY, &handle);

	*lock = NULL;
	/* Following it would make a file where somebody else wants it; replacing it is not what whoever made it expects. */
	if (error == -ENOENT && io == &rp_io_files && lstat(path, &st) == 0)
		return rp_image_say(options, error, "%s: is a symbolic link to what does not exist", path);
	if (error == -ENOENT)
		return 0;
	if (!error)
		io->close(io->context, handle);
	if (!replace && error != -EACCES && error != -EIO)
		return rp_image_say(options, -EEXIST, "%s: exists", path);
	if (error)
		return rp_image_say(options, error, "%s: %s", path, rp_store_open_text(error));
	error = io->open(io->context, path, O_RDWR, &handle);
	if (error)
		return rp_image_say(options, error, "%s: %s", path, rp_store_open_text(error));
	error = io->lock(io->context, handle, holder);
	if (error) {
		io->close(io->context, handle);
		if (error == -ESTALE)
			error = -EBUSY;
		return rp_image_say(options, error, "%s: in use by %s", path, holder);
	}
	*lock = handle;
	return 0;
}

/* ---- Making ------------------------------------------------------------------------------------------------------------- */

struct making {
	const struct rp_io *io;
	const struct rp_image_options *options;
	char *path, *temporary;
	bool replace;
	void *target_lock;
	struct rp_store *store;
};

static void making_end(struct making *m)
{
	if (m->target_lock)
		m->io->close(m->io->context, m->target_lock);
	free(m->path);
	free(m->temporary);
}

static int making_begin(struct making *m, const char *path, bool replace, const struct rp_image_options *options,
                        const struct rp_hooks *hooks)
{
	struct rp_store_options store_options = { .hooks = hooks, .says = options };
	enum rp_codec codec = options && options->codec_set ? options->codec : RP_CODEC_ZSTD;
	int error;

	*m = (struct making){ .io = options && options->io ? options->io : &rp_io_files, .options = options, .replace = replace };
	store_options.io = m->io;
	m->path = path_resolve(m->io, path, false);
	if (!m->path || asprintf(&m->temporary, "%s.new", m->path) < 0) {
		m->temporary = NULL;
		making_end(m);
		return rp_image_say(options, -ENOMEM, "%s: out of memory", path);
	}
	error = target_check(m->io, m->path, replace, options, &m->target_lock);
	if (!error)
		error = rp_store_create(m->temporary, &store_options, codec, &m->store);
	if (error)
		making_end(m);
	return error;
}

/* The file holds a whole commit: put it under its name. On error nothing of it is left, but where a file was replaced. */
static int making_name(struct making *m)
{
	const struct rp_io *io = m->io;
	void *again;
	int error = 0;

	if (!m->replace && io->open(io->context, m->path, O_RDONLY, &again) == 0) {
		io->close(io->context, again);
		error = rp_image_say(m->options, -EEXIST, "%s: exists", m->path);
	}
	if (!error)
		error = rp_store_rename(m->store, m->path);
	if (error) {
		io->unlink(io->context, m->temporary);
		return error;
	}
	error = io->sync_directory(io->context, m->path);
	/* It may or may not be there after a crash. Taking it away again is what "not made" means; one that replaced another
	 * stays, because the other is gone. */
	if (error && !m->target_lock)
		io->unlink(io->context, m->path);
	return error;
}

static const char *error_text(int error)
{
	return error == -EIO ? "input/output error" : strerror(-error);
}

static int image_first_commit(struct rp_image *image, struct making *m)
{
	int error = rp_image_commit_run(image, false, NULL, NULL);

	if (error) {
		m->io->unlink(m->io->context, m->temporary);
		return rp_image_say(m->options, error, "%s: %s", m->path, error_text(error));
	}
	error = making_name(m);
	if (error) {
		rp_image_readdress(image->pool, NULL);
		if (error != -EEXIST)
			rp_image_say(m->options, error, "%s: %s", m->path, error_text(error));
	}
	return error;
}

int rp_image_create(struct rp_pool *pool, const char *path, bool replace, const struct rp_image_options *options,
                    struct rp_image **out)
{
	const struct rp_hooks *hooks = options && options->hooks ? options->hooks : &pool->hooks;
	struct rp_source source = { rp_image_fetch, rp_image_wait_commit, NULL };
	struct rp_image *image;
	struct making m;
	int error;

	if (pool->source.fetch)
		return rp_image_say(options, -EBUSY, "%s: the pool has an image already", path);
	error = rp_image_new(options, hooks, &image);
	if (error)
		return rp_image_say(options, error, "%s: out of memory", path);
	error = making_begin(&m, path, replace, options, hooks);
	if (error) {
		rp_image_free(image);
		return error;
	}
	image->pool = pool;
	image->store = m.store;
	image->codec = m.store->codec;
	image->read_only = false;
	image->epoch_limit = UINT64_MAX;
	atomic_store(&image->complete, true);
	image->path = strdup(m.path);
	/* What an image the pool had before knew of its frames means nothing here. */
	if (atomic_load(&pool->addressed))
		rp_image_readdress(pool, NULL);
	source.context = image;
	rp_pool_source_set(pool, &source);
	error = image->path ? image_first_commit(image, &m) : -ENOMEM;
	making_end(&m);
	if (!error && !(options && options->no_read_ahead))
		rp_image_worker_start(image); /* without it nothing is compacted by itself: no reason to fail */
	if (error) {
		rp_pool_source_set(pool, NULL);
		rp_image_free(image);
		return error;
	}
	image->compacted_bytes = image->store->end;
	*out = image;
	return 0;
}

/* ---- Saving under another name ------------------------------------------------------------------------------------------- */

static int other_write(struct rp_pool *pool, struct rp_image *image, struct rp_store *store, struct rp_writer *writer,
                       struct rp_snapshot *snapshot)
{
	struct rp_root root = { .generation = 1, .flags = RP_ROOT_CLEAN };
	struct rp_super super = { 0 };
	uint64_t checksum;
	rp_addr addr;
	int error = rp_store_begin(store);

	if (error)
		return error;
	root.start = store->end;
	rp_image_root_fill(pool, snapshot, &root);
	error = rp_writer_tree(writer, atomic_load(&snapshot->tree.root), RP_KIND_TABLE, &root.table);
	if (!error)
		error = rp_writer_tree(writer, snapshot->catalog, RP_KIND_CATALOG, &root.catalog);
	if (error)
		return error;
	root.page_count = writer->map->count;
	root.live_bytes = writer->byte_count + (writer->copier ? writer->copier->byte_count : 0);
	error = rp_writer_root(writer, &root, &addr, &checksum);
	if (!error)
		error = rp_store_barrier(store);
	if (error)
		return error;
	rp_image_super_fill(image ? image->keep : 1, &root, addr, checksum, &super);
	return rp_store_publish(store, &super);
}

static int other_save(struct rp_pool *pool, struct rp_image *image, struct rp_store *store,
                      int (*progress)(void *context, const struct rp_progress *), void *context)
{
	struct rp_addrmap map = { .hooks = store->hooks };
	struct rp_copier copier = { .to = store, .map = &map };
	struct rp_writer writer = {
		.pool = pool, .store = store, .hooks = store->hooks, .map = &map, .progress = progress, .progress_context = context,
		.total_pages = rp_image_frames(pool, NULL) + atomic_load(&pool->unread),
	};
	struct rp_snapshot *snapshot;
	int error = rp_writer_init(&writer);

	if (!error && image) {
		copier.from = image->store;
		error = rp_copier_init(&copier, store->hooks);
		writer.copier = &copier;
	}
	if (!error)
		error = rp_snapshot_take(pool, &snapshot);
	if (!error) {
		error = other_write(pool, image, store, &writer, snapshot);
		if (error == -EIO && copier.where && image)
			rp_image_damage_note(image, copier.where, copier.why);
		rp_snapshot_put(snapshot);
	}
	rp_copier_free(&copier);
	rp_writer_free(&writer);
	rp_addrmap_free(&map);
	return error;
}

int rp_image_save_as(struct rp_pool *pool, struct rp_image *image, const char *path, bool replace,
                     const struct rp_image_options *options, int (*progress)(void *context, const struct rp_progress *),
                     void *context)
{
	struct making m;
	int error = making_begin(&m, path, replace, options, options && options->hooks ? options->hooks : &pool->hooks);

	if (error)
		return error;
	/* With the commit role: neither a commit nor a compaction changes an address meanwhile. */
	if (image)
		rp_image_role_take(image);
	rp_pool_commit_begin(pool);
	error = other_save(pool, image, m.store, progress, context);
	rp_pool_commit_end(pool);
	if (image)
		rp_image_role_give(image);
	if (error)
		m.io->unlink(m.io->context, m.temporary);
	else
		error = making_name(&m);
	if (error && error != -EEXIST)
		rp_image_say(options, error, "%s: %s", m.path, error_text(error));
	rp_store_close(m.store);
	making_end(&m);
	return error;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------------- */

/* An older commit is asked for, to be read only, and the newest root is damaged: the other superblock leads to it. */
static void other_slot_try(struct rp_image *image, const struct rp_image_options *options)
{
	struct rp_store *store = image->store;
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	struct rp_root root;
	unsigned newest;
	const char *why;

	if (!image->read_only || !options || !options->generation ||
	    !rp_store_read_root(store, store->super.root, &root, NULL, NULL, &why) ||
	    rp_store_supers_read(store->io, store->hooks, store->handle, super, good, &newest) || !good[!newest] ||
	    super[!newest].generation < options->generation)
		return;
	store->super = super[!newest];
}

struct scanned {
	uint64_t generation;
	struct rp_root *root;
	bool found;
};

static int scanned_take(void *context, rp_addr addr, const struct rp_root *root, uint64_t end)
{
	struct scanned *scanned = context;

	(void)addr;
	(void)end;
	/* The later one of two counts. */
	if (root->generation == scanned->generation) {
		*scanned->root = *root;
		scanned->found = true;
	}
	return 0;
}

/* The chain does not lead to the commit that is asked for, to be read only: it may be found without. */
static int root_search(struct rp_image *image, uint64_t generation, struct rp_root *newest, struct rp_root *wanted)
{
	struct scanned scanned = { .generation = generation, .root = wanted };
	int error = rp_store_scan(image->store, scanned_take, &scanned);

	*newest = *wanted;
	return error ? error : scanned.found ? 0 : -EIO;
}

/* The newest root, and the one that is asked for. */
static int chain_walk(struct rp_image *image, const struct rp_image_options *options, struct rp_root *newest,
                      struct rp_root *wanted)
{
	struct rp_store *store = image->store;
	uint64_t generation = options && options->generation ? options->generation : store->super.generation;
	uint64_t checksum;
	rp_addr addr = store->super.root;
	const char *why;
	int error = rp_store_read_root(store, addr, newest, NULL, &checksum, &why);

	if (!error && (checksum != store->super.root_checksum || newest->generation != store->super.generation)) {
		error = -EIO;
		why = "is not the one the superblock means";
	}
	if (error)
		return rp_image_say(options, error, "%s: damaged: the root of commit %" PRIu64 ": %s; fsck.rampool can go back "
		                    "to an earlier one", image->path, store->super.generation, why);
	*wanted = *newest;
	while (wanted->generation > generation && wanted->previous) {
		uint64_t before = wanted->generation;

		error = rp_store_read_root(store, wanted->previous, wanted, NULL, NULL, &why);
		if (!error && wanted->generation >= before) {
			error = -EIO;
			why = "breaks the order";
		}
		if (error)
			return rp_image_say(options, error, "%s: damaged: the root before commit %" PRIu64 ": %s", image->path,
			                    before, why);
	}
	if (wanted->generation != generation)
		return rp_image_say(options, -ESRCH, "%s: has no commit %" PRIu64 " any more", image->path, generation);
	return 0;
}

static int roots_find(struct rp_image *image, const struct rp_image_options *options, struct rp_root *newest,
                      struct rp_root *wanted)
{
	int error = chain_walk(image, options, newest, wanted);

	if (error == -EIO && image->read_only && options && options->generation)
		error = root_search(image, options->generation, newest, wanted);
	return error;
}

static int pool_restore(struct rp_image *image, const struct rp_image_options *options, const struct rp_root *newest,
                        const struct rp_root *wanted)
{
	struct rp_source source = { rp_image_fetch, rp_image_wait_commit, image };
	struct rp_pool_options pool_options = {
		.size_bytes = options && options->size_bytes > wanted->size_bytes ? options->size_bytes : wanted->size_bytes,
		.hooks = options ? options->hooks : NULL,
		.small_pages = options && options->small_pages,
		.lock_memory = options && options->lock_memory,
	};
	struct rp_pool_restored restored = {
		.root = wanted->table,
		.catalog = wanted->catalog,
		.epoch = (newest->epoch > wanted->epoch ? newest->epoch : wanted->epoch) + 1,
		.size_bytes = wanted->size_bytes,
		/* A file cannot hold more blocks than it has units. */
		.page_total = wanted->page_count < image->store->end / RP_ADDR_UNIT ? wanted->page_count
		                                                                    : image->store->end / RP_ADDR_UNIT,
	};
	int error;

	if (!restored.page_total)
		restored.page_total = 1;
	memcpy(restored.uuid, wanted->uuid, sizeof(restored.uuid));
	memcpy(restored.label, wanted->label, sizeof(restored.label));
	image->epoch_limit = restored.epoch;
	error = rp_pool_restore(&pool_options, &restored, &source, &image->pool);
	if (error)
		return rp_image_say(options, error, "%s: a pool of %" PRIu64 " bytes cannot be had: %s", image->path,
		                    pool_options.size_bytes, strerror(-error));
	error = rp_catalog_load(image->pool);
	if (error)
		return rp_image_say(options, error, "%s: the list of snapshots cannot be read: %s", image->path, error_text(error));
	return 0;
}

/* From now until the next clean end a start finds no clean one. Nothing is lost when this cannot be written: the next commit
 * will say so. */
static void clean_clear(struct rp_image *image)
{
	struct rp_super super = image->store->super;
	int error;

	if (image->read_only || !(super.flags & RP_ROOT_CLEAN))
		return;
	super.flags &= ~(uint32_t)RP_ROOT_CLEAN;
	error = rp_store_begin(image->store);
	if (!error)
		error = rp_store_publish(image->store, &super);
	if (error)
		rp_store_abort(image->store, error);
}

static void numbers_set(struct rp_image *image, const struct rp_image_options *options, const struct rp_root *wanted)
{
	const struct rp_super *super = &image->store->super;
	bool is_newest = wanted->generation == super->generation;

	image->root = super->root;
	image->generation = super->generation;
	image->generation_last = super->generation_last > super->generation ? super->generation_last : super->generation;
	image->saved_sec = super->sec;
	image->opened_clean = super->flags & RP_ROOT_CLEAN;
	image->file_bytes = image->store->end;
	/* An older commit is not what stands in the file as the newest: all of it counts as a change. */
	atomic_store(&image->committed_table, is_newest ? rp_entry_addr(wanted->table) : UINT64_MAX - 1);
	atomic_store(&image->committed_catalog, is_newest ? rp_entry_addr(wanted->catalog) : UINT64_MAX - 1);
	image->saved_bytes = wanted->live_bytes < image->store->end ? wanted->live_bytes : image->store->end;
	image->saved_pages = wanted->page_count;
	if (options && options->codec_set)
		image->store->codec = options->codec;
	image->codec = image->store->codec;
	if (!(options && options->keep) && super->keep)
		image->keep = super->keep;
}

int rp_image_open(const char *path, const struct rp_image_options *options, struct rp_pool **pool, struct rp_image **out)
{
	const struct rp_hooks *hooks = options ? options->hooks : NULL;
	struct rp_store_options store_options = {
		.io = options && options->io ? options->io : &rp_io_files, .hooks = hooks, .says = options,
		.read_only = options && options->read_only, .any_owner = options && options->any_owner,
	};
	struct rp_root newest, wanted;
	struct rp_image *image;
	int error = rp_image_new(options, hooks, &image);

	if (error)
		return rp_image_say(options, error, "%s: out of memory", path);
	image->path = path_resolve(image->io, path, true);
	error = image->path ? rp_store_open(image->path, &store_options, &image->store) : -ENOMEM;
	if (!error) {
		other_slot_try(image, options);
		error = roots_find(image, options, &newest, &wanted);
	}
	if (!error) {
		numbers_set(image, options, &wanted);
		error = pool_restore(image, options, &newest, &wanted);
	}
	if (error) {
		rp_pool_destroy(image->pool);
		rp_image_free(image);
		return error;
	}
	if (!(options && options->look_only))
		clean_clear(image);
	if (!(options && options->no_read_ahead))
		rp_image_worker_start(image); /* without it pages come in when they are touched */
	*pool = image->pool;
	*out = image;
	return 0;
}
