/* data.c: reading and writing files.
 *
 * Readers, and writers that stay inside the size, hold the inode shared: any number of them copy at once, and only size and
 * existence stand still meanwhile. Who makes a file longer holds it exclusive, so that bytes past the size are never seen
 * and are zero (N8).
 */
#include <limits.h>
#include "internal.h"

int rp_file_get(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, const struct rp_record **out)
{
	int error = rp_inode_get(op, fs, ino, generation, out);

	if (error)
		return error;
	if (S_ISDIR(rp_record_inode(*out)->mode))
		return -EISDIR;
	return S_ISREG(rp_record_inode(*out)->mode) ? 0 : -EINVAL;
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

static int read_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t *generation, uint64_t offset, void *to,
		     size_t size, size_t *done)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, ino, *generation, &record);

	*done = 0;
	if (error)
		return error;
	*generation = record->generation;
	if (offset >= record->size_bytes)
		return 0;
	if (size > record->size_bytes - offset)
		size = record->size_bytes - offset;
	if (size > RP_BYTES_PER_OP)
		size = RP_BYTES_PER_OP;
	error = rp_bytes_read(op, fs->tree, ino, offset, to, size);
	if (!error)
		*done = size;
	return error;
}

ssize_t rp_fs_read(struct rp_fs *fs, rp_object ino, uint64_t offset, void *to, size_t size)
{
	uint64_t generation = 0;
	struct rp_locks locks;
	size_t done = 0, part;
	int error;

	if (size > SSIZE_MAX)
		return -EINVAL;
	rp_locks_take_one(fs, &locks, ino, false);
	do {
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_READ, error,
		       read_work(&op, fs, ino, &generation, offset + done, (uint8_t *)to + done, size - done, &part));
		done += part;
	} while (!error && part != 0 && done < size);
	rp_locks_drop(&locks);
	return error && done == 0 ? error : (ssize_t)done;
}

/* ---- Writing inside the size ---------------------------------------------------------------------------------------- */

struct writing {
	rp_object ino;
	uint64_t generation;
	uint64_t offset;
	const uint8_t *from;
	size_t size;
	unsigned flags;
	struct rp_time now;
};

/* -ERESTART: not without the exclusive lock. */
static int write_shared_work(struct rp_op *op, struct rp_fs *fs, struct writing *writing, size_t *done)
{
	const struct rp_record *record;
	size_t size = writing->size;
	int error;

	*done = 0;
	error = rp_file_get(op, fs, writing->ino, writing->generation, &record);
	if (error)
		return error;
	writing->generation = record->generation;
	if (writing->flags & RP_WRITE_KILLPRIV && rp_inode_has_priv(rp_record_inode(record)))
		return -ERESTART;
	if (writing->flags & RP_WRITE_VOLUME) {
		if (writing->offset >= record->size_bytes)
			return -ENOSPC;
		if (size > record->size_bytes - writing->offset)
			size = record->size_bytes - writing->offset;
	} else if (writing->offset > record->size_bytes || size > record->size_bytes - writing->offset) {
		return -ERESTART;
	}
	error = rp_bytes_write(op, writing->ino, writing->offset, writing->from, size, done);
	if (error && *done == 0)
		return error;
	return writing->flags & RP_WRITE_QUIET ? 0 : rp_inode_touch_shared(op, fs, writing->ino, writing->now);
}

/* ---- Writing past the size ------------------------------------------------------------------------------------------- */

/* What can fail comes before the first byte, so that bytes past the size never stay behind: they are inside it when the
 * operation ends, however few they are. */
static int write_exclusive_work(struct rp_op *op, struct rp_fs *fs, const struct writing *writing, size_t *done)
{
	struct rp_record *record;
	const struct rp_record *old;
	struct rp_inode *inode;
	int error;

	*done = 0;
	error = rp_file_get(op, fs, writing->ino, writing->generation, &old);
	if (!error)
		error = rp_inode_edit_front(op, writing->ino, &inode);
	if (!error)
		error = rp_inode_edit_size(op, writing->ino, &record);
	if (!error)
		error = rp_bytes_write(op, writing->ino, writing->offset, writing->from, writing->size, done);
	if (error && *done == 0)
		return error;
	if (writing->offset + *done > record->size_bytes)
		record->size_bytes = writing->offset + *done;
	if (!(writing->flags & RP_WRITE_QUIET)) {
		inode = (struct rp_inode *)record->user;
		inode->mtime = writing->now;
		inode->ctime = writing->now;
	}
	return 0;
}

static int write_exclusive(struct rp_fs *fs, struct writing *writing, size_t *done)
{
	struct rp_op op;
	int error;

	RP_RUN(op, fs, 0, error, write_exclusive_work(&op, fs, writing, done));
	return error;
}

int rp_file_write_exclusive(struct rp_fs *fs, rp_object ino, uint64_t generation, uint64_t offset, const void *from,
			    size_t size, unsigned flags, size_t *done)
{
	struct writing writing = {
		.ino = ino, .generation = generation, .offset = offset, .from = from, .size = size, .flags = flags,
		.now = rp_fs_now(fs),
	};

	return write_exclusive(fs, &writing, done);
}

static int kill_priv_work(struct rp_op *op, struct rp_fs *fs, const struct writing *writing)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, writing->ino, writing->generation, &record);

	return error ? error : rp_inode_kill_priv(op, fs, writing->ino, record);
}

static int write_growing(struct rp_fs *fs, struct writing *writing, size_t *done)
{
	struct rp_locks locks;
	struct rp_op op;
	int error = 0;

	*done = 0;
	rp_locks_take_one(fs, &locks, writing->ino, true);
	if (writing->flags & RP_WRITE_KILLPRIV)
		RP_RUN(op, fs, RP_OP_RESERVE, error, kill_priv_work(&op, fs, writing));
	if (!error && !(writing->flags & RP_WRITE_VOLUME)) {
		error = rp_file_trim(fs, writing->ino, writing->generation);
		if (!error)
			error = write_exclusive(fs, writing, done);
	}
	rp_locks_drop(&locks);
	return error;
}

/* One piece, small enough for one operation. A volume's write comes back for its bytes once privileges are gone. */
static int write_piece(struct rp_fs *fs, struct writing *writing, size_t *done)
{
	struct rp_locks locks;
	struct rp_op op;
	int error;

	do {
		rp_locks_take_one(fs, &locks, writing->ino, false);
		RP_RUN(op, fs, 0, error, write_shared_work(&op, fs, writing, done));
		rp_locks_drop(&locks);
		if (error == -ERESTART)
			error = write_growing(fs, writing, done);
	} while (!error && *done == 0 && writing->size > 0);
	return error;
}

ssize_t rp_fs_write(struct rp_fs *fs, rp_object ino, uint64_t offset, const void *from, size_t size, unsigned flags)
{
	struct writing writing = { .ino = ino, .flags = flags };
	size_t total = 0, done = 0;
	int error = 0;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	if (offset >= RP_FILE_SIZE_MAX && size > 0)
		return -EFBIG;
	if (size > RP_FILE_SIZE_MAX - offset)
		size = RP_FILE_SIZE_MAX - offset;
	writing.now = rp_fs_now(fs);
	while (total < size && !error) {
		writing.offset = offset + total;
		writing.from = (const uint8_t *)from + total;
		writing.size = size - total < RP_BYTES_PER_OP ? size - total : RP_BYTES_PER_OP;
		error = write_piece(fs, &writing, &done);
		if (!error)
			total += done;
	}
	return error && total == 0 ? error : (ssize_t)total;
}
