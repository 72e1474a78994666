/* to_tar.c: a tree of an image as a pax archive: hard links, extended attributes, ACLs, holes, devices, nanoseconds. */
#define _GNU_SOURCE
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "mkfs.h"

/* libarchive skips what lies in a hole, but wants to be handed it. This much of nothing at a time. */
#define NOTHING ((size_t)1 << 30)
#define XATTR_MAX 65536u

struct tar {
	struct rp_view *view;
	struct archive *archive;
	struct archive_entry_linkresolver *links;
	size_t skip;            /* of each path: what lies above the tree */
	char *buffer;           /* RP_BYTES_PER_OP bytes */
	char *value;            /* XATTR_MAX bytes */
	const char *nothing;
	unsigned faults;
};

static void fault(struct tar *t, const char *path, const char *what)
{
	char *printed = malloc(strlen(path) * 4 + 1);

	t->faults++;
	rp_say(t->view->program, "%s: %s", printed ? rp_name_print(path, strlen(path), printed) : path, what);
	free(printed);
}

/* The archive cannot be written any more. */
static int broken(struct tar *t)
{
	rp_say(t->view->program, "%s", archive_error_string(t->archive));
	return -EIO;
}

/* ---- Attributes ---- */

static int xattr_take(struct tar *t, struct archive_entry *entry, rp_object ino, const char *name)
{
	ssize_t size = rp_fs_xattr_get(t->view->fs, ino, name, t->value, XATTR_MAX);

	if (size < 0)
		return (int)size;
	if (!strcmp(name, "system.posix_acl_access"))
		return rp_acl_to_entry(entry, false, t->value, (size_t)size);
	if (!strcmp(name, "system.posix_acl_default"))
		return rp_acl_to_entry(entry, true, t->value, (size_t)size);
	archive_entry_xattr_add_entry(entry, name, t->value, (size_t)size);
	return 0;
}

static int xattrs_take(struct tar *t, struct archive_entry *entry, rp_object ino)
{
	ssize_t length = rp_fs_xattr_list(t->view->fs, ino, NULL, 0);
	char *names, *name;
	int error = 0;

	if (length <= 0)
		return (int)length;
	names = malloc((size_t)length + 1);
	if (!names)
		return -ENOMEM;
	length = rp_fs_xattr_list(t->view->fs, ino, names, (size_t)length);
	if (length < 0)
		error = (int)length;
	else
		names[length] = 0;
	for (name = names; !error && name < names + length; name += strlen(name) + 1)
		error = xattr_take(t, entry, ino, name);
	free(names);
	return error;
}

static int symlink_take(struct tar *t, struct archive_entry *entry, rp_object ino)
{
	char target[4096];
	int error = rp_fs_readlink(t->view->fs, ino, target);

	if (!error)
		archive_entry_set_symlink(entry, target);
	return error;
}

/* Where data lies. What cannot be told is taken for data, and then fails where it is read. */
static int holes_take(struct tar *t, struct archive_entry *entry, const struct rp_attr *attr)
{
	uint64_t at = 0, end, start = 0;
	bool is_data, any = false, run = false, sparse = false;
	int error;

	while (at < attr->size_bytes) {
		error = rp_fs_extent(t->view->fs, attr->ino, at, attr->size_bytes, &is_data, &end);
		if (error)
			return error;
		if (is_data && !run)
			start = at;
		if (!is_data && run)
			archive_entry_sparse_add_entry(entry, (int64_t)start, (int64_t)(at - start));
		any = any || is_data;
		sparse = sparse || !is_data;
		run = is_data;
		at = end;
	}
	if (run && sparse)
		archive_entry_sparse_add_entry(entry, (int64_t)start, (int64_t)(attr->size_bytes - start));
	if (!any && attr->size_bytes) /* one hole: an empty extent at the end says so */
		archive_entry_sparse_add_entry(entry, (int64_t)attr->size_bytes, 0);
	return 0;
}

static int entry_fill(struct tar *t, struct archive_entry *entry, const char *path, const struct rp_attr *attr)
{
	int error = 0;

	archive_entry_set_pathname(entry, path);
	archive_entry_set_mode(entry, attr->mode);
	archive_entry_set_uid(entry, attr->uid);
	archive_entry_set_gid(entry, attr->gid);
	archive_entry_set_mtime(entry, attr->mtime.sec, attr->mtime.nsec);
	archive_entry_set_atime(entry, attr->atime.sec, attr->atime.nsec);
	archive_entry_set_ctime(entry, attr->ctime.sec, attr->ctime.nsec);
	archive_entry_set_dev(entry, 1);
	archive_entry_set_ino64(entry, (int64_t)attr->ino);
	archive_entry_set_nlink(entry, attr->nlink);
	archive_entry_set_size(entry, S_ISREG(attr->mode) ? (int64_t)attr->size_bytes : 0);
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode)) {
		archive_entry_set_rdevmajor(entry, attr->rdev >> 8 & 0xfff);
		archive_entry_set_rdevminor(entry, (attr->rdev & 0xff) | (attr->rdev >> 12 & ~0xffu));
	}
	if (S_ISLNK(attr->mode))
		error = symlink_take(t, entry, attr->ino);
	if (!error)
		error = xattrs_take(t, entry, attr->ino);
	if (!error && S_ISREG(attr->mode))
		error = holes_take(t, entry, attr);
	return error;
}

/* ---- Contents ---- */

/* -EIO with nothing said: the file cannot be read; -EPIPE: the archive cannot be written. */
static int nothing_write(struct tar *t, uint64_t length)
{
	while (length) {
		size_t piece = length < NOTHING ? (size_t)length : NOTHING;
		la_ssize_t n = archive_write_data(t->archive, t->nothing, piece);

		if (n <= 0)
			return -EPIPE;
		length -= (uint64_t)n;
	}
	return 0;
}

