/* xattr.c: extended attributes in pages: each inode that has any has an object of its own, the holder, with an index of
 * names. Short values stand beside their names, longer ones in an object each. The caller holds the inode's lock.
 *
 * All of it counts as the inode's: holder and values have no lock of their own. xattr_calls.c has the rules of names.
 */
#include <stdlib.h>
#include <sys/xattr.h>
#include "internal.h"

static uint32_t name_flag(struct rp_name name)
{
	static const struct {
		const char *name;
		uint32_t flag;
	} flags[] = {
		{ RP_XATTR_ACL_ACCESS, RP_INODE_ACL_ACCESS },
		{ RP_XATTR_ACL_DEFAULT, RP_INODE_ACL_DEFAULT },
		{ RP_XATTR_CAPABILITY, RP_INODE_CAPABILITY },
	};

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (name.length == strlen(flags[i].name) && memcmp(name.bytes, flags[i].name, name.length) == 0)
			return flags[i].flag;
	return 0;
}

/* The record of a holder or of a value. */
static int holder_get(struct rp_op *op, struct rp_fs *fs, rp_object object, const struct rp_record **out)
{
	int error = rp_record_get(op, fs->tree, object, 0, out);

	if (error == -ENOENT || (!error && !(rp_record_inode(*out)->flags & RP_INODE_XATTR_HOLDER)))
		return rp_fs_damaged(fs, object, "does not hold attributes");
	return error;
}

int rp_xattr_holder_open(struct rp_op *op, struct rp_fs *fs, rp_object holder, struct rp_index *ix)
{
	const struct rp_record *record;
	int error = holder_get(op, fs, holder, &record);

	return error ? error : rp_index_open(op, fs, holder, record, ix);
}

/* ---- Long values --------------------------------------------------------------------------------------------------- */

static int value_read(struct rp_op *op, struct rp_fs *fs, rp_object value, void *to, size_t size, size_t *length)
{
	const struct rp_record *record;
	int error = holder_get(op, fs, value, &record);

	if (error)
		return error;
	*length = record->size_bytes;
	if (*length > RP_XATTR_VALUE_MAX)
		return rp_fs_damaged(fs, value, "an attribute longer than attributes can be");
	if (size == 0)
		return 0;
	if (*length > size)
		return -ERANGE;
	for (size_t done = 0; done < *length; done += RP_PAGE_SIZE) {
		size_t part = *length - done < RP_PAGE_SIZE ? *length - done : RP_PAGE_SIZE;
		const void *page;

		error = rp_page_get(op, fs->tree, value, done / RP_PAGE_SIZE, &page);
		if (error)
			return error;
		memcpy((uint8_t *)to + done, page, part);
	}
	return 0;
}

static int holder_create(struct rp_op *op, rp_object parent, uint64_t size_bytes, rp_object *out)
{
	struct rp_record *record;
	struct rp_inode *inode;
	uint64_t generation;
	int error;

	error = rp_object_create(op, true, out, &generation);
	if (error)
		return error;
	error = rp_record_edit(op, *out, offsetof(struct rp_record, user), sizeof(record->user), &record);
	if (error)
		return error;
	inode = (struct rp_inode *)record->user;
	memset(inode, 0, sizeof(*inode));
	inode->flags = RP_INODE_XATTR_HOLDER;
	inode->parent = parent;
	error = rp_inode_edit_size(op, *out, &record);
	if (!error)
		record->size_bytes = size_bytes;
	return error;
}

static int value_write(struct rp_op *op, rp_object holder, const void *from, size_t size, rp_object *out)
{
	int error = holder_create(op, holder, size, out);

	for (size_t done = 0; done < size && !error; done += RP_PAGE_SIZE) {
		size_t part = size - done < RP_PAGE_SIZE ? size - done : RP_PAGE_SIZE;
		void *page;

		error = rp_page_edit(op, *out, done / RP_PAGE_SIZE, 0, RP_PAGE_SIZE, &page);
		if (!error)
			memcpy(page, (const uint8_t *)from + done, part);
	}
	return error;
}

/* ---- Reading --------------------------------------------------------------------------------------------------------- */

int rp_xattr_read(struct rp_op *op, struct rp_fs *fs, const struct rp_record *record, struct rp_name name, void *to,
		  size_t size, size_t *length)
{
	rp_object holder = rp_record_inode(record)->xattrs;
	struct rp_index_path path;
	struct rp_index ix;
	struct rp_item item;
	int error;

	if (holder == 0)
		return -ENODATA;
	error = rp_xattr_holder_open(op, fs, holder, &ix);
	if (!error)
		error = rp_index_find(&ix, name, &path, &item, NULL);
	if (error)
		return error == -ENOENT ? -ENODATA : error;
	if (item.ref != 0)
		return value_read(op, fs, item.ref, to, size, length);
	*length = item.data_length;
	if (size == 0)
		return 0;
	if (item.data_length > size)
		return -ERANGE;
	memcpy(to, item.data, item.data_length);
	return 0;
}

/* ---- Changing --------------------------------------------------------------------------------------------------------- */

