/* copy.c: copying between files: whole pages by sharing their frames, the rest byte by byte. */
#include <stdlib.h>
#include "internal.h"

#define SHARE_PAGES_MIN 16u    /* closing the gate costs more than copying fewer */
#define COPY_PIECE (256u << 10)

struct copying {
	rp_object from, to;
	uint64_t from_generation, to_generation;
	uint64_t from_offset, to_offset, size;
	uint64_t done;
};

static int begin_work(struct rp_op *op, struct rp_fs *fs, struct copying *c)
{
	const struct rp_record *from, *to;
	int error;

	error = rp_file_get(op, fs, c->from, 0, &from);
	if (!error)
		error = rp_file_get(op, fs, c->to, 0, &to);
	if (error)
		return error;
	c->from_generation = from->generation;
	c->to_generation = to->generation;
	if (c->from_offset >= from->size_bytes)
		c->size = 0;
	else if (c->size > from->size_bytes - c->from_offset)
		c->size = from->size_bytes - c->from_offset;
	return 0;
}

static int read_work(struct rp_op *op, struct rp_fs *fs, const struct copying *c, void *to, size_t size)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, c->from, c->from_generation, &record);

	return error ? error : rp_bytes_read(op, fs->tree, c->from, c->from_offset + c->done, to, size);
}

/* Copy up to c->done == end. */
static int copy_bytes(struct rp_fs *fs, struct copying *c, uint64_t end, uint8_t *buffer)
{
	int error = 0;

	while (c->done < end && !error) {
		size_t size = end - c->done < COPY_PIECE ? end - c->done : COPY_PIECE, written = 0;
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_READ, error, read_work(&op, fs, c, buffer, size));
		if (!error)
			error = rp_file_write_exclusive(fs, c->to, c->to_generation, c->to_offset + c->done, buffer, size, 0,
							&written);
		c->done += written;
	}
	return error;
}

/* ---- Sharing ------------------------------------------------------------------------------------------------------- */

/* Before and after pages are shared behind the end of a file: between the two they are a TAIL (N8). */
static int share_mark_work(struct rp_op *op, struct rp_fs *fs, const struct copying *c, uint64_t size_bytes, bool tail,
			   struct rp_time now)
{
	const struct rp_record *old;
	struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_file_get(op, fs, c->to, c->to_generation, &old);
	if (!error)
		error = rp_inode_edit_front(op, c->to, &inode);
	if (!error)
		error = rp_inode_edit_size(op, c->to, &record);
	if (error)
		return error;
	inode = (struct rp_inode *)record->user;
	inode->flags = (inode->flags & ~(uint32_t)RP_INODE_TAIL) | (tail ? RP_INODE_TAIL : 0);
	if (record->size_bytes < size_bytes)
		record->size_bytes = size_bytes;
	inode->mtime = now;
	inode->ctime = now;
	return 0;
}

static int share_mark(struct rp_fs *fs, const struct copying *c, uint64_t size_bytes, bool tail)
{
	struct rp_time now = rp_fs_now(fs);
	struct rp_op op;
	int error;

	RP_RUN(op, fs, RP_OP_RESERVE, error, share_mark_work(&op, fs, c, size_bytes, tail, now));
	return error;
}

static int copy_share(struct rp_fs *fs, struct copying *c, rp_page count)
{
	uint64_t to_offset = c->to_offset + c->done;
	rp_page done = 0;
	int error, mark;

	error = share_mark(fs, c, 0, true);
	if (error)
		return error;
	error = rp_pages_share(fs->pool, c->from, (c->from_offset + c->done) >> RP_PAGE_SHIFT, c->to,
			       to_offset >> RP_PAGE_SHIFT, count, &done);
	if (!error)
		done = count;
	/* A failure here leaves the mark: the pages behind the end go before the file grows. */
	mark = share_mark(fs, c, done ? to_offset + (done << RP_PAGE_SHIFT) : 0, false);
	if (!mark)
		c->done += done << RP_PAGE_SHIFT;
	return error ? error : mark;
}

static int copy_run(struct rp_fs *fs, struct copying *c, uint8_t *buffer)
{
	uint64_t head = -c->from_offset & (RP_PAGE_SIZE - 1);
	rp_page pages = c->size > head ? (c->size - head) >> RP_PAGE_SHIFT : 0;
	int error = 0;

	if (((c->from_offset ^ c->to_offset) & (RP_PAGE_SIZE - 1)) == 0 && pages >= SHARE_PAGES_MIN) {
		error = copy_bytes(fs, c, head, buffer);
		if (!error)
			error = copy_share(fs, c, pages);
	}
	return error ? error : copy_bytes(fs, c, c->size, buffer);
}

ssize_t rp_fs_copy(struct rp_fs *fs, rp_object from, uint64_t from_offset, rp_object to, uint64_t to_offset, uint64_t size)
{
	struct rp_lock_want wants[2] = { { from, false }, { to, true } };
	struct copying c = { .from = from, .to = to, .from_offset = from_offset, .to_offset = to_offset, .size = size };
	struct rp_locks locks = { .count = 0 };
	uint8_t *buffer;
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	if (from_offset > RP_FILE_SIZE_MAX || to_offset > RP_FILE_SIZE_MAX)
		return -EINVAL;
	if (c.size > RP_FILE_SIZE_MAX - to_offset)
		c.size = RP_FILE_SIZE_MAX - to_offset;
	if (size != 0 && c.size == 0)
		return -EFBIG;
	buffer = rp_fs_allocate(fs, COPY_PIECE);
	if (!buffer)
		return -ENOMEM;
	rp_locks_take(fs, &locks, wants, 2);
	RP_RUN(op, fs, RP_OP_READ, error, begin_work(&op, fs, &c));
	if (!error && from == to && from_offset < to_offset + c.size && to_offset < from_offset + c.size)
		error = -EINVAL;
	if (!error && c.size > 0)
		error = rp_file_trim(fs, to, c.to_generation);
	if (!error && c.size > 0)
		error = copy_run(fs, &c, buffer);
	rp_locks_drop(&locks);
	free(buffer);
	return error && c.done == 0 ? error : (ssize_t)c.done;
}
