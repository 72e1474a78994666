/* rename.c: moving names.
 *
 * All four inodes that may be concerned are locked at once, so their numbers are looked up first and verified under the
 * locks. A move between two directories holds the renames lock besides, under which no directory changes its parent: so
 * that nothing is moved below itself, the way up from the target is walked first, in operations of bounded length.
 */
#include <linux/fs.h>
#include "internal.h"

#define WALK_STEPS 256u

struct renaming {
	const struct rp_cred *cred;
	rp_object dir, to_dir;
	struct rp_name name, to_name;
	unsigned flags;
	struct rp_time now;
	rp_object source, target;       /* as last looked up; target 0: none */
	bool source_is_dir, target_is_dir;
	uint64_t tree_id;               /* what was looked up holds for this tree */
};

static int names_find(struct rp_op *op, struct rp_fs *fs, const struct renaming *r, struct rp_item *source,
		      struct rp_item *target, uint64_t *key)
{
	int error = rp_dir_find(op, fs, r->dir, r->name, source, NULL);

	if (error)
		return error;
	target->ref = 0;
	target->kind = 0;
	error = rp_dir_find(op, fs, r->to_dir, r->to_name, target, key);
	if (error == -ENOENT) {
		const struct rp_record *record;

		/* No such name, or no such directory? */
		target->ref = 0;
		return rp_inode_get_dir(op, fs, r->to_dir, &record);
	}
	return error;
}

static int peek_work(struct rp_op *op, struct rp_fs *fs, struct renaming *r)
{
	struct rp_item source, target;
	int error = names_find(op, fs, r, &source, &target, NULL);

	if (error)
		return error;
	r->source = source.ref;
	r->target = target.ref;
	r->source_is_dir = source.kind == S_IFDIR >> 12;
	r->target_is_dir = target.ref != 0 && target.kind == S_IFDIR >> 12;
	return 0;
}

static int peek(struct rp_fs *fs, struct renaming *r)
{
	struct rp_lock_want wants[2] = { { r->dir, false }, { r->to_dir, false } };
	struct rp_locks locks = { .count = 0 };
	struct rp_op op;
	int error;

	r->tree_id = rp_pool_tree_id(fs->pool);
	rp_locks_take(fs, &locks, wants, 2);
	RP_RUN(op, fs, RP_OP_READ, error, peek_work(&op, fs, r));
	rp_locks_drop(&locks);
	return error;
}

/* ---- No directory below itself --------------------------------------------------------------------------------------- */

static int walk_work(struct rp_op *op, struct rp_fs *fs, rp_object from, rp_object sought, rp_object *at)
{
	*at = from;
	for (unsigned i = 0; i < WALK_STEPS && *at != sought && *at != rp_fs_root(fs); i++) {
		const struct rp_record *record;
		int error = rp_record_get(op, fs->tree, *at, 0, &record);

		if (error)
			return error;
		/* Only the parent is read: it stands still while no directory moves. */
		*at = rp_record_inode(record)->parent;
		if (*at == 0)
			return -ENOENT;
	}
	return 0;
}

/* Is `sought` the directory `at`, or above it? Then -EINVAL. With the renames lock. */
static int ancestor_check(struct rp_fs *fs, rp_object at, rp_object sought)
{
	struct rp_fs_status status;
	uint64_t steps = 0;
	int error;

	error = rp_fs_status(fs, &status);
	while (!error && at != sought && at != rp_fs_root(fs)) {
		rp_object from = at;
		struct rp_op op;

		if (steps > status.inode_count)
			return rp_fs_damaged(fs, at, "its way up does not end");
		RP_RUN(op, fs, RP_OP_READ, error, walk_work(&op, fs, from, sought, &at));
		steps += WALK_STEPS;
	}
	return error ? error : at == sought ? -EINVAL : 0;
}

static int ancestors_check(struct rp_fs *fs, const struct renaming *r)
{
	int error = 0;

	if (r->dir == r->to_dir)
		return 0;
	if (r->source_is_dir)
		error = ancestor_check(fs, r->to_dir, r->source);
	if (!error && r->flags & RENAME_EXCHANGE && r->target_is_dir)
		error = ancestor_check(fs, r->dir, r->target);
	return error;
}

