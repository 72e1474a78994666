/* from_tar.c: an archive's entries become files of a fresh filesystem.
 *
 * Nothing of the archive is trusted: names that climb out with ".." are refused, missing parents are made, what an
 * earlier entry made under a name gives way to the later one. Times and default ACLs of directories are set when
 * everything is in.
 */
#define _GNU_SOURCE
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mkfs.h"

/* A directory whose times are set at the end. */
struct later {
	rp_object ino;
	struct rp_attr attr;
	void *acl;
	size_t acl_size;
};

struct tar {
	struct rp_filling *filling;
	struct rp_fs *fs;
	struct archive *archive;
	const char *path;       /* of the entry, for messages */
	struct later *later;
	size_t later_count, later_room;
};

static const struct rp_cred root_cred = { .fsetid = true };

__attribute__((format(printf, 3, 4))) static int fault(struct tar *t, int error, const char *format, ...)
{
	char *to = t->filling->message;
	va_list list;

	va_start(list, format);
	vsnprintf(to, sizeof(t->filling->message), format, list);
	va_end(list);
	return error;
}

static int fault_at(struct tar *t, int error)
{
	char *printed = malloc(strlen(t->path) * 4 + 1);

	if (!printed)
		return fault(t, -ENOMEM, "out of memory");
	rp_name_print(t->path, strlen(t->path), printed);
	if (error == -ENOSPC)
		fault(t, error, "%.300s: no space is left: give a larger size with -s", printed);
	else
		fault(t, error, "%.300s: %s", printed, rp_error_text(error));
	free(printed);
	return error;
}

/* ---- Names ---- */

/* The next component of *path, which moves behind it. Length 0: there is none. */
static struct rp_name component(const char **path)
{
	struct rp_name name;

	for (;;) {
		while (**path == '/')
			(*path)++;
		name.bytes = *path;
		name.length = strcspn(*path, "/");
		*path += name.length;
		if (name.length != 1 || name.bytes[0] != '.')
			return name;
	}
}

static bool is_dot_dot(struct rp_name name) { return name.length == 2 && !memcmp(name.bytes, "..", 2); }

/* The directory that holds the last component of the path; makes what is missing. *last has length 0 for the root. */
static int parent_find(struct tar *t, const char *path, rp_object *dir, struct rp_name *last)
{
	struct rp_name name = component(&path), next;
	struct rp_attr attr;
	int error;

	*dir = rp_fs_root(t->fs);
	for (;; name = next) {
		if (is_dot_dot(name))
			return -EINVAL;
		next = component(&path);
		if (!name.length || !next.length)
			break;
		error = rp_fs_lookup(t->fs, *dir, name, false, &attr);
		if (error == -ENOENT)
			error = rp_fs_make(t->fs, &root_cred, *dir, name, S_IFDIR | 0755, 0, NULL, false, &attr);
		if (!error && !S_ISDIR(attr.mode))
			error = -ENOTDIR;
		if (error)
			return error;
		*dir = attr.ino;
	}
	*last = name;
	return 0;
}

/* The inode at an exact path of the archive. */
static int existing_find(struct tar *t, const char *path, struct rp_attr *attr)
{
	struct rp_name name;
	rp_object dir;
	int error = parent_find(t, path, &dir, &name);

	if (error)
		return error;
	return name.length ? rp_fs_lookup(t->fs, dir, name, false, attr) : -EISDIR;
}

/* ---- Attributes ---- */

static void time_take(struct rp_time *to, time_t sec, long nsec)
{
	to->sec = sec;
	to->nsec = nsec >= 0 && nsec < 1000000000 ? (uint32_t)nsec : 0;
}

static int times_set(struct rp_fs *fs, rp_object ino, const struct rp_attr *from)
{
	struct rp_attr ignored;

	return rp_fs_setattr(fs, ino, RP_SET_ATIME | RP_SET_MTIME, from, &ignored);
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) % 16 : -1;
}

