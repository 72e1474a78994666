/* names.c: requests about names: lookup, forget, make, remove, rename, link. Each asks the namespace and answers once.
 *
 * Every answer that names a node is one lookup for the kernel's count, which the namespace has counted in the same step
 * (hold); when the answer does not arrive, it is taken back.
 */
#include <errno.h>
#include <string.h>
#include <linux/fs.h>
#include "ramfs/server/internal.h"

static struct rp_cred cred_of(const struct rp_server *server, fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct rp_cred){ .uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask,
	                         .fsetid = ctx->uid == 0 || server->kernel_strips_sgid };
}

/* Answer with an entry that was held once, or the error. */
static void reply_entry(struct rp_server *server, fuse_req_t req, int error, const struct fuse_entry_param *entry)
{
	if (error)
		rp_reply_error(req, error);
	else if (fuse_reply_entry(req, entry))
		rp_node_forget(server, entry->ino, 1);
}

static int lookup_live(struct rp_server *server, const struct rp_node *dir, const char *name,
                       struct fuse_entry_param *entry)
{
	struct rp_attr attr;
	int error;

	/* "." of anything: how an exported file handle is turned into an inode. */
	if (!strcmp(name, ".")) {
		error = rp_fs_hold(dir->fs, dir->object, 0);
		if (!error)
			error = rp_fs_getattr(dir->fs, dir->object, &attr);
	} else {
		error = rp_fs_lookup(dir->fs, dir->object, rp_name_from(name), true, &attr);
	}
	if (!error)
		rp_entry_fill(server, dir, &attr, entry);
	return error;
}

static int lookup_in_view(struct rp_server *server, const struct rp_node *dir, const char *name,
                          struct fuse_entry_param *entry)
{
	struct rp_attr attr;
	int error;

	if (!strcmp(name, "..") && dir->object == rp_fs_root(dir->fs)) {
		rp_catalog_entry(server, entry);
		return 0;
	}
	if (!strcmp(name, "."))
		error = rp_fs_getattr(dir->fs, dir->object, &attr);
	else
		error = rp_fs_lookup(dir->fs, dir->object, rp_name_from(name), false, &attr);
	if (error)
		return error;
	rp_view_hold(&server->views, dir->view);
	rp_entry_fill(server, dir, &attr, entry);
	return 0;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_LOOKUP);
	struct fuse_entry_param entry;
	struct rp_node dir;
	int error = rp_node_find(server, parent, &dir);

	if (error)
		goto out;
	if (dir.kind == RP_NODE_IS_CATALOG)
		error = rp_catalog_lookup(server, name, &entry);
	else if (dir.kind == RP_NODE_IN_VIEW)
		error = lookup_in_view(server, &dir, name, &entry);
	else
		error = lookup_live(server, &dir, name, &entry);
	if (error == -ENOENT && parent == FUSE_ROOT_ID && !strcmp(name, RP_CATALOG_NAME)) {
		rp_catalog_entry(server, &entry);
		error = 0;
	}
	if (error == -ENOENT && dir.kind != RP_NODE_IS_CATALOG && strcmp(name, ".") != 0) {
		/* The kernel may remember that there is no such name. */
		memset(&entry, 0, sizeof(entry));
		entry.entry_timeout = RP_FOREVER;
		fuse_reply_entry(req, &entry);
		return;
	}
out:
	reply_entry(server, req, error, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_FORGET);

	rp_node_forget(server, ino, count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *list)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_FORGET);

	for (size_t i = 0; i < count; i++)
		rp_node_forget(server, list[i].ino, list[i].nlookup);
	fuse_reply_none(req);
}

/* mknod, mkdir, symlink, create. */
static int make(struct rp_server *server, fuse_req_t req, fuse_ino_t parent, const char *name, uint32_t mode,
                dev_t rdev, const char *target, struct fuse_entry_param *entry)
{
	const struct rp_cred cred = cred_of(server, req);
	struct rp_attr attr;
	struct rp_node dir;
	int error = rp_node_find_to_change(server, parent, &dir);

	if (error)
		return error;
	RP_WITH_SPACE(server, error, rp_fs_make(dir.fs, &cred, dir.object, rp_name_from(name), mode, (uint32_t)rdev, target,
	                                        true, &attr));
	if (error)
		return error;
	rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	rp_entry_fill(server, &dir, &attr, entry);
	return 0;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_MKNOD);
	struct fuse_entry_param entry;

	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	reply_entry(server, req, make(server, req, parent, name, mode, rdev, NULL, &entry), &entry);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_MKDIR);
	struct fuse_entry_param entry;

	reply_entry(server, req, make(server, req, parent, name, S_IFDIR | (mode & ~(mode_t)S_IFMT), 0, NULL, &entry),
	            &entry);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_SYMLINK);
	struct fuse_entry_param entry;

	reply_entry(server, req, make(server, req, parent, name, S_IFLNK | 0777, 0, target, &entry), &entry);
}

