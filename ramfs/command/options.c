/* options.c: the options of `rampool mount`: the keeper's (size=, image=, ...), those of every mount (ro, noatime,
 * ...), and the server's own. An unknown one is an error that names it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/command/options.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

static const struct {
	const char *name;
	unsigned long set, clear;
} flags[] = {
	{ "ro", MS_RDONLY, 0 },
	{ "rw", 0, MS_RDONLY },
	{ "nosuid", MS_NOSUID, 0 },
	{ "suid", 0, MS_NOSUID },
	{ "nodev", MS_NODEV, 0 },
	{ "dev", 0, MS_NODEV },
	{ "noexec", MS_NOEXEC, 0 },
	{ "exec", 0, MS_NOEXEC },
	{ "sync", MS_SYNCHRONOUS, 0 },
	{ "async", 0, MS_SYNCHRONOUS },
	{ "dirsync", MS_DIRSYNC, 0 },
	{ "noatime", MS_NOATIME, 0 },
	{ "atime", 0, MS_NOATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },
	{ "diratime", 0, MS_NODIRATIME },
	{ "relatime", MS_RELATIME, 0 },
	{ "norelatime", 0, MS_RELATIME },
	{ "strictatime", MS_STRICTATIME, 0 },
	{ "nostrictatime", 0, MS_STRICTATIME },
	{ "lazytime", MS_LAZYTIME, 0 },
	{ "nolazytime", 0, MS_LAZYTIME },
	{ "nosymfollow", MS_NOSYMFOLLOW, 0 },
	{ "symfollow", 0, MS_NOSYMFOLLOW },
	/* Words of fstab that say nothing to the kernel. */
	{ "defaults", 0, 0 },
	{ "auto", 0, 0 },
	{ "noauto", 0, 0 },
	{ "nofail", 0, 0 },
	{ "_netdev", 0, 0 },
	{ "user", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "users", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "nouser", 0, 0 },
};

static bool flag_take(struct rp_mount_options *options, const char *key)
{
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (!strcmp(flags[i].name, key)) {
			options->flags = (options->flags | flags[i].set) & ~flags[i].clear;
			return true;
		}
	}
	return false;
}

/* The kernel's labels: passed on as they are. */
static bool is_context(const char *key)
{
	return !strcmp(key, "context") || !strcmp(key, "fscontext") || !strcmp(key, "defcontext") ||
	       !strcmp(key, "rootcontext");
}

static int context_take(struct rp_mount_options *options, const char *key, const char *value)
{
	char *text;

	if (asprintf(&text, "%s%s%s=%s", options->context ? options->context : "", options->context ? "," : "", key,
	             value) < 0)
		return -ENOMEM;
	free(options->context);
	options->context = text;
	return 1;
}

static int uring_take(struct rp_mount_options *options, const char *value, char message[512])
{
	if (!value || !strcmp(value, "on"))
		options->uring = RP_URING_ON;
	else if (!strcmp(value, "off"))
		options->uring = RP_URING_OFF;
	else if (!strcmp(value, "auto"))
		options->uring = RP_URING_AUTO;
	else {
		snprintf(message, 512, "io_uring=%.200s: this option takes auto, on or off", value);
		return -EINVAL;
	}
	return 1;
}

/* The server's own switches, without a value. */
static bool switch_take(struct rp_mount_options *options, const char *key)
{
	if (!strcmp(key, "allow_other"))
		options->allow_other = true;
	else if (!strcmp(key, "noallow_other"))
		options->allow_other = false;
	else if (!strcmp(key, "default_permissions"))
		options->default_permissions = true;
	else if (!strcmp(key, "nonempty"))
		options->nonempty = true;
	else if (!strcmp(key, "writethrough"))
		options->write_through = true;
	else if (!strcmp(key, "writeback"))
		options->write_through = false;
	else if (!strcmp(key, "noxattr"))
		options->no_xattr = true;
	else if (!strcmp(key, "debug"))
		options->debug = true;
	else
		return false;
	return true;
}

static int own_take(struct rp_mount_options *options, const char *key, const char *value, char message[512])
{
	if (!strcmp(key, "io_uring"))
		return uring_take(options, value, message);
	if (!strcmp(key, "fsname") && value) {
		free(options->source);
		options->source = strdup(value);
		return options->source ? 1 : -ENOMEM;
	}
	if (value && is_context(key))
		return context_take(options, key, value);
	if (!strncmp(key, "x-", 2) || !strcmp(key, "comment"))
		return 1;
	return !value && switch_take(options, key) ? 1 : 0;
}

/* One option; 0 or -errno with a message. */
static int option_take(struct rp_mount_options *options, const char *key, const char *value, char message[512])
{
	bool flag = !value && flag_take(options, key);
	int taken;

	if (!strcmp(key, "remount")) {
		snprintf(message, 512, "remount: not possible; rampool resize changes the size");
		return -EINVAL;
	}
	/* "sync" alone is the kernel's flag; "sync=image" is the keeper's, as are "ro" and "rw" too. */
	if (flag && strcmp(key, "ro") != 0 && strcmp(key, "rw") != 0)
		return 0;
	message[0] = 0;
	taken = own_take(options, key, value, message);
	if (!taken)
		taken = rp_keep_option(&options->keep, key, value, message);
	if (taken > 0 || flag)
		return 0;
	if (!taken) {
		snprintf(message, 512, "%.200s: unknown option", key);
		return -EINVAL;
	}
	if (!message[0])
		snprintf(message, 512, "%.200s: %s", key, strerror(-taken));
	return taken;
}

char *rp_option_next(char **rest)
{
	char *from = *rest, *to = from, *start = from;

	if (!*from)
		return NULL;
	for (; *from && *from != ','; from++) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*rest = *from ? from + 1 : from;
	*to = 0;
	return start;
}

int rp_mount_options_take(struct rp_mount_options *options, const char *text, char message[512])
{
	char *copy = strdup(text), *rest = copy, *word;
	int error = 0;

	if (!copy) {
		snprintf(message, 512, "no memory");
		return -ENOMEM;
	}
	while (!error && (word = rp_option_next(&rest))) {
		char *value = strchr(word, '=');

		if (!*word)
			continue;
		if (value)
			*value++ = 0;
		error = option_take(options, word, value, message);
	}
	free(copy);
	return error;
}

void rp_mount_options_free(struct rp_mount_options *options)
{
	rp_keep_options_free(&options->keep);
	free(options->mountpoint);
	free(options->source);
	free(options->context);
}

void rp_mount_help(FILE *to)
{
	fputs(rp_keep_options_help(), to);
	fputs("  ro rw nosuid nodev noexec sync dirsync noatime nodiratime relatime ...\n"
	      "                          as for every mount (mount(8))\n"
	      "  allow_other             other users may enter (root: the default; noallow_other switches it off)\n"
	      "  default_permissions     with root's noallow_other: the kernel checks permissions all the same\n"
	      "  nonempty                mount over a directory that has entries\n"
	      "  writethrough            write(2) returns when the data are in the pool (default: in the kernel's "
	      "cache)\n"
	      "  io_uring=auto|on|off    how requests come from the kernel (auto: io_uring where it can be had)\n"
	      "  noxattr                 no extended attributes and ACLs: fewer requests for each new file\n"
	      "  fsname=TEXT             what the list of mounts shows first (rampool)\n"
	      "  debug                   with -f: print each request\n",
	      to);
}
