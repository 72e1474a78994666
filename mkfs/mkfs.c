/* mkfs.c: mkfs.rampool: make an image: empty, or filled from a directory, an archive or a disk image.
 *
 * The pool is made in memory, filled through the namespace as a mount would be, and saved once. So the image holds one
 * commit, and nothing of it is under its name before it is whole and durable.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mkfs.h"

#define PROGRAM "mkfs.rampool"

struct making {
	uint64_t size_bytes, inode_limit;
	const char *label;
	uint8_t uuid[16];
	bool uuid_set;
	enum rp_codec codec;
	bool codec_set;
	const char *directory, *tar, *disk;
	bool force, quiet;
	const char *image;
	struct rp_meter meter;
	char message[512];
};

static void usage(FILE *to)
{
	fputs("usage: mkfs.rampool [-s SIZE] [-N INODES] [-L LABEL] [-U UUID] [-z CODEC]\n"
	      "                    [-d DIRECTORY | -t TAR | -b DISKIMAGE] [-f] [-q] IMAGE\n"
	      "Make an image for \"rampool mount -o image=IMAGE\" and \"nbdkit rampool image=IMAGE\".\n"
	      "  -s SIZE       of the RAM disk: 512M, 2G, 50% (of memory); half of memory without\n"
	      "  -N INODES     at most so many files; no limit but the size without\n"
	      "  -L LABEL      up to 32 bytes\n"
	      "  -U UUID       or \"random\", which is what it is without\n"
	      "  -z CODEC      zstd, lz4 or none: how blocks are compressed; zstd without\n"
	      "  -d DIRECTORY  copy the tree below it\n"
	      "  -t TAR        unpack an archive (any that libarchive reads; - is standard input)\n"
	      "  -b DISKIMAGE  put a raw disk, or one that qemu-img reads, in as the file \"disk\"\n"
	      "  -f            replace IMAGE if it exists\n"
	      "  -q            say nothing but errors\n"
	      "  -h, --help    this text\n"
	      "  -V, --version\n",
	      to);
}

/* ---- Options ---- */

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) % 16 : -1;
}

static bool uuid_parse(const char *text, uint8_t to[16])
{
	unsigned i = 0;

	if (strlen(text) != 36)
		return false;
	while (*text) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (*text++ != '-')
				return false;
		if (i >= 16 || hex_digit(text[0]) < 0 || hex_digit(text[1]) < 0)
			return false;
		to[i++] = (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
		text += 2;
	}
	return i == 16;
}

