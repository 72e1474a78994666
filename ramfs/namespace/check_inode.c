/* check_inode.c: the checker's part for one inode: fields, attributes and what stands past a file's end. */
#include <stdlib.h>
#include "internal.h"

/* ---- Attributes ---------------------------------------------------------------------------------------------------- */

struct holder_check {
	rp_object owner, holder;
	uint64_t list_bytes;
	uint32_t flags;
};

static void value_check(struct rp_check *check, rp_object holder, rp_object value)
{
	struct rp_checked *known;
	struct rp_record record;
	bool fresh;

	known = rp_check_reach(check, value, &fresh);
	if (!known || !rp_check_record(check, value, &record))
		return;
	if (!fresh)
		rp_check_fault(check, "object %llu: named twice", (unsigned long long)value);
	if (!(rp_record_inode(&record)->flags & RP_INODE_XATTR_HOLDER) || rp_record_inode(&record)->parent != holder ||
	    record.size_bytes <= RP_INDEX_DATA_MAX || record.size_bytes > RP_XATTR_VALUE_MAX ||
	    record.page_count != (record.size_bytes + RP_PAGE_SIZE - 1) / RP_PAGE_SIZE)
		rp_check_fault(check, "object %llu: is not the attribute's value it should be", (unsigned long long)value);
}

static void attribute_check(struct rp_check *check, const struct rp_item *item, void *context)
{
	static const struct {
		const char *name;
		uint32_t flag;
	} flags[] = {
		{ RP_XATTR_ACL_ACCESS, RP_INODE_ACL_ACCESS },
		{ RP_XATTR_ACL_DEFAULT, RP_INODE_ACL_DEFAULT },
		{ RP_XATTR_CAPABILITY, RP_INODE_CAPABILITY },
	};
	struct holder_check *holder = context;

	holder->list_bytes += item->name_length + 1u;
	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (item->name_length == strlen(flags[i].name) && memcmp(item->name, flags[i].name, item->name_length) == 0)
			holder->flags |= flags[i].flag;
	if (item->data_length > RP_INDEX_DATA_MAX || (item->ref != 0 && item->data_length != 0))
		rp_check_fault(check, "inode %llu: an attribute too long for its place", (unsigned long long)holder->owner);
	if (item->ref != 0)
		value_check(check, holder->holder, item->ref);
}

static void holder_check(struct rp_check *check, rp_object ino, const struct rp_inode *inode)
{
	const uint32_t all = RP_INODE_ACL_ACCESS | RP_INODE_ACL_DEFAULT | RP_INODE_CAPABILITY;
	struct holder_check holder = { .owner = ino, .holder = inode->xattrs };
	struct rp_checked *known;
	struct rp_record record;
	bool fresh;

	if (inode->xattrs != 0) {
		known = rp_check_reach(check, inode->xattrs, &fresh);
		if (!known || !rp_check_record(check, inode->xattrs, &record))
			return;
		if (!fresh || !(rp_record_inode(&record)->flags & RP_INODE_XATTR_HOLDER) ||
		    rp_record_inode(&record)->parent != ino || rp_record_inode(&record)->entry_count == 0) {
			rp_check_fault(check, "inode %llu: object %llu does not hold its attributes", (unsigned long long)ino,
				       (unsigned long long)inode->xattrs);
			return;
		}
		rp_check_index(check, inode->xattrs, &record, attribute_check, &holder);
		if (holder.list_bytes != record.size_bytes)
			rp_check_fault(check, "inode %llu: its attributes' names have another length than counted",
				       (unsigned long long)ino);
	}
	if ((inode->flags & all) != holder.flags)
		rp_check_fault(check, "inode %llu: its flags do not tell its attributes", (unsigned long long)ino);
}

/* ---- Contents ------------------------------------------------------------------------------------------------------- */

static int extent_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t at, bool *is_data, uint64_t *end)
{
	return rp_extent_get(op, fs->tree, ino, at, RP_PAGE_COUNT_MAX << RP_PAGE_SHIFT, is_data, end);
}

static bool page_is_zero(const uint64_t *page, size_t from)
{
	const uint8_t *bytes = (const uint8_t *)page;

	for (size_t i = from; i < RP_PAGE_SIZE; i++)
		if (bytes[i])
			return false;
	return true;
}

