/* from_disk.c: a disk image becomes the file "disk", which the block export serves.
 *
 * Raw files and block devices are read here, holes and pages of zeroes left out. Formats of virtual machines are told
 * by their first bytes and converted by qemu-img into an unlinked temporary file first. One that is only part of a disk, and
 * names the file with the rest, is refused: it could name any file of this machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mkfs.h"

#define PIECE RP_BYTES_PER_OP

static const struct { const char *name, *magic; size_t length; } formats[] = {
	{ "qcow2", "QFI\xfb", 4 }, { "vmdk", "KDMV", 4 }, { "vhdx", "vhdxfile", 8 }, { "vpc", "conectix", 8 },
	{ "vdi", "<<< ", 4 },      { "qed", "QED\0", 4 },
};

__attribute__((format(printf, 3, 4))) static int fault(struct rp_filling *f, int error, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(f->message, sizeof(f->message), format, list);
	va_end(list);
	return error;
}

static const char *format_of(int fd)
{
	char begin[16] = { 0 };

	if (pread(fd, begin, sizeof(begin), 0) < 0)
		return NULL;
	for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++)
		if (!memcmp(begin, formats[i].magic, formats[i].length))
			return formats[i].name;
	return NULL;
}

/* ---- Conversion ---- */

/* output: -1, or where its standard output goes. */
static int qemu_img_run(char *const argv[], int output)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		if (output >= 0)
			dup2(output, STDOUT_FILENO);
		execvp(argv[0], argv);
		_exit(errno == ENOENT ? 127 : 126);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return -ENOENT;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

/* Does it name another file? 1: yes. */
static int names_another(const char *format, const char *path)
{
	char *argv[] = { (char *)"qemu-img", (char *)"info", (char *)"--output=json", (char *)"-f", (char *)format, (char *)"--",
		(char *)path, NULL };
	int fd = memfd_create("disk", MFD_CLOEXEC), error;
	char *said = NULL;
	off_t size;

	if (fd < 0)
		return -errno;
	error = qemu_img_run(argv, fd);
	size = lseek(fd, 0, SEEK_END);
	if (!error && size >= 0)
		said = calloc(1, (size_t)size + 1);
	if (!error && (!said || pread(fd, said, (size_t)size, 0) != size))
		error = said ? -EIO : -ENOMEM;
	if (!error)
		error = strstr(said, "\"backing-filename\"") || strstr(said, "\"data-file\"");
	free(said);
	close(fd);
	return error;
}

static int qemu_img_convert(const char *format, const char *from, const char *to)
{
	char *argv[] = { (char *)"qemu-img", (char *)"convert", (char *)"-f", (char *)format, (char *)"-O",
		(char *)"raw", (char *)"--", (char *)from, (char *)to, NULL };

	return qemu_img_run(argv, -1);
}

static int converted_open(struct rp_filling *f, const char *format, const char *path, const char *beside, int *out)
{
	const char *slash = strrchr(beside, '/');
	char *temporary, name[64];
	int fd, error;

	if (asprintf(&temporary, "%.*s.rampool-disk-XXXXXX", slash ? (int)(slash - beside) + 1 : 0, beside) < 0)
		return fault(f, -ENOMEM, "out of memory");
	fd = mkstemp(temporary);
	if (fd < 0) {
		error = fault(f, -errno, "%.400s: %s", temporary, strerror(errno));
		free(temporary);
		return error;
	}
	/* No name, no trace when this program is killed; qemu-img reaches the file through its descriptor. */
	unlink(temporary);
	free(temporary);
	snprintf(name, sizeof(name), "/proc/%d/fd/%d", (int)getpid(), fd);
	error = names_another(format, path);
	if (!error)
		error = qemu_img_convert(format, path, name);
	if (error) {
		close(fd);
		if (error > 0)
			return fault(f, -EINVAL, "%.200s: is not the whole disk but names another file; \"qemu-img convert\" makes "
			             "one of both", path);
		if (error == -ENOENT)
			return fault(f, error, "%.300s: is %s, and qemu-img, which reads it, is not installed", path,
			             format);
		return fault(f, error, "%.400s: qemu-img could not read it", path);
	}
	*out = fd;
	return 0;
}

