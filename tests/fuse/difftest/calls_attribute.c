/* calls_attribute.c: attributes, times, permissions, extended attributes and ACLs, users. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>
#include "difftest.h"

static void said_stat(struct world *w, int result, const struct stat *st)
{
	done(w, result);
	if (!result)
		say_stat(w, st);
}

static void c_stat(struct world *w)
{
	const char *path = any_path(w);
	struct stat st;

	said_stat(w, stat(path, &st), &st);
}

static void c_lstat(struct world *w)
{
	const char *path = any_path(w);
	struct stat st;

	said_stat(w, lstat(path, &st), &st);
}

static void c_fstat(struct world *w)
{
	struct slot *slot = any_slot(w, 0);
	struct stat st;

	said_stat(w, fstat(slot->fd, &st), &st);
}

static void c_fstatat(struct world *w)
{
	static const int flags[] = { 0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_NO_AUTOMOUNT, 1 << 28 };
	int dir = any_dirfd(w), flag = flags[below(w, 5)];
	const char *path = flag == AT_EMPTY_PATH ? "" : any_path(w);
	struct stat st;

	said_stat(w, fstatat(dir, path, &st, flag), &st);
}

static void c_statx(struct world *w)
{
	static const unsigned masks[] = { STATX_BASIC_STATS, STATX_BASIC_STATS | STATX_BTIME, STATX_SIZE, STATX_MTIME,
		0, 1u << 31 };
	static const int flags[] = { 0, AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC, AT_SYMLINK_NOFOLLOW };
	int dir = any_dirfd(w), flag = flags[below(w, 4)];
	const char *path = any_path(w);
	unsigned mask = masks[below(w, 6)], both;
	struct statx st;

	say(w, "mask %x flags %x", mask, flag);
	if (statx(dir, path, flag, mask, &st)) {
		done(w, -1);
		return;
	}
	done(w, 0);
	/* More than was asked for may come; what was asked for must. */
	both = st.stx_mask & mask & (STATX_BASIC_STATS | STATX_BTIME);
	if (flag == AT_STATX_DONT_SYNC && !compares(w, FIELD_UNSYNCED))
		both &= STATX_TYPE | STATX_MODE;
	say(w, " mask %x mode %o", both, st.stx_mode & S_IFMT);
	if (both & STATX_SIZE && (!S_ISDIR(st.stx_mode) || compares(w, FIELD_DIR_SIZE)))
		say(w, " size %llu", (unsigned long long)st.stx_size);
	if (both & STATX_NLINK)
		say(w, " nlink %u uid %u gid %u", st.stx_nlink, st.stx_uid, st.stx_gid);
	if (both & STATX_BTIME)
		say(w, " btime %s", st.stx_btime.tv_sec >= w->start_sec - 86400 ? "given" : "zero");
}

static void c_access(struct world *w)
{
	const char *path = any_path(w);
	int mode = (int)below(w, 9);

	say(w, "%d", mode);
	done(w, access(path, mode));
}

static void c_faccessat2(struct world *w)
{
	static const int flags[] = { 0, AT_EACCESS, AT_EACCESS | AT_SYMLINK_NOFOLLOW, 1 << 28 };
	int dir = any_dirfd(w), flag = flags[below(w, 4)], mode = (int)below(w, 8);
	const char *path = any_path(w);

	say(w, "%d flags %x", mode, flag);
	done(w, syscall(SYS_faccessat2, dir, path, mode, flag));
}

static void c_chmod(struct world *w)
{
	const char *path = any_path(w);
	mode_t mode = any_mode(w, 0777);

	watch_path(w, path);
	done(w, chmod(path, mode));
	show(w);
}

static void c_fchmod(struct world *w)
{
	struct slot *slot = any_slot(w, 0);
	mode_t mode = any_mode(w, 0777);

	watch_fd(w, slot->fd);
	done(w, fchmod(slot->fd, mode));
	show(w);
}

static void c_fchmodat(struct world *w)
{
	int dir = any_dirfd(w);
	const char *path = any_path(w);
	mode_t mode = any_mode(w, 0777);
	int flags = one_in(w, 2) ? AT_SYMLINK_NOFOLLOW : 0;

	say(w, "flags %x", flags);
	done(w, syscall(452 /* fchmodat2 */, dir, path, mode, flags));
}

