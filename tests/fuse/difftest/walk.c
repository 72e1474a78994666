/* walk.c: the whole tree as records: names, attributes, links, extended attributes, contents. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "difftest.h"

/* Inodes with several names: numbered in the order they are met, so that links can be compared. */
struct links {
	struct { ino_t ino; } *seen;
	size_t count, room;
};

static size_t link_number(struct links *links, ino_t ino)
{
	size_t i;

	for (i = 0; i < links->count; i++)
		if (links->seen[i].ino == ino)
			return i;
	if (links->count == links->room) {
		links->room = links->room * 2 + 64;
		links->seen = realloc(links->seen, links->room * sizeof(*links->seen));
		if (!links->seen)
			_exit(2);
	}
	links->seen[links->count].ino = ino;
	return links->count++;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static char **list(const char *path, size_t *count)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char **names = NULL;
	size_t room = 0;

	*count = 0;
	if (!dir)
		return NULL;
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (*count == room) {
			room = room * 2 + 16;
			names = realloc(names, room * sizeof(*names));
		}
		names[*count] = strdup(entry->d_name);
		if (!names[(*count)++])
			_exit(2);
	}
	closedir(dir);
	if (*count)
		qsort(names, *count, sizeof(*names), compare_names);
	return names;
}

static void say_xattrs(struct world *w, const char *path)
{
	static char names[65536], value[65536];
	ssize_t length = llistxattr(path, names, sizeof(names)), n;
	uint64_t sum = 0;
	const char *p;

	if (length < 0) {
		say(w, " xattrs=%s", strerrorname_np(errno));
		return;
	}
	for (p = names; p < names + length; p += strlen(p) + 1) {
		n = lgetxattr(path, p, value, sizeof(value));
		/* A sum, as the order of names is nobody's promise. */
		sum += hash(p, strlen(p), n < 0 ? 1 : hash(value, (size_t)n, 2));
	}
	if (length)
		say(w, " xattrs=%zd:%016llx", length, (unsigned long long)sum);
}

/* The first half MiB and the last 8 KiB: files may be sparse and 2^63 bytes long. */
static void say_contents(struct world *w, const char *path, const struct stat *st)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | (w->call / 500 % 2 ? O_DIRECT : 0));
	off_t tail = st->st_size > 8192 ? st->st_size - 8192 : 0;
	ssize_t n;

	if (fd < 0) {
		say(w, " open=%s", strerrorname_np(errno));
		return;
	}
	n = pread(fd, w->data, CALL_DATA_MAX / 2, 0);
	say(w, " head=%zd", n);
	if (n > 0)
		say_data(w, w->data, (size_t)n);
	if (tail) {
		n = pread(fd, w->data, 8192, tail);
		say(w, " tail=%zd", n);
		if (n > 0)
			say_data(w, w->data, (size_t)n);
	}
	close(fd);
}

static void walk_file(struct world *w, struct links *links, const char *path)
{
	char target[4096];
	struct stat st;
	ssize_t n;

	say(w, "walk(");
	say_bytes(w, path);
	say(w, ")");
	if (lstat(path, &st) < 0) {
		done(w, -1);
		record_end(w);
		return;
	}
	say_stat(w, &st);
	if (!S_ISDIR(st.st_mode) && st.st_nlink > 1)
		say(w, " link=%zu", link_number(links, st.st_ino));
	say_xattrs(w, path);
	if (S_ISLNK(st.st_mode)) {
		n = readlink(path, target, sizeof(target) - 1);
		if (n >= 0) {
			target[n] = 0;
			say(w, " -> ");
			say_bytes(w, target);
		}
	} else if (S_ISREG(st.st_mode)) {
		say_contents(w, path, &st);
	}
	record_end(w);
}

static void walk_below(struct world *w, struct links *links, const char *path)
{
	char **names;
	char *below_path;
	struct stat st;
	size_t count, i;

	walk_file(w, links, path);
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return;
	names = list(path, &count);
	for (i = 0; i < count; i++) {
		if (asprintf(&below_path, "%s/%s", path, names[i]) < 0)
			_exit(2);
		walk_below(w, links, below_path);
		free(below_path);
		free(names[i]);
	}
	free(names);
}

void walk(struct world *w)
{
	struct links links = { 0 };
	int cwd = open(".", O_PATH | O_DIRECTORY);
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (seteuid(0) || setegid(0) || chdir("/"))
		_exit(2);
	walk_below(w, &links, ".");
	free(links.seen);
	if (cwd >= 0) {
		/* A working directory that was removed, or may not be searched: both trees alike. */
		if (fchdir(cwd))
			say(w, "walk fchdir %s ", strerrorname_np(errno));
		close(cwd);
	}
	if (setegid(gid) || seteuid(uid))
		_exit(2);
}

void remove_below(const char *path)
{
	char **names;
	char *below_path;
	size_t count, i;

	names = list(path, &count);
	for (i = 0; i < count; i++) {
		if (asprintf(&below_path, "%s/%s", path, names[i]) < 0)
			_exit(2);
		if (unlink(below_path) < 0 && (errno == EISDIR || errno == EPERM)) {
			remove_below(below_path);
			rmdir(below_path);
		}
		free(below_path);
		free(names[i]);
	}
	free(names);
}
