/* fallocate.c: taking frames for holes, and giving them back. */
#include <linux/falloc.h>
#include <stdlib.h>
#include "internal.h"

struct range {
	rp_page first, count;
};

/* The holes of a range, by pages: what an allocation that fails has to give back. */
struct holes {
	struct range *range;
	size_t count, room;
	uint64_t pages;
};

struct allocating {
	rp_object ino;
	uint64_t generation;
	int mode;
	uint64_t offset, end;
	struct rp_time now;
};

/* ---- Which pages are holes ------------------------------------------------------------------------------------------ */

static int extent_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, uint64_t offset, uint64_t end,
		       bool *is_data, uint64_t *extent_end)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, ino, generation, &record);

	return error ? error : rp_extent_get(op, fs->tree, ino, offset, end, is_data, extent_end);
}

static int holes_add(struct rp_fs *fs, struct holes *holes, rp_page first, rp_page count)
{
	if (holes->count > 0 && holes->range[holes->count - 1].first + holes->range[holes->count - 1].count == first) {
		holes->range[holes->count - 1].count += count;
	} else {
		if (holes->count == holes->room) {
			size_t room = holes->room ? holes->room * 2 : 64;
			struct range *new = rp_fs_allocate(fs, room * sizeof(*new));

			if (!new)
				return -ENOMEM;
			if (holes->count) /* else there is nothing to point at */
				memcpy(new, holes->range, holes->count * sizeof(*new));
			free(holes->range);
			holes->range = new;
			holes->room = room;
		}
		holes->range[holes->count++] = (struct range){ first, count };
	}
	holes->pages += count;
	return 0;
}

static int holes_find(struct rp_fs *fs, const struct allocating *a, rp_page first, rp_page end, struct holes *holes)
{
	uint64_t at = first << RP_PAGE_SHIFT, stop = end << RP_PAGE_SHIFT;
	int error = 0;

	while (at < stop && !error) {
		uint64_t extent_end = at;
		bool is_data = false;
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_READ, error,
		       extent_work(&op, fs, a->ino, a->generation, at, stop, &is_data, &extent_end));
		if (!error && extent_end <= at)
			error = rp_fs_damaged(fs, a->ino, "an extent without a length");
		if (!error && !is_data)
			error = holes_add(fs, holes, at >> RP_PAGE_SHIFT, (extent_end - at) >> RP_PAGE_SHIFT);
		at = extent_end;
	}
	return error;
}

/* ---- Punching --------------------------------------------------------------------------------------------------------- */

static int punch_pages(struct rp_fs *fs, rp_object ino, rp_page first, rp_page end)
{
	int error = 0;

	while (first < end && !error) {
		rp_page next = first;
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_RESERVE, error, rp_pages_punch(&op, ino, first, end - first, &next));
		if (!error)
			first = next;
	}
	return error;
}

static int zero_bytes(struct rp_fs *fs, rp_object ino, uint64_t offset, uint64_t end)
{
	struct rp_op op;
	int error = 0;

	if (offset < end)
		RP_RUN(op, fs, RP_OP_RESERVE, error, rp_bytes_zero(&op, ino, offset, end - offset));
	return error;
}

static rp_page page_after(uint64_t offset)
{
	return (offset >> RP_PAGE_SHIFT) + (offset & (RP_PAGE_SIZE - 1) ? 1 : 0);
}

static int punch(struct rp_fs *fs, const struct allocating *a)
{
	rp_page first = page_after(a->offset), end = a->end >> RP_PAGE_SHIFT;
	int error;

	if (first > end)
		return zero_bytes(fs, a->ino, a->offset, a->end);
	error = zero_bytes(fs, a->ino, a->offset, first << RP_PAGE_SHIFT);
	if (!error)
		error = zero_bytes(fs, a->ino, end << RP_PAGE_SHIFT, a->end);
	return error ? error : punch_pages(fs, a->ino, first, end);
}

/* ---- Allocating --------------------------------------------------------------------------------------------------------- */

static int allocate_pages(struct rp_fs *fs, rp_object ino, rp_page first, rp_page end)
{
	int error = 0;

	while (first < end && !error) {
		rp_page next = first;
		struct rp_op op;

		RP_RUN(op, fs, 0, error, rp_pages_allocate(&op, ino, first, end - first, &next));
		if (!error)
			first = next;
	}
	return error;
}

static int finish_work(struct rp_op *op, struct rp_fs *fs, const struct allocating *a)
{
	const struct rp_record *old;
	struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_file_get(op, fs, a->ino, a->generation, &old);
	if (!error)
		error = rp_inode_edit_front(op, a->ino, &inode);
	if (!error)
		error = rp_inode_edit_size(op, a->ino, &record);
	if (error)
		return error;
	if (!(a->mode & FALLOC_FL_KEEP_SIZE) && a->end > record->size_bytes)
		record->size_bytes = a->end;
	inode = (struct rp_inode *)record->user;
	inode->mtime = a->now;
	inode->ctime = a->now;
	return 0;
}

