/* store_open.c: making, opening and closing an image file: ownership, lock, superblocks, features. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "image.h"
#include "store.h"

/* The file may be replaced between opening and locking it: then it is opened again, this many times. */
#define OPEN_TRIES 16

int rp_store_supers_read(const struct rp_io *io, const struct rp_hooks *hooks, void *handle,
                         struct rp_super best[RP_SUPER_SLOTS], bool good[RP_SUPER_SLOTS], unsigned *newest)
{
	uint8_t *bytes = rp_image_allocate(hooks, RP_BLOCKS_START);
	ssize_t n;
	int error;

	if (!bytes)
		return -ENOMEM;
	n = rp_store_bytes_read(io, handle, bytes, RP_BLOCKS_START, 0);
	error = n < 0 ? (int)n : rp_super_decode(bytes, best, good, newest);
	free(bytes);
	return error;
}

static int store_allocate(const char *path, const struct rp_store_options *options, struct rp_store **out)
{
	struct rp_store *store = rp_image_allocate(options->hooks, sizeof(*store));

	if (!store)
		return -ENOMEM;
	store->io = options->io ? options->io : &rp_io_files;
	store->hooks = options->hooks;
	store->read_only = options->read_only;
	store->path = strdup(path);
	if (!options->read_only)
		store->buffer = rp_store_buffer_allocate(options->hooks);
	if (!store->path || (!options->read_only && !store->buffer)) {
		free(store->path);
		free(store->buffer);
		free(store);
		return -ENOMEM;
	}
	pthread_rwlock_init(&store->handle_lock, NULL);
	pthread_mutex_init(&store->readers_lock, NULL);
	*out = store;
	return 0;
}

void rp_store_close(struct rp_store *store)
{
	struct rp_reader *reader;

	if (!store)
		return;
	rp_behind_end(store);
	while ((reader = store->readers)) {
		store->readers = reader->next;
		rp_codec_state_free(&reader->codec);
		free(reader->window);
		free(reader);
	}
	if (store->handle)
		store->io->close(store->io->context, store->handle);
	if (store->lock)
		store->io->close(store->io->context, store->lock);
	rp_codec_state_free(&store->codec_state);
	pthread_rwlock_destroy(&store->handle_lock);
	pthread_mutex_destroy(&store->readers_lock);
	free(store->buffer);
	free(store->path);
	free(store);
}

const char *rp_store_open_text(int error)
{
	return error == -EINVAL ? "is not an ordinary file" : error == -EISDIR ? "is a directory" : strerror(-error);
}

/* Open the path and take the lock; -ESTALE: replaced meanwhile. The lock's handle is store->lock. */
static int lock_open(struct rp_store *store, int flags, const struct rp_image_options *says)
{
	const struct rp_io *io = store->io;
	char holder[256] = "another process";
	void *handle;
	int error = io->open(io->context, store->path, flags, &handle);

	if (error)
		return rp_image_say(says, error, "%s: %s", store->path, rp_store_open_text(error));
	error = io->lock(io->context, handle, holder);
	if (error) {
		io->close(io->context, handle);
		if (error == -EBUSY)
			return rp_image_say(says, error, "%s: in use by %s", store->path, holder);
		return rp_image_say(says, error, "%s: cannot be locked: %s", store->path, strerror(-error));
	}
	store->lock = handle;
	return 0;
}

static int create_locked(struct rp_store *store, const struct rp_image_options *says)
{
	const struct rp_io *io = store->io;
	int error = lock_open(store, O_RDWR | O_CREAT | O_EXCL, says);

	if (error != -EEXIST)
		return error;
	/* Left by a crash, unless somebody is at it right now. */
	error = lock_open(store, O_RDWR, says);
	if (error)
		return error;
	io->close(io->context, store->lock);
	store->lock = NULL;
	error = io->unlink(io->context, store->path);
	if (error)
		return rp_image_say(says, error, "%s: cannot be removed: %s", store->path, strerror(-error));
	return lock_open(store, O_RDWR | O_CREAT | O_EXCL, says);
}