static uid_t any_uid(struct world *w)
{
	static const uid_t uids[] = { 0, 61001, 61002, 62000, (uid_t)-1, 4000000000u };
	uid_t uid = uids[below(w, 6)];

	say(w, "%u, ", uid);
	return uid;
}

static gid_t any_gid(struct world *w, uid_t uid)
{
	gid_t gid = any_uid(w);

	return uid == (uid_t)-1 && gid == (gid_t)-1 && !compares(w, FIELD_CHOWN_OF_NOTHING) ? 61001 : gid;
}

static void c_chown(struct world *w)
{
	const char *path = any_path(w);
	uid_t uid = any_uid(w);
	gid_t gid = any_gid(w, uid);
	bool follow = one_in(w, 2);

	watch_path(w, path);
	done(w, follow ? chown(path, uid, gid) : lchown(path, uid, gid));
	show(w);
}

static void c_fchown(struct world *w)
{
	struct slot *slot = any_slot(w, 0);
	uid_t uid = any_uid(w);
	gid_t gid = any_gid(w, uid);

	watch_fd(w, slot->fd);
	done(w, fchown(slot->fd, uid, gid));
	show(w);
}

static void c_fchownat(struct world *w)
{
	int dir = any_dirfd(w);
	const char *path = any_path(w);
	uid_t uid = any_uid(w);
	gid_t gid = any_gid(w, uid);

	done(w, fchownat(dir, path, uid, gid, one_in(w, 2) ? AT_SYMLINK_NOFOLLOW : 0));
}

static void c_utimensat(struct world *w)
{
	int dir = any_dirfd(w);
	const char *path = any_path(w);
	struct timespec times[2] = { any_time(w), any_time(w) };
	int flags = one_in(w, 2) ? AT_SYMLINK_NOFOLLOW : 0;

	say(w, "flags %x", flags);
	if (dir == AT_FDCWD)
		watch_path(w, path);
	done(w, utimensat(dir, path, one_in(w, 10) ? NULL : times, flags));
	show(w);
}

static void c_futimens(struct world *w)
{
	struct slot *slot = any_slot(w, one_in(w, 2) ? S_IFREG : 0);
	struct timespec times[2] = { any_time(w), any_time(w) };

	watch_fd(w, slot->fd);
	done(w, futimens(slot->fd, one_in(w, 10) ? NULL : times));
	show(w);
}

static void c_utime(struct world *w)
{
	const char *path = any_path(w);
	struct utimbuf times = { .actime = 5000 + below(w, 1000), .modtime = 7000 + below(w, 1000) };

	watch_path(w, path);
	done(w, utime(path, one_in(w, 4) ? NULL : &times));
	show(w);
}

/* ---- Extended attributes ---- */

struct acl_entry { uint16_t tag, perm; uint32_t id; };
struct acl { uint32_t version; struct acl_entry entries[8]; };

static size_t any_acl(struct world *w, void *to)
{
	struct acl acl = { .version = one_in(w, 20) ? 3 : 2 };
	unsigned count = 0;

#define ACL_ADD(t, i) acl.entries[count++] = (struct acl_entry){ (t), (uint16_t)below(w, one_in(w, 20) ? 16 : 8), (i) }
	if (!one_in(w, 20))
		ACL_ADD(1, (uint32_t)-1);
	if (one_in(w, 2))
		ACL_ADD(2, 61001);
	if (one_in(w, 3))
		ACL_ADD(2, 61002);
	ACL_ADD(4, (uint32_t)-1);
	if (one_in(w, 2))
		ACL_ADD(8, 62000);
	if (count > 2 && !one_in(w, 15))
		ACL_ADD(16, (uint32_t)-1);
	ACL_ADD(32, (uint32_t)-1);
	memcpy(to, &acl, sizeof(acl));
	return 4 + count * 8 - (one_in(w, 30) ? 3 : 0);
}

