/* inode.c: records of the object table as inodes: reading, changing, making and ending them. */
#include <stdlib.h>
#include "internal.h"

#define RP_HEADER_COUNT (offsetof(struct rp_header, user) + offsetof(struct rp_fs_header, inode_count))
#define RP_INODE_OFFSET(field) (offsetof(struct rp_record, user) + offsetof(struct rp_inode, field))

bool rp_mode_is_valid(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFIFO: case S_IFSOCK: case S_IFCHR: case S_IFBLK:
		return true;
	default:
		return false;
	}
}

static bool record_is_inode(const struct rp_record *record)
{
	const struct rp_inode *inode = rp_record_inode(record);

	return !(inode->flags & RP_INODE_XATTR_HOLDER) && rp_mode_is_valid(inode->mode);
}

int rp_inode_get(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, const struct rp_record **out)
{
	int error;

	if (atomic_load_explicit(&fs->stale_count, memory_order_relaxed) != 0 && rp_hold_is_stale(fs, ino))
		return -ESTALE;
	error = rp_record_get(op, fs->tree, ino, generation, out);
	if (error)
		return error;
	return record_is_inode(*out) ? 0 : -ENOENT;
}

int rp_inode_get_named(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record **out)
{
	int error = rp_record_get(op, fs->tree, ino, 0, out);

	if (error == -ENOENT || (!error && !record_is_inode(*out)))
		return rp_fs_damaged(fs, ino, "named, but not an inode");
	return error;
}

int rp_inode_get_dir(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record **out)
{
	int error = rp_inode_get(op, fs, ino, 0, out);

	if (error)
		return error;
	if (!S_ISDIR(rp_record_inode(*out)->mode))
		return -ENOTDIR;
	return rp_record_inode(*out)->nlink == 0 ? -ENOENT : 0;
}

int rp_inode_edit_front(struct rp_op *op, rp_object ino, struct rp_inode **out)
{
	const size_t from = RP_INODE_OFFSET(mode), to = RP_INODE_OFFSET(orphan_next);
	struct rp_record *record;
	int error = rp_record_edit(op, ino, from, to - from, &record);

	if (!error)
		*out = (struct rp_inode *)record->user;
	return error;
}

int rp_inode_edit_back(struct rp_op *op, rp_object ino, struct rp_inode **out)
{
	const size_t from = RP_INODE_OFFSET(entry_count), to = RP_INODE_OFFSET(inlined);
	struct rp_record *record;
	int error = rp_record_edit(op, ino, from, to - from, &record);

	if (!error)
		*out = (struct rp_inode *)record->user;
	return error;
}

int rp_inode_edit_size(struct rp_op *op, rp_object ino, struct rp_record **out)
{
	return rp_record_edit(op, ino, offsetof(struct rp_record, size_bytes), sizeof(uint64_t), out);
}

int rp_inode_touch_dir(struct rp_op *op, rp_object dir, struct rp_time now, int links)
{
	struct rp_inode *inode;
	int error = rp_inode_edit_front(op, dir, &inode);

	if (error)
		return error;
	inode->mtime = now;
	inode->ctime = now;
	inode->nlink += (uint32_t)links;
	return 0;
}

/* ---- Times of files that are being written --------------------------------------------------------------------------- */

static pthread_mutex_t *times_lock(struct rp_fs *fs, rp_object ino)
{
	return &fs->times[((ino * UINT64_C(0x9e3779b97f4a7c15)) >> 40) % RP_TIMES_STRIPES];
}

int rp_inode_touch_shared(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_time now)
{
	const size_t from = RP_INODE_OFFSET(mtime), to = RP_INODE_OFFSET(btime);
	pthread_mutex_t *lock = times_lock(fs, ino);
	struct rp_record *record;
	struct rp_inode *inode;
	int error;

	pthread_mutex_lock(lock);
	error = rp_record_edit(op, ino, from, to - from, &record);
	if (!error) {
		inode = (struct rp_inode *)record->user;
		inode->mtime = now;
		inode->ctime = now;
	}
	pthread_mutex_unlock(lock);
	return error;
}

