/* lookup.c: from names to inodes, and reading directories. */
#include <stdlib.h>
#include "internal.h"

/* ---- Looking up ---------------------------------------------------------------------------------------------------- */

static int name_find(struct rp_op *op, struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object *child)
{
	const struct rp_record *record;
	struct rp_item item;
	int error;

	if (rp_name_is_dot(name) || rp_name_is_dotdot(name)) {
		error = rp_inode_get(op, fs, dir, 0, &record);
		if (error)
			return error;
		if (!S_ISDIR(rp_record_inode(record)->mode))
			return -ENOTDIR;
		*child = rp_name_is_dot(name) ? dir : rp_record_inode(record)->parent;
		return *child ? 0 : -ENOENT;
	}
	error = rp_dir_find(op, fs, dir, name, &item, NULL);
	if (!error)
		*child = item.ref;
	return error;
}

static int lookup_work(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, rp_object dir, struct rp_name name,
		       rp_object *child, struct rp_attr *out)
{
	const struct rp_record *record;
	int error;

	error = name_find(op, fs, dir, name, child);
	if (!error)
		error = rp_locks_try(locks, *child, false);
	if (!error)
		error = rp_inode_get_named(op, fs, *child, &record);
	if (!error)
		rp_attr_fill(fs, *child, record, out);
	return error;
}

int rp_fs_lookup(struct rp_fs *fs, rp_object dir, struct rp_name name, bool hold, struct rp_attr *out)
{
	struct rp_lock_want wants[2] = { { dir, false }, { 0, false } };
	struct rp_locks locks = { .count = 0 };
	struct rp_hold *spare = NULL;
	struct rp_op op;
	int error;

	if (name.length > RP_NAME_MAX)
		return -ENAMETOOLONG;
	if (hold) {
		spare = rp_hold_prepare(fs);
		if (!spare)
			return -ENOMEM;
	}
	do {
		rp_locks_take(fs, &locks, wants, 2);
		RP_RUN(op, fs, RP_OP_READ, error, lookup_work(&op, fs, &locks, dir, name, &wants[1].ino, out));
		/* While the parent is locked the name stays, and so the inode it names. */
		if (!error && hold)
			rp_hold_add(fs, out->ino, out->generation, spare);
		rp_locks_drop(&locks);
	} while (error == -ERESTART);
	if (error)
		free(spare);
	return error;
}

int rp_fs_walk(struct rp_fs *fs, const char *path, struct rp_attr *out)
{
	rp_object at = rp_fs_root(fs);
	int error = rp_fs_getattr(fs, at, out);

	while (!error) {
		struct rp_name name;

		path += strspn(path, "/");
		if (*path == 0)
			break;
		name.bytes = path;
		name.length = strcspn(path, "/");
		error = rp_fs_lookup(fs, at, name, false, out);
		at = out->ino;
		path += name.length;
	}
	return error;
}

/* ---- Reading directories ------------------------------------------------------------------------------------------------ */

#define BATCH 32u

/* Some entries of one leaf. Names point into the copy of the leaf. */
struct batch {
	struct rp_index_page leaf;
	unsigned count;
	bool delivered;                 /* the receiver took something: errors wait for the next call */
	struct {
		struct rp_item item;
		struct rp_attr attr;
		bool filled;            /* attr is complete, and held if that is wanted */
	} entry[BATCH];
	struct rp_hold *spare[BATCH];
};

static int batch_names_work(struct rp_op *op, struct rp_fs *fs, rp_object dir, uint64_t cookie, struct batch *batch)
{
	const struct rp_record *record;
	struct rp_index ix;
	unsigned slot, count;
	int error;

	batch->count = 0;
	error = rp_inode_get(op, fs, dir, 0, &record);
	if (error)
		return error;
	error = rp_index_open(op, fs, dir, record, &ix);
	if (!error)
		error = rp_index_leaf(&ix, cookie, &batch->leaf, &slot);
	if (error)
		return error;
	count = rp_index_head_const(batch->leaf.bytes)->count;
	for (; slot < count && batch->count < BATCH; slot++) {
		struct rp_item *item = &batch->entry[batch->count].item;
		struct rp_attr *attr = &batch->entry[batch->count].attr;
		struct rp_name name;

		rp_index_cell_get(batch->leaf.bytes, slot, item);
		name = (struct rp_name){ (const char *)item->name, item->name_length };
		if (item->key < cookie || item->key >= INT64_MAX)
			return rp_fs_damaged(fs, dir, "a key that cannot be");
		/* Whoever gets them writes paths with them, into archives too. */
		if (rp_name_check(name) || rp_name_is_dot(name) || rp_name_is_dotdot(name) || item->data_length)
			return rp_fs_damaged(fs, dir, "a name that cannot be");
		memset(attr, 0, sizeof(*attr));
		attr->ino = item->ref;
		attr->mode = item->kind << 12;
		batch->entry[batch->count++].filled = false;
	}
	return 0;
}

