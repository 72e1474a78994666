/* dir.c: a directory as an index from names to inodes. The caller holds the directory's lock. */
#include "internal.h"

int rp_index_open(struct rp_op *op, struct rp_fs *fs, rp_object object, const struct rp_record *record, struct rp_index *out)
{
	const struct rp_inode *inode = rp_record_inode(record);

	out->fs = fs;
	out->op = op;
	out->object = object;
	out->pages = inode->tree;
	if (inode->tree > __atomic_load_n(&record->page_count, __ATOMIC_RELAXED) || (inode->tree == 0) != (inode->entry_count == 0))
		return rp_fs_damaged(fs, object, "its index has another number of pages than it says");
	return 0;
}

static int dir_open(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_index *out)
{
	const struct rp_record *record;
	int error = rp_inode_get_dir(op, fs, dir, &record);

	return error ? error : rp_index_open(op, fs, dir, record, out);
}

static int dir_save(struct rp_op *op, const struct rp_index *ix, int entries)
{
	struct rp_inode *inode;
	int error = rp_inode_edit_back(op, ix->object, &inode);

	if (error)
		return error;
	inode->entry_count += (uint64_t)(int64_t)entries;
	inode->tree = ix->pages;
	return 0;
}

int rp_dir_find(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, struct rp_item *out,
		uint64_t *free_key)
{
	struct rp_index_path path;
	struct rp_index ix;
	int error = dir_open(op, fs, dir, &ix);

	return error ? error : rp_index_find(&ix, name, &path, out, free_key);
}

int rp_dir_insert(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, uint64_t key, rp_object ino,
		  uint32_t mode)
{
	struct rp_item item = {
		.key = key, .ref = ino, .kind = (mode & S_IFMT) >> 12,
		.name = (const uint8_t *)name.bytes, .name_length = (unsigned)name.length,
	};
	struct rp_index ix;
	int error;

	/* 256 names of one hash are there already. */
	if (key == 0)
		return -ENOSPC;
	error = dir_open(op, fs, dir, &ix);
	if (error)
		return error;
	error = rp_index_insert(&ix, &item);
	return error ? error : dir_save(op, &ix, 1);
}

/* The name must still be that inode's: whoever calls looked it up under the same lock. */
static int dir_find_same(struct rp_index *ix, struct rp_name name, rp_object ino, struct rp_index_path *path)
{
	struct rp_item item;
	int error = rp_index_find(ix, name, path, &item, NULL);

	return !error && item.ref != ino ? -ENOENT : error;
}

int rp_dir_remove(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object ino)
{
	struct rp_index_path path;
	struct rp_index ix;
	int error;

	error = dir_open(op, fs, dir, &ix);
	if (!error)
		error = dir_find_same(&ix, name, ino, &path);
	if (!error)
		error = rp_index_remove(&ix, &path);
	return error ? error : dir_save(op, &ix, -1);
}

int rp_dir_replace(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object ino, rp_object by,
		   uint32_t mode)
{
	struct rp_index_path path;
	struct rp_index ix;
	int error;

	error = dir_open(op, fs, dir, &ix);
	if (!error)
		error = dir_find_same(&ix, name, ino, &path);
	return error ? error : rp_index_set(&ix, &path, by, (mode & S_IFMT) >> 12);
}