void rp_attr_fill(struct rp_fs *fs, rp_object ino, const struct rp_record *record, struct rp_attr *out)
{
	const struct rp_inode *inode = rp_record_inode(record);
	pthread_mutex_t *lock = S_ISREG(inode->mode) && fs->tree == rp_pool_live(fs->pool) ? times_lock(fs, ino) : NULL;

	out->ino = ino;
	out->generation = record->generation;
	out->mode = inode->mode;
	out->nlink = inode->nlink;
	out->uid = inode->uid;
	out->gid = inode->gid;
	out->rdev = inode->rdev;
	out->flags = inode->flags;
	out->page_count = __atomic_load_n(&record->page_count, __ATOMIC_RELAXED);
	out->size_bytes = S_ISDIR(inode->mode) ? inode->tree * RP_PAGE_SIZE : record->size_bytes;
	out->atime = inode->atime;
	out->btime = inode->btime;
	if (lock)
		pthread_mutex_lock(lock);
	out->mtime = inode->mtime;
	out->ctime = inode->ctime;
	if (lock)
		pthread_mutex_unlock(lock);
}

/* ---- Making --------------------------------------------------------------------------------------------------------------- */

bool rp_inode_limit_is_near(struct rp_fs *fs)
{
	uint64_t limit = atomic_load_explicit(&fs->limit_seen, memory_order_relaxed);

	return limit != 0 && atomic_load_explicit(&fs->count_seen, memory_order_relaxed) + RP_LIMIT_NEAR >= limit;
}

/* The count is raised first and looked at then, so that two creators cannot both take the last one. */
static int inode_count_up(struct rp_op *op, struct rp_fs *fs)
{
	const struct rp_fs_header *fields;
	const struct rp_header *header;
	uint64_t count, limit;
	int error;

	error = rp_header_add(op, RP_HEADER_COUNT, 1);
	if (error)
		return error;
	error = rp_header_get(op, fs->tree, &header);
	if (error)
		return error;
	fields = (const struct rp_fs_header *)header->user;
	count = __atomic_load_n(&fields->inode_count, __ATOMIC_RELAXED);
	limit = __atomic_load_n(&fields->inode_limit, __ATOMIC_RELAXED);
	atomic_store_explicit(&fs->count_seen, count, memory_order_relaxed);
	return limit != 0 && count > limit ? -ENOSPC : 0;
}

int rp_inode_create(struct rp_op *op, struct rp_fs *fs, const struct rp_new_inode *new, rp_object *ino, uint64_t *generation)
{
	const size_t from = offsetof(struct rp_record, user);
	struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = inode_count_up(op, fs);
	if (error)
		return error;
	/* A number that someone still holds from before a rollback must not become another file under his hands: such numbers
	 * are taken and given back in the same operation. */
	do {
		error = rp_object_create(op, !S_ISREG(new->mode), ino, generation);
		if (error)
			return error;
		if (atomic_load(&fs->stale_count) == 0 || !rp_hold_is_stale(fs, *ino))
			break;
		error = rp_object_remove(op, *ino);
	} while (!error);
	if (error)
		return error;
	error = rp_record_edit(op, *ino, from, sizeof(record->user), &record);
	if (error)
		return error;
	inode = (struct rp_inode *)record->user;
	memset(inode, 0, sizeof(*inode));
	inode->mode = new->mode;
	inode->uid = new->uid;
	inode->gid = new->gid;
	inode->nlink = new->nlink;
	inode->rdev = new->rdev;
	inode->flags = new->flags;
	inode->parent = new->parent;
	inode->atime = inode->mtime = inode->ctime = inode->btime = new->now;
	return 0;
}

int rp_inode_destroy(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record *record)
{
	int error = rp_xattr_destroy(op, fs, rp_record_inode(record));

	if (!error)
		error = rp_object_remove(op, ino);
	if (!error)
		error = rp_header_add(op, RP_HEADER_COUNT, -1);
	return error;
}

/* ---- Attributes ------------------------------------------------------------------------------------------------------------ */

static int getattr_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_attr *out)
{
	const struct rp_record *record;
	int error = rp_inode_get(op, fs, ino, 0, &record);

	if (!error)
		rp_attr_fill(fs, ino, record, out);
	return error;
}

int rp_fs_getattr(struct rp_fs *fs, rp_object ino, struct rp_attr *out)
{
	struct rp_locks locks;
	struct rp_op op;
	int error;

	rp_locks_take_one(fs, &locks, ino, false);
	RP_RUN(op, fs, RP_OP_READ, error, getattr_work(&op, fs, ino, out));
	rp_locks_drop(&locks);
	return error;
}
