/* calls_name.c: calls on names and directories. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>
#include "difftest.h"

static void c_mkdir(struct world *w)
{
	const char *path = any_path(w);
	mode_t mode = any_mode(w, 0777);

	watch_path(w, path);
	done(w, mkdir(path, mode));
	show(w);
}

static void c_mkdirat(struct world *w)
{
	int dir = any_dirfd(w);
	const char *path = any_path(w);

	done(w, mkdirat(dir, path, any_mode(w, 0777)));
}

static void c_rmdir(struct world *w)
{
	const char *path = any_path(w);

	watch_path(w, path);
	done(w, rmdir(path));
	show(w);
}

static void c_mknod(struct world *w)
{
	static const mode_t types[] = { S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFREG, S_IFDIR, S_IFLNK, 0 };
	/* Devices that may be opened and read: null, zero, full, and numbers that nothing serves. */
	static const unsigned numbers[][2] = { { 1, 3 }, { 1, 5 }, { 1, 7 }, { 4095, 1048575 }, { 511, 70000 } };
	const char *path = any_path(w);
	mode_t mode = any_mode(w, 0777) & 07777;
	mode_t type = types[below(w, 8)];
	unsigned number = below(w, 5);
	dev_t device;

	if (type == S_IFBLK)
		number = 3 + number % 2;
	device = makedev(numbers[number][0], numbers[number][1]);
	say(w, "type %o, device %u", type, number);
	watch_path(w, path);
	if (one_in(w, 4))
		done(w, mknodat(any_dirfd(w), path, type | mode, device));
	else
		done(w, mknod(path, type | mode, device));
	show(w);
}

static void c_bind(struct world *w)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = any_path(w);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", path);
	if (!address.sun_path[0]) {
		done(w, 0);
	} else {
		watch_path(w, address.sun_path);
		done(w, bind(fd, (struct sockaddr *)&address, sizeof(address)));
		show(w);
	}
	close(fd);
}

static void c_link(struct world *w)
{
	const char *from = any_path(w), *to = any_path(w);

	watch_path(w, from);
	watch_path(w, to);
	done(w, link(from, to));
	show(w);
}

static void c_linkat(struct world *w)
{
	static const int flags[] = { 0, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, 1 << 29 };
	int flag = flags[below(w, 4)];
	int from_dir = flag == AT_EMPTY_PATH && !one_in(w, 4) ? any_slot(w, S_IFREG)->fd : any_dirfd(w);
	const char *from = flag == AT_EMPTY_PATH && !one_in(w, 4) ? "" : any_path(w);
	int to_dir = any_dirfd(w);
	const char *to = any_path(w);

	say(w, "flags %x", flag);
	watch_path(w, to);
	done(w, linkat(from_dir, from, to_dir, to, flag));
	show(w);
}

static void c_symlink(struct world *w)
{
	char *target = w->paths[w->path_next++ % 4];
	const char *path;
	size_t length;

	if (one_in(w, 6)) {
		length = one_in(w, 2) ? 80 + below(w, 16) : 4090 + below(w, 8);
		memset(target, 'x', length);
		target[length] = 0;
	} else {
		snprintf(target, sizeof(w->paths[0]), "%s", any_path(w));
	}
	path = any_path(w);
	watch_path(w, path);
	done(w, one_in(w, 4) ? symlinkat(target, any_dirfd(w), path) : symlink(target, path));
	show(w);
}

static void c_readlink(struct world *w)
{
	const char *path = any_path(w);
	char target[4200];
	size_t room = one_in(w, 4) ? below(w, 10) : sizeof(target);
	ssize_t n = one_in(w, 3) ? readlinkat(any_dirfd(w), path, target, room) : readlink(path, target, room);

	done(w, n);
	if (n > 0)
		say_data(w, target, (size_t)n);
}

static void c_unlink(struct world *w)
{
	const char *path = any_path(w);

	watch_path(w, path);
	done(w, unlink(path));
	show(w);
}

static void c_unlinkat(struct world *w)
{
	int dir = any_dirfd(w);
	const char *path = any_path(w);
	int flags = one_in(w, 10) ? 1 : one_in(w, 2) ? AT_REMOVEDIR : 0;

	say(w, "flags %x", flags);
	done(w, unlinkat(dir, path, flags));
}

static void c_remove_tree(struct world *w)
{
	const char *path = any_path(w);
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && strcmp(path, ".") && !strstr(path, ".."))
		remove_below(path);
	done(w, 0);
	watch_path(w, path);
	show(w);
}

