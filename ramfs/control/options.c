/* options.c: the options a mount and a block export have in common.
 *
 * A table names each, so that parsing, help and messages agree. Paths are made absolute when they are given: the
 * program may change its directory before they are used.
 */
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>
#include "internal.h"

#define AUTOSAVE_SECONDS_MAX (UINT64_C(366) * 86400)

struct option {
	const char *name;
	int (*take)(struct rp_keep_options *options, const char *value);
	bool flag;              /* value may be missing */
	const char *expects;    /* for messages: what would do */
};

/* ---- Values ------------------------------------------------------------------------------------------------------ */

static int number_take(const char *value, int base, uint64_t max, uint64_t *to)
{
	unsigned long long number;
	char *end;

	if (*value < '0' || *value > '9')
		return -EINVAL;
	errno = 0;
	number = strtoull(value, &end, base);
	if (errno || *end || number > max)
		return -EINVAL;
	*to = number;
	return 0;
}

static int bool_take(const char *value, bool *to)
{
	static const char *const yes[] = { "1", "yes", "true", "on", "" };
	static const char *const no[] = { "0", "no", "false", "off" };
	size_t i;

	for (i = 0; i < sizeof(yes) / sizeof(*yes); i++)
		if (!value || !strcmp(value, yes[i])) {
			*to = true;
			return 0;
		}
	for (i = 0; i < sizeof(no) / sizeof(*no); i++)
		if (!strcmp(value, no[i])) {
			*to = false;
			return 0;
		}
	return -EINVAL;
}

static int text_take(const char *value, char **to)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

static int path_take(const char *value, char **to)
{
	char directory[PATH_MAX], *path;

	if (!*value)
		return -EINVAL;
	if (*value == '/')
		return text_take(value, to);
	if (!getcwd(directory, sizeof(directory)))
		return -errno;
	if (asprintf(&path, "%s/%s", directory, value) < 0)
		return -ENOMEM;
	free(*to);
	*to = path;
	return 0;
}

/* ---- Options ----------------------------------------------------------------------------------------------------- */

static int size_option(struct rp_keep_options *o, const char *value)
{
	uint64_t bytes;
	int error = rp_size_parse(value, true, &bytes);

	if (error || !bytes)
		return -EINVAL;
	o->size_bytes = bytes;
	return 0;
}

static int inodes_option(struct rp_keep_options *o, const char *value)
{
	return rp_size_parse(value, false, &o->inode_limit);
}

static int mode_option(struct rp_keep_options *o, const char *value)
{
	uint64_t mode;
	int error = number_take(value, 8, 07777, &mode);

	if (error)
		return error;
	o->mode = (uint32_t)mode;
	o->mode_set = true;
	return 0;
}

/* 2^32 - 1 is no user: it means "unchanged" to the system. */
static int uid_option(struct rp_keep_options *o, const char *value)
{
	uint64_t id;
	int error = number_take(value, 10, UINT32_MAX - 1, &id);

	if (error)
		return error;
	o->uid = (uint32_t)id;
	o->uid_set = true;
	return 0;
}

static int gid_option(struct rp_keep_options *o, const char *value)
{
	uint64_t id;
	int error = number_take(value, 10, UINT32_MAX - 1, &id);

	if (error)
		return error;
	o->gid = (uint32_t)id;
	o->gid_set = true;
	return 0;
}

static int ro_option(struct rp_keep_options *o, const char *value) { return bool_take(value, &o->read_only); }

static int rw_option(struct rp_keep_options *o, const char *value)
{
	bool writable;
	int error = bool_take(value, &writable);

	if (!error)
		o->read_only = !writable;
	return error;
}

static int image_option(struct rp_keep_options *o, const char *value) { return path_take(value, &o->image); }
static int directory_option(struct rp_keep_options *o, const char *value) { return path_take(value, &o->directory); }

/* "300" and "300s" are seconds, "64M" is a size. A small m, minutes to some and megabytes to others, is refused. */
static int autosave_part(const char *part, uint64_t *seconds, uint64_t *bytes)
{
	size_t digits = strspn(part, "0123456789");
	char number[24];
	uint64_t value;

	if (!digits || digits >= sizeof(number) || strchr(part, 'm'))
		return -EINVAL;
	if (part[digits] && strcmp(part + digits, "s")) {
		if (*bytes || rp_size_parse(part, false, &value) || !value)
			return -EINVAL;
		*bytes = value;
		return 0;
	}
	memcpy(number, part, digits);
	number[digits] = 0;
	if (*seconds || number_take(number, 10, AUTOSAVE_SECONDS_MAX, &value) || !value)
		return -EINVAL;
	*seconds = value;
	return 0;
}

static int autosave_option(struct rp_keep_options *o, const char *value)
{
	uint64_t seconds = 0, bytes = 0;
	char parts[64], *second;
	int error;

	if (strlen(value) >= sizeof(parts))
		return -EINVAL;
	strcpy(parts, value);
	if (strcmp(parts, "0") && strcmp(parts, "off")) {
		second = strchr(parts, '/');
		if (second)
			*second++ = 0;
		error = autosave_part(parts, &seconds, &bytes);
		if (!error && second)
			error = autosave_part(second, &seconds, &bytes);
		if (error)
			return error;
	}
	o->autosave_seconds = seconds;
	o->autosave_bytes = bytes;
	return 0;
}

static int choice_take(const char *value, const char *off, const char *on, bool *to)
{
	if (strcmp(value, off) && strcmp(value, on))
		return -EINVAL;
	*to = !strcmp(value, on);
	return 0;
}