/* The file is there although the kernel thought not: what open(2) without O_EXCL then does. */
static int create_existing(struct rp_server *server, fuse_ino_t parent, const char *name, int flags,
                           struct fuse_entry_param *entry)
{
	struct rp_attr attr, empty = { .size_bytes = 0 };
	struct rp_node dir;
	int error = rp_node_find_to_change(server, parent, &dir);

	if (!error)
		error = rp_fs_lookup(dir.fs, dir.object, rp_name_from(name), true, &attr);
	if (error)
		return error;
	if (!S_ISREG(attr.mode))
		error = -ESTALE;
	else if (flags & O_TRUNC)
		error = rp_fs_setattr(dir.fs, attr.ino, RP_SET_SIZE, &empty, &attr);
	if (error)
		rp_fs_release(dir.fs, attr.ino, 1);
	else
		rp_entry_fill(server, &dir, &attr, entry);
	return error;
}

static void reply_create(struct rp_server *server, fuse_req_t req, const struct fuse_entry_param *entry,
                         struct fuse_file_info *fi)
{
	fi->keep_cache = 1;
	fi->noflush = 1;
	if (fuse_reply_create(req, entry, fi))
		rp_node_forget(server, entry->ino, 1);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_CREATE);
	struct fuse_entry_param entry;
	int error;

	/* Without open requests the kernel may as well use mknod, which no release follows. */
	if (server->no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	error = make(server, req, parent, name, S_IFREG | (mode & ~(mode_t)S_IFMT), 0, NULL, &entry);
	if (error == -EEXIST && !(fi->flags & O_EXCL))
		error = create_existing(server, parent, name, fi->flags, &entry);
	if (error)
		rp_reply_error(req, error);
	else
		reply_create(server, req, &entry, fi);
}

static void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_TMPFILE);
	const struct rp_cred cred = cred_of(server, req);
	struct fuse_entry_param entry;
	struct rp_attr attr;
	struct rp_node dir;
	int error = rp_node_find_to_change(server, parent, &dir);

	if (!error)
		RP_WITH_SPACE(server, error, rp_fs_tmpfile(dir.fs, &cred, dir.object, S_IFREG | (mode & ~(mode_t)S_IFMT),
		                                           &attr));
	if (error) {
		rp_reply_error(req, error);
		return;
	}
	rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	rp_entry_fill(server, &dir, &attr, &entry);
	reply_create(server, req, &entry, fi);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_UNLINK);
	struct rp_node dir;
	int error = rp_node_find_to_change(server, parent, &dir);

	if (!error)
		error = rp_fs_unlink(dir.fs, dir.object, rp_name_from(name), NULL);
	if (!error) {
		rp_space_note_removal(server);
		rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	}
	rp_reply_error(req, error);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_RMDIR);
	struct rp_node dir;
	int error = rp_node_find_to_change(server, parent, &dir);

	if (!error)
		error = rp_fs_rmdir(dir.fs, dir.object, rp_name_from(name), NULL);
	if (!error) {
		rp_space_note_removal(server);
		rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	}
	rp_reply_error(req, error);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent, const char *to_name,
                      unsigned int flags)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_RENAME);
	const struct rp_cred cred = cred_of(server, req);
	struct rp_node dir, to_dir;
	int error = rp_node_find_to_change(server, parent, &dir);

	if (!error)
		error = rp_node_find_to_change(server, to_parent, &to_dir);
	/* The hidden directory is not there to be replaced. */
	if (!error && ((parent == FUSE_ROOT_ID && !strcmp(name, RP_CATALOG_NAME)) ||
	               (to_parent == FUSE_ROOT_ID && !strcmp(to_name, RP_CATALOG_NAME))))
		error = -EBUSY;
	if (!error)
		RP_WITH_SPACE(server, error, rp_fs_rename(dir.fs, &cred, dir.object, rp_name_from(name), to_dir.object,
		                                          rp_name_from(to_name), flags));
	if (!error) {
		rp_space_note_removal(server); /* what had the new name, perhaps */
		rp_keep_note_change(server->keep, RP_PAGE_SIZE);
	}
	rp_reply_error(req, error);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_LINK);
	struct fuse_entry_param entry;
	struct rp_node node, dir;
	struct rp_attr attr;
	int error = rp_node_find_to_change(server, ino, &node);

	if (!error)
		error = rp_node_find_to_change(server, parent, &dir);
	if (!error)
		RP_WITH_SPACE(server, error, rp_fs_link(node.fs, node.object, dir.object, rp_name_from(name), true, &attr));
	if (!error) {
		rp_keep_note_change(server->keep, RP_PAGE_SIZE);
		rp_entry_fill(server, &dir, &attr, &entry);
	}
	reply_entry(server, req, error, &entry);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_READLINK);
	char target[4096];
	struct rp_node node;
	int error = rp_node_find(server, ino, &node);

	if (!error)
		error = node.fs ? rp_fs_readlink(node.fs, node.object, target) : -EINVAL;
	if (error)
		rp_reply_error(req, error);
	else
		fuse_reply_readlink(req, target);
}

void rp_names_ops(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->create = op_create;
	ops->tmpfile = op_tmpfile;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
	ops->link = op_link;
	ops->readlink = op_readlink;
}