static int piece_write(struct tar *t, rp_object ino, uint64_t at, size_t length)
{
	ssize_t n = rp_fs_read(t->view->fs, ino, at, t->buffer, length);

	if (n != (ssize_t)length)
		return n < 0 ? (int)n : -EIO;
	return archive_write_data(t->archive, t->buffer, length) == (la_ssize_t)length ? 0 : -EPIPE;
}

static int contents_write(struct tar *t, const struct rp_attr *attr)
{
	uint64_t at = 0, end;
	bool is_data;
	int error;

	while (at < attr->size_bytes) {
		error = rp_fs_extent(t->view->fs, attr->ino, at, attr->size_bytes, &is_data, &end);
		if (error)
			return error;
		if (is_data && end - at > RP_BYTES_PER_OP)
			end = at + RP_BYTES_PER_OP;
		error = is_data ? piece_write(t, attr->ino, at, (size_t)(end - at)) : nothing_write(t, end - at);
		if (error)
			return error;
		at = end;
	}
	return 0;
}

/* ---- Entries ---- */

static int entry_write(struct tar *t, struct archive_entry *entry, const char *path, const struct rp_attr *attr)
{
	struct archive_entry *deferred = NULL;
	int result, error;

	archive_entry_linkify(t->links, &entry, &deferred);
	result = archive_write_header(t->archive, entry);
	if (result == ARCHIVE_FATAL)
		return broken(t);
	if (result < ARCHIVE_WARN) {
		fault(t, path, archive_error_string(t->archive));
		return 0;
	}
	if (!S_ISREG(attr->mode) || archive_entry_hardlink(entry))
		return 0;
	error = contents_write(t, attr);
	if (error == -EPIPE)
		return broken(t);
	if (error) {
		/* The header promised its size. What is missing must not become zeroes: the archive ends here. */
		fault(t, path, rp_error_text(error));
		archive_write_fail(t->archive);
		return error;
	}
	return 0;
}

static int file_write(void *context, const char *path, const struct rp_attr *attr)
{
	struct archive_entry *entry;
	struct tar *t = context;
	/* The directory itself is as long as what is skipped, or shorter by a slash. */
	const char *name = strlen(path) > t->skip ? path + t->skip : ".";
	int error;

	if (S_ISSOCK(attr->mode)) { /* no archive has these */
		rp_say(t->view->program, "%s: is a socket, left out", path);
		return 0;
	}
	entry = archive_entry_new();
	if (!entry)
		return -ENOMEM;
	error = entry_fill(t, entry, name, attr);
	if (error) {
		fault(t, path, rp_error_text(error));
		error = error == -ENOMEM ? error : 0;
	} else {
		error = entry_write(t, entry, path, attr);
	}
	archive_entry_free(entry);
	return error;
}

static int tar_begin(struct tar *t, const char *output)
{
	void *nothing = mmap(NULL, NOTHING, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	t->nothing = nothing == MAP_FAILED ? NULL : nothing;
	t->archive = archive_write_new();
	t->links = archive_entry_linkresolver_new();
	t->buffer = malloc(RP_BYTES_PER_OP);
	t->value = malloc(XATTR_MAX);
	if (!t->nothing || !t->archive || !t->links || !t->buffer || !t->value) {
		rp_say(t->view->program, "%s", rp_error_text(-ENOMEM));
		return -ENOMEM;
	}
	if (archive_write_set_format_pax(t->archive) != ARCHIVE_OK ||
	    archive_write_add_filter_none(t->archive) != ARCHIVE_OK)
		return broken(t);
	archive_entry_linkresolver_set_strategy(t->links, archive_format(t->archive));
	if (archive_write_open_filename(t->archive, output) != ARCHIVE_OK)
		return broken(t);
	return 0;
}

static void tar_end(struct tar *t)
{
	archive_entry_linkresolver_free(t->links);
	archive_write_free(t->archive);
	free(t->buffer);
	free(t->value);
	if (t->nothing)
		munmap((void *)t->nothing, NOTHING);
}

int rp_dump_tar(struct rp_view *view, const char *path, const char *output)
{
	struct tar t = { .view = view };
	struct rp_walk walk = { .view = view, .recursive = true, .each = file_write, .context = &t };
	const char *start = path + strspn(path, "/"), *slash;
	size_t length = strlen(start);
	struct rp_attr attr;
	char *trimmed;
	int error;

	while (length && start[length - 1] == '/')
		length--;
	trimmed = strndup(start, length);
	if (!trimmed)
		return -ENOMEM;
	error = length ? rp_fs_walk(view->fs, trimmed, &attr) : rp_fs_getattr(view->fs, rp_fs_root(view->fs), &attr);
	if (error)
		rp_say(view->program, "%s: %s", path, rp_error_text(error));
	/* A directory's contents stand at the archive's top; a single file stands under its own name. */
	slash = strrchr(trimmed, '/');
	t.skip = !error && S_ISDIR(attr.mode) ? length + (length > 0) : slash ? (size_t)(slash - trimmed) + 1 : 0;
	if (!error)
		error = tar_begin(&t, output);
	if (!error) {
		error = rp_walk_tree(&walk, trimmed, &attr);
		if (!error && archive_write_close(t.archive) != ARCHIVE_OK)
			error = broken(&t);
		if (error == -ENOMEM)
			rp_say(view->program, "%s", rp_error_text(error));
	}
	tar_end(&t);
	free(trimmed);
	return error ? error : t.faults || walk.faults ? -EIO : 0;
}