static int sync_option(struct rp_keep_options *o, const char *value)
{
	return choice_take(value, "ram", "image", &o->sync_image);
}

static int nosave_option(struct rp_keep_options *o, const char *value) { return bool_take(value, &o->no_save); }

static int on_error_option(struct rp_keep_options *o, const char *value)
{
	return choice_take(value, "continue", "readonly", &o->readonly_on_error);
}

static int keep_option(struct rp_keep_options *o, const char *value)
{
	uint64_t keep;
	int error = number_take(value, 10, 1000000, &keep);

	if (error || !keep)
		return -EINVAL;
	o->keep = (unsigned)keep;
	return 0;
}

static int codec_option(struct rp_keep_options *o, const char *value)
{
	int error = rp_codec_parse(value, &o->codec);

	if (!error)
		o->codec_set = true;
	return error;
}

static int generation_option(struct rp_keep_options *o, const char *value)
{
	uint64_t generation;
	int error = number_take(value, 10, INT64_MAX, &generation);

	if (error || !generation)
		return -EINVAL;
	o->generation = generation;
	return 0;
}

static int any_owner_option(struct rp_keep_options *o, const char *value) { return bool_take(value, &o->any_owner); }
static int nohuge_option(struct rp_keep_options *o, const char *value) { return bool_take(value, &o->small_pages); }
static int mlock_option(struct rp_keep_options *o, const char *value) { return bool_take(value, &o->lock_memory); }

static int label_option(struct rp_keep_options *o, const char *value)
{
	if (strlen(value) > 32)
		return -EINVAL;
	return text_take(value, &o->label);
}

#define FLAG_EXPECTS "no value, or 0 or 1"

static const struct option options_known[] = {
	{ "size", size_option, false,
	  "a number of bytes, with K, M, G or T behind it, or a part of memory such as 50%" },
	{ "inodes", inodes_option, false, "a number, 0 for no limit" },
	{ "mode", mode_option, false, "an octal number up to 7777" },
	{ "uid", uid_option, false, "a user's number" },
	{ "gid", gid_option, false, "a group's number" },
	{ "ro", ro_option, true, FLAG_EXPECTS },
	{ "rw", rw_option, true, FLAG_EXPECTS },
	{ "image", image_option, false, "the name of a file" },
	{ "autosave", autosave_option, false, "seconds, a size or both, as 300s, 64M or 300s/64M" },
	{ "sync", sync_option, false, "ram or image" },
	{ "nosave", nosave_option, true, FLAG_EXPECTS },
	{ "on-save-error", on_error_option, false, "continue or readonly" },
	{ "keep", keep_option, false, "a number of commits, 1 or more" },
	{ "codec", codec_option, false, "zstd, lz4 or none" },
	{ "generation", generation_option, false, "the number of a commit" },
	{ "any-owner", any_owner_option, true, FLAG_EXPECTS },
	{ "nohuge", nohuge_option, true, FLAG_EXPECTS },
	{ "mlock", mlock_option, true, FLAG_EXPECTS },
	{ "directory", directory_option, false, "the name of a directory" },
	{ "label", label_option, false, "at most 32 bytes" },
};
#define OPTION_COUNT (sizeof(options_known) / sizeof(*options_known))

int rp_keep_option(struct rp_keep_options *options, const char *key, const char *value, char message[512])
{
	const struct option *o;
	size_t i;
	int error;

	for (i = 0; i < OPTION_COUNT; i++) {
		o = &options_known[i];
		if (strcmp(o->name, key))
			continue;
		if (!value && !o->flag)
			return rp_message(message, -EINVAL, "%s: a value is missing; it takes %s", key, o->expects);
		error = o->take(options, value);
		if (error == -ENOMEM)
			return rp_message(message, error, "%s: no memory", key);
		if (error)
			return rp_message(message, -EINVAL, "%s=%.200s: this option takes %s", key, value, o->expects);
		return 1;
	}
	return 0;
}

void rp_keep_options_free(struct rp_keep_options *options)
{
	free(options->image);
	free(options->directory);
	free(options->label);
	memset(options, 0, sizeof(*options));
}

const char *rp_keep_options_help(void)
{
	return
	"  size=SIZE               memory to use at most: 512M, 2G, 50% (of memory; half of it when nothing is said)\n"
	"  inodes=N                files and directories at most (0: as many as fit)\n"
	"  mode=OCTAL uid=N gid=N  of a fresh root directory\n"
	"  ro                      read-only\n"
	"  image=FILE              open this image, or make it, and save there\n"
	"  autosave=WHEN           save after so many seconds or changed bytes: 300s, 64M, 300s/64M\n"
	"  sync=ram|image          fsync and flush wait for nothing (ram), or for a commit to the image\n"
	"  nosave                  save only when asked: not at the end and not by time\n"
	"  on-save-error=continue|readonly\n"
	"                          readonly: refuse changes after a failed save until one works\n"
	"  keep=N                  commits of the image that stay restorable (1)\n"
	"  codec=zstd|lz4|none     compression of the image\n"
	"  generation=N            start from this commit of the image, not from the newest\n"
	"  any-owner               accept an image that someone else owns or may write\n"
	"  directory=DIR           start as a copy of this directory\n"
	"  label=TEXT              a name, at most 32 bytes\n"
	"  nohuge                  use small pages of memory\n"
	"  mlock                   keep the memory from being swapped out\n";
}
