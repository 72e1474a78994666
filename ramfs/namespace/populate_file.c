/* populate_file.c: one inode of the host copied: contents with their holes, attributes, owner, mode and times. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "populate.h"

/* ---- Contents ------------------------------------------------------------------------------------------------------ */

static int piece_write(struct rp_populating *p, rp_object ino, uint64_t offset, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t part = rp_fs_write(p->fs, ino, offset + done, p->buffer + done, size - done, 0);

		if (part < 0)
			return (int)part;
		done += (size_t)part;
	}
	p->populate->byte_count += size;
	if (p->populate->progress)
		p->populate->progress(p->populate->context, p->populate);
	return 0;
}

/* Copy [at, end) of the host's file, which may end earlier than it said. */
static int data_copy(struct rp_populating *p, int file, uint64_t at, uint64_t end, rp_object ino)
{
	while (at < end) {
		size_t size = end - at < RP_BYTES_PER_OP ? end - at : RP_BYTES_PER_OP;
		ssize_t got = pread(file, p->buffer, size, (off_t)at);
		int error;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return 0;
		error = piece_write(p, ino, at, (size_t)got);
		if (error)
			return error;
		at += (uint64_t)got;
	}
	return 0;
}

static int contents_copy(struct rp_populating *p, int file, uint64_t size_bytes, rp_object ino)
{
	uint64_t at = 0;

	while (at < size_bytes) {
		off_t data = lseek(file, (off_t)at, SEEK_DATA), hole;
		int error;

		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0) {
			/* A filesystem without SEEK_DATA: all of it is data. */
			data = (off_t)at;
			hole = (off_t)size_bytes;
		} else {
			hole = lseek(file, data, SEEK_HOLE);
			if (hole <= data)
				hole = (off_t)size_bytes;
		}
		error = data_copy(p, file, (uint64_t)data, (uint64_t)hole, ino);
		if (error)
			return error;
		at = (uint64_t)hole;
	}
	return 0;
}

int rp_populate_contents(struct rp_populating *p, int dir, const char *name, const struct stat *st, rp_object ino)
{
	struct rp_attr size = { .size_bytes = (uint64_t)st->st_size };
	int file, error;

	if (st->st_size == 0)
		return 0;
	file = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);
	if (file < 0 && errno == EPERM)
		file = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (file < 0)
		return rp_populate_failed(p, "cannot be opened", name, -errno);
	error = contents_copy(p, file, (uint64_t)st->st_size, ino);
	if (!error)
		error = rp_fs_setattr(p->fs, ino, RP_SET_SIZE, &size, NULL);
	close(file);
	return error ? rp_populate_failed(p, "cannot be copied", name, error) : 0;
}

/* ---- Attributes ---------------------------------------------------------------------------------------------------- */

static int attribute_copy(struct rp_populating *p, const char *path, const char *attribute, rp_object ino)
{
	ssize_t size = lgetxattr(path, attribute, p->buffer, RP_XATTR_VALUE_MAX);
	int error;

	/* Gone since it was listed, or not for this user's eyes. */
	if (size < 0)
		return errno == ENODATA || errno == EPERM || errno == EACCES || errno == EOPNOTSUPP ? 0 : -errno;
	error = rp_fs_xattr_set(p->fs, ino, attribute, p->buffer, (size_t)size, 0, false);
	/* Names of namespaces that only the host's filesystem knows. */
	return error == -EOPNOTSUPP ? 0 : error;
}

/* Through /proc/self/fd, because there is no lgetxattrat() in most kernels; the last component is never followed. */
static int attributes_copy(struct rp_populating *p, int dir, const char *name, rp_object ino)
{
	char path[sizeof("/proc/self/fd//") + 3 * sizeof(int) + RP_NAME_MAX];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	length = llistxattr(path, p->names, RP_XATTR_LIST_MAX);
	if (length < 0)
		return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
	for (const char *at = p->names; at < p->names + length; at += strlen(at) + 1) {
		int error = attribute_copy(p, path, at, ino);

		if (error)
			return error;
	}
	return 0;
}

int rp_populate_attributes(struct rp_populating *p, int dir, const char *name, const struct stat *st, rp_object ino)
{
	struct rp_attr attr = {
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.atime = { st->st_atim.tv_sec, (uint32_t)st->st_atim.tv_nsec },
		.mtime = { st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec },
	};
	int error;

	/* The owner first: changing it takes set-ID bits and capabilities away. An ACL sets the mode it stands for. */
	error = rp_fs_setattr(p->fs, ino, RP_SET_UID | RP_SET_GID | RP_SET_MODE, &attr, NULL);
	if (!error)
		error = attributes_copy(p, dir, name, ino);
	if (!error)
		error = rp_fs_setattr(p->fs, ino, RP_SET_MODE | RP_SET_ATIME | RP_SET_MTIME, &attr, NULL);
	return error ? rp_populate_failed(p, "its attributes cannot be copied", name, error) : 0;
}
