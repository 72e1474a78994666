/* setattr.c: changing attributes, and reading symlinks. */
#include "internal.h"

bool rp_inode_has_priv(const struct rp_inode *inode)
{
	return (inode->mode & S_ISUID) || (inode->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) ||
	       inode->flags & RP_INODE_CAPABILITY;
}

int rp_inode_kill_priv(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record *record)
{
	const struct rp_inode *old = rp_record_inode(record);
	struct rp_inode *inode;
	int error = 0;

	if (S_ISDIR(old->mode) || !rp_inode_has_priv(old))
		return 0;
	if (old->flags & RP_INODE_CAPABILITY)
		error = rp_xattr_erase(op, fs, ino, rp_name_from(RP_XATTR_CAPABILITY));
	if (!error)
		error = rp_inode_edit_front(op, ino, &inode);
	if (error)
		return error;
	inode->mode &= ~(uint32_t)S_ISUID;
	if (inode->mode & S_IXGRP)
		inode->mode &= ~(uint32_t)S_ISGID;
	return 0;
}

struct setting {
	rp_object ino;
	unsigned set;
	const struct rp_attr *from;
	struct rp_time now;
};

/* resized: the size becomes another one. A kernel that keeps the times itself (writeback cache) changes no mtime where a
 * size stays as it is, and must find it so. */
static void times_set(struct rp_inode *inode, const struct setting *setting, bool resized)
{
	unsigned set = setting->set;

	if (set & RP_SET_ATIME_NOW)
		inode->atime = setting->now;
	else if (set & RP_SET_ATIME)
		inode->atime = setting->from->atime;
	if (set & RP_SET_MTIME_NOW)
		inode->mtime = setting->now;
	else if (set & RP_SET_MTIME)
		inode->mtime = setting->from->mtime;
	else if (resized)
		inode->mtime = setting->now;
	inode->ctime = set & RP_SET_CTIME ? setting->from->ctime : setting->now;
}

static int setattr_work(struct rp_op *op, struct rp_fs *fs, const struct setting *setting, struct rp_attr *out)
{
	const struct rp_record *record;
	struct rp_inode *inode;
	uint32_t mode;
	bool resized;
	int error;

	error = rp_inode_get(op, fs, setting->ino, 0, &record);
	if (error)
		return error;
	resized = setting->set & RP_SET_SIZE && setting->from->size_bytes != record->size_bytes;
	if (setting->set & (RP_SET_KILLPRIV | RP_SET_UID | RP_SET_GID)) {
		error = rp_inode_kill_priv(op, fs, setting->ino, record);
		if (!error)
			error = rp_inode_get(op, fs, setting->ino, 0, &record);
		if (error)
			return error;
	}
	mode = rp_record_inode(record)->mode;
	if (setting->set & RP_SET_MODE) {
		mode = (mode & S_IFMT) | (setting->from->mode & 07777);
		error = rp_acl_follow_mode(op, fs, setting->ino, record, mode);
		if (error)
			return error;
	}
	error = rp_inode_edit_front(op, setting->ino, &inode);
	if (error)
		return error;
	inode->mode = mode;
	if (setting->set & RP_SET_UID)
		inode->uid = setting->from->uid;
	if (setting->set & RP_SET_GID)
		inode->gid = setting->from->gid;
	times_set(inode, setting, resized);
	/* Ours since it was edited: from here on it stays where it is. */
	error = rp_inode_get(op, fs, setting->ino, 0, &record);
	if (!error && setting->set & RP_SET_SIZE)
		error = rp_file_resize(op, setting->ino, setting->from->size_bytes);
	if (!error && out)
		rp_attr_fill(fs, setting->ino, record, out);
	return error;
}

static int size_check(struct rp_op *op, struct rp_fs *fs, const struct setting *setting, uint64_t *generation)
{
	const struct rp_record *record;
	int error = rp_file_get(op, fs, setting->ino, 0, &record);

	if (error)
		return error;
	*generation = record->generation;
	return setting->from->size_bytes > RP_FILE_SIZE_MAX ? -EFBIG : 0;
}

/* Again, now that the pages are gone. */
static int attr_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, struct rp_attr *out)
{
	const struct rp_record *record;
	int error = rp_inode_get(op, fs, ino, 0, &record);

	if (!error)
		rp_attr_fill(fs, ino, record, out);
	return error;
}

static int size_set(struct rp_fs *fs, const struct setting *setting, struct rp_attr *out)
{
	uint64_t generation = 0;
	struct rp_op op;
	int error, trim;

	RP_RUN(op, fs, RP_OP_READ, error, size_check(&op, fs, setting, &generation));
	if (!error)
		error = rp_file_trim(fs, setting->ino, generation);
	if (!error)
		RP_RUN(op, fs, RP_OP_RESERVE, error, setattr_work(&op, fs, setting, out));
	if (error)
		return error;
	/* The file is as long as it was asked to be; pages that could not go now go before it grows again. */
	trim = rp_file_trim(fs, setting->ino, generation);
	if (trim)
		rp_fs_log(fs, "inode %llu: pages past its end could not be given back: %s", (unsigned long long)setting->ino,
			  strerror(-trim));
	if (out)
		RP_RUN(op, fs, RP_OP_READ, error, attr_work(&op, fs, setting->ino, out));
	return error;
}

int rp_fs_setattr(struct rp_fs *fs, rp_object ino, unsigned set, const struct rp_attr *from, struct rp_attr *out)
{
	struct setting setting = { .ino = ino, .set = set, .from = from };
	struct rp_locks locks;
	int error = 0;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	setting.now = rp_fs_now(fs);
	rp_locks_take_one(fs, &locks, ino, true);
	if (set & RP_SET_SIZE) {
		error = size_set(fs, &setting, out);
	} else {
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_RESERVE, error, setattr_work(&op, fs, &setting, out));
	}
	rp_locks_drop(&locks);
	return error;
}

/* ---- Symlinks ------------------------------------------------------------------------------------------------------ */

static int readlink_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, char to[4096])
{
	const struct rp_record *record;
	const struct rp_inode *inode;
	const void *from;
	int error;

	error = rp_inode_get(op, fs, ino, 0, &record);
	if (error)
		return error;
	inode = rp_record_inode(record);
	if (!S_ISLNK(inode->mode))
		return -EINVAL;
	if (record->size_bytes > (inode->flags & RP_INODE_INLINED ? sizeof(inode->inlined) : RP_SYMLINK_MAX))
		return rp_fs_damaged(fs, ino, "a symlink longer than symlinks can be");
	if (inode->flags & RP_INODE_INLINED) {
		from = inode->inlined;
	} else {
		error = rp_page_get(op, fs->tree, ino, 0, &from);
		if (error)
			return error;
	}
	memcpy(to, from, record->size_bytes);
	to[record->size_bytes] = 0;
	return 0;
}

int rp_fs_readlink(struct rp_fs *fs, rp_object ino, char to[4096])
{
	struct rp_locks locks;
	struct rp_op op;
	int error;

	rp_locks_take_one(fs, &locks, ino, false);
	RP_RUN(op, fs, RP_OP_READ, error, readlink_work(&op, fs, ino, to));
	rp_locks_drop(&locks);
	return error;
}
