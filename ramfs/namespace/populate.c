/* populate.c: fill a filesystem from a directory tree of the host.
 *
 * Depth first, with one directory open at a time: going down opens a name, coming up opens "..", and that it is the same
 * directory as before is verified. So the depth of a tree costs no file descriptors, and nothing is followed out of it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "populate.h"

/* ---- Hard links ---------------------------------------------------------------------------------------------------- */

struct rp_populate_link {
	dev_t device;
	ino_t host;
	rp_object ino;  /* 0: this place is free */
};

struct rp_populate_links {
	struct rp_populate_link *table;
	size_t size, count;     /* size: a power of two */
};

static struct rp_populate_link *link_place(struct rp_populate_link *table, size_t size, const struct stat *st)
{
	size_t at = (st->st_ino * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (size - 1);

	while (table[at].ino != 0 && (table[at].host != st->st_ino || table[at].device != st->st_dev))
		at = (at + 1) & (size - 1);
	return &table[at];
}

static int link_note(struct rp_populating *p, const struct stat *st, rp_object ino)
{
	struct rp_populate_links *links = p->links;

	if (2 * (links->count + 1) > links->size) {
		size_t size = links->size ? links->size * 2 : 256;
		struct rp_populate_link *table = rp_fs_allocate(p->fs, size * sizeof(*table));

		if (!table)
			return -ENOMEM;
		for (size_t i = 0; i < links->size; i++) {
			struct stat key = { .st_dev = links->table[i].device, .st_ino = links->table[i].host };

			if (links->table[i].ino != 0)
				*link_place(table, size, &key) = links->table[i];
		}
		free(links->table);
		links->table = table;
		links->size = size;
	}
	*link_place(links->table, links->size, st) = (struct rp_populate_link){ st->st_dev, st->st_ino, ino };
	links->count++;
	return 0;
}

static rp_object link_known(const struct rp_populating *p, const struct stat *st)
{
	return p->links->size ? link_place(p->links->table, p->links->size, st)->ino : 0;
}

/* ---- Directories in progress ------------------------------------------------------------------------------------------- */

struct level {
	struct level *above;
	rp_object ino;
	struct stat st;
	char *subdirs;          /* names still to be entered, each with its NUL */
	size_t used, room, at;
	char name[RP_NAME_MAX + 1];
};

static int subdir_note(struct rp_populating *p, struct level *level, const char *name)
{
	size_t length = strlen(name) + 1;

	if (level->room - level->used < length) {
		size_t room = level->room ? level->room * 2 : 4096;
		char *larger = rp_fs_allocate(p->fs, room);

		if (!larger)
			return -ENOMEM;
		if (level->used)
			memcpy(larger, level->subdirs, level->used);
		free(level->subdirs);
		level->subdirs = larger;
		level->room = room;
	}
	memcpy(level->subdirs + level->used, name, length);
	level->used += length;
	return 0;
}

static void level_free(struct level *level)
{
	free(level->subdirs);
	free(level);
}

int rp_populate_failed(struct rp_populating *p, const char *what, const char *name, int error)
{
	/* The innermost report is the most precise one. */
	if (p->populate->message[0] == 0)
		snprintf(p->populate->message, sizeof(p->populate->message), "%.300s: %s: %s", name, what, strerror(-error));
	return error;
}

/* ---- One name ------------------------------------------------------------------------------------------------------------ */

static uint32_t device_encode(dev_t device)
{
	uint32_t low = minor(device), high = major(device);

	return (low & 0xff) | high << 8 | (low & ~UINT32_C(0xff)) << 12;
}

static int target_read(int dir, const char *name, char target[RP_SYMLINK_MAX + 1])
{
	ssize_t length = readlinkat(dir, name, target, RP_SYMLINK_MAX + 1);

	if (length < 0)
		return -errno;
	if (length > (ssize_t)RP_SYMLINK_MAX)
		return -ENAMETOOLONG;
	target[length] = 0;
	return 0;
}

static int inode_make(struct rp_populating *p, struct level *level, int dir, const char *name, const struct stat *st,
		      struct rp_attr *attr)
{
	const struct rp_cred cred = { .uid = st->st_uid, .gid = st->st_gid, .fsetid = true };
	char target[RP_SYMLINK_MAX + 1];
	int error = 0;