static const char *any_xattr(struct world *w)
{
	static char long_name[300];
	static const char *const names[] = { "user.a", "user.b", "user.c", "trusted.t", "security.s",
		"security.capability", "system.posix_acl_access", "system.posix_acl_access", "system.posix_acl_default",
		"system.posix_acl_default", "system.other", "bogus", "", "user.", "user.\x01\xfe" };
	const char *name = names[one_in(w, 2) ? below(w, 3) : below(w, 15)];
	size_t length;

	if (one_in(w, 20)) {
		length = one_in(w, 2) ? 255 : 256;
		memset(long_name, 'n', sizeof(long_name));
		memcpy(long_name, "user.", 5);
		long_name[length] = 0;
		name = long_name;
	}
	say_bytes(w, name);
	return name;
}

static size_t any_value(struct world *w, const char *name)
{
	static const uint32_t capability[5] = { 0x02000001, 0x2000, 0, 0, 0 };
	size_t length;

	if (!strncmp(name, "system.posix_acl", 16)) {
		length = any_acl(w, w->data);
	} else if (!strcmp(name, "security.capability")) {
		memcpy(w->data, capability, sizeof(capability));
		length = sizeof(capability);
	} else {
		static const size_t lengths[] = { 0, 1, 30, 255, 4000, 4096, 5000, 20000 };

		length = lengths[below(w, 8)];
		if (one_in(w, 30))
			length = one_in(w, 2) ? 65536 : 65537;
		fill(w, length);
	}
	say(w, "+%zu, ", length);
	return length;
}

static int any_xattr_flags(struct world *w)
{
	int flags = one_in(w, 3) ? 1 + (int)below(w, 4) : 0;

	say(w, "flags %d", flags);
	return flags;
}

static void c_setxattr(struct world *w)
{
	const char *path = any_path(w), *name = any_xattr(w);
	size_t length = any_value(w, name);
	int flags = any_xattr_flags(w);

	watch_path(w, path);
	if (one_in(w, 3))
		done(w, lsetxattr(path, name, w->data, length, flags));
	else
		done(w, setxattr(path, name, w->data, length, flags));
	show(w);
}

static void c_fsetxattr(struct world *w)
{
	struct slot *slot = any_slot(w, one_in(w, 3) ? S_IFDIR : S_IFREG);
	const char *name = any_xattr(w);
	size_t length = any_value(w, name);
	int flags = any_xattr_flags(w);

	watch_fd(w, slot->fd);
	done(w, fsetxattr(slot->fd, name, w->data, length, flags));
	show(w);
}

static void said_xattr(struct world *w, ssize_t n, bool asked_length)
{
	done(w, n);
	if (n > 0 && !asked_length)
		say_data(w, w->data, (size_t)n);
}

static size_t any_room(struct world *w)
{
	size_t room = one_in(w, 4) ? 0 : one_in(w, 4) ? below(w, 30) : 70000;

	say(w, "room %zu", room);
	return room;
}

static void c_getxattr(struct world *w)
{
	const char *path = any_path(w), *name = any_xattr(w);
	size_t room = any_room(w);
	bool follow = one_in(w, 2);

	said_xattr(w, follow ? getxattr(path, name, w->data, room) : lgetxattr(path, name, w->data, room), !room);
}

