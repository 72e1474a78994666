/* attrs.c: requests about attributes: getattr, setattr, statx, statfs, extended attributes.
 *
 * Permissions are the kernel's business (default_permissions), or nobody's where only root may enter; clearing of set-ID
 * bits is asked for by the kernel with a flag (HANDLE_KILLPRIV_V2). The flag for ACLs (SETXATTR_EXT) is not used because
 * libfuse does not pass it on: whether an access ACL costs a file its set-group-ID bit is decided here by the caller's
 * groups.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

#define LIST_MAX 65536u /* the kernel asks for no longer list (XATTR_LIST_MAX) */

static void reply_attr(struct rp_server *server, fuse_req_t req, int error, const struct rp_node *node,
                       const struct rp_attr *attr)
{
	struct stat st;

	if (error) {
		rp_reply_error(req, error);
		return;
	}
	rp_attr_to_stat(server, node, attr, &st);
	fuse_reply_attr(req, &st, node->kind == RP_NODE_IS_CATALOG ? 0 : RP_FOREVER);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_GETATTR);
	struct rp_node node;
	struct rp_attr attr;
	int error = rp_node_find(server, ino, &node);

	(void)fi;
	if (!error)
		error = rp_node_getattr(server, &node, &attr);
	reply_attr(server, req, error, &node, &attr);
}

/* access(2) and chdir(2), asked for only where the kernel checks no permissions: then the caller is root, who may do
 * everything but execute what nobody may. */
static void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_ACCESS);
	struct rp_node node;
	struct rp_attr attr;
	int error = rp_node_find(server, ino, &node);

	if (!error && (mask & X_OK))
		error = rp_node_getattr(server, &node, &attr);
	if (!error && (mask & X_OK) && !S_ISDIR(attr.mode) && !(attr.mode & 0111))
		error = -EACCES;
	rp_reply_error(req, error);
}

static const struct {
	int kernel;
	unsigned set;
} set_flags[] = {
	{ FUSE_SET_ATTR_MODE, RP_SET_MODE },       { FUSE_SET_ATTR_UID, RP_SET_UID },
	{ FUSE_SET_ATTR_GID, RP_SET_GID },         { FUSE_SET_ATTR_SIZE, RP_SET_SIZE },
	{ FUSE_SET_ATTR_ATIME, RP_SET_ATIME },     { FUSE_SET_ATTR_MTIME, RP_SET_MTIME },
	{ FUSE_SET_ATTR_CTIME, RP_SET_CTIME },     { FUSE_SET_ATTR_ATIME_NOW, RP_SET_ATIME_NOW },
	{ FUSE_SET_ATTR_MTIME_NOW, RP_SET_MTIME_NOW }, { FUSE_SET_ATTR_KILL_SUID, RP_SET_KILLPRIV },
};

static unsigned set_of(int to_set)
{
	unsigned set = 0;

	for (size_t i = 0; i < sizeof(set_flags) / sizeof(set_flags[0]); i++) {
		if (to_set & set_flags[i].kernel)
			set |= set_flags[i].set;
	}
	/* The kernel sends both "this time" and "now". */
	if (set & RP_SET_ATIME_NOW)
		set &= ~(unsigned)RP_SET_ATIME;
	if (set & RP_SET_MTIME_NOW)
		set &= ~(unsigned)RP_SET_MTIME;
	return set;
}

static struct rp_time time_of(const struct timespec *time)
{
	return (struct rp_time){ .sec = time->tv_sec, .nsec = (uint32_t)time->tv_nsec };
}

/* ftruncate(2) and O_TRUNC change mtime though the size stays; truncate(2) does not. Without the writeback cache the kernel
 * leaves that to the server and tells ftruncate apart by the descriptor, O_TRUNC not at all. */