static void c_rename(struct world *w)
{
	const char *from = any_path(w), *to = any_path(w);

	watch_path(w, from);
	watch_path(w, to);
	done(w, rename(from, to));
	show(w);
}

static void c_renameat2(struct world *w)
{
	static const unsigned flags[] = { 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT,
		RENAME_NOREPLACE | RENAME_EXCHANGE, RENAME_WHITEOUT | RENAME_EXCHANGE,
		RENAME_WHITEOUT | RENAME_NOREPLACE, 1 << 10 };
	int from_dir = any_dirfd(w);
	const char *from = any_path(w);
	int to_dir = any_dirfd(w);
	const char *to = any_path(w);
	unsigned flag = flags[one_in(w, 3) ? below(w, 8) : below(w, 4)];

	say(w, "flags %x", flag);
	watch_path(w, from);
	watch_path(w, to);
	done(w, renameat2(from_dir, from, to_dir, to, flag));
	show(w);
}

/* ---- Directories ---- */

struct linux_dirent64 {
	uint64_t ino;
	int64_t next;
	uint16_t length;
	uint8_t type;
	char name[];
};

struct listing {
	char (*names)[264];
	size_t count, room;
	int64_t last_next;      /* the position behind the last name that was taken */
};

static void listing_add(struct listing *listing, unsigned type, const char *name)
{
	if (listing->count == listing->room) {
		listing->room = listing->room * 2 + 64;
		listing->names = realloc(listing->names, listing->room * sizeof(*listing->names));
		if (!listing->names)
			_exit(2);
	}
	snprintf(listing->names[listing->count++], sizeof(*listing->names), "%u %.255s", type, name);
}

/* Read names through a buffer of `size`; stop after `most`, which gives a position within a buffer. */
static long listing_read(struct listing *listing, int fd, size_t size, size_t most)
{
	char buffer[8192];
	long n, at;

	if (size > sizeof(buffer))
		size = sizeof(buffer);
	while (listing->count < most && (n = syscall(SYS_getdents64, fd, buffer, size)) != 0) {
		if (n < 0)
			return n;
		for (at = 0; at < n && listing->count < most;) {
			const struct linux_dirent64 *entry = (const void *)(buffer + at);

			listing_add(listing, entry->type, entry->name);
			listing->last_next = entry->next;
			at += entry->length;
		}
	}
	return 0;
}

static int compare_entries(const void *a, const void *b) { return strcmp(a, b); }

static void listing_say(struct world *w, struct listing *listing)
{
	uint64_t sum = 0;
	size_t i;

	if (listing->count)
		qsort(listing->names, listing->count, sizeof(*listing->names), compare_entries);
	for (i = 0; i < listing->count; i++) {
		if (i && !strcmp(listing->names[i], listing->names[i - 1]))
			say(w, " twice: %s", listing->names[i]);
		sum = hash(listing->names[i], strlen(listing->names[i]), sum);
		if (i < 20)
			say(w, " %.20s", listing->names[i]);
	}
	say(w, " names %zu:%016llx", listing->count, (unsigned long long)sum);
	free(listing->names);
}

static void c_getdents(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFDIR);
	static const size_t sizes[] = { 10, 300, 1000, 8192 };
	size_t size = sizes[below(w, 4)], part = below(w, 6);
	struct listing listing = { 0 };
	long result;

	say(w, "size %zu stop %zu", size, part);
	if (slot->type == S_IFDIR && !(slot->flags & O_PATH))
		lseek(slot->fd, 0, SEEK_SET);
	result = listing_read(&listing, slot->fd, size, part);
	if (!result && listing.count && listing.count == part) {
		lseek(slot->fd, listing.last_next, SEEK_SET);
		result = listing_read(&listing, slot->fd, 8192, SIZE_MAX);
	} else if (!result) {
		result = listing_read(&listing, slot->fd, 8192, SIZE_MAX);
	}
	done(w, result);
	listing_say(w, &listing);
}

/* Names come and go between two parts of a listing: those that stay are seen once. The names that come and go begin
 * with "tmp" and are left out of what is compared. */
