/* world.c: random choices of one worker, and how a call becomes a line of text. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include "difftest.h"

/* ---- Random choices ---- */

uint64_t any(struct world *w)
{
	uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

unsigned below(struct world *w, unsigned n) { return (unsigned)(any(w) % n); }
bool one_in(struct world *w, unsigned n) { return below(w, n) == 0; }

bool compares(const struct world *w, enum field field)
{
	const struct allowed *a;

	for (a = allowed_differences; a->reason; a++)
		if (a->field == field)
			return w->strict;
	return true;
}

/* Few names, so that calls meet each other's files. */
const char *any_name(struct world *w)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "dir", "sub" };
	char *to = w->paths[w->path_next++ % 4];

	switch (below(w, 60)) {
	case 0:
		memset(to, 'L', 255);
		to[255] = 0;
		return to;
	case 1:
		memset(to, 'M', 256);
		to[256] = 0;
		return to;
	case 2:
		return "\x01\xff\n \\";
	case 3:
		return ".hidden";
	case 4:
		return one_in(w, 2) ? "." : "..";
	default:
		return names[below(w, sizeof(names) / sizeof(*names))];
	}
}

static const char *odd_path(struct world *w)
{
	char *to = w->paths[w->path_next++ % 4];
	size_t length, i;

	switch (below(w, 10)) {
	case 0:
		return "";
	case 1:
		return "/";
	case 2:
		return "..";
	case 3:
		return ".";
	case 4: /* one more and one less than the longest path */
		length = 4093 + below(w, 5);
		for (i = 0; i < length; i++)
			to[i] = i % 2 ? '/' : '.';
		to[length] = 0;
		return to;
	case 5:
		snprintf(to, sizeof(w->paths[0]), "%s/", any_name(w));
		return to;
	case 6:
		snprintf(to, sizeof(w->paths[0]), "%s/.", any_name(w));
		return to;
	case 7:
		snprintf(to, sizeof(w->paths[0]), "%s/../%s", any_name(w), any_name(w));
		return to;
	case 8:
		snprintf(to, sizeof(w->paths[0]), "//dir///%s", any_name(w));
		return to;
	default:
		snprintf(to, sizeof(w->paths[0]), "%s/..", any_name(w));
		return to;
	}
}

const char *any_path(struct world *w)
{
	const char *path;
	char *to;
	unsigned depth;

	if (one_in(w, 25)) {
		path = odd_path(w);
	} else {
		to = w->paths[w->path_next++ % 4];
		to[0] = 0;
		if (one_in(w, 3))
			strcat(to, "/");
		for (depth = below(w, 3); depth; depth--) {
			strcat(to, one_in(w, 8) ? any_name(w) : one_in(w, 2) ? "dir" : "sub");
			strcat(to, "/");
		}
		strcat(to, any_name(w));
		path = to;
	}
	say_bytes(w, path);
	return path;
}

int any_dirfd(struct world *w)
{
	if (!one_in(w, 3)) {
		say(w, "AT_FDCWD, ");
		return AT_FDCWD;
	}
	return any_slot(w, one_in(w, 10) ? 0 : S_IFDIR)->fd;
}

struct slot *any_slot(struct world *w, mode_t type)
{
	unsigned i = below(w, SLOT_COUNT), tries;

	if (type && !one_in(w, 30))
		for (tries = 0; tries < SLOT_COUNT && w->slots[i].type != type; tries++)
			i = (i + 1) % SLOT_COUNT;
	say(w, "#%u, ", i);
	return &w->slots[i];
}

int64_t any_offset(struct world *w)
{
	int64_t offset;

	switch (below(w, 40)) {
	case 0:
		offset = -1 - (int64_t)below(w, 5000);
		break;
	case 1:
		offset = (INT64_C(1) << 40) + below(w, 9000);
		break;
	case 2:
		offset = INT64_MAX - below(w, 9000);
		break;
	case 3 ... 9:
		offset = 0;
		break;
	case 10 ... 20:
		offset = (int64_t)below(w, 40) * 4096 + (int64_t)below(w, 3) - (one_in(w, 2) ? 1 : 0);
		break;
	case 21 ... 24:
		offset = below(w, 400000);
		break;
	default:
		offset = below(w, 20000);
	}
	say(w, "@%lld, ", (long long)offset);
	return offset;
}