static bool truncation_counts(unsigned set, off_t size, const struct fuse_file_info *fi)
{
	return (set & RP_SET_SIZE) && !(set & (RP_SET_MTIME | RP_SET_MTIME_NOW)) && (fi || size == 0);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_SETATTR);
	const struct rp_attr from = {
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .size_bytes = (uint64_t)st->st_size,
		.atime = time_of(&st->st_atim), .mtime = time_of(&st->st_mtim), .ctime = time_of(&st->st_ctim),
	};
	unsigned set = set_of(to_set);
	struct rp_node node;
	struct rp_attr attr;
	int error = rp_node_find_to_change(server, ino, &node);

	/* Times the kernel kept for a file (writeback cache) may reach a filesystem that went read-only meanwhile,
	 * after the data they belong to was refused. */
	if (!error && (set & RP_SET_SIZE) && st->st_size < 0)
		error = -EINVAL;
	if (server->options->write_through && truncation_counts(set, st->st_size, fi))
		set |= RP_SET_MTIME_NOW;
	if (!error)
		RP_WITH_SPACE(server, error, rp_fs_setattr(node.fs, node.object, set, &from, &attr));
	if (!error)
		rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	reply_attr(server, req, error, &node, &attr);
}

static void statx_time(const struct rp_time *from, struct statx_timestamp *to)
{
	to->tv_sec = from->sec;
	to->tv_nsec = from->nsec;
}

static void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_STATX);
	struct statx stx = { .stx_mask = STATX_BASIC_STATS | STATX_BTIME };
	struct rp_node node;
	struct rp_attr attr;
	struct stat st;
	int error = rp_node_find(server, ino, &node);

	(void)fi;
	(void)flags;
	(void)mask;
	if (!error)
		error = rp_node_getattr(server, &node, &attr);
	if (error) {
		rp_reply_error(req, error);
		return;
	}
	rp_attr_to_stat(server, &node, &attr, &st);
	stx.stx_blksize = RP_PAGE_SIZE;
	stx.stx_nlink = attr.nlink;
	stx.stx_uid = attr.uid;
	stx.stx_gid = attr.gid;
	stx.stx_mode = (uint16_t)attr.mode;
	stx.stx_ino = st.st_ino;
	stx.stx_size = attr.size_bytes;
	stx.stx_blocks = (uint64_t)st.st_blocks;
	stx.stx_rdev_major = major(st.st_rdev);
	stx.stx_rdev_minor = minor(st.st_rdev);
	statx_time(&attr.atime, &stx.stx_atime);
	statx_time(&attr.btime, &stx.stx_btime);
	statx_time(&attr.ctime, &stx.stx_ctime);
	statx_time(&attr.mtime, &stx.stx_mtime);
	fuse_reply_statx(req, 0, &stx, node.kind == RP_NODE_IS_CATALOG ? 0 : RP_FOREVER);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_STATFS);
	struct statvfs out = { .f_bsize = RP_PAGE_SIZE, .f_frsize = RP_PAGE_SIZE, .f_namemax = 255 };
	struct rp_fs_status status;
	int error = rp_fs_status(server->fs, &status);

	(void)ino;
	if (error) {
		rp_reply_error(req, error);
		return;
	}
	out.f_blocks = status.block_count;
	out.f_bfree = out.f_bavail = status.block_free;
	/* Without a limit there is no number of free inodes: both 0, as other filesystems without one say. */
	if (status.inode_limit) {
		out.f_files = status.inode_limit;
		out.f_ffree = status.inode_limit > status.inode_count ? status.inode_limit - status.inode_count : 0;
		out.f_favail = out.f_ffree;
	}
	fuse_reply_statfs(req, &out);
}

/* ---- Extended attributes ----------------------------------------------------------------------------------------- */

/* May the caller keep the set-group-ID bit of a file of that group? */
static bool in_group(fuse_req_t req, uint32_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	bool found = false;
	gid_t *list;
	int count;

	if (ctx->uid == 0 || ctx->gid == gid)
		return true;
	count = fuse_req_getgroups(req, 0, NULL);
	if (count <= 0)
		return false;
	list = calloc((size_t)count, sizeof(*list));
	if (!list)
		return false;
	/* The caller may have changed its groups between the two calls. */
	if (fuse_req_getgroups(req, count, list) == count) {
		for (int i = 0; i < count && !found; i++)
			found = list[i] == gid;
	}
	free(list);
	return found;
}