int rp_store_create(const char *path, const struct rp_store_options *options, enum rp_codec codec, struct rp_store **out)
{
	const struct rp_image_options *says = options->says;
	struct rp_store *store;
	int error = store_allocate(path, options, &store);

	if (error)
		return rp_image_say(says, error, "%s: out of memory", path);
	error = create_locked(store, says);
	if (error) {
		rp_store_close(store);
		return error;
	}
	error = store->io->open(store->io->context, path, O_RDWR, &store->handle);
	if (!error)
		error = rp_image_random(options->hooks, store->file_id, sizeof(store->file_id));
	if (error) {
		store->io->unlink(store->io->context, path);
		rp_store_close(store);
		return rp_image_say(says, error, "%s: %s", path, strerror(-error));
	}
	store->codec = codec;
	store->end = store->end_published = store->data_end = RP_BLOCKS_START;
	store->slot = RP_SUPER_SLOTS - 1;
	*out = store;
	return 0;
}

/* Take over what the superblocks say. */
static int supers_load(struct rp_store *store, const struct rp_image_options *says)
{
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	char name[64];
	uint64_t size;
	int error = rp_store_supers_read(store->io, store->hooks, store->handle, super, good, &store->slot);

	if (error == -EINVAL)
		return rp_image_say(says, error, "%s: not an image", store->path);
	if (error)
		return rp_image_say(says, error, "%s: %s", store->path,
		                    error == -EIO ? "damaged: no superblock is whole" : strerror(-error));
	store->super = super[store->slot];
	memcpy(store->file_id, store->super.file_id, sizeof(store->file_id));
	error = rp_super_features_check(&store->super, store->read_only, name);
	if (error)
		return rp_image_say(says, error, "%s: needs what this version does not have: %s", store->path, name);
	/* Numbers that rise must have room to. */
	if (store->super.codec > RP_CODEC_ZSTD || store->super.root > RP_ADDR_MAX ||
	    store->super.file_end > rp_addr_offset(RP_ADDR_MAX) ||
	    (store->super.generation | store->super.generation_last | store->super.sequence) >> 62)
		return rp_image_say(says, -EIO, "%s: damaged: the superblock makes no sense", store->path);
	store->codec = (enum rp_codec)store->super.codec;
	store->sequence_last = store->super.sequence;
	error = store->io->size(store->io->context, store->handle, &size);
	if (error)
		return rp_image_say(says, error, "%s: %s", store->path, strerror(-error));
	/* Whatever stands after the last commit was never acknowledged. Its addresses may have been tried: go beyond. */
	store->end = size > store->super.file_end ? size : store->super.file_end;
	store->data_end = store->super.file_end;
	store->end_published = store->end;
	store->size_known = size < store->super.file_end ? size : store->super.file_end;
	return 0;
}

static int open_once(struct rp_store *store, const struct rp_store_options *options)
{
	const struct rp_image_options *says = options->says;
	const struct rp_io *io = store->io;
	int error;

	if (!store->read_only) {
		error = lock_open(store, O_RDWR, says);
		if (error)
			return error;
	}
	error = io->open(io->context, store->path, store->read_only ? O_RDONLY : O_RDWR, &store->handle);
	if (error)
		return rp_image_say(says, error, "%s: %s", store->path, rp_store_open_text(error));
	if (io == &rp_io_files && !options->any_owner) {
		error = rp_io_file_owner_check(store->handle);
		if (error)
			return rp_image_say(says, error, "%s: belongs to another user, or others may write it", store->path);
	}
	return supers_load(store, says);
}

int rp_store_open(const char *path, const struct rp_store_options *options, struct rp_store **out)
{
	int error = -ESTALE;

	for (unsigned tries = 0; error == -ESTALE && tries < OPEN_TRIES; tries++) {
		struct rp_store *store;

		error = store_allocate(path, options, &store);
		if (error)
			return rp_image_say(options->says, error, "%s: out of memory", path);
		store->named = true;
		error = open_once(store, options);
		if (!error) {
			*out = store;
			return 0;
		}
		rp_store_close(store);
	}
	return error;
}