size_t any_length(struct world *w)
{
	size_t length;

	switch (below(w, 20)) {
	case 0:
		length = 0;
		break;
	case 1:
		length = 100000 + below(w, 300000);
		break;
	case 2 ... 6:
		length = 4096 * (1 + (size_t)below(w, 8));
		break;
	case 7 ... 12:
		length = 1 + below(w, 40);
		break;
	default:
		length = below(w, 9000);
	}
	say(w, "+%zu, ", length);
	return length;
}

mode_t any_sticky(const struct world *w, mode_t mode)
{
	return w->stays_root && !compares(w, FIELD_STICKY_FOR_ROOT) ? mode & ~(mode_t)S_ISVTX : mode;
}

mode_t any_mode(struct world *w, mode_t usual)
{
	mode_t mode = one_in(w, 2) ? usual : below(w, 010000);

	if (!(mode & ~w->umask & S_IXGRP) && !compares(w, FIELD_SGID_WITHOUT_X))
		mode &= ~(mode_t)S_ISGID;
	mode = any_sticky(w, mode);
	say(w, "mode %o, ", mode);
	return mode;
}

struct timespec any_time(struct world *w)
{
	static const int64_t odd[] = { 0, -1, 1, -3000000000, INT64_C(1) << 31, INT64_C(1) << 33, 253402300800 };
	struct timespec t;

	t.tv_sec = one_in(w, 8) ? odd[below(w, 7)] : 1000000 + (int64_t)below(w, 100000);
	t.tv_nsec = one_in(w, 4) ? 0 : below(w, 1000000000);
	switch (below(w, 12)) {
	case 0:
		t.tv_nsec = UTIME_NOW;
		break;
	case 1:
		t.tv_nsec = UTIME_OMIT;
		break;
	case 2:
		t.tv_nsec = one_in(w, 5) ? 1000000000 : t.tv_nsec;
		break;
	}
	say(w, "t=%lld.%ld, ", (long long)t.tv_sec, t.tv_nsec);
	return t;
}

void fill(struct world *w, size_t length)
{
	uint64_t x = any(w);
	size_t i;

	for (i = 0; i < length; i++)
		w->data[i] = (uint8_t)(x * (i / 8 + 1) >> i % 8 * 8 | 1);
	if (one_in(w, 8))
		memset(w->data, 0, length);
}

void become(unsigned user)
{
	static const gid_t groups[3][2] = { { 0, 0 }, { 61001, 62000 }, { 61002, 62000 } };
	static const uid_t uids[3] = { 0, 61001, 61002 };

	if (seteuid(0) || setgroups(user ? 2 : 0, groups[user]) || setegid(groups[user][0]) || seteuid(uids[user])) {
		perror("difftest: cannot change the user");
		_exit(2);
	}
}

/* ---- The record ---- */

void say(struct world *w, const char *format, ...)
{
	size_t room = RECORD_MAX - w->record_length;
	va_list list;
	int n;

	va_start(list, format);
	n = vsnprintf(w->record + w->record_length, room, format, list);
	va_end(list);
	if (n > 0)
		w->record_length += (size_t)n < room ? (size_t)n : room - 1;
}

void say_bytes(struct world *w, const char *bytes)
{
	size_t i, length = strlen(bytes);

	say(w, "\"");
	for (i = 0; i < length && i < 60; i++)
		if (bytes[i] >= ' ' && bytes[i] < 127)
			say(w, "%c", bytes[i]);
		else
			say(w, "\\x%02x", (unsigned char)bytes[i]);
	say(w, length > 60 ? "...%zu\", " : "\", ", length);
}

uint64_t hash(const void *bytes, size_t length, uint64_t start)
{
	const uint8_t *p = bytes;
	uint64_t h = start ^ UINT64_C(0xcbf29ce484222325), word;

	for (; length >= 8; p += 8, length -= 8) {
		memcpy(&word, p, 8);
		h = (h ^ word) * UINT64_C(0x9fb21c651e98df25);
		h ^= h >> 32;
	}
	for (; length; p++, length--)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return h;
}

void say_data(struct world *w, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;
	size_t i;

	say(w, " data %zu:%016llx:", length, (unsigned long long)hash(bytes, length, 0));
	for (i = 0; i < length && i < 8; i++)
		say(w, "%02x", p[i]);
}

/* A time is what a call set it to (told exactly), or a moment of this run ("now"). */
static void say_time(struct world *w, const char *name, const struct timespec *t)
{
	if (t->tv_sec >= w->start_sec - 5 && t->tv_sec <= w->start_sec + 86400)
		say(w, " %s=now", name);
	else
		say(w, " %s=%lld.%09ld", name, (long long)t->tv_sec, t->tv_nsec);
}

