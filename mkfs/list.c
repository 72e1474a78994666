/* list.c: names, attributes and contents of an image on standard output. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "mkfs.h"

struct listing {
	struct rp_view *view;
	bool is_long, recursive;
	const char *start;      /* the directory that is listed: shown only when it is no directory */
	bool whole_path;
};

static void mode_print(uint32_t mode, char to[11])
{
	static const char types[16] = "?pc?d?b?-?l?s???";

	to[0] = types[(mode & S_IFMT) >> 12];
	for (unsigned i = 0; i < 9; i++)
		to[1 + i] = mode & 0400 >> i ? "rwx"[i % 3] : '-';
	if (mode & S_ISUID)
		to[3] = mode & 0100 ? 's' : 'S';
	if (mode & S_ISGID)
		to[6] = mode & 0010 ? 's' : 'S';
	if (mode & S_ISVTX)
		to[9] = mode & 0001 ? 't' : 'T';
	to[10] = 0;
}

static void long_print(const struct rp_attr *attr)
{
	char mode[11], size[32], when[64] = "?";
	time_t sec = attr->mtime.sec;
	struct tm tm;

	mode_print(attr->mode, mode);
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode))
		snprintf(size, sizeof(size), "%u, %u", attr->rdev >> 8 & 0xfff,
		         (attr->rdev & 0xff) | (attr->rdev >> 12 & ~0xffu));
	else
		snprintf(size, sizeof(size), "%llu", (unsigned long long)attr->size_bytes);
	if (gmtime_r(&sec, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s %4u %5u %5u %12s %s.%09u ", mode, attr->nlink, attr->uid, attr->gid, size, when, attr->mtime.nsec);
}

static int entry_print(void *context, const char *path, const struct rp_attr *attr)
{
	struct listing *l = context;
	size_t skip = strlen(l->start);
	char *printed, target[4096];

	if (!strcmp(path, l->start) && S_ISDIR(attr->mode))
		return 0;
	/* Below the directory that was asked for, names are told from there. */
	if (skip && !strncmp(path, l->start, skip) && path[skip] == '/')
		path += skip + 1;
	printed = malloc(strlen(path) * 4 + sizeof(target) * 4 + 1);
	if (!printed)
		return -ENOMEM;
	if (l->is_long)
		long_print(attr);
	fputs(rp_name_print(path, strlen(path), printed), stdout);
	if (l->is_long && S_ISLNK(attr->mode) && rp_fs_readlink(l->view->fs, attr->ino, target) == 0)
		printf(" -> %s", rp_name_print(target, strlen(target), printed));
	putchar('\n');
	free(printed);
	return ferror(stdout) ? -EIO : 0;
}

/* The path without slashes at its ends and attributes of what it names. */
static int path_find(struct rp_view *view, const char *path, char **trimmed, struct rp_attr *attr)
{
	size_t length;
	int error;

	path += strspn(path, "/");
	length = strlen(path);
	while (length && path[length - 1] == '/')
		length--;
	*trimmed = strndup(path, length);
	if (!*trimmed)
		return -ENOMEM;
	if (length)
		error = rp_fs_walk(view->fs, *trimmed, attr);
	else
		error = rp_fs_getattr(view->fs, rp_fs_root(view->fs), attr);
	if (error) {
		rp_say(view->program, "%s: %s", path, rp_error_text(error));
		free(*trimmed);
	}
	return error;
}

int rp_dump_ls(struct rp_view *view, const char *path, bool is_long, bool recursive)
{
	struct listing listing = { .view = view, .is_long = is_long, .recursive = recursive };
	struct rp_walk walk = { .view = view, .recursive = recursive, .each = entry_print, .context = &listing };
	struct rp_attr attr;
	char *trimmed;
	int error = path_find(view, path, &trimmed, &attr);

	if (error)
		return error;
	listing.start = trimmed;
	error = rp_walk_tree(&walk, trimmed, &attr);
	if (error)
		rp_say(view->program, "%s: %s", path, rp_error_text(error));
	free(trimmed);
	return error ? error : walk.faults ? -EIO : 0;
}

/* ---- Contents ---- */

static int all_write(int fd, const char *from, size_t length)
{
	while (length) {
		ssize_t n = write(fd, from, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		from += n;
		length -= (size_t)n;
	}
	return 0;
}

/* Holes stay holes where the output is a file of its own. */
static int contents_write(struct rp_view *view, const struct rp_attr *attr, int fd, bool seeks, char *buffer)
{
	uint64_t at = 0, end;
	bool is_data;
	ssize_t n;
	int error;

	while (at < attr->size_bytes) {
		error = rp_fs_extent(view->fs, attr->ino, at, attr->size_bytes, &is_data, &end);
		if (error)
			return error;
		if (!is_data && seeks) {
			at = end;
			continue;
		}
		if (end - at > RP_BYTES_PER_OP)
			end = at + RP_BYTES_PER_OP;
		n = rp_fs_read(view->fs, attr->ino, at, buffer, (size_t)(end - at));
		if (n <= 0)
			return n ? (int)n : -EIO;
		if (seeks && lseek(fd, (off_t)at, SEEK_SET) < 0)
			return -errno;
		error = all_write(fd, buffer, (size_t)n);
		if (error)
			return error;
		at += (uint64_t)n;
	}
	return seeks && ftruncate(fd, (off_t)attr->size_bytes) ? -errno : 0;
}

int rp_dump_cat(struct rp_view *view, const char *path, const char *output)
{
	char *trimmed, *buffer;
	int fd = STDOUT_FILENO, error;
	struct rp_attr attr;
	struct stat st;
	bool seeks;

	error = path_find(view, path, &trimmed, &attr);
	if (error)
		return error;
	free(trimmed);
	if (!S_ISREG(attr.mode)) {
		rp_say(view->program, "%s: is no regular file", path);
		return S_ISDIR(attr.mode) ? -EISDIR : -EINVAL;
	}
	if (output)
		fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		error = -errno;
		rp_say(view->program, "%s: %s", output, rp_error_text(error));
		return error;
	}
	/* From position 0 of an empty file, and not when every write goes to the end. */
	seeks = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !st.st_size && lseek(fd, 0, SEEK_CUR) == 0 &&
	        !(fcntl(fd, F_GETFL) & O_APPEND);
	buffer = malloc(RP_BYTES_PER_OP);
	error = buffer ? contents_write(view, &attr, fd, seeks, buffer) : -ENOMEM;
	free(buffer);
	if (output && close(fd) && !error)
		error = -errno;
	if (error)
		rp_say(view->program, "%s: %s", path, rp_error_text(error));
	return error;
}
