/* xattr_calls.c: getxattr, setxattr, removexattr and listxattr: which names there are, and what some of them mean. */
#include <stdlib.h>
#include <sys/xattr.h>
#include "internal.h"

enum name_class { NAME_USER, NAME_PLAIN, NAME_ACL_ACCESS, NAME_ACL_DEFAULT };

static int name_classify(const char *name, enum name_class *class)
{
	static const struct {
		const char *prefix;
		enum name_class class;
	} prefixes[] = { { "user.", NAME_USER }, { "trusted.", NAME_PLAIN }, { "security.", NAME_PLAIN } };
	size_t length = strlen(name);

	if (length == 0 || length > RP_NAME_MAX)
		return -ERANGE;
	if (strcmp(name, RP_XATTR_ACL_ACCESS) == 0 || strcmp(name, RP_XATTR_ACL_DEFAULT) == 0) {
		*class = strcmp(name, RP_XATTR_ACL_ACCESS) == 0 ? NAME_ACL_ACCESS : NAME_ACL_DEFAULT;
		return 0;
	}
	for (unsigned i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t prefix = strlen(prefixes[i].prefix);

		if (strncmp(name, prefixes[i].prefix, prefix) == 0) {
			*class = prefixes[i].class;
			return length == prefix ? -EINVAL : 0;
		}
	}
	return -EOPNOTSUPP;
}

static bool class_fits(enum name_class class, uint32_t mode)
{
	return class != NAME_USER || S_ISREG(mode) || S_ISDIR(mode);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static int get_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, const char *name, enum name_class class, void *to,
		    size_t size, size_t *length)
{
	const struct rp_record *record;
	int error = rp_inode_get(op, fs, ino, 0, &record);

	if (error)
		return error;
	if (!class_fits(class, rp_record_inode(record)->mode))
		return -ENODATA;
	return rp_xattr_read(op, fs, record, rp_name_from(name), to, size, length);
}

ssize_t rp_fs_xattr_get(struct rp_fs *fs, rp_object ino, const char *name, void *to, size_t size)
{
	struct rp_locks locks;
	enum name_class class;
	size_t length = 0;
	struct rp_op op;
	int error;

	error = name_classify(name, &class);
	if (error)
		return error;
	rp_locks_take_one(fs, &locks, ino, false);
	RP_RUN(op, fs, RP_OP_READ, error, get_work(&op, fs, ino, name, class, to, size, &length));
	rp_locks_drop(&locks);
	return error ? error : (ssize_t)length;
}

static int list_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, char *to, size_t size, size_t *length)
{
	const struct rp_record *record;
	struct rp_index_page leaf;
	struct rp_index ix;
	uint64_t key = 0;
	unsigned slot;
	int error;

	*length = 0;
	error = rp_inode_get(op, fs, ino, 0, &record);
	if (error || rp_record_inode(record)->xattrs == 0)
		return error;
	error = rp_xattr_holder_open(op, fs, rp_record_inode(record)->xattrs, &ix);
	while (!error) {
		error = rp_index_leaf(&ix, key, &leaf, &slot);
		for (; !error && slot < rp_index_head_const(leaf.bytes)->count; slot++) {
			struct rp_item item;

			rp_index_cell_get(leaf.bytes, slot, &item);
			key = item.key + 1;
			if (size != 0 && item.name_length + 1u > size - *length)
				return -ERANGE;
			if (size != 0) {
				memcpy(to + *length, item.name, item.name_length);
				to[*length + item.name_length] = 0;
			}
			*length += item.name_length + 1u;
		}
	}
	return error == -ENOENT ? 0 : error;
}

ssize_t rp_fs_xattr_list(struct rp_fs *fs, rp_object ino, char *to, size_t size)
{
	struct rp_locks locks;
	size_t length = 0;
	struct rp_op op;
	int error;

	rp_locks_take_one(fs, &locks, ino, false);
	RP_RUN(op, fs, RP_OP_READ, error, list_work(&op, fs, ino, to, size, &length));
	rp_locks_drop(&locks);
	return error ? error : (ssize_t)length;
}

/* ---- Changing ----------------------------------------------------------------------------------------------------- */

struct change {
	rp_object ino;
	const char *name;
	enum name_class class;
	const void *from;       /* null: remove */
	size_t size;
	int flags;
	bool clear_sgid;
	struct rp_time now;
};

/* An access ACL sets the mode; one that says no more than a mode is not kept. *keep: the ACL itself is to be stored. */
static int acl_apply(struct rp_op *op, const struct rp_record *record, const struct change *change, bool *keep)
{
	uint32_t mode = rp_record_inode(record)->mode;
	struct rp_inode *inode;
	int error;

	if (S_ISLNK(mode))
		return -EOPNOTSUPP;
	*keep = change->from && change->size > 4;
	if (change->from && change->size > 0) {
		error = rp_acl_check(change->from, change->size);
		if (error)
			return error;
	}
	if (change->class == NAME_ACL_DEFAULT)
		return *keep && !S_ISDIR(mode) ? -EACCES : 0;
	if (*keep)
		*keep = !rp_acl_to_mode(change->from, change->size, &mode);
	if (change->clear_sgid)
		mode &= ~(uint32_t)S_ISGID;
	error = rp_inode_edit_front(op, change->ino, &inode);
	if (!error)
		inode->mode = mode;
	return error;
}

static int change_work(struct rp_op *op, struct rp_fs *fs, const struct change *change)
{
	bool acl = change->class == NAME_ACL_ACCESS || change->class == NAME_ACL_DEFAULT, keep = change->from != NULL;
	struct rp_name name = rp_name_from(change->name);
	const struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_inode_get(op, fs, change->ino, 0, &record);
	if (error)
		return error;
	if (!class_fits(change->class, rp_record_inode(record)->mode))
		return -EPERM;
	if (acl) {
		error = acl_apply(op, record, change, &keep);
		if (error)
			return error;
	}
	if (keep) {
		error = rp_xattr_write(op, fs, change->ino, name, change->from, change->size, change->flags);
	} else {
		error = rp_xattr_erase(op, fs, change->ino, name);
		if (error == -ENODATA && acl)
			error = 0;
	}
	if (!error)
		error = rp_inode_edit_front(op, change->ino, &inode);
	if (!error)
		inode->ctime = change->now;
	return error;
}

static int change_run(struct rp_fs *fs, struct change *change)
{
	struct rp_locks locks;
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	error = name_classify(change->name, &change->class);
	if (error)
		return error;
	change->now = rp_fs_now(fs);
	rp_locks_take_one(fs, &locks, change->ino, true);
	RP_RUN(op, fs, change->from ? 0 : RP_OP_RESERVE, error, change_work(&op, fs, change));
	rp_locks_drop(&locks);
	return error;
}

int rp_fs_xattr_set(struct rp_fs *fs, rp_object ino, const char *name, const void *from, size_t size, int flags,
		    bool clear_sgid)
{
	struct change change = {
		.ino = ino, .name = name, .from = from ? from : "", .size = size, .flags = flags, .clear_sgid = clear_sgid,
	};

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (size > RP_XATTR_VALUE_MAX)
		return -E2BIG;
	return change_run(fs, &change);
}

int rp_fs_xattr_remove(struct rp_fs *fs, rp_object ino, const char *name)
{
	struct change change = { .ino = ino, .name = name };

	return change_run(fs, &change);
}