static void uuid_print(const uint8_t uuid[16], char to[37])
{
	for (unsigned i = 0; i < 16; i++)
		to += sprintf(to, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

static bool count_parse(const char *text, uint64_t *to)
{
	char *end;

	errno = 0;
	*to = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && *to;
}

static bool option_take(struct making *m, int option, const char *value)
{
	switch (option) {
	case 's':
		if (rp_size_parse(value, true, &m->size_bytes) || m->size_bytes < (1u << 20)) {
			rp_say(PROGRAM, "-s %s: a size of at least 1M is wanted, such as 512M, 2G or 50%%", value);
			return false;
		}
		return true;
	case 'N':
		if (count_parse(value, &m->inode_limit))
			return true;
		rp_say(PROGRAM, "-N %s: a number of at least 1 is wanted", value);
		return false;
	case 'L':
		if (strlen(value) <= 32) {
			m->label = value;
			return true;
		}
		rp_say(PROGRAM, "-L %s: a label has at most 32 bytes", value);
		return false;
	case 'U':
		m->uuid_set = strcmp(value, "random") != 0;
		if (!m->uuid_set || uuid_parse(value, m->uuid))
			return true;
		rp_say(PROGRAM, "-U %s: a UUID looks like 01234567-89ab-cdef-0123-456789abcdef", value);
		return false;
	case 'z':
		m->codec_set = true;
		if (!rp_codec_parse(value, &m->codec))
			return true;
		rp_say(PROGRAM, "-z %s: zstd, lz4 or none", value);
		return false;
	case 'd': m->directory = value; return true;
	case 't': m->tar = value; return true;
	case 'b': m->disk = value; return true;
	case 'f': m->force = true; return true;
	case 'q': m->quiet = true; return true;
	default: return false;
	}
}

/* 0, or the exit status + 1. */
static int options_parse(struct making *m, int argc, char **argv)
{
	static const struct option options[] = { { "help", 0, NULL, 'h' }, { "version", 0, NULL, 'V' },
		{ NULL, 0, NULL, 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "s:N:L:U:z:d:t:b:fqhV", options, NULL)) != -1) {
		if (option == 'h') {
			usage(stdout);
			return 1;
		}
		if (option == 'V') {
			printf(PROGRAM " " RP_VERSION "\n");
			return 1;
		}
		if (option == '?') {
			fprintf(stderr, "Try \"" PROGRAM " --help\".\n");
			return 2;
		}
		if (!option_take(m, option, optarg))
			return 2;
	}
	if (argc - optind != 1) {
		rp_say(PROGRAM, argc == optind ? "no IMAGE is named; see --help" : "more than one IMAGE is named");
		return 2;
	}
	if (!!m->directory + !!m->tar + !!m->disk > 1) {
		rp_say(PROGRAM, "only one of -d, -t and -b can be given");
		return 2;
	}
	m->image = argv[optind];
	return 0;
}

/* ---- Filling ---- */

static void populate_show(void *context, const struct rp_populate *so_far)
{
	struct making *m = context;

	rp_meter_show(&m->meter, so_far->byte_count, 0);
}

static int fill(struct making *m, struct rp_fs *fs)
{
	struct rp_filling filling = { .fs = fs, .meter = &m->meter };
	struct rp_populate populate = { .progress = populate_show, .context = m };
	int error = 0;

	rp_meter_start(&m->meter, "filling", !m->quiet);
	if (m->directory) {
		error = rp_fs_populate(fs, m->directory, &populate);
		strcpy(filling.message, populate.message);
	} else if (m->tar) {
		error = rp_fill_from_tar(&filling, m->tar);
	} else if (m->disk) {
		error = rp_fill_from_disk(&filling, m->disk, m->image);
	}
	rp_meter_end(&m->meter);
	if (error == -ENOSPC && m->directory)
		rp_say(PROGRAM, "%s (a larger size is given with -s)", populate.message);
	else if (error)
		rp_say(PROGRAM, "%s", filling.message[0] ? filling.message : rp_error_text(error));
	return error;
}

static int filesystem_make(struct making *m, struct rp_pool *pool, uint64_t *file_count)
{
	struct rp_fs_options options = { .inode_limit = m->inode_limit };
	struct rp_fs_status status;
	struct rp_fs *fs;
	int error = rp_fs_format(pool, &options);

	if (!error)
		error = rp_fs_open(pool, false, &fs);
	if (error) {
		rp_say(PROGRAM, "cannot make the filesystem: %s", rp_error_text(error));
		return error;
	}
	error = fill(m, fs);
	if (!error)
		error = rp_fs_status(fs, &status);
	if (!error)
		*file_count = status.inode_count;
	rp_fs_close(fs);
	return error;
}

/* ---- Saving ---- */

static int save_show(void *context, const struct rp_progress *progress)
{
	struct making *m = context;

	rp_meter_show(&m->meter, progress->done_bytes, progress->total_bytes);
	return 0;
}

static int save(struct making *m, struct rp_pool *pool)
{
	struct rp_image_options options = { .codec = m->codec, .codec_set = m->codec_set, .message = m->message };
	int error;

	rp_meter_start(&m->meter, "writing", !m->quiet);
	error = rp_image_save_as(pool, NULL, m->image, m->force, &options, save_show, m);
	rp_meter_end(&m->meter);
	if (error == -EEXIST)
		rp_say(PROGRAM, "%s: exists; -f replaces it", m->image);
	else if (error)
		rp_say(PROGRAM, "%s", m->message[0] ? m->message : rp_error_text(error));
	return error;
}

static void summary(const struct making *m, struct rp_pool *pool, uint64_t file_count)
{
	struct rp_pool_status status;
	char size[32], used[32], file[32], uuid[37];
	struct stat st;

	rp_pool_status(pool, &status);
	uuid_print(status.uuid, uuid);
	printf("%s: %s, %s used by %llu inodes, UUID %s%s%s\n", m->image, rp_size_print(status.size_bytes, size),
	       rp_size_print(status.frame_used * RP_PAGE_SIZE, used), (unsigned long long)file_count, uuid,
	       status.label[0] ? ", label " : "", status.label);
	if (stat(m->image, &st) == 0)
		printf("%s written\n", rp_size_print((uint64_t)st.st_size, file));
}

/* What would fail at the end anyway is better said before all is read. */
static bool target_is_fit(const struct making *m)
{
	struct stat st;

	if (stat(m->image, &st)) {
		if (errno == ENOENT)
			return true;
		rp_say(PROGRAM, "%s: %s", m->image, strerror(errno));
		return false;
	}
	if (!S_ISREG(st.st_mode)) {
		rp_say(PROGRAM, "%s: exists and is not an ordinary file", m->image);
		return false;
	}
	if (!m->force)
		rp_say(PROGRAM, "%s: exists; -f replaces it", m->image);
	return m->force;
}

int main(int argc, char **argv)
{
	struct making m = { 0 };
	struct rp_pool_options options = { 0 };
	uint64_t file_count = 0;
	struct rp_pool *pool;
	int error = options_parse(&m, argc, argv);

	if (error)
		return error - 1;
	setlocale(LC_CTYPE, "C.UTF-8"); /* names are bytes here and UTF-8 in archives */
	if (!target_is_fit(&m))
		return 1;
	if (!m.size_bytes && rp_size_parse("50%", true, &m.size_bytes)) {
		rp_say(PROGRAM, "the size of memory is unknown: give a size with -s");
		return 1;
	}
	options.size_bytes = m.size_bytes;
	options.label = m.label;
	options.uuid = m.uuid_set ? m.uuid : NULL;
	error = rp_pool_create(&options, &pool);
	if (error) {
		rp_say(PROGRAM, "cannot have a pool of that size: %s", rp_error_text(error));
		return 1;
	}
	error = filesystem_make(&m, pool, &file_count);
	if (!error)
		error = save(&m, pool);
	if (!error && !m.quiet)
		summary(&m, pool, file_count);
	rp_pool_destroy(pool);
	return error ? 1 : 0;
}