/* ---- Copying ---- */

static bool is_zero(const char *bytes, size_t length)
{
	return !length || (!bytes[0] && !memcmp(bytes, bytes + 1, length - 1));
}

static size_t page_length(size_t left) { return left < RP_PAGE_SIZE ? left : RP_PAGE_SIZE; }

/* Pages of zeroes are left holes. */
static int piece_write(struct rp_filling *f, rp_object ino, uint64_t offset, const char *from, size_t length)
{
	size_t at = 0, end;

	while (at < length) {
		for (end = at; end < length && !is_zero(from + end, page_length(length - end));)
			end += page_length(length - end);
		while (at < end) {
			ssize_t n = rp_fs_write(f->fs, ino, offset + at, from + at, end - at, 0);

			if (n <= 0)
				return n ? (int)n : -ENOSPC;
			at += (size_t)n;
		}
		if (at < length)
			at += page_length(length - at);
	}
	return 0;
}

static int contents_copy(struct rp_filling *f, rp_object ino, int fd, off_t size, char *buffer)
{
	off_t at = 0, data;
	ssize_t n;
	int error;

	while (at < size) {
		data = lseek(fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		if (data > at) /* to a whole page, as pages are what is compared with zeroes */
			at = data & ~(off_t)(RP_PAGE_SIZE - 1);
		n = pread(fd, buffer, size - at < (off_t)PIECE ? (size_t)(size - at) : PIECE, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO; /* it became shorter while it was read */
		/* Pieces end on whole pages but the last. */
		if (at + n < size && n > (ssize_t)RP_PAGE_SIZE)
			n &= ~(ssize_t)(RP_PAGE_SIZE - 1);
		error = piece_write(f, ino, (uint64_t)at, buffer, (size_t)n);
		if (error)
			return error;
		at += n;
		f->byte_count += (uint64_t)n;
		rp_meter_show(f->meter, (uint64_t)at, (uint64_t)size);
	}
	return 0;
}

static int disk_make(struct rp_filling *f, const char *path, int fd)
{
	static const struct rp_cred cred = { .fsetid = true };
	off_t size = lseek(fd, 0, SEEK_END);
	struct rp_attr attr;
	char *buffer;
	int error;

	if (size < 0)
		return fault(f, -errno, "%.400s: %s", path, strerror(errno));
	buffer = malloc(PIECE);
	if (!buffer)
		return fault(f, -ENOMEM, "out of memory");
	error = rp_fs_make(f->fs, &cred, rp_fs_root(f->fs), rp_name_from("disk"), S_IFREG | 0600, 0, NULL, false,
	                   &attr);
	if (!error) {
		attr.size_bytes = (uint64_t)size;
		error = rp_fs_setattr(f->fs, attr.ino, RP_SET_SIZE, &attr, &attr);
	}
	if (!error)
		error = contents_copy(f, attr.ino, fd, size, buffer);
	free(buffer);
	if (error == -ENOSPC)
		return fault(f, error, "%.300s: no space is left: give a larger size with -s", path);
	return error ? fault(f, error, "%.400s: %s", path, rp_error_text(error)) : 0;
}

int rp_fill_from_disk(struct rp_filling *filling, const char *path, const char *beside)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), converted = -1, error;
	const char *format;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		error = fault(filling, -errno, "%.400s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return error;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		close(fd);
		return fault(filling, -EINVAL, "%.400s: is neither a file nor a block device", path);
	}
	format = format_of(fd);
	if (format) {
		error = converted_open(filling, format, path, beside, &converted);
		close(fd);
		if (error)
			return error;
		fd = converted;
	}
	error = disk_make(filling, path, fd);
	close(fd);
	return error;
}
