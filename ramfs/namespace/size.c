/* size.c: making files shorter and longer.
 *
 * Making one shorter is one step for whoever looks: the size falls and the rest of the last page is zeroed at once. Pages
 * behind it go in bounded pieces; until the last of them has gone the inode carries the flag TAIL, and nothing makes the file
 * longer before they are gone, after a restart neither (N8).
 */
#include "internal.h"

static rp_page pages_of(uint64_t size_bytes)
{
	return (size_bytes >> RP_PAGE_SHIFT) + (size_bytes & (RP_PAGE_SIZE - 1) ? 1 : 0);
}

/* Drop pages from *from on; *done when none is left behind the size. */
static int trim_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, rp_page *from, bool *done)
{
	const struct rp_record *record;
	struct rp_inode *inode;
	rp_page first, next;
	int error;

	error = rp_file_get(op, fs, ino, generation, &record);
	if (error)
		return error;
	*done = !(rp_record_inode(record)->flags & RP_INODE_TAIL);
	if (*done)
		return 0;
	first = pages_of(record->size_bytes);
	if (first < *from)
		first = *from;
	next = first;
	if (first < RP_PAGE_COUNT_MAX && __atomic_load_n(&record->page_count, __ATOMIC_RELAXED) != 0) {
		error = rp_pages_punch(op, ino, first, RP_PAGE_COUNT_MAX - first, &next);
		if (error)
			return error;
		*from = next;
		if (next < RP_PAGE_COUNT_MAX)
			return 0;
	}
	error = rp_inode_edit_front(op, ino, &inode);
	if (error)
		return error;
	inode->flags &= ~(uint32_t)RP_INODE_TAIL;
	*done = true;
	return 0;
}

int rp_file_trim(struct rp_fs *fs, rp_object ino, uint64_t generation)
{
	rp_page from = 0;
	bool done = false;
	int error = 0;

	while (!done && !error) {
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_RESERVE, error, trim_work(&op, fs, ino, generation, &from, &done));
	}
	return error;
}

int rp_file_resize(struct rp_op *op, rp_object ino, uint64_t size_bytes)
{
	unsigned within = size_bytes & (RP_PAGE_SIZE - 1);
	struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_inode_edit_front(op, ino, &inode);
	if (!error)
		error = rp_inode_edit_size(op, ino, &record);
	/* Nothing after this can fail: the bytes zeroed here do not come back. */
	if (!error && size_bytes < record->size_bytes && within)
		error = rp_bytes_zero(op, ino, size_bytes, RP_PAGE_SIZE - within);
	if (error)
		return error;
	inode = (struct rp_inode *)record->user;
	if (size_bytes <= record->size_bytes && __atomic_load_n(&record->page_count, __ATOMIC_RELAXED) != 0)
		inode->flags |= RP_INODE_TAIL;
	record->size_bytes = size_bytes;
	return 0;
}