/* Archives of libarchive have each attribute twice, and in one of the two notations "%20" stands for a space, which the
 * other's reader takes as it is. Where both are there with the same value, the encoded one was never meant. */
static int xattr_twin_drop(struct tar *t, rp_object ino, const char *name, const void *value, size_t size)
{
	char decoded[256], *to = decoded;
	const char *from = name;
	void *other;
	ssize_t n;
	int error = 0;

	if (!strchr(name, '%') || strlen(name) >= sizeof(decoded))
		return 0;
	while (*from) {
		if (*from == '%' && hex_digit(from[1]) >= 0 && hex_digit(from[2]) >= 0) {
			*to++ = (char)(hex_digit(from[1]) << 4 | hex_digit(from[2]));
			from += 3;
		} else {
			*to++ = *from++;
		}
	}
	*to = 0;
	if (!strcmp(name, decoded))
		return 0;
	other = malloc(size + 1);
	if (!other)
		return -ENOMEM;
	n = rp_fs_xattr_get(t->fs, ino, decoded, other, size);
	if (n == (ssize_t)size && !memcmp(other, value, size))
		error = rp_fs_xattr_remove(t->fs, ino, name);
	free(other);
	return error == -ENODATA ? 0 : error;
}

static int xattrs_set(struct tar *t, rp_object ino, struct archive_entry *entry)
{
	const void *value;
	const char *name;
	size_t size;
	int error;

	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
		/* ACLs come by their own way; what the filesystem knows nothing of has no meaning in it. */
		if (!strncmp(name, "system.", 7))
			continue;
		error = rp_fs_xattr_set(t->fs, ino, name, value, size, 0, false);
		if (error == -EOPNOTSUPP || error == -EPERM)
			continue;
		if (error)
			return error;
	}
	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
		error = xattr_twin_drop(t, ino, name, value, size);
		if (error)
			return error;
	}
	return 0;
}

/* What a default ACL of the parent gave is not the entry's. */
static int acls_clear(struct tar *t, rp_object ino)
{
	static const char *const names[] = { "system.posix_acl_access", "system.posix_acl_default" };
	int error;

	for (unsigned i = 0; i < 2; i++) {
		error = rp_fs_xattr_remove(t->fs, ino, names[i]);
		if (error && error != -ENODATA && error != -EOPNOTSUPP)
			return error;
	}
	return 0;
}