/* Attributes of as many as can be locked without waiting, under the directory's lock. */
static int batch_attr_work(struct rp_op *op, struct rp_fs *fs, struct batch *batch)
{
	for (unsigned i = 0; i < batch->count; i++) {
		rp_object ino = batch->entry[i].item.ref;
		const struct rp_record *record;
		struct rp_locks locks = { .fs = fs };
		int error;

		if (rp_locks_try(&locks, ino, false))
			continue;
		error = rp_inode_get_named(op, fs, ino, &record);
		if (!error) {
			rp_attr_fill(fs, ino, record, &batch->entry[i].attr);
			batch->entry[i].filled = true;
		}
		rp_locks_drop(&locks);
		if (error)
			return error;
	}
	return 0;
}

static void batch_free_spare(struct batch *batch)
{
	for (unsigned i = 0; i < BATCH; i++) {
		free(batch->spare[i]);
		batch->spare[i] = NULL;
	}
}

static int batch_read(struct rp_fs *fs, rp_object dir, uint64_t cookie, bool with_attr, bool with_hold, struct batch *batch)
{
	struct rp_locks locks;
	struct rp_op op;
	int error;

	for (unsigned i = 0; with_hold && i < BATCH; i++) {
		batch->spare[i] = rp_hold_prepare(fs);
		if (!batch->spare[i]) {
			batch_free_spare(batch);
			return -ENOMEM;
		}
	}
	rp_locks_take_one(fs, &locks, dir, false);
	RP_RUN(op, fs, RP_OP_READ, error, batch_names_work(&op, fs, dir, cookie, batch));
	if (!error && (with_attr || with_hold))
		RP_RUN(op, fs, RP_OP_READ, error, batch_attr_work(&op, fs, batch));
	for (unsigned i = 0; !error && with_hold && i < batch->count; i++) {
		if (batch->entry[i].filled) {
			rp_hold_add(fs, batch->entry[i].attr.ino, batch->entry[i].attr.generation, batch->spare[i]);
			batch->spare[i] = NULL;
		}
	}
	rp_locks_drop(&locks);
	batch_free_spare(batch);
	return error;
}

/* Hand the entries over. 1: the receiver is full. */
static int batch_deliver(struct rp_fs *fs, rp_object dir, bool with_attr, bool with_hold, struct batch *batch,
			 rp_entry_fn entry, void *context)
{
	bool full = false;
	int error = 0;

	for (unsigned i = 0; i < batch->count; i++) {
		const struct rp_item *item = &batch->entry[i].item;
		struct rp_name name = { (const char *)item->name, item->name_length };
		struct rp_attr *attr = &batch->entry[i].attr;
		bool wanted = with_attr || with_hold;

		if (!full && !error && wanted && !batch->entry[i].filled) {
			int missing = rp_fs_lookup(fs, dir, name, with_hold, attr);

			/* Its name went meanwhile. */
			if (missing == -ENOENT)
				continue;
			error = missing;
			batch->entry[i].filled = !missing;
		}
		if (!full && !error) {
			full = entry(context, name, attr, item->key + 1) != 0;
			if (!full) {
				batch->delivered = true;
				continue;
			}
		}
		if (with_hold && batch->entry[i].filled)
			rp_fs_release(fs, attr->ino, 1);
	}
	return error ? error : full;
}

/* "." and "..", cookies 0 and 1. */
static int dots_deliver(struct rp_fs *fs, rp_object dir, bool with_attr, uint64_t *cookie, rp_entry_fn entry, void *context)
{
	for (; *cookie < 2; ++*cookie) {
		struct rp_name name = rp_name_from(*cookie ? ".." : ".");
		struct rp_attr attr;
		int error = rp_fs_lookup(fs, dir, name, false, &attr);

		/* A removed directory has no parent any more. */
		if (error == -ENOENT && *cookie == 1)
			error = rp_fs_getattr(fs, dir, &attr);
		if (error)
			return error;
		if (!with_attr)
			attr = (struct rp_attr){ .ino = attr.ino, .mode = attr.mode & S_IFMT };
		if (entry(context, name, &attr, *cookie + 1))
			return 1;
	}
	return 0;
}

int rp_fs_readdir(struct rp_fs *fs, rp_object dir, uint64_t cookie, bool with_attr, bool with_hold, rp_entry_fn entry,
		  void *context)
{
	struct batch *batch;
	struct rp_attr attr;
	bool dots;
	int error;

	error = rp_fs_getattr(fs, dir, &attr);
	if (error)
		return error;
	if (!S_ISDIR(attr.mode))
		return -ENOTDIR;
	if (cookie > INT64_MAX)
		return -EINVAL;
	dots = cookie < 2;
	error = dots_deliver(fs, dir, with_attr, &cookie, entry, context);
	if (error)
		return error > 0 ? 0 : error;
	batch = rp_fs_allocate(fs, sizeof(*batch));
	if (!batch)
		return dots ? 0 : -ENOMEM;
	batch->delivered = dots;
	do {
		error = batch_read(fs, dir, cookie, with_attr, with_hold, batch);
		if (!error) {
			uint64_t behind = batch->entry[batch->count - 1].item.key + 1;

			error = batch_deliver(fs, dir, with_attr, with_hold, batch, entry, context);
			cookie = behind;
		}
	} while (!error);
	if (error > 0 || error == -ENOENT || batch->delivered)
		error = 0;
	free(batch);
	return error;
}
