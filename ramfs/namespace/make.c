/* make.c: new inodes and new names: mknod, mkdir, symlink, create, tmpfile and link. */
#include <stdlib.h>
#include "internal.h"

struct making {
	const struct rp_cred *cred;
	rp_object dir;
	struct rp_name name;    /* length 0: a file without a name */
	uint32_t mode, rdev;
	const char *target;
	struct rp_time now;
};

static int target_store(struct rp_op *op, rp_object ino, const char *target)
{
	size_t length = strlen(target);
	struct rp_record *record;
	struct rp_inode *inode;
	void *page;
	int error;

	error = rp_record_edit(op, ino, offsetof(struct rp_record, size_bytes), sizeof(*record) -
			       offsetof(struct rp_record, size_bytes), &record);
	if (error)
		return error;
	inode = (struct rp_inode *)record->user;
	record->size_bytes = length;
	if (length <= sizeof(inode->inlined)) {
		inode->flags |= RP_INODE_INLINED;
		memcpy(inode->inlined, target, length);
		return 0;
	}
	error = rp_page_edit(op, ino, 0, 0, RP_PAGE_SIZE, &page);
	if (!error)
		memcpy(page, target, length);
	return error;
}

/* Group and mode as a set-group-ID directory wants them. */
static void owner_choose(const struct making *making, const struct rp_inode *dir, struct rp_new_inode *new)
{
	new->uid = making->cred->uid;
	new->gid = making->cred->gid;
	new->mode = making->mode;
	if (!(dir->mode & S_ISGID))
		return;
	new->gid = dir->gid;
	if (S_ISDIR(making->mode))
		new->mode |= S_ISGID;
	else if ((making->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !making->cred->fsetid &&
		 making->cred->gid != dir->gid)
		new->mode &= ~(uint32_t)S_ISGID;
}

static int inode_make(struct rp_op *op, struct rp_fs *fs, const struct making *making, const struct rp_record *dir,
		      rp_object *ino)
{
	struct rp_acl_inherited acl;
	struct rp_new_inode new = {
		.rdev = S_ISCHR(making->mode) || S_ISBLK(making->mode) ? making->rdev : 0,
		.nlink = making->name.length == 0 ? 0 : S_ISDIR(making->mode) ? 2 : 1,
		.flags = making->name.length == 0 ? RP_INODE_TMPFILE : 0,
		.parent = making->name.length == 0 ? 0 : making->dir,
		.now = making->now,
	};
	uint64_t generation;
	int error;

	owner_choose(making, rp_record_inode(dir), &new);
	error = rp_acl_inherit(op, fs, dir, making->cred->umask, &new.mode, &acl);
	if (error)
		return error;
	error = rp_inode_create(op, fs, &new, ino, &generation);
	if (!error)
		error = rp_acl_inherit_store(op, fs, *ino, new.mode, &acl);
	rp_acl_inherited_free(&acl);
	if (!error && S_ISLNK(making->mode))
		error = target_store(op, *ino, making->target);
	return error;
}

static int attr_of_new(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_attr *out)
{
	const struct rp_record *record;
	int error = rp_inode_get(op, fs, ino, 0, &record);

	if (!error)
		rp_attr_fill(fs, ino, record, out);
	return error;
}

static int make_work(struct rp_op *op, struct rp_fs *fs, const struct making *making, struct rp_attr *out)
{
	const struct rp_record *dir;
	struct rp_item item;
	rp_object ino;
	uint64_t key;
	int error;

	error = rp_inode_get_dir(op, fs, making->dir, &dir);
	if (error)
		return error;
	/* Before anything is made, so that an existing name is told as such even when there is no room. */
	error = rp_dir_find(op, fs, making->dir, making->name, &item, &key);
	if (error != -ENOENT)
		return error ? error : -EEXIST;
	if (S_ISDIR(making->mode) && rp_record_inode(dir)->nlink >= RP_LINK_MAX)
		return -EMLINK;
	error = inode_make(op, fs, making, dir, &ino);
	if (!error)
		error = rp_dir_insert(op, fs, making->dir, making->name, key, ino, making->mode);
	if (!error)
		error = rp_inode_touch_dir(op, making->dir, making->now, S_ISDIR(making->mode) ? 1 : 0);
	return error ? error : attr_of_new(op, fs, ino, out);
}

static int making_check(const struct making *making)
{
	if (!rp_mode_is_valid(making->mode))
		return -EINVAL;
	if (!S_ISLNK(making->mode))
		return 0;
	if (!making->target || making->target[0] == 0)
		return -ENOENT;
	return strlen(making->target) > RP_SYMLINK_MAX ? -ENAMETOOLONG : 0;
}

int rp_fs_make(struct rp_fs *fs, const struct rp_cred *cred, rp_object dir, struct rp_name name, uint32_t mode, uint32_t rdev,
	       const char *target, bool hold, struct rp_attr *out)
{
	struct making making = {
		.cred = cred, .dir = dir, .name = name, .mode = mode & (S_IFMT | 07777), .rdev = rdev, .target = target,
	};
	struct rp_hold *spare = NULL;
	struct rp_locks locks;
	bool near_limit;
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	error = rp_name_check(name);
	if (!error)
		error = making_check(&making);
	if (error)
		return error;
	if (rp_name_is_dot(name) || rp_name_is_dotdot(name))
		return -EEXIST;
	if (hold) {
		spare = rp_hold_prepare(fs);
		if (!spare)
			return -ENOMEM;
	}
	making.now = rp_fs_now(fs);
	near_limit = rp_inode_limit_is_near(fs);
	rp_locks_take_one(fs, &locks, dir, true);
	if (near_limit)
		pthread_mutex_lock(&fs->limit);
	RP_RUN(op, fs, 0, error, make_work(&op, fs, &making, out));
	if (near_limit)
		pthread_mutex_unlock(&fs->limit);
	if (!error && hold)
		rp_hold_add(fs, out->ino, out->generation, spare);
	rp_locks_drop(&locks);
	if (error)
		free(spare);
	return error;
}

/* ---- Files without a name ----------------------------------------------------------------------------------------- */

static int tmpfile_work(struct rp_op *op, struct rp_fs *fs, const struct making *making, struct rp_attr *out)
{
	const struct rp_record *dir;
	rp_object ino;
	int error;

	error = rp_inode_get_dir(op, fs, making->dir, &dir);
	if (!error)
		error = inode_make(op, fs, making, dir, &ino);
	if (!error)
		error = rp_orphan_add(op, fs, ino);
	return error ? error : attr_of_new(op, fs, ino, out);
}

int rp_fs_tmpfile(struct rp_fs *fs, const struct rp_cred *cred, rp_object dir, uint32_t mode, struct rp_attr *out)
{
	struct making making = { .cred = cred, .dir = dir, .name = { "", 0 }, .mode = S_IFREG | (mode & 07777) };
	struct rp_lock_want want = { dir, false };
	struct rp_locks locks = { .orphans_wanted = true };
	bool near_limit = rp_inode_limit_is_near(fs);
	struct rp_hold *spare;
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	spare = rp_hold_prepare(fs);
	if (!spare)
		return -ENOMEM;
	making.now = rp_fs_now(fs);
	rp_locks_take(fs, &locks, &want, 1);
	if (near_limit)
		pthread_mutex_lock(&fs->limit);
	RP_RUN(op, fs, 0, error, tmpfile_work(&op, fs, &making, out));
	if (!error) {
		rp_hold_add(fs, out->ino, out->generation, spare);
		rp_hold_orphan(fs, out->ino, out->generation);
	}
	if (near_limit)
		pthread_mutex_unlock(&fs->limit);
	rp_locks_drop(&locks);
	if (error)
		free(spare);
	return error;
}

/* ---- Links ---------------------------------------------------------------------------------------------------------- */

static int link_count_up(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, rp_object ino, rp_object dir,
			 struct rp_time now)
{
	const struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_inode_get(op, fs, ino, 0, &record);
	if (error)
		return error;
	if (S_ISDIR(rp_record_inode(record)->mode))
		return -EPERM;
	if (rp_record_inode(record)->nlink == 0) {
		if (!(rp_record_inode(record)->flags & RP_INODE_TMPFILE))
			return -ENOENT;
		error = rp_locks_try_orphans(locks);
		if (!error)
			error = rp_orphan_remove(op, fs, ino);
		if (error)
			return error;
	} else if (rp_record_inode(record)->nlink >= RP_LINK_MAX) {
		return -EMLINK;
	}
	error = rp_inode_edit_front(op, ino, &inode);
	if (error)
		return error;
	inode->flags &= ~(uint32_t)RP_INODE_TMPFILE;
	inode->nlink++;
	inode->ctime = now;
	inode->parent = dir;
	return 0;
}

static int link_work(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, rp_object ino, rp_object dir,
		     struct rp_name name, struct rp_time now, struct rp_attr *out)
{
	const struct rp_record *record;
	struct rp_item item;
	uint64_t key;
	int error;

	error = rp_inode_get_dir(op, fs, dir, &record);
	if (error)
		return error;
	error = rp_dir_find(op, fs, dir, name, &item, &key);
	if (error != -ENOENT)
		return error ? error : -EEXIST;
	error = link_count_up(op, fs, locks, ino, dir, now);
	if (!error)
		error = rp_inode_get(op, fs, ino, 0, &record);
	if (!error)
		error = rp_dir_insert(op, fs, dir, name, key, ino, rp_record_inode(record)->mode);
	if (!error)
		error = rp_inode_touch_dir(op, dir, now, 0);
	return error ? error : attr_of_new(op, fs, ino, out);
}

int rp_fs_link(struct rp_fs *fs, rp_object ino, rp_object dir, struct rp_name name, bool hold, struct rp_attr *out)
{
	struct rp_lock_want wants[2] = { { ino, true }, { dir, true } };
	struct rp_locks locks = { .count = 0 };
	struct rp_hold *spare = NULL;
	struct rp_time now;
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	error = rp_name_check(name);
	if (error)
		return error;
	if (rp_name_is_dot(name) || rp_name_is_dotdot(name))
		return -EEXIST;
	if (hold) {
		spare = rp_hold_prepare(fs);
		if (!spare)
			return -ENOMEM;
	}
	now = rp_fs_now(fs);
	do {
		rp_locks_take(fs, &locks, wants, 2);
		RP_RUN(op, fs, 0, error, link_work(&op, fs, &locks, ino, dir, name, now, out));
		if (!error && hold)
			rp_hold_add(fs, out->ino, out->generation, spare);
		rp_locks_drop(&locks);
	} while (error == -ERESTART);
	if (error)
		free(spare);
	return error;
}