static int later_add(struct tar *t, rp_object ino, const struct rp_attr *attr, void *acl, size_t acl_size)
{
	if (t->later_count == t->later_room) {
		size_t room = t->later_room * 2 + 256;
		struct later *more = realloc(t->later, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		t->later = more;
		t->later_room = room;
	}
	t->later[t->later_count++] = (struct later){ ino, *attr, acl, acl_size };
	return 0;
}

static int acls_set(struct tar *t, rp_object ino, const struct rp_attr *attr, struct archive_entry *entry)
{
	void *acl, *default_acl;
	size_t size, default_size;
	int error = rp_acl_from_entry(entry, false, &acl, &size);

	if (!error && size)
		error = rp_fs_xattr_set(t->fs, ino, "system.posix_acl_access", acl, size, 0, false);
	free(acl);
	if (error || !S_ISDIR(attr->mode))
		return error;
	error = rp_acl_from_entry(entry, true, &default_acl, &default_size);
	if (!error)
		error = later_add(t, ino, attr, default_acl, default_size);
	if (error)
		free(default_acl);
	return error;
}

static int attributes_set(struct tar *t, rp_object ino, struct archive_entry *entry)
{
	struct rp_attr attr = { .mode = archive_entry_mode(entry) }, ignored;
	int error;

	attr.uid = (uint32_t)archive_entry_uid(entry);
	attr.gid = (uint32_t)archive_entry_gid(entry);
	time_take(&attr.mtime, archive_entry_mtime(entry), archive_entry_mtime_nsec(entry));
	attr.atime = attr.mtime;
	if (archive_entry_atime_is_set(entry))
		time_take(&attr.atime, archive_entry_atime(entry), archive_entry_atime_nsec(entry));
	/* Owners first: giving a file away takes set-user-ID from it, and attributes that depend on it. */
	error = rp_fs_setattr(t->fs, ino, RP_SET_UID | RP_SET_GID, &attr, &ignored);
	if (!error)
		error = acls_clear(t, ino);
	if (!error && !S_ISLNK(attr.mode))
		error = rp_fs_setattr(t->fs, ino, RP_SET_MODE, &attr, &ignored);
	if (!error)
		error = xattrs_set(t, ino, entry);
	if (!error)
		error = acls_set(t, ino, &attr, entry);
	return error ? error : times_set(t->fs, ino, &attr);
}

/* ---- Contents ---- */

static int contents_set(struct tar *t, rp_object ino, struct archive_entry *entry)
{
	struct rp_attr attr = { 0 };
	uint64_t end = 0;
	const void *block;
	size_t size;
	int64_t offset;
	ssize_t n;
	int result, error;

	while ((result = archive_read_data_block(t->archive, &block, &size, &offset)) == ARCHIVE_OK ||
	       result == ARCHIVE_WARN) {
		for (size_t at = 0; at < size; at += (size_t)n) {
			size_t piece = size - at < RP_BYTES_PER_OP ? size - at : RP_BYTES_PER_OP;

			n = rp_fs_write(t->fs, ino, (uint64_t)offset + at, (const char *)block + at, piece, 0);
			if (n < 0)
				return (int)n;
			if (!n)
				return -ENOSPC;
		}
		end = (uint64_t)offset + size;
		t->filling->byte_count += size;
		rp_meter_show(t->filling->meter, t->filling->byte_count, 0);
	}
	if (result != ARCHIVE_EOF)
		return -EBADMSG;
	/* A hole at the end is in no block. */
	if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) <= 0 ||
	    (uint64_t)archive_entry_size(entry) <= end)
		return 0;
	attr.size_bytes = (uint64_t)archive_entry_size(entry);
	error = rp_fs_setattr(t->fs, ino, RP_SET_SIZE, &attr, &attr);
	return error;
}

/* ---- Entries ---- */

static int name_clear(struct tar *t, rp_object dir, struct rp_name name, bool for_directory, struct rp_attr *found)
{
	int error = rp_fs_lookup(t->fs, dir, name, false, found);

	if (error == -ENOENT) {
		found->ino = 0;
		return 0;
	}
	if (error || (for_directory && S_ISDIR(found->mode)))
		return error;
	error = S_ISDIR(found->mode) ? rp_fs_rmdir(t->fs, dir, name, NULL) : rp_fs_unlink(t->fs, dir, name, NULL);
	found->ino = 0;
	return error;
}

static int hardlink_make(struct tar *t, rp_object dir, struct rp_name name, struct archive_entry *entry)
{
	struct rp_attr attr, found, ignored;
	int error = existing_find(t, archive_entry_hardlink(entry), &attr);

	if (error)
		return fault(t, -EINVAL, "%.200s: is a link to %.200s, which the archive has not shown", t->path,
		             archive_entry_hardlink(entry));
	error = rp_fs_lookup(t->fs, dir, name, false, &found);
	if (!error && found.ino == attr.ino)
		return 0;
	error = name_clear(t, dir, name, false, &found);
	if (!error)
		error = rp_fs_link(t->fs, attr.ino, dir, name, false, &ignored);
	/* Some formats put the contents into the last link. */
	if (!error && archive_entry_size_is_set(entry) && archive_entry_size(entry) > 0) {
		error = contents_set(t, attr.ino, entry);
		if (!error)
			error = attributes_set(t, attr.ino, entry);
	}
	return error ? fault_at(t, error) : 0;
}

