/* store.c: one image file, written: the append buffer, the two barriers, and what follows a failure.
 *
 * Blocks are gathered in a buffer and written one after the other beyond everything that was ever written. barrier() makes
 * them durable; publish() then writes one superblock slot and makes that durable: only then the commit counts. After a
 * failed write or sync nothing is known about what the file holds past the last commit, and a later sync that succeeds
 * proves nothing about it (the system forgets failed pages). So abort() gives up the offsets and the handle: the next
 * attempt opens the file anew and writes everything again, further on.
 *
 * Knows blocks and superblocks, no frames and no trees. Reading is in store_read.c, opening in store_open.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "image.h"
#include "store.h"

/* Larger buffers gain nothing measurable; smaller ones cost system calls and changes of threads. */
#define BUFFER_SIZE (128u << 10)
/* A device that answers nothing but EINTR is broken, not busy. */
#define EINTR_MAX 1000

int rp_store_write_all(struct rp_store *store, const void *from, size_t size, uint64_t offset)
{
	unsigned interrupted = 0;

	while (size > 0) {
		ssize_t n = store->io->write(store->io->context, store->handle, from, size, offset);

		if (n == -EINTR && ++interrupted < EINTR_MAX)
			continue;
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		interrupted = 0;
		from = (const char *)from + n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int sync_file(struct rp_store *store)
{
	return store->io->sync(store->io->context, store->handle);
}

/* A commit to a file that nobody can find any more would be acknowledged and lost. */
int rp_store_name_check(struct rp_store *store)
{
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	unsigned newest;
	void *handle;
	int error = store->io->open(store->io->context, store->path, O_RDONLY, &handle);

	if (error)
		return error;
	bool same = !store->io->same || store->io->same(store->io->context, handle, store->handle);

	error = same ? rp_store_supers_read(store->io, store->hooks, handle, super, good, &newest) : -ESTALE;
	if (error == -EINVAL) {
		uint64_t size;

		/* Cut to nothing it is still this file: see below. */
		error = store->io->size(store->io->context, handle, &size);
		if (!error && size)
			error = -ESTALE;
		store->io->close(store->io->context, handle);
		return error;
	}
	store->io->close(store->io->context, handle);
	if (error)
		return error;
	/* An older copy, put there byte for byte, has the id but not the number. One that was tried and failed may be there. */
	same = memcmp(super[newest].file_id, store->file_id, sizeof(store->file_id)) == 0 &&
	       super[newest].sequence >= store->super.sequence && super[newest].sequence <= store->sequence_last;
	return same ? 0 : -ESTALE;
}

int rp_store_cut_check(struct rp_store *store, bool *is_cut)
{
	uint64_t size = 0;
	int error = store->named ? store->io->size(store->io->context, store->handle, &size) : 0;

	*is_cut = !error && store->named && size < store->size_known;
	return error;
}

static int handle_replace(struct rp_store *store)
{
	void *fresh, *old;
	int error = store->io->open(store->io->context, store->path, O_RDWR, &fresh);

	if (error)
		return error;
	pthread_rwlock_wrlock(&store->handle_lock);
	old = store->handle;
	store->handle = fresh;
	pthread_rwlock_unlock(&store->handle_lock);
	store->io->close(store->io->context, old);
	return 0;
}

int rp_store_begin(struct rp_store *store)
{
	int error;

	if (store->read_only)
		return -EROFS;
	if (store->named) {
		error = rp_store_name_check(store);
		if (error)
			return error;
	}
	if (store->doubtful) {
		error = handle_replace(store);
		if (error)
			return error;
		store->doubtful = false;
	}
	store->buffered = 0;
	store->end = (store->end + RP_COMMIT_ALIGN - 1) & ~(uint64_t)(RP_COMMIT_ALIGN - 1);
	return 0;
}

/* `behind`: it need not have arrived on return; an error may then come later. */
static int buffer_flush(struct rp_store *store, bool behind)
{
	size_t size = store->buffered;
	uint64_t offset = store->end;
	int error = 0;

	if (!size && behind)
		return 0;
	/* Given up even when it fails: these offsets are not used again. */
	store->buffered = 0;
	store->end += size;
	if (behind) {
		error = rp_behind_write(store, size, offset);
	} else {
		error = rp_behind_wait(store);
		if (!error && size)
			error = rp_store_write_all(store, store->buffer, size, offset);
	}
	if (error) {
		store->doubtful = true;
		return error;
	}
	store->written_bytes += size;
	store->data_end = store->end;
	return 0;
}

/* Room for one block, and the address it will have. */
static int append_place(struct rp_store *store, void **place, rp_addr *addr)
{
	int error;

	if (BUFFER_SIZE - store->buffered < RP_BLOCK_MAX) {
		error = buffer_flush(store, true);
		if (error)
			return error;
	}
	*addr = (store->end + store->buffered) >> RP_ADDR_SHIFT;
	*place = store->buffer + store->buffered;
	return *addr <= RP_ADDR_MAX - RP_BLOCK_MAX / RP_ADDR_UNIT ? 0 : -EFBIG;
}

int rp_store_append(struct rp_store *store, unsigned kind, uint64_t birth, const void *page, rp_addr *out, uint32_t *size)
{
	void *place;
	rp_addr addr;
	int error = append_place(store, &place, &addr);

	if (error)
		return error;
	error = rp_block_encode(&store->codec_state, store->codec, store->file_id, addr, kind, birth, page, place, size);
	if (error)
		return error;
	store->buffered += *size;
	*out = addr;
	return 0;
}

int rp_store_append_encoded(struct rp_store *store, const struct rp_block_header *header, const void *payload, rp_addr *out,
                            uint32_t *size)
{
	void *place;
	rp_addr addr;
	int error = append_place(store, &place, &addr);

	if (error)
		return error;
	rp_block_rewrap(store->file_id, addr, header, payload, place, size);
	store->buffered += *size;
	*out = addr;
	return 0;
}

int rp_store_barrier(struct rp_store *store)
{
	int error = buffer_flush(store, false);

	if (error)
		return error;
	error = sync_file(store);
	if (error)
		store->doubtful = true;
	return error;
}

int rp_store_publish(struct rp_store *store, const struct rp_super *next)
{
	struct rp_super super = *next;
	unsigned slot = (store->slot + 1) % RP_SUPER_SLOTS;
	uint8_t image[RP_SUPER_SLOT_SIZE];
	int error;

	memcpy(super.file_id, store->file_id, sizeof(super.file_id));
	super.compat = store->super.compat;
	super.ro_compat = store->super.ro_compat;
	super.incompat = store->super.incompat;
	memcpy(super.names, store->super.names, sizeof(super.names));
	rp_super_features_set(&super, store->codec);
	super.codec = store->codec;
	/* A number that was tried may be on disk although its sync failed: it is not given again. */
	super.sequence = ++store->sequence_last;
	super.file_end = store->data_end;
	rp_super_encode(&super, slot, image);
	store->end_published = store->end;
	error = rp_store_write_all(store, image, sizeof(image), (uint64_t)slot * RP_SUPER_SLOT_SIZE);
	if (!error)
		error = sync_file(store);
	if (error) {
		store->doubtful = true;
		return error;
	}
	store->written_bytes += sizeof(image);
	store->super = super;
	store->slot = slot;
	store->size_known = super.file_end;
	return 0;
}

void rp_store_abort(struct rp_store *store, int error)
{
	if (rp_behind_wait(store))
		store->doubtful = true;
	store->buffered = 0;
	if (store->read_only)
		return;
	/* On a full disk the half-written tail would keep the space that the next attempt needs. Nothing a superblock could
	 * name is cut off, and the offsets stay given up: the next attempt leaves a hole. */
	if ((error == -ENOSPC || error == -EDQUOT) && store->end > store->end_published)
		store->io->truncate(store->io->context, store->handle, store->end_published);
}

int rp_store_rename(struct rp_store *store, const char *to)
{
	char *path = strdup(to);
	int error;

	if (!path)
		return -ENOMEM;
	error = store->io->rename(store->io->context, store->path, to);
	if (error) {
		free(path);
		return error;
	}
	free(store->path);
	store->path = path;
	store->named = true;
	return 0;
}

uint8_t *rp_store_buffer_allocate(const struct rp_hooks *hooks)
{
	return rp_image_allocate(hooks, BUFFER_SIZE);
}