/* The holder's numbers after a change of its index. */
static int holder_save(struct rp_op *op, const struct rp_index *ix, int entries, int64_t list_bytes)
{
	struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_inode_edit_back(op, ix->object, &inode);
	if (error)
		return error;
	inode->entry_count += (uint64_t)(int64_t)entries;
	inode->tree = ix->pages;
	error = rp_inode_edit_size(op, ix->object, &record);
	if (!error)
		record->size_bytes += (uint64_t)list_bytes;
	return error;
}

static int owner_note(struct rp_op *op, rp_object ino, rp_object holder, uint32_t set, uint32_t clear)
{
	struct rp_inode *inode;
	int error = rp_inode_edit_front(op, ino, &inode);

	if (error)
		return error;
	inode->xattrs = holder;
	inode->flags = (inode->flags & ~clear) | set;
	return 0;
}

static int cell_erase(struct rp_op *op, struct rp_index *ix, struct rp_index_path *path, const struct rp_item *item)
{
	unsigned name_length = item->name_length;
	int error = 0;

	if (item->ref != 0)
		error = rp_object_remove(op, item->ref);
	if (error == -ENOENT)
		error = rp_fs_damaged(ix->fs, item->ref, "an attribute's value is not there");
	if (!error)
		error = rp_index_remove(ix, path);
	return error ? error : holder_save(op, ix, -1, -(int64_t)name_length - 1);
}

int rp_xattr_write(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_name name, const void *from, size_t size,
		   int flags)
{
	const struct rp_record *record, *holding;
	struct rp_index_path path;
	struct rp_item item;
	struct rp_index ix;
	rp_object holder;
	uint64_t key;
	int error;

	error = rp_inode_get(op, fs, ino, 0, &record);
	if (error)
		return error;
	holder = rp_record_inode(record)->xattrs;
	if (holder == 0 && flags & XATTR_REPLACE)
		return -ENODATA;
	if (holder == 0) {
		error = holder_create(op, ino, 0, &holder);
		if (error)
			return error;
	}
	error = owner_note(op, ino, holder, name_flag(name), 0);
	if (!error)
		error = rp_xattr_holder_open(op, fs, holder, &ix);
	if (error)
		return error;
	error = rp_index_find(&ix, name, &path, &item, &key);
	if (error && error != -ENOENT)
		return error;
	if (error ? flags & XATTR_REPLACE : flags & XATTR_CREATE)
		return error ? -ENODATA : -EEXIST;
	if (!error) {
		key = item.key;
		error = cell_erase(op, &ix, &path, &item);
		if (error)
			return error;
	}
	error = holder_get(op, fs, holder, &holding);
	if (error)
		return error;
	/* More names than listxattr(2) can return would be names nobody can find. */
	if (key == 0 || holding->size_bytes + name.length + 1 > RP_XATTR_LIST_MAX)
		return -ENOSPC;
	item = (struct rp_item){
		.key = key, .name = (const uint8_t *)name.bytes, .name_length = (unsigned)name.length, .data = from,
	};
	if (size <= RP_INDEX_DATA_MAX)
		item.data_length = (unsigned)size;
	else
		error = value_write(op, holder, from, size, &item.ref);
	if (!error)
		error = rp_index_insert(&ix, &item);
	return error ? error : holder_save(op, &ix, 1, (int64_t)name.length + 1);
}

int rp_xattr_erase(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_name name)
{
	const struct rp_record *record;
	struct rp_index_path path;
	struct rp_item item;
	struct rp_index ix;
	rp_object holder;
	int error;

	error = rp_inode_get(op, fs, ino, 0, &record);
	if (error)
		return error;
	holder = rp_record_inode(record)->xattrs;
	if (holder == 0)
		return -ENODATA;
	error = rp_xattr_holder_open(op, fs, holder, &ix);
	if (!error)
		error = rp_index_find(&ix, name, &path, &item, NULL);
	if (error)
		return error == -ENOENT ? -ENODATA : error;
	error = cell_erase(op, &ix, &path, &item);
	if (!error && ix.pages == 0) {
		error = rp_object_remove(op, holder);
		holder = 0;
	}
	return error ? error : owner_note(op, ino, holder, 0, name_flag(name));
}

int rp_xattr_destroy(struct rp_op *op, struct rp_fs *fs, const struct rp_inode *inode)
{
	rp_object holder = inode->xattrs;
	struct rp_index_page leaf;
	struct rp_index ix;
	uint64_t key = 0;
	unsigned slot;
	int error;

	if (holder == 0)
		return 0;
	error = rp_xattr_holder_open(op, fs, holder, &ix);
	while (!error) {
		error = rp_index_leaf(&ix, key, &leaf, &slot);
		for (; !error && slot < rp_index_head_const(leaf.bytes)->count; slot++) {
			struct rp_item item;

			rp_index_cell_get(leaf.bytes, slot, &item);
			key = item.key + 1;
			if (item.ref != 0)
				error = rp_object_remove(op, item.ref);
			if (error == -ENOENT)
				error = rp_fs_damaged(fs, item.ref, "an attribute's value is not there");
		}
	}
	return error == -ENOENT ? rp_object_remove(op, holder) : error;
}