static void c_fgetxattr(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	const char *name = any_xattr(w);
	size_t room = any_room(w);

	said_xattr(w, fgetxattr(slot->fd, name, w->data, room), !room);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void said_list(struct world *w, ssize_t n, size_t room)
{
	const char *names[1000];
	size_t count = 0, i;
	char *p;

	done(w, n);
	if (!room || n <= 0)
		return;
	for (p = (char *)w->data; p < (char *)w->data + n && count < 1000; p += strlen(p) + 1)
		names[count++] = p;
	qsort(names, count, sizeof(*names), compare_names);
	for (i = 0; i < count; i++)
		say(w, " %.40s", names[i]);
}

static void c_listxattr(struct world *w)
{
	const char *path = any_path(w);
	size_t room = any_room(w);
	bool follow = one_in(w, 2);

	said_list(w, follow ? listxattr(path, (char *)w->data, room) : llistxattr(path, (char *)w->data, room), room);
}

static void c_flistxattr(struct world *w)
{
	struct slot *slot = any_slot(w, 0);
	size_t room = any_room(w);

	said_list(w, flistxattr(slot->fd, (char *)w->data, room), room);
}

static void c_removexattr(struct world *w)
{
	const char *path = any_path(w), *name = any_xattr(w);

	watch_path(w, path);
	done(w, one_in(w, 3) ? lremovexattr(path, name) : removexattr(path, name));
	show(w);
}

static void c_fremovexattr(struct world *w)
{
	struct slot *slot = any_slot(w, S_IFREG);
	const char *name = any_xattr(w);

	watch_fd(w, slot->fd);
	done(w, fremovexattr(slot->fd, name));
	show(w);
}

/* ---- The rest ---- */

static void said_statfs(struct world *w, int result, const struct statfs *st)
{
	done(w, result);
	if (!result)
		say(w, " name %ld block %ld", (long)st->f_namelen, (long)st->f_bsize);
}

static void c_statfs(struct world *w)
{
	const char *path = any_path(w);
	struct statfs st;

	said_statfs(w, statfs(path, &st), &st);
}

static void c_fstatfs(struct world *w)
{
	struct statfs st;

	said_statfs(w, fstatfs(any_slot(w, 0)->fd, &st), &st);
}

static void c_umask(struct world *w)
{
	static const mode_t masks[] = { 0, 022, 077, 0777, 027 };
	mode_t mask = masks[below(w, 5)];

	say(w, "%o", mask);
	w->umask = mask;
	done(w, (long)umask(mask));
}

static void c_user(struct world *w)
{
	unsigned user = one_in(w, 2) ? 0 : below(w, 3);

	if (w->stays_root)
		user = 0;
	say(w, "%u", user);
	become(user);
	done(w, 0);
}

/* The three directories where most of the names are: made again where they were lost, and opened to the unprivileged
 * users, who would meet nothing but -EACCES otherwise. */
static void c_open_up(struct world *w)
{
	static const char *const dirs[] = { "/dir", "/dir/sub", "/sub" };
	static const mode_t modes[] = { 0777, 01777, 02775, 03777 };
	uid_t uid = geteuid();
	struct stat st;
	unsigned i;

	if (seteuid(0))
		_exit(2);
	chmod("/", any_sticky(w, 01777));
	for (i = 0; i < 3; i++) {
		if (lstat(dirs[i], &st) == 0 && !S_ISDIR(st.st_mode))
			unlink(dirs[i]);
		done(w, mkdir(dirs[i], 0777));
		done(w, chmod(dirs[i], any_sticky(w, modes[below(w, 4)])));
	}
	if (seteuid(uid))
		_exit(2);
}

const struct call attribute_calls[] = {
	{ "stat", 12, c_stat },
	{ "lstat", 8, c_lstat },
	{ "fstat", 10, c_fstat },
	{ "fstatat", 8, c_fstatat },
	{ "statx", 10, c_statx },
	{ "access", 8, c_access },
	{ "faccessat2", 8, c_faccessat2 },
	{ "chmod", 18, c_chmod },
	{ "fchmod", 8, c_fchmod },
	{ "fchmodat", 8, c_fchmodat },
	{ "chown", 12, c_chown },
	{ "fchown", 8, c_fchown },
	{ "fchownat", 8, c_fchownat },
	{ "utimensat", 25, c_utimensat },
	{ "futimens", 12, c_futimens },
	{ "utime", 4, c_utime },
	{ "setxattr", 25, c_setxattr },
	{ "fsetxattr", 15, c_fsetxattr },
	{ "getxattr", 15, c_getxattr },
	{ "fgetxattr", 8, c_fgetxattr },
	{ "listxattr", 8, c_listxattr },
	{ "flistxattr", 5, c_flistxattr },
	{ "removexattr", 8, c_removexattr },
	{ "fremovexattr", 5, c_fremovexattr },
	{ "statfs", 3, c_statfs },
	{ "fstatfs", 3, c_fstatfs },
	{ "umask", 5, c_umask },
	{ "user", 20, c_user },
	{ "open_up", 15, c_open_up },
	{ NULL, 0, NULL },
};