/* ---- Moving ------------------------------------------------------------------------------------------------------------- */

/* An inode that got another name. */
static int moved(struct rp_op *op, rp_object ino, rp_object parent, struct rp_time now)
{
	struct rp_inode *inode;
	int error = rp_inode_edit_front(op, ino, &inode);

	if (error)
		return error;
	/* Who walks up reads the parents of directories: no store where nothing changes. */
	if (inode->parent != parent)
		inode->parent = parent;
	inode->ctime = now;
	return 0;
}

static int dirs_touch(struct rp_op *op, const struct renaming *r, int links, int to_links)
{
	int error;

	if (r->dir == r->to_dir)
		return rp_inode_touch_dir(op, r->dir, r->now, links + to_links);
	error = rp_inode_touch_dir(op, r->dir, r->now, links);
	return error ? error : rp_inode_touch_dir(op, r->to_dir, r->now, to_links);
}

static int exchange(struct rp_op *op, struct rp_fs *fs, const struct renaming *r, uint32_t mode, uint32_t target_mode)
{
	int source_dir = S_ISDIR(mode), target_dir = S_ISDIR(target_mode), error;

	error = rp_dir_replace(op, fs, r->dir, r->name, r->source, r->target, target_mode);
	if (!error)
		error = rp_dir_replace(op, fs, r->to_dir, r->to_name, r->target, r->source, mode);
	if (!error)
		error = dirs_touch(op, r, target_dir - source_dir, source_dir - target_dir);
	if (!error)
		error = moved(op, r->source, r->to_dir, r->now);
	return error ? error : moved(op, r->target, r->dir, r->now);
}

/* Under the old name a character device 0/0 stays, which overlay filesystems read as "removed". */
static int whiteout(struct rp_op *op, struct rp_fs *fs, const struct renaming *r)
{
	struct rp_new_inode new = {
		.mode = S_IFCHR, .uid = r->cred->uid, .gid = r->cred->gid, .nlink = 1, .parent = r->dir, .now = r->now,
	};
	struct rp_acl_inherited acl;
	const struct rp_record *dir;
	uint64_t generation;
	rp_object ino;
	int error = rp_inode_get_dir(op, fs, r->dir, &dir);

	if (error)
		return error;
	if (rp_record_inode(dir)->mode & S_ISGID)
		new.gid = rp_record_inode(dir)->gid;
	error = rp_acl_inherit(op, fs, dir, 0, &new.mode, &acl);
	if (error)
		return error;
	error = rp_inode_create(op, fs, &new, &ino, &generation);
	if (!error)
		error = rp_acl_inherit_store(op, fs, ino, new.mode, &acl);
	rp_acl_inherited_free(&acl);
	return error ? error : rp_dir_replace(op, fs, r->dir, r->name, r->source, ino, S_IFCHR);
}

static int target_drop(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, const struct renaming *r, bool directory)
{
	struct rp_inode *inode;
	int error = rp_inode_edit_front(op, r->target, &inode);

	if (error)
		return error;
	if (inode->nlink == 0)
		return rp_fs_damaged(fs, r->target, "named, with a link count of 0");
	inode->nlink = directory ? 0 : inode->nlink - 1;
	inode->ctime = r->now;
	return rp_orphan_drop(op, fs, locks, r->target);
}

static int move(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, const struct renaming *r, uint32_t mode,
		const struct rp_inode *target, uint64_t key)
{
	bool source_dir = S_ISDIR(mode), target_dir = target && S_ISDIR(target->mode);
	int error;

	if (target && source_dir != target_dir)
		return source_dir ? -ENOTDIR : -EISDIR;
	if (target_dir && target->entry_count != 0)
		return -ENOTEMPTY;
	if (source_dir && !target_dir && r->dir != r->to_dir) {
		const struct rp_record *record;

		error = rp_inode_get_dir(op, fs, r->to_dir, &record);
		if (error)
			return error;
		if (rp_record_inode(record)->nlink >= RP_LINK_MAX)
			return -EMLINK;
	}
	if (target)
		error = rp_dir_replace(op, fs, r->to_dir, r->to_name, r->target, r->source, mode);
	else
		error = rp_dir_insert(op, fs, r->to_dir, r->to_name, key, r->source, mode);
	if (!error && r->flags & RENAME_WHITEOUT)
		error = whiteout(op, fs, r);
	else if (!error)
		error = rp_dir_remove(op, fs, r->dir, r->name, r->source);
	if (!error)
		error = dirs_touch(op, r, -(int)source_dir, (int)source_dir - (int)target_dir);
	if (!error)
		error = moved(op, r->source, r->to_dir, r->now);
	return !error && target ? target_drop(op, fs, locks, r, target_dir) : error;
}