void say_stat(struct world *w, const struct stat *st)
{
	mode_t mode = st->st_mode;

	if (!S_ISDIR(mode) && !(mode & S_IXGRP) && !compares(w, FIELD_SGID_WITHOUT_X))
		mode &= ~(mode_t)S_ISGID;
	say(w, " mode=%o nlink=%lu uid=%u gid=%u", mode, (unsigned long)st->st_nlink, st->st_uid, st->st_gid);
	if (!S_ISDIR(st->st_mode) || compares(w, FIELD_DIR_SIZE))
		say(w, " size=%lld", (long long)st->st_size);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		say(w, " rdev=%u:%u", major(st->st_rdev), minor(st->st_rdev));
	if (compares(w, FIELD_BLOCKS))
		say(w, " blocks=%lld", (long long)st->st_blocks);
	say_time(w, "a", &st->st_atim);
	say_time(w, "m", &st->st_mtim);
	say_time(w, "c", &st->st_ctim);
}

void done(struct world *w, long result)
{
	const char *name;

	if (result >= 0) {
		say(w, " = %ld", result);
		return;
	}
	name = strerrorname_np(errno);
	say(w, " = -%s", name ? name : "unknown");
}

void record_end(struct world *w)
{
	uint32_t length = (uint32_t)w->record_length;
	size_t sent = 0;
	ssize_t n;

	if (write(w->pipe, &length, sizeof(length)) != sizeof(length))
		_exit(3);
	while (sent < length) {
		n = write(w->pipe, w->record + sent, length - sent);
		if (n <= 0)
			_exit(3);
		sent += (size_t)n;
	}
	w->record_length = 0;
}

static int watch_stat(const struct watch *watch, struct stat *st)
{
	if (watch->fd >= 0)
		return fstat(watch->fd, st);
	return lstat(watch->path, st);
}

static void watch_begin(struct world *w, struct watch *watch)
{
	struct stat st;

	watch->found = w->timed && watch_stat(watch, &st) == 0;
	if (watch->found)
		watch->ctime = st.st_ctim;
	/* Coarse clocks tick every 1 to 10 ms: a change after this sleep has another time. */
	if (w->timed)
		nanosleep(&(struct timespec){ .tv_nsec = 11000000 }, NULL);
}

void watch_path(struct world *w, const char *path)
{
	struct watch *watch = &w->watches[w->watch_count++];

	watch->fd = -1;
	snprintf(watch->path, sizeof(watch->path), "%s", path);
	watch_begin(w, watch);
}

void watch_fd(struct world *w, int fd)
{
	struct watch *watch = &w->watches[w->watch_count++];

	watch->fd = fd;
	watch_begin(w, watch);
}

static void show_parent(struct world *w, const struct watch *watch)
{
	char path[sizeof(watch->path)];
	const char *slash = strrchr(watch->path, '/');
	int length = slash ? (int)(slash - watch->path) : 0;
	struct stat st;

	if (!slash)
		strcpy(path, ".");
	else
		snprintf(path, sizeof(path), "%.*s", length ? length : 1, watch->path);
	if (lstat(path, &st) == 0) {
		say(w, " | parent");
		say_stat(w, &st);
	}
}

void show(struct world *w)
{
	struct stat st;
	unsigned i;

	for (i = 0; i < w->watch_count; i++) {
		const struct watch *watch = &w->watches[i];

		if (watch_stat(watch, &st) < 0) {
			say(w, " | %s", strerrorname_np(errno));
		} else {
			say(w, " |");
			say_stat(w, &st);
			if (watch->found)
				say(w, " ctime-%s", watch->ctime.tv_sec == st.st_ctim.tv_sec &&
				    watch->ctime.tv_nsec == st.st_ctim.tv_nsec ? "same" : "moved");
		}
		if (watch->fd < 0)
			show_parent(w, watch);
	}
	w->watch_count = 0;
}

void put_slot(struct world *w, int fd, int flags)
{
	struct slot *slot = &w->slots[below(w, SLOT_COUNT)];
	struct stat st;

	if (fd < 0)
		return;
	if (slot->fd != FD_CLOSED)
		close(slot->fd);
	slot->fd = fd;
	slot->flags = flags;
	slot->type = fstat(fd, &st) == 0 ? st.st_mode & S_IFMT : 0;
	say(w, " slot %ld type %o", (long)(slot - w->slots), slot->type);
}