static int finish(struct rp_fs *fs, const struct allocating *a)
{
	struct rp_op op;
	int error;

	RP_RUN(op, fs, RP_OP_RESERVE, error, finish_work(&op, fs, a));
	return error;
}

/* All of it or nothing: what was a hole before becomes one again. The lock keeps writers away, so nothing was written there. */
static int allocate(struct rp_fs *fs, const struct allocating *a)
{
	struct rp_pool_status status;
	struct holes holes = { .range = NULL };
	size_t done = 0;
	int error;

	error = holes_find(fs, a, a->offset >> RP_PAGE_SHIFT, page_after(a->end), &holes);
	if (!error) {
		/* What can never fit is refused before a frame is taken from others. */
		rp_pool_status(fs->pool, &status);
		if (holes.pages > status.frame_limit - status.frame_reserve)
			error = -ENOSPC;
	}
	while (done < holes.count && !error) {
		error = allocate_pages(fs, a->ino, holes.range[done].first, holes.range[done].first + holes.range[done].count);
		done++;
	}
	if (!error)
		error = finish(fs, a);
	while (error && done > 0) {
		const struct range *range = &holes.range[--done];
		int undo = punch_pages(fs, a->ino, range->first, range->first + range->count);

		if (undo)
			rp_fs_log(fs, "inode %llu: pages could not be given back: %s", (unsigned long long)a->ino,
				  strerror(-undo));
	}
	free(holes.range);
	return error;
}

/* ---- Zeroing ----------------------------------------------------------------------------------------------------------- */

static int zero_data_work(struct rp_op *op, struct rp_fs *fs, const struct allocating *a, uint64_t at, uint64_t *next)
{
	static const uint8_t zeroes[16 * RP_PAGE_SIZE];
	bool is_data = false;
	size_t done = 0;
	uint64_t end;
	int error;

	error = extent_work(op, fs, a->ino, a->generation, at, a->end, &is_data, next);
	if (error || !is_data)
		return error;
	end = *next;
	/* In pieces that begin where a buffer's worth of pages begins, at most what one operation should move. */
	if (end - at > RP_BYTES_PER_OP)
		end = at + RP_BYTES_PER_OP;
	*next = at;
	while (*next < end) {
		size_t part = sizeof(zeroes) - (*next & (sizeof(zeroes) - 1));

		if (part > end - *next)
			part = end - *next;
		error = rp_bytes_write(op, a->ino, *next, zeroes, part, &done);
		*next += done;
		if (error)
			return done > 0 || *next > at ? 0 : error;
	}
	return 0;
}

/* Holes are taken first, so that the range can be written afterwards without ENOSPC; then what was data is overwritten. */
static int zero_range(struct rp_fs *fs, const struct allocating *a)
{
	uint64_t at = a->offset;
	int error = allocate(fs, a);

	while (!error && at < a->end) {
		uint64_t next = at;
		struct rp_op op;

		RP_RUN(op, fs, 0, error, zero_data_work(&op, fs, a, at, &next));
		at = next;
	}
	return error;
}

/* ---- The call ------------------------------------------------------------------------------------------------------------ */

static int begin_work(struct rp_op *op, struct rp_fs *fs, struct allocating *a, bool kill_priv)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, a->ino, 0, &record);

	if (error)
		return error == -EISDIR ? -ENODEV : error == -EINVAL ? -ENODEV : error;
	a->generation = record->generation;
	return kill_priv ? rp_inode_kill_priv(op, fs, a->ino, record) : 0;
}

int rp_fs_fallocate(struct rp_fs *fs, rp_object ino, int mode, uint64_t offset, uint64_t length, bool killpriv)
{
	struct allocating a = { .ino = ino, .mode = mode, .offset = offset, .end = offset + length };
	struct rp_locks locks;
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) &&
	    (mode & ~FALLOC_FL_KEEP_SIZE) != FALLOC_FL_ZERO_RANGE)
		return -EOPNOTSUPP;
	if (length == 0 || offset > INT64_MAX || length > INT64_MAX)
		return -EINVAL;
	if (a.end > RP_FILE_SIZE_MAX)
		return -EFBIG;
	a.now = rp_fs_now(fs);
	rp_locks_take_one(fs, &locks, ino, true);
	RP_RUN(op, fs, RP_OP_RESERVE, error, begin_work(&op, fs, &a, killpriv));
	if (!error)
		error = rp_file_trim(fs, ino, a.generation);
	if (!error) {
		if (mode & FALLOC_FL_PUNCH_HOLE) {
			error = punch(fs, &a);
			if (!error)
				error = finish(fs, &a);
		} else {
			error = mode & FALLOC_FL_ZERO_RANGE ? zero_range(fs, &a) : allocate(fs, &a);
		}
	}
	rp_locks_drop(&locks);
	return error;
}
