/* extent.c: where a file's data is: SEEK_DATA and SEEK_HOLE, extents, and bringing pages in. */
#include <stdlib.h>
#include <unistd.h>
#include "internal.h"

/* So many steps a search takes at most: 1 TiB without a change. Only an image that somebody made up, in
 * which the same few nodes stand for petabytes, asks for more. */
#define SEEK_STEPS (1u << 13)

static int extent_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t end, bool *is_data,
		       uint64_t *extent_end, uint64_t *size_bytes)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, ino, 0, &record);

	if (error)
		return error;
	*size_bytes = record->size_bytes;
	if (end > record->size_bytes)
		end = record->size_bytes;
	*is_data = false;
	*extent_end = end;
	return offset < end ? rp_extent_get(op, fs->tree, ino, offset, end, is_data, extent_end) : 0;
}

/* What is at `offset`, with the inode held shared. Behind the file's end: a hole that ends at *size_bytes. */
static int extent_find(struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t end, bool *is_data, uint64_t *extent_end,
		       uint64_t *size_bytes)
{
	struct rp_op op;
	int error;

	RP_RUN(op, fs, RP_OP_READ, error, extent_work(&op, fs, ino, offset, end, is_data, extent_end, size_bytes));
	if (!error && offset < end && offset < *size_bytes && *extent_end <= offset)
		return rp_fs_damaged(fs, ino, "an extent without a length");
	return error;
}

int rp_fs_seek(struct rp_fs *fs, rp_object ino, uint64_t offset, int whence, uint64_t *out)
{
	uint64_t size_bytes = 0, extent_end = offset;
	struct rp_locks locks;
	bool is_data = false;
	int error;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	rp_locks_take_one(fs, &locks, ino, false);
	for (unsigned steps = 0;; steps++) {
		error = extent_find(fs, ino, offset, UINT64_MAX, &is_data, &extent_end, &size_bytes);
		if (error)
			break;
		if (offset >= size_bytes) {
			/* The end of the file is a hole, for those who came from inside of it. */
			error = -ENXIO;
			break;
		}
		if (is_data == (whence == SEEK_DATA))
			break;
		if (steps == SEEK_STEPS) {
			/* All from here on is data, as a filesystem without holes would say. */
			offset = whence == SEEK_DATA ? offset : size_bytes;
			break;
		}
		offset = extent_end;
		if (offset >= size_bytes) {
			error = whence == SEEK_HOLE ? 0 : -ENXIO;
			break;
		}
	}
	rp_locks_drop(&locks);
	if (!error)
		*out = offset;
	return error;
}

int rp_fs_extent(struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t end, bool *is_data, uint64_t *extent_end)
{
	uint64_t size_bytes = 0;
	struct rp_locks locks;
	int error;

	if (offset >= end)
		return -EINVAL;
	rp_locks_take_one(fs, &locks, ino, false);
	error = extent_find(fs, ino, offset, end, is_data, extent_end, &size_bytes);
	rp_locks_drop(&locks);
	if (!error && offset >= size_bytes) {
		*is_data = false;
		*extent_end = end;
	}
	return error;
}

int rp_fs_prefetch(struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t length)
{
	const size_t piece = 16 * RP_PAGE_SIZE;
	uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
	void *scratch = rp_fs_allocate(fs, piece);
	int error = 0;

	if (!scratch)
		return -ENOMEM;
	while (offset < end && !error) {
		uint64_t extent_end, part;
		bool is_data;

		error = rp_fs_extent(fs, ino, offset, end, &is_data, &extent_end);
		while (!error && is_data && offset < extent_end) {
			ssize_t got;

			part = extent_end - offset < piece ? extent_end - offset : piece;
			got = rp_fs_read(fs, ino, offset, scratch, part);
			if (got <= 0) {
				error = (int)got;
				break;
			}
			offset += (uint64_t)got;
		}
		if (!error && offset < extent_end && is_data)
			break; /* the file became shorter */
		offset = extent_end;
	}
	free(scratch);
	return error;
}