/* Encoded as struct rp_inode says: the kernel's new_encode_dev. */
static uint32_t device_number(struct archive_entry *entry)
{
	uint32_t major = (uint32_t)archive_entry_rdevmajor(entry), minor = (uint32_t)archive_entry_rdevminor(entry);

	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

static int entry_make(struct tar *t, struct archive_entry *entry)
{
	uint32_t mode = archive_entry_mode(entry);
	struct rp_attr attr;
	struct rp_name name;
	rp_object dir;
	int error = parent_find(t, t->path, &dir, &name);

	if (error == -EINVAL)
		return fault(t, error, "%.400s: a name with \"..\" is refused", t->path);
	if (error)
		return fault_at(t, error);
	if (!name.length) { /* the root itself */
		error = S_ISDIR(mode) ? attributes_set(t, dir, entry) : -EISDIR;
		return error ? fault_at(t, error) : 0;
	}
	if (archive_entry_hardlink(entry))
		return hardlink_make(t, dir, name, entry);
	error = name_clear(t, dir, name, S_ISDIR(mode), &attr);
	if (!error && !attr.ino)
		error = rp_fs_make(t->fs, &root_cred, dir, name, mode,
		                   S_ISCHR(mode) || S_ISBLK(mode) ? device_number(entry) : 0,
		                   S_ISLNK(mode) ? archive_entry_symlink(entry) : NULL, false, &attr);
	if (!error && S_ISREG(mode))
		error = contents_set(t, attr.ino, entry);
	if (error == -EBADMSG)
		return fault(t, error, "%.200s: %.200s", t->path, archive_error_string(t->archive));
	if (!error)
		error = attributes_set(t, attr.ino, entry);
	return error ? fault_at(t, error) : 0;
}

static int entries_read(struct tar *t)
{
	struct archive_entry *entry;
	int result, error;

	while ((result = archive_read_next_header(t->archive, &entry)) == ARCHIVE_OK || result == ARCHIVE_WARN) {
		t->path = archive_entry_pathname(entry);
		if (!t->path)
			return fault(t, -EINVAL, "an entry of the archive has no name");
		if (!archive_entry_hardlink(entry) && !archive_entry_filetype(entry))
			return fault(t, -EINVAL, "%.400s: an entry of unknown type", t->path);
		error = entry_make(t, entry);
		if (error)
			return error;
	}
	if (result != ARCHIVE_EOF)
		return fault(t, -EINVAL, "the archive is damaged: %.300s", archive_error_string(t->archive));
	return 0;
}

static int directories_finish(struct tar *t)
{
	for (size_t i = 0; i < t->later_count; i++) {
		struct later *one = &t->later[i];
		int error = 0;

		if (one->acl_size)
			error = rp_fs_xattr_set(t->fs, one->ino, "system.posix_acl_default", one->acl, one->acl_size, 0,
			                        false);
		if (!error)
			error = times_set(t->fs, one->ino, &one->attr);
		/* -ENOENT: a later entry took the directory's place. */
		if (error && error != -ENOENT && error != -ESTALE)
			return fault(t, error, "a directory's attributes: %s", rp_error_text(error));
	}
	return 0;
}

int rp_fill_from_tar(struct rp_filling *filling, const char *path)
{
	struct tar t = { .filling = filling, .fs = filling->fs, .archive = archive_read_new() };
	int error;

	if (!t.archive)
		return fault(&t, -ENOMEM, "out of memory");
	archive_read_support_filter_all(t.archive);
	archive_read_support_format_all(t.archive);
	if (strcmp(path, "-") && access(path, R_OK))
		error = fault(&t, -errno, "%.300s: %s", path, strerror(errno));
	else if (archive_read_open_filename(t.archive, strcmp(path, "-") ? path : NULL, 1 << 16) != ARCHIVE_OK)
		error = fault(&t, -EINVAL, "%.200s: not an archive: %.200s", path, archive_error_string(t.archive));
	else
		error = entries_read(&t);
	if (!error)
		error = directories_finish(&t);
	for (size_t i = 0; i < t.later_count; i++)
		free(t.later[i].acl);
	free(t.later);
	archive_read_free(t.archive);
	return error;
}