static bool clears_sgid(fuse_req_t req, const struct rp_node *node, const char *name)
{
	struct rp_attr attr;

	if (strcmp(name, "system.posix_acl_access") != 0 || rp_fs_getattr(node->fs, node->object, &attr))
		return false;
	return (attr.mode & S_ISGID) && !in_group(req, attr.gid);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_SETXATTR);
	struct rp_node node;
	int error;

	if (server->options->no_xattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	error = rp_node_find_to_change(server, ino, &node);
	if (!error)
		RP_WITH_SPACE(server, error, rp_fs_xattr_set(node.fs, node.object, name, value, size, flags,
		                                             clears_sgid(req, &node, name)));
	if (!error)
		rp_keep_note_change(server->keep, size);
	/* An access ACL sets the mode; a kernel that does not know ACLs would keep the old one. */
	if (!error && server->unchecked && !strcmp(name, "system.posix_acl_access"))
		fuse_lowlevel_notify_inval_inode(server->session, ino, -1, 0);
	rp_reply_error(req, error);
}

/* Answer a request for bytes or, with size 0, for how many there are. */
static void reply_bytes(fuse_req_t req, ssize_t result, const char *buffer, size_t size)
{
	if (result < 0)
		rp_reply_error(req, (int)result);
	else if (!size)
		fuse_reply_xattr(req, (size_t)result);
	else
		fuse_reply_buf(req, buffer, (size_t)result);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_GETXATTR);
	char *buffer = NULL;
	struct rp_node node;
	ssize_t result;

	if (server->options->no_xattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (size > RP_REQUEST_BYTES)
		size = RP_REQUEST_BYTES;
	result = rp_node_find(server, ino, &node);
	if (!result && !node.fs)
		result = -ENODATA;
	if (!result && size) {
		buffer = rp_request_buffer(server, req, size);
		result = buffer ? 0 : -ENOMEM;
	}
	if (!result)
		result = rp_fs_xattr_get(node.fs, node.object, name, buffer, size);
	reply_bytes(req, result, buffer, size);
}

/* The list as whoever is not root may see it: "trusted." attributes are root's, and the kernel does not hide their names
 * by itself. Returns the length, -ERANGE when it is more than size (0: only the length is wanted). */
static ssize_t list_for_others(const struct rp_node *node, char *to, size_t size)
{
	char *all = malloc(LIST_MAX), *name, *next;
	ssize_t length, kept = 0;
	size_t one;

	if (!all)
		return -ENOMEM;
	length = rp_fs_xattr_list(node->fs, node->object, all, LIST_MAX);
	for (name = all; name < all + length; name = next) {
		one = strlen(name) + 1;
		next = name + one;
		if (!strncmp(name, "trusted.", 8))
			continue;
		memmove(all + kept, name, one);
		kept += (ssize_t)one;
	}
	if (length < 0)
		kept = length;
	else if (size && (size_t)kept > size)
		kept = -ERANGE;
	else if (size)
		memcpy(to, all, (size_t)kept);
	free(all);
	return kept;
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_LISTXATTR);
	char *buffer = NULL;
	struct rp_node node;
	ssize_t result;

	if (server->options->no_xattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (size > RP_REQUEST_BYTES)
		size = RP_REQUEST_BYTES;
	result = rp_node_find(server, ino, &node);
	if (!result && size) {
		buffer = rp_request_buffer(server, req, size);
		result = buffer ? 0 : -ENOMEM;
	}
	if (!result && node.fs && fuse_req_ctx(req)->uid != 0)
		result = list_for_others(&node, buffer, size);
	else if (!result && node.fs)
		result = rp_fs_xattr_list(node.fs, node.object, buffer, size);
	reply_bytes(req, result, buffer, size);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_REMOVEXATTR);
	struct rp_node node;
	int error;

	if (server->options->no_xattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	error = rp_node_find_to_change(server, ino, &node);
	if (!error)
		error = rp_fs_xattr_remove(node.fs, node.object, name);
	if (!error)
		rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	rp_reply_error(req, error);
}

void rp_attrs_ops(struct fuse_lowlevel_ops *ops)
{
	ops->getattr = op_getattr;
	ops->setattr = op_setattr;
	ops->access = op_access;
	ops->statx = op_statx;
	ops->statfs = op_statfs;
	ops->setxattr = op_setxattr;
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->removexattr = op_removexattr;
}
