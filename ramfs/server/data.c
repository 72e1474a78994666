/* data.c: requests about contents: read, write, fsync, fallocate, copy_file_range, lseek.
 *
 * Data go straight between the request's buffer and the frames. Of the writeback cache the server sees only what the
 * kernel sends: it owns size and times of a file with dirty pages, so WRITE requests from it leave the times alone
 * (QUIET), and holes are reported only after its dirty pages have been brought here (DESIGN.md, "Holes"). Without that
 * cache only stores through mappings come so, and then the times are ours to move.
 */
#include <errno.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_OPEN);

	(void)ino;
	if (server->no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->keep_cache = 1;
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	rp_request_begin(req, RP_CALL_RELEASE);
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

ssize_t rp_read(struct rp_server *server, fuse_req_t req, fuse_ino_t number, size_t size, off_t offset, char **buffer)
{
	struct rp_node node;
	int error = rp_node_find(server, number, &node);

	if (error)
		return error;
	if (!node.fs)
		return -EISDIR;
	if (size > RP_REQUEST_BYTES)
		size = RP_REQUEST_BYTES;
	*buffer = rp_request_buffer(server, req, size);
	return *buffer ? rp_fs_read(node.fs, node.object, (uint64_t)offset, *buffer, size) : -ENOMEM;
}

/* Reads of this size are worth another thread's waking up (tens of microseconds). */
#define READ_LARGE (256u << 10)

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_READ);
	char *buffer = NULL;
	ssize_t result;

	(void)fi;
	if (size >= READ_LARGE && rp_later_read(server, req, ino, size, offset))
		return;
	result = rp_read(server, req, ino, size, offset, &buffer);
	if (result < 0)
		rp_reply_error(req, (int)result);
	else
		fuse_reply_buf(req, buffer, (size_t)result);
}

/* Everything, or the error that the rest met. The kernel takes a short answer to a page that it writes back (as it cannot
 * tell whoever wrote it) for a full one: the rest would be lost, and fsync(2) would not tell. */
static ssize_t write_back(struct rp_server *server, const struct rp_node *node, uint64_t offset, const char *from, size_t size,
                          unsigned flags)
{
	size_t done = 0;

	while (done < size) {
		ssize_t result;

		RP_WITH_SPACE(server, result, rp_fs_write(node->fs, node->object, offset + done, from + done, size - done, flags));
		if (result < 0)
			return result;
		done += (size_t)result;
	}
	return (ssize_t)done;
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *from, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_WRITE);
	bool kernel_has_times = fi->writepage && !server->options->write_through;
	unsigned flags = (kernel_has_times ? RP_WRITE_QUIET : 0) | (fi->kill_suidgid ? RP_WRITE_KILLPRIV : 0);
	unsigned phase;
	struct rp_node node;
	ssize_t result;

	rp_write_begin(server, &phase);
	result = rp_node_find_to_change(server, ino, &node);
	if (!result && fi->writepage)
		result = write_back(server, &node, (uint64_t)offset, from, size, flags);
	else if (!result)
		RP_WITH_SPACE(server, result, rp_fs_write(node.fs, node.object, (uint64_t)offset, from, size, flags));
	rp_write_end(server, phase, rp_ring_here(server));
	if (result < 0) {
		rp_reply_error(req, (int)result);
		return;
	}
	rp_keep_note_change(server->keep, (uint64_t)result);
	fuse_reply_write(req, (size_t)result);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_FSYNC);

	(void)ino;
	(void)datasync;
	(void)fi;
	/* The kernel has sent the file's dirty pages before. Where RAM is all there is, it need not ask again. */
	if (!rp_keep_syncs(server->keep))
		fuse_reply_err(req, ENOSYS);
	else if (!rp_later_fsync(server, req))
		rp_reply_error(req, rp_keep_sync(server->keep));
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_FSYNCDIR);

	(void)ino;
	(void)datasync;
	(void)fi;
	if (!rp_keep_syncs(server->keep))
		fuse_reply_err(req, ENOSYS);
	else if (!rp_later_fsync(server, req))
		rp_reply_error(req, rp_keep_sync(server->keep));
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_FALLOCATE);
	struct rp_node node;
	int error = rp_node_find_to_change(server, ino, &node);

	(void)fi;
	/* The kernel has no flag for this request: whoever is not root loses the set-ID bits, as on a write. */
	if (!error)
		RP_WITH_SPACE(server, error, rp_fs_fallocate(node.fs, node.object, mode, (uint64_t)offset, (uint64_t)length,
		                                             fuse_req_ctx(req)->uid != 0));
	if (!error)
		rp_keep_note_change(server->keep, (uint64_t)length);
	rp_reply_error(req, error);
}

