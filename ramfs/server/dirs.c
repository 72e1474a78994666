/* dirs.c: reading directories. Without open requests there is no state between two calls: the cookie says all. */
#include <errno.h>
#include <string.h>
#include "ramfs/server/internal.h"

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_OPENDIR);

	(void)ino;
	if (server->no_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	fuse_reply_open(req, fi);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	rp_request_begin(req, RP_CALL_RELEASEDIR);
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

struct listing {
	struct rp_server *server;
	fuse_req_t req;
	const struct rp_node *dir;
	char *buffer;
	size_t used, size;
	bool plus;
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static int listing_add(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct listing *l = context;
	struct fuse_entry_param entry;
	char text[256];
	size_t space = l->size - l->used, need;

	memcpy(text, name.bytes, name.length);
	text[name.length] = 0;
	rp_entry_fill(l->server, l->dir, attr, &entry);
	if (l->plus) {
		/* A node of 0 says that "." and ".." are no lookups. */
		if (is_dots(text))
			entry.ino = 0;
		need = fuse_add_direntry_plus(l->req, l->buffer + l->used, space, text, &entry, (off_t)next_cookie);
	} else {
		need = fuse_add_direntry(l->req, l->buffer + l->used, space, text, &entry.attr, (off_t)next_cookie);
	}
	if (need > space)
		return 1;
	l->used += need;
	if (l->plus && l->dir->kind == RP_NODE_IN_VIEW && entry.ino)
		rp_view_hold(&l->server->views, l->dir->view);
	return 0;
}

/* The layout of an answer to readdirplus (struct fuse_direntplus of <linux/fuse.h>): 128 bytes of struct
 * fuse_entry_out, which begins with the node, then struct fuse_dirent: ino, off, namelen, type, name, padded to 8
 * bytes. */
#define ENTRY_OUT_SIZE 128
#define DIRENT_NAME_OFFSET 24
#define DIRENT_NAMELEN_OFFSET 16

/* The answer did not arrive: none of its lookups counts. */
static void listing_forget(const struct listing *l)
{
	for (size_t at = 0; at + ENTRY_OUT_SIZE + DIRENT_NAME_OFFSET <= l->used;) {
		uint64_t node;
		uint32_t length;

		memcpy(&node, l->buffer + at, sizeof(node));
		memcpy(&length, l->buffer + at + ENTRY_OUT_SIZE + DIRENT_NAMELEN_OFFSET, sizeof(length));
		if (node)
			rp_node_forget(l->server, node, 1);
		at += (ENTRY_OUT_SIZE + DIRENT_NAME_OFFSET + length + 7) & ~(size_t)7;
	}
}

static void read_directory(struct rp_server *server, fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie,
                           bool plus)
{
	struct listing l = {
		.server = server, .req = req, .size = size < RP_REQUEST_BYTES ? size : RP_REQUEST_BYTES, .plus = plus
	};
	struct rp_node dir;
	ssize_t result = rp_node_find(server, ino, &dir);

	l.dir = &dir;
	if (!result) {
		l.buffer = rp_request_buffer(server, req, l.size);
		result = l.buffer ? 0 : -ENOMEM;
	}
	if (!result && dir.kind == RP_NODE_IS_CATALOG) {
		result = rp_catalog_read(server, req, cookie, l.buffer, l.size, plus);
		l.used = result > 0 ? (size_t)result : 0;
	} else if (!result) {
		result = rp_fs_readdir(dir.fs, dir.object, (uint64_t)cookie, true, plus && dir.kind == RP_NODE_LIVE,
		                       listing_add, &l);
	}
	/* What was found before an error is told first; the error comes with the next call. */
	if (result < 0 && !l.used)
		rp_reply_error(req, (int)result);
	else if (fuse_reply_buf(req, l.buffer, l.used) && plus)
		listing_forget(&l);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
	(void)fi;
	read_directory(rp_request_begin(req, RP_CALL_READDIR), req, ino, size, cookie, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
	(void)fi;
	read_directory(rp_request_begin(req, RP_CALL_READDIRPLUS), req, ino, size, cookie, true);
}

void rp_dirs_ops(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = op_opendir;
	ops->releasedir = op_releasedir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
}
