/* store_read.c: one image file, read: blocks, verified before anything is done with them.
 *
 * Any number of threads read at once, each with a reader of its own. A reader with a window reads ahead while addresses rise
 * step by step, which is how a tree's pages stand when it is walked in the order it was written. The file is never mapped:
 * a truncated one must give an error, not a signal.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "image.h"
#include "store.h"

#define EINTR_MAX 1000

ssize_t rp_store_bytes_read(const struct rp_io *io, void *handle, void *to, size_t size, uint64_t offset)
{
	size_t done = 0;
	unsigned interrupted = 0;

	while (done < size) {
		ssize_t n = io->read(io->context, handle, (char *)to + done, size - done, offset + done);

		if (n == -EINTR && ++interrupted < EINTR_MAX)
			continue;
		if (n < 0)
			return n;
		if (n == 0)
			break;
		interrupted = 0;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

struct rp_reader *rp_reader_claim(struct rp_store *store, size_t window_room)
{
	struct rp_reader *reader = NULL;

	if (!window_room) {
		pthread_mutex_lock(&store->readers_lock);
		reader = store->readers;
		if (reader)
			store->readers = reader->next;
		pthread_mutex_unlock(&store->readers_lock);
	}
	if (reader)
		return reader;
	reader = rp_image_allocate(store->hooks, sizeof(*reader));
	if (!reader || !window_room)
		return reader;
	reader->window = rp_image_allocate(store->hooks, window_room);
	if (!reader->window) {
		free(reader);
		return NULL;
	}
	reader->window_room = window_room;
	return reader;
}

void rp_reader_release(struct rp_store *store, struct rp_reader *reader)
{
	if (reader->window) {
		rp_codec_state_free(&reader->codec);
		free(reader->window);
		free(reader);
		return;
	}
	pthread_mutex_lock(&store->readers_lock);
	reader->next = store->readers;
	store->readers = reader;
	pthread_mutex_unlock(&store->readers_lock);
}

static ssize_t handle_read(struct rp_store *store, void *to, size_t size, uint64_t offset)
{
	ssize_t n;

	pthread_rwlock_rdlock(&store->handle_lock);
	n = rp_store_bytes_read(store->io, store->handle, to, size, offset);
	pthread_rwlock_unlock(&store->handle_lock);
	return n;
}

/* Is `offset` inside the window, or so near behind it that reading on is better than reading one block? */
static bool window_is_next(const struct rp_reader *reader, uint64_t offset)
{
	return offset >= reader->window_offset &&
	       offset - reader->window_offset <= reader->window_size + reader->window_room / 4;
}

/* The bytes at addr: at least a whole block where the file has one. */
static ssize_t bytes_at(struct rp_store *store, struct rp_reader *reader, rp_addr addr, const void **bytes)
{
	uint64_t offset = rp_addr_offset(addr);
	ssize_t n;

	if (reader->window && offset >= reader->window_offset &&
	    offset - reader->window_offset + RP_BLOCK_MAX <= reader->window_size) {
		*bytes = reader->window + (offset - reader->window_offset);
		return RP_BLOCK_MAX;
	}
	if (reader->window && window_is_next(reader, offset)) {
		n = handle_read(store, reader->window, reader->window_room, offset);
		reader->window_offset = offset;
		reader->window_size = n > 0 ? (size_t)n : 0;
		*bytes = reader->window;
		return n;
	}
	n = handle_read(store, reader->block, RP_BLOCK_MAX, offset);
	if (reader->window) {
		reader->window_offset = offset;
		reader->window_size = 0;
	}
	*bytes = reader->block;
	return n;
}

int rp_store_read(struct rp_store *store, struct rp_reader *reader, rp_addr addr, unsigned kind, void *page,
                  struct rp_block_info *info, const char **why)
{
	struct rp_block_info mine;
	const void *bytes;
	ssize_t n = bytes_at(store, reader, addr, &bytes);
	int error;

	*why = "cannot be read";
	if (n < 0)
		return (int)n == -ENOMEM ? -ENOMEM : -EIO;
	error = rp_block_decode(&reader->codec, store->file_id, addr, kind, bytes, (size_t)n, page, &mine, why);
	if (error)
		return error;
	if (!rp_children_valid(mine.kind, page, addr, why))
		return -EIO;
	if (info)
		*info = mine;
	return 0;
}

int rp_store_read_encoded(struct rp_store *store, struct rp_reader *reader, rp_addr addr, unsigned kind,
                          const struct rp_block_header **header, const void **payload, const char **why)
{
	const void *bytes;
	ssize_t n = bytes_at(store, reader, addr, &bytes);
	int error;

	*why = "cannot be read";
	if (n < 0)
		return (int)n == -ENOMEM ? -ENOMEM : -EIO;
	error = rp_block_verify(store->file_id, addr, kind, bytes, (size_t)n, why);
	if (error)
		return error;
	if (bytes != reader->block)
		memcpy(reader->block, bytes, (size_t)n < RP_BLOCK_MAX ? (size_t)n : RP_BLOCK_MAX);
	*header = (const struct rp_block_header *)(const void *)reader->block;
	*payload = reader->block + sizeof(**header);
	return 0;
}

int rp_store_read_root(struct rp_store *store, rp_addr addr, struct rp_root *root, uint64_t *end, uint64_t *checksum,
                       const char **why)
{
	struct rp_block_info info;
	struct rp_reader *reader = rp_reader_claim(store, 0);
	uint64_t page[RP_PAGE_SIZE / 8];
	int error;

	*why = "out of memory";
	if (!reader)
		return -ENOMEM;
	error = rp_store_read(store, reader, addr, RP_KIND_ROOT, page, &info, why);
	if (!error) {
		memcpy(root, page, sizeof(*root));
		if (end)
			*end = rp_addr_offset(addr) + info.stored_bytes;
		if (checksum)
			memcpy(checksum, reader->block, sizeof(*checksum));
		*why = "the commit's root makes no sense";
		if (memcmp(root->file_id, store->file_id, sizeof(root->file_id)) || root->previous >= addr ||
		    !rp_entry_is_addr(root->table) || root->epoch >= UINT64_C(1) << 47 || root->generation >> 62 ||
		    !rp_entry_valid(root->table, addr, true, why) || !rp_entry_valid(root->catalog, addr, true, why) ||
		    rp_addr_is_zero_page(rp_entry_addr(root->table)) || rp_addr_is_zero_page(rp_entry_addr(root->catalog)))
			error = -EIO;
	}
	rp_reader_release(store, reader);
	return error;
}