/* One request copies no more than this, so that its queue goes on; callers of copy_file_range(2) expect short counts. */
#define COPY_BYTES_MAX (UINT64_C(256) << 20)

static void op_copy(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in, struct fuse_file_info *fi_in,
                    fuse_ino_t ino_out, off_t offset_out, struct fuse_file_info *fi_out, size_t length, int flags)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_COPY);
	struct rp_node from, to;
	ssize_t result = rp_node_find(server, ino_in, &from);

	(void)fi_in;
	(void)fi_out;
	if (!result)
		result = rp_node_find_to_change(server, ino_out, &to);
	/* From a snapshot: the kernel copies the bytes itself when told so. */
	if (!result && from.fs != to.fs)
		result = -EXDEV;
	if (!result && flags)
		result = -EINVAL;
	if (!result)
		RP_WITH_SPACE(server, result, rp_fs_copy(to.fs, from.object, (uint64_t)offset_in, to.object,
		                                         (uint64_t)offset_out,
		                                         length < COPY_BYTES_MAX ? length : COPY_BYTES_MAX));
	if (result < 0) {
		rp_reply_error(req, (int)result);
		return;
	}
	/* As for fallocate(2), the kernel has no flag for this request. */
	if (result > 0 && fuse_req_ctx(req)->uid != 0) {
		struct rp_attr attr = { 0 };
		int error = rp_fs_setattr(to.fs, to.object, RP_SET_KILLPRIV, &attr, &attr);

		if (error) {
			rp_reply_error(req, error);
			return;
		}
	}
	rp_keep_note_change(server->keep, (uint64_t)result);
	fuse_reply_write(req, (size_t)result);
}

int rp_seek(struct rp_server *server, fuse_ino_t number, off_t offset, int whence, uint64_t *out)
{
	struct rp_node node;
	int error = rp_node_find(server, number, &node);

	if (error)
		return error;
	if (!node.fs)
		return -EINVAL;
	if (offset < 0) /* as every file system of Linux has it */
		return -ENXIO;
	return rp_fs_seek(node.fs, node.object, (uint64_t)offset, whence, out);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct rp_server *server = rp_request_begin(req, RP_CALL_LSEEK);
	uint64_t at;
	int error;

	(void)fi;
	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	error = rp_seek(server, ino, offset, whence, &at);
	/* Data just there is true whatever the kernel holds, and so is everything about a snapshot. Whatever says
	 * "hole", the end of the file included, must wait for dirty pages. */
	if ((!error && whence == SEEK_DATA && at == (uint64_t)offset) || (ino & RP_NODE_VIEW) ||
	    (error && error != -ENXIO)) {
		if (error)
			rp_reply_error(req, error);
		else
			fuse_reply_lseek(req, (off_t)at);
		return;
	}
	if (rp_later_lseek(server, req, ino, offset, whence))
		return;
	/* Nobody to ask: programs then read the whole file, which is better than a hole that may be none. */
	fuse_reply_err(req, EOPNOTSUPP);
}

void rp_data_ops(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->release = op_release;
	ops->read = op_read;
	ops->write = op_write;
	ops->fsync = op_fsync;
	ops->fsyncdir = op_fsyncdir;
	ops->fallocate = op_fallocate;
	ops->copy_file_range = op_copy;
	ops->lseek = op_lseek;
}