	if (S_ISLNK(st->st_mode))
		error = target_read(dir, name, target);
	if (!error)
		error = rp_fs_make(p->fs, &cred, level->ino, rp_name_from(name), st->st_mode,
				   S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? device_encode(st->st_rdev) : 0,
				   target, false, attr);
	return error ? rp_populate_failed(p, "cannot be made", name, error) : 0;
}

/* Everything but directories is copied at once; those are made now and filled later. */
static int name_copy(struct rp_populating *p, struct level *level, int dir, const char *name)
{
	struct rp_attr attr;
	struct stat st;
	rp_object known;
	int error;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : rp_populate_failed(p, "cannot be looked at", name, -errno);
	known = st.st_nlink > 1 && !S_ISDIR(st.st_mode) ? link_known(p, &st) : 0;
	if (known) {
		error = rp_fs_link(p->fs, known, level->ino, rp_name_from(name), false, &attr);
		return error ? rp_populate_failed(p, "cannot be linked", name, error) : 0;
	}
	error = inode_make(p, level, dir, name, &st, &attr);
	if (error)
		return error;
	p->populate->file_count++;
	if (S_ISDIR(st.st_mode)) {
		if (st.st_dev == p->device)
			return subdir_note(p, level, name);
		return rp_populate_attributes(p, dir, name, &st, attr.ino);
	}
	if (S_ISREG(st.st_mode))
		error = rp_populate_contents(p, dir, name, &st, attr.ino);
	if (!error)
		error = rp_populate_attributes(p, dir, name, &st, attr.ino);
	if (!error && st.st_nlink > 1)
		error = link_note(p, &st, attr.ino);
	return error;
}

static int names_copy(struct rp_populating *p, struct level *level, int dir)
{
	int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
	DIR *stream = again < 0 ? NULL : fdopendir(again);

	if (!stream) {
		error = -errno;
		if (again >= 0)
			close(again);
		return rp_populate_failed(p, "cannot be read", level->name, error);
	}
	while (!error) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(stream);
		if (!entry) {
			if (errno)
				error = rp_populate_failed(p, "cannot be read", level->name, -errno);
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			error = name_copy(p, level, dir, entry->d_name);
	}
	closedir(stream);
	return error;
}

/* ---- Down and up ----------------------------------------------------------------------------------------------------------- */

static int level_enter(struct rp_populating *p, struct level **top, int *dir, const char *name)
{
	struct level *level = rp_fs_allocate(p->fs, sizeof(*level));
	struct rp_attr attr;
	int below, error;

	if (!level)
		return -ENOMEM;
	snprintf(level->name, sizeof(level->name), "%s", name);
	below = openat(*dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (below < 0 || fstat(below, &level->st)) {
		error = rp_populate_failed(p, "cannot be entered", name, -errno);
		goto failed;
	}
	error = rp_fs_lookup(p->fs, (*top)->ino, rp_name_from(name), false, &attr);
	if (error)
		goto failed;
	level->ino = attr.ino;
	level->above = *top;
	*top = level;
	close(*dir);
	*dir = below;
	return names_copy(p, level, below);
failed:
	if (below >= 0)
		close(below);
	free(level);
	return error;
}

static int level_leave(struct rp_populating *p, struct level **top, int *dir)
{
	struct level *level = *top, *above = level->above;
	struct stat st;
	int up, error;

	up = openat(*dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (up < 0 || fstat(up, &st)) {
		error = rp_populate_failed(p, "cannot be left", level->name, -errno);
	} else if (st.st_dev != above->st.st_dev || st.st_ino != above->st.st_ino) {
		error = rp_populate_failed(p, "was moved while it was read", level->name, -ESTALE);
	} else {
		error = rp_populate_attributes(p, up, level->name, &level->st, level->ino);
		*top = above;
		level_free(level);
		close(*dir);
		*dir = up;
		return error;
	}
	if (up >= 0)
		close(up);
	return error;
}

static int tree_copy(struct rp_populating *p, struct level **top, int *dir)
{
	int error = names_copy(p, *top, *dir);

	while (!error) {
		struct level *level = *top;

		if (level->at < level->used) {
			const char *name = level->subdirs + level->at;

			level->at += strlen(name) + 1;
			error = level_enter(p, top, dir, name);
		} else if (level->above) {
			error = level_leave(p, top, dir);
		} else {
			return rp_populate_attributes(p, *dir, ".", &level->st, level->ino);
		}
	}
	return error;
}

static int populate_run(struct rp_populating *p, const char *path)
{
	struct level *top = rp_fs_allocate(p->fs, sizeof(*top));
	int dir, error;

	if (!top)
		return -ENOMEM;
	top->ino = rp_fs_root(p->fs);
	snprintf(top->name, sizeof(top->name), ".");
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &top->st)) {
		error = rp_populate_failed(p, "cannot be opened", path, -errno);
	} else {
		p->device = top->st.st_dev;
		error = tree_copy(p, &top, &dir);
	}
	if (dir >= 0)
		close(dir);
	while (top) {
		struct level *above = top->above;

		level_free(top);
		top = above;
	}
	return error;
}

static int empty_check(struct rp_op *op, struct rp_fs *fs)
{
	const struct rp_record *record;
	int error = rp_inode_get_dir(op, fs, rp_fs_root(fs), &record);

	return error ? error : rp_record_inode(record)->entry_count ? -ENOTEMPTY : 0;
}

int rp_fs_populate(struct rp_fs *fs, const char *path, struct rp_populate *populate)
{
	struct rp_populate_links links = { .table = NULL };
	struct rp_populating p = { .fs = fs, .populate = populate, .links = &links };
	struct rp_op op;
	int error;

	populate->file_count = 0;
	populate->byte_count = 0;
	populate->message[0] = 0;
	RP_RUN(op, fs, RP_OP_READ, error, empty_check(&op, fs));
	if (error)
		return rp_populate_failed(&p, "the filesystem to be filled", path, error);
	p.buffer = rp_fs_allocate(fs, RP_BYTES_PER_OP);
	p.names = rp_fs_allocate(fs, RP_XATTR_LIST_MAX);
	error = p.buffer && p.names ? populate_run(&p, path) : -ENOMEM;
	if (error)
		rp_populate_failed(&p, "cannot be copied", path, error);
	free(p.buffer);
	free(p.names);
	free(links.table);
	return error;
}