/* Past its end a file has zeroes only (N8). */
static void tail_check(struct rp_check *check, rp_object ino, uint64_t size_bytes)
{
	const uint64_t end = RP_PAGE_COUNT_MAX << RP_PAGE_SHIFT;
	uint64_t page[RP_PAGE_SIZE / 8], at = size_bytes & ~(uint64_t)(RP_PAGE_SIZE - 1);

	while (at < end) {
		uint64_t extent_end = at;
		bool is_data = false;
		struct rp_op op;
		int error;

		RP_RUN(op, check->fs, RP_OP_READ, error, extent_work(&op, check->fs, ino, at, &is_data, &extent_end));
		for (; !error && is_data && at < extent_end; at += RP_PAGE_SIZE) {
			RP_RUN(op, check->fs, RP_OP_READ, error,
			       rp_bytes_read(&op, check->fs->tree, ino, at, page, RP_PAGE_SIZE));
			if (!error && !page_is_zero(page, at < size_bytes ? size_bytes - at : 0)) {
				rp_check_fault(check, "inode %llu: bytes past its end", (unsigned long long)ino);
				return;
			}
		}
		if (error || extent_end < at) {
			rp_check_fault(check, "inode %llu: %s", (unsigned long long)ino,
				       error ? strerror(-error) : "an extent without a length");
			return;
		}
		if (!is_data && extent_end == at)
			return;
		at = extent_end;
	}
}

static void contents_check(struct rp_check *check, rp_object ino, const struct rp_record *record)
{
	const struct rp_inode *inode = rp_record_inode(record);
	bool right;

	switch (inode->mode & S_IFMT) {
	case S_IFREG:
		right = record->size_bytes <= RP_FILE_SIZE_MAX;
		if (right && !(inode->flags & RP_INODE_TAIL) && record->page_count != 0)
			tail_check(check, ino, record->size_bytes);
		break;
	case S_IFDIR:
		return;
	case S_IFLNK:
		right = record->size_bytes > 0 && record->size_bytes <= RP_SYMLINK_MAX &&
			record->page_count == (inode->flags & RP_INODE_INLINED ? 0 : 1) &&
			(!(inode->flags & RP_INODE_INLINED) || record->size_bytes <= sizeof(inode->inlined));
		break;
	default:
		right = record->size_bytes == 0 && record->page_count == 0;
	}
	if (!right)
		rp_check_fault(check, "inode %llu: size or pages that its type cannot have", (unsigned long long)ino);
	if (inode->entry_count != 0 || inode->tree != 0)
		rp_check_fault(check, "inode %llu: not a directory, but with an index", (unsigned long long)ino);
}

void rp_check_inode(struct rp_check *check, rp_object ino, const struct rp_record *record)
{
	const struct rp_inode *inode = rp_record_inode(record);
	bool meta = record->flags & RP_RECORD_META;

	if (meta == S_ISREG(inode->mode))
		rp_check_fault(check, "inode %llu: its pages are of the wrong kind", (unsigned long long)ino);
	if (inode->atime.nsec >= 1000000000 || inode->mtime.nsec >= 1000000000 || inode->ctime.nsec >= 1000000000 ||
	    inode->btime.nsec >= 1000000000)
		rp_check_fault(check, "inode %llu: a time that cannot be", (unsigned long long)ino);
	if (inode->nlink > RP_LINK_MAX || (inode->flags & RP_INODE_TMPFILE && inode->nlink != 0) ||
	    (inode->flags & RP_INODE_TAIL && !S_ISREG(inode->mode)) ||
	    (inode->flags & RP_INODE_INLINED && !S_ISLNK(inode->mode)) ||
	    (inode->rdev != 0 && !S_ISCHR(inode->mode) && !S_ISBLK(inode->mode)))
		rp_check_fault(check, "inode %llu: flags or numbers that its type cannot have", (unsigned long long)ino);
	if (!(inode->flags & RP_INODE_ORPHAN) && (inode->orphan_next != 0 || inode->orphan_prev != 0))
		rp_check_fault(check, "inode %llu: has a name and a place in the list of those without",
			       (unsigned long long)ino);
	contents_check(check, ino, record);
	holder_check(check, ino, inode);
}
