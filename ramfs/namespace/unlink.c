/* unlink.c: names that go. Works in a full pool: what is taken for a while comes from the reserve. */
#include "internal.h"

struct removing {
	rp_object dir;
	struct rp_name name;
	bool directory;         /* rmdir */
	struct rp_time now;
	rp_object child;
};

static int unlink_work(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, struct removing *removing)
{
	const struct rp_record *record;
	struct rp_inode *inode;
	struct rp_item item;
	int error;

	error = rp_dir_find(op, fs, removing->dir, removing->name, &item, NULL);
	if (error)
		return error;
	removing->child = item.ref;
	error = rp_locks_try(locks, item.ref, true);
	if (!error)
		error = rp_inode_get_named(op, fs, removing->child, &record);
	if (error)
		return error;
	if (S_ISDIR(rp_record_inode(record)->mode) != removing->directory)
		return removing->directory ? -ENOTDIR : -EISDIR;
	if (removing->directory && rp_record_inode(record)->entry_count != 0)
		return -ENOTEMPTY;
	if (rp_record_inode(record)->nlink == 0)
		return rp_fs_damaged(fs, removing->child, "named, with a link count of 0");
	error = rp_dir_remove(op, fs, removing->dir, removing->name, removing->child);
	if (!error)
		error = rp_inode_touch_dir(op, removing->dir, removing->now, removing->directory ? -1 : 0);
	if (!error)
		error = rp_inode_edit_front(op, removing->child, &inode);
	if (error)
		return error;
	inode->nlink = removing->directory ? 0 : inode->nlink - 1;
	inode->ctime = removing->now;
	return rp_orphan_drop(op, fs, locks, removing->child);
}

static int name_remove(struct rp_fs *fs, struct removing *removing, rp_object *removed)
{
	struct rp_lock_want wants[2] = { { removing->dir, true }, { 0, true } };
	struct rp_locks locks = { .count = 0 };
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	error = rp_name_check(removing->name);
	if (error)
		return error;
	removing->now = rp_fs_now(fs);
	do {
		wants[1].ino = removing->child;
		rp_locks_take(fs, &locks, wants, 2);
		RP_RUN(op, fs, RP_OP_RESERVE, error, unlink_work(&op, fs, &locks, removing));
		rp_locks_drop(&locks);
	} while (error == -ERESTART);
	if (!error && removed)
		*removed = removing->child;
	return error;
}

int rp_fs_unlink(struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object *removed)
{
	struct removing removing = { .dir = dir, .name = name };

	if (rp_name_is_dot(name) || rp_name_is_dotdot(name))
		return -EISDIR;
	return name_remove(fs, &removing, removed);
}

int rp_fs_rmdir(struct rp_fs *fs, rp_object dir, struct rp_name name, rp_object *removed)
{
	struct removing removing = { .dir = dir, .name = name, .directory = true };

	if (rp_name_is_dot(name))
		return -EINVAL;
	if (rp_name_is_dotdot(name))
		return -ENOTEMPTY;
	return name_remove(fs, &removing, removed);
}