static void c_getdents_change(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFDIR);
	unsigned count = below(w, 30), stop = below(w, 30), i;
	struct listing listing = { 0 }, kept = { 0 };
	char name[32];
	long result;

	say(w, "count %u stop %u", count, stop);
	if (slot->type != S_IFDIR || slot->flags & O_PATH) {
		done(w, 0);
		return;
	}
	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "tmp%u", i);
		close(openat(slot->fd, name, O_CREAT | O_RDWR | O_EXCL, 0600));
	}
	lseek(slot->fd, 0, SEEK_SET);
	result = listing_read(&listing, slot->fd, 600, stop);
	if (!result && listing.count)
		lseek(slot->fd, listing.last_next, SEEK_SET);
	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "tmp%u", i);
		unlinkat(slot->fd, name, 0);
		snprintf(name, sizeof(name), "tmpx%u", i);
		close(openat(slot->fd, name, O_CREAT | O_RDWR | O_EXCL, 0600));
	}
	if (w->reference && !compares(w, FIELD_LOST_NAMES)) { /* what is there, not what a listing in parts shows */
		listing.count = 0;
		lseek(slot->fd, 0, SEEK_SET);
	}
	if (!result)
		result = listing_read(&listing, slot->fd, 600, SIZE_MAX);
	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "tmpx%u", i);
		unlinkat(slot->fd, name, 0);
	}
	for (i = 0; i < listing.count; i++)
		if (!strstr(listing.names[i], " tmp"))
			listing_add(&kept, 0, listing.names[i]);
	free(listing.names);
	done(w, result);
	listing_say(w, &kept);
}

static void c_chdir(struct world *w)
{
	char path[6200];

	if (one_in(w, 2)) {
		done(w, chdir("/"));
	} else if (one_in(w, 3)) {
		done(w, fchdir(any_slot(w, S_IFDIR)->fd));
	} else {
		done(w, chdir(any_path(w)));
	}
	say(w, " at ");
	say_bytes(w, getcwd(path, sizeof(path)) ? path : strerrorname_np(errno));
}

static void c_getcwd(struct world *w)
{
	char path[6200];
	char *cwd = getcwd(path, one_in(w, 5) ? 1 + below(w, 4) : sizeof(path));

	done(w, cwd ? 0 : -1);
	if (cwd)
		say_bytes(w, cwd);
}

/* A handle that was made is opened at once, and leads to the same file. */
static void c_handle(struct world *w)
{
	union { struct file_handle handle; char room[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } h;
	const char *path = any_path(w);
	int flags = one_in(w, 3) ? AT_SYMLINK_FOLLOW : 0, mount_id, root, fd;
	struct stat a, b;

	memset(&h, 0, sizeof(h));
	h.handle.handle_bytes = one_in(w, 10) ? 1 : MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, path, &h.handle, &mount_id, flags) < 0) {
		done(w, -1);
		return;
	}
	root = open("/", O_RDONLY | O_DIRECTORY);
	fd = open_by_handle_at(root, &h.handle, O_PATH);
	done(w, fd < 0 ? -1 : 0);
	if (fd >= 0 && fstat(fd, &a) == 0 && fstatat(AT_FDCWD, path, &b, flags ? 0 : AT_SYMLINK_NOFOLLOW) == 0) {
		say(w, a.st_ino == b.st_ino ? " same file" : " another file");
		say_stat(w, &a);
	}
	if (fd >= 0)
		close(fd);
	if (root >= 0)
		close(root);
}

/* A chain of symbolic links, one longer or shorter than what may be followed. */
static void c_symlink_chain(struct world *w)
{
	unsigned count = 37 + below(w, 6), i;
	char name[32], target[32];
	struct stat st;

	if (mkdir("/chain", 0777) && errno != EEXIST) {
		done(w, -1);
		return;
	}
	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "/chain/%u", i);
		snprintf(target, sizeof(target), i + 1 < count ? "%u" : "..", i + 1);
		if (symlink(target, name))
			break;
	}
	say(w, "count %u", count);
	done(w, stat("/chain/0", &st));
	remove_below("/chain");
	rmdir("/chain");
}

const struct call name_calls[] = {
	{ "mkdir", 30, c_mkdir },
	{ "mkdirat", 12, c_mkdirat },
	{ "rmdir", 12, c_rmdir },
	{ "mknod", 15, c_mknod },
	{ "bind", 4, c_bind },
	{ "link", 15, c_link },
	{ "linkat", 12, c_linkat },
	{ "symlink", 15, c_symlink },
	{ "readlink", 10, c_readlink },
	{ "unlink", 25, c_unlink },
	{ "unlinkat", 15, c_unlinkat },
	{ "remove_tree", 5, c_remove_tree },
	{ "rename", 25, c_rename },
	{ "renameat2", 25, c_renameat2 },
	{ "getdents", 12, c_getdents },
	{ "getdents_change", 5, c_getdents_change },
	{ "chdir", 10, c_chdir },
	{ "getcwd", 5, c_getcwd },
	{ "handle", 8, c_handle },
	{ "symlink_chain", 1, c_symlink_chain },
	{ NULL, 0, NULL },
};