static int rename_work(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, const struct renaming *r)
{
	const struct rp_record *record, *target = NULL;
	struct rp_item source_item, target_item;
	uint64_t key = 0;
	uint32_t mode;
	int error;

	error = names_find(op, fs, r, &source_item, &target_item, &key);
	if (error)
		return error;
	if (source_item.ref != r->source || target_item.ref != r->target || r->tree_id != rp_pool_tree_id(fs->pool))
		return -ERESTART;
	if (r->flags & RENAME_NOREPLACE && r->target)
		return -EEXIST;
	if (r->flags & RENAME_EXCHANGE && !r->target)
		return -ENOENT;
	error = rp_inode_get_named(op, fs, r->source, &record);
	if (!error && r->target)
		error = rp_inode_get_named(op, fs, r->target, &target);
	if (error || r->source == r->target)
		return error;
	mode = rp_record_inode(record)->mode;
	/* The way up was walked for what the names said. */
	if (S_ISDIR(mode) != r->source_is_dir || (target && S_ISDIR(rp_record_inode(target)->mode) != r->target_is_dir))
		return rp_fs_damaged(fs, r->source, "a name with another type than its inode");
	if (r->flags & RENAME_EXCHANGE)
		return exchange(op, fs, r, mode, rp_record_inode(target)->mode);
	return move(op, fs, locks, r, mode, target ? rp_record_inode(target) : NULL, key);
}

static int rename_try(struct rp_fs *fs, struct renaming *r, struct rp_locks *locks)
{
	struct rp_lock_want wants[4] = { { r->dir, true }, { r->to_dir, true } };
	bool near_limit = r->flags & RENAME_WHITEOUT && rp_inode_limit_is_near(fs);
	struct rp_op op;
	int error;

	error = peek(fs, r);
	if (!error)
		error = ancestors_check(fs, r);
	if (error)
		return error;
	wants[2] = (struct rp_lock_want){ r->source, true };
	wants[3] = (struct rp_lock_want){ r->target, true };
	rp_locks_take(fs, locks, wants, 4);
	if (near_limit)
		pthread_mutex_lock(&fs->limit);
	RP_RUN(op, fs, 0, error, rename_work(&op, fs, locks, r));
	if (near_limit)
		pthread_mutex_unlock(&fs->limit);
	rp_locks_drop(locks);
	return error;
}

static int rename_check(const struct renaming *r)
{
	unsigned flags = r->flags;
	int error;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))
		return -EINVAL;
	error = rp_name_check(r->name);
	if (!error)
		error = rp_name_check(r->to_name);
	if (error)
		return error;
	if (rp_name_is_dot(r->name) || rp_name_is_dotdot(r->name))
		return -EBUSY;
	if (rp_name_is_dot(r->to_name) || rp_name_is_dotdot(r->to_name))
		return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	return 0;
}

int rp_fs_rename(struct rp_fs *fs, const struct rp_cred *cred, rp_object dir, struct rp_name name, rp_object to_dir,
		 struct rp_name to_name, unsigned flags)
{
	struct renaming r = {
		.cred = cred, .dir = dir, .to_dir = to_dir, .name = name, .to_name = to_name, .flags = flags,
	};
	struct rp_locks locks = { .count = 0 };
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	error = rename_check(&r);
	if (error)
		return error;
	r.now = rp_fs_now(fs);
	if (dir != to_dir)
		pthread_mutex_lock(&fs->renames);
	do
		error = rename_try(fs, &r, &locks);
	while (error == -ERESTART);
	if (dir != to_dir)
		pthread_mutex_unlock(&fs->renames);
	return error;
}
