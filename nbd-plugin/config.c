/* config.c: parameters; how large the pool must be; the disk that size= asks for.
 *
 * What can be known to be wrong is said before nbdkit goes into the background: an image that is there is opened once
 * to look at it, and let go of again.
 */
#include <stdlib.h>
#include <unistd.h>
#include <sys/stat.h>
#include "plugin.h"

/* Frames besides the disk's own: the pool's reserve (1024 at most), the tables of objects and names, caches of free
 * frames. */
#define FRAMES_BESIDES 2048u

const char rp_plugin_config_help[] =
	"[size=]SIZE       size of the disk (1G; needed unless image= or directory= has one)\n"
	"export=NAME       its name (disk)\n"
	"pool=SIZE         memory for everything, snapshots included (what the disk needs)\n"
	"image=FILE        open this image, or make it, and save there\n"
	"autosave=WHEN     save after so many seconds or changed bytes: 300s, 64M, 300s/64M\n"
	"sync=ram|image    flush and FUA wait for nothing, or for a commit to the image\n"
	"socket=PATH       control socket: status, snapshots, save\n"
	"and nosave=1, on-save-error=continue|readonly, keep=N, codec=zstd|lz4|none,\n"
	"generation=N, any-owner=1, ro=1, inodes=N, directory=DIR, label=TEXT, nohuge=1,\n"
	"mlock=1: see nbdkit-rampool-plugin(1)";

/* ---- Parameters -------------------------------------------------------------------------------------------------- */

static int size_take(const char *key, const char *value, bool percent, uint64_t max, uint64_t *to)
{
	uint64_t bytes;

	if (rp_size_parse(value, percent, &bytes) || !bytes || bytes > max) {
		nbdkit_error("%s=%s: not a size: a number of bytes, with K, M, G or T behind it", key, value);
		return -1;
	}
	*to = bytes;
	return 0;
}

static int text_take(const char *value, char **to)
{
	char *copy = strdup(value);

	if (!copy) {
		nbdkit_error("no memory");
		return -1;
	}
	free(*to);
	*to = copy;
	return 0;
}

static int name_take(const char *key, const char *value)
{
	if (!*value || strlen(value) > 255 || strchr(value, '/') || !strcmp(value, ".") || !strcmp(value, "..")) {
		nbdkit_error("%s=%s: not a name: 1 to 255 bytes without '/'", key, value);
		return -1;
	}
	return text_take(value, &rp_plugin.disk_name);
}

static int socket_take(const char *value)
{
	char *path = nbdkit_absolute_path(value);

	if (!path)
		return -1;
	free(rp_plugin.socket);
	rp_plugin.socket = path;
	return 0;
}

int rp_plugin_config(const char *key, const char *value)
{
	char message[512];
	int taken;

	if (!strcmp(key, "size"))
		return size_take(key, value, true, INT64_MAX, &rp_plugin.disk_bytes);
	if (!strcmp(key, "pool"))
		return size_take(key, value, true, INT64_MAX, &rp_plugin.pool_bytes);
	if (!strcmp(key, "export") || !strcmp(key, "disk-name"))
		return name_take(key, value);
	if (!strcmp(key, "socket"))
		return socket_take(value);
	taken = rp_keep_option(&rp_plugin.options, key, value, message);
	if (taken == 1)
		return 0;
	if (taken < 0)
		nbdkit_error("%s", message);
	else
		nbdkit_error("unknown parameter '%s': nbdkit rampool --help lists them", key);
	return -1;
}

int rp_plugin_config_complete(void)
{
	if (!rp_plugin.disk_name && text_take("disk", &rp_plugin.disk_name))
		return -1;
	if (!rp_plugin.disk_bytes && !rp_plugin.options.image && !rp_plugin.options.directory) {
		nbdkit_error("size is missing: nbdkit rampool 1G");
		return -1;
	}
	return 0;
}

/* ---- The pool's size --------------------------------------------------------------------------------------------- */

/* What makes every byte of the disk writable: its pages, the nodes above them, and what is needed besides. More than
 * the machine has is not promised: then the disk is larger than what can be in it at one time. */
static uint64_t pool_bytes_for(uint64_t disk_bytes)
{
	uint64_t level = disk_bytes / RP_PAGE_SIZE + 1, frames = FRAMES_BESIDES, memory, bytes;

	for (; level > 1; level = (level + RP_NODE_ENTRIES - 1) / RP_NODE_ENTRIES)
		frames += level;
	bytes = frames * RP_PAGE_SIZE;
	if (!rp_size_parse("100%", true, &memory) && bytes > memory) {
		nbdkit_debug("the disk is larger than memory: %llu bytes of it can be filled",
		             (unsigned long long)memory);
		bytes = memory;
	}
	return bytes;
}

/* Look into an image that exists: how large is its disk, is its pool large enough? */
static int image_look(struct rp_keep_options *options, uint64_t *disk_bytes, uint64_t *pool_bytes, char *message)
{
	struct rp_keep_options look = *options;
	struct rp_pool_status status;
	struct rp_attr attr;
	struct rp_keep *keep;
	int error;

	look.read_only = look.no_save = true;
	look.size_bytes = 0;
	look.autosave_seconds = look.autosave_bytes = 0;
	error = rp_keep_start(&look, NULL, &keep, message);
	if (error)
		return error;
	rp_pool_status(rp_keep_pool(keep), &status);
	*pool_bytes = status.size_bytes;
	error = rp_fs_walk(rp_keep_fs(keep), rp_plugin.disk_name, &attr);
	if (!error && !S_ISREG(attr.mode)) {
		snprintf(message, 512, "export=%s: is no regular file in %s", rp_plugin.disk_name, options->image);
		error = -EINVAL;
	} else {
		*disk_bytes = error ? 0 : attr.size_bytes;
		error = 0;
	}
	rp_keep_stop(keep, message);
	return error;
}

static int sizes_decide(struct rp_keep_options *options, char *message)
{
	uint64_t disk_bytes = 0, pool_bytes = 0;
	char is[32], asked[32];
	int error;

	if (options->image && !access(options->image, F_OK)) {
		error = image_look(options, &disk_bytes, &pool_bytes, message);
		if (error)
			return error;
	} else if (!rp_plugin.disk_bytes && !options->directory) {
		snprintf(message, 512, "%s: there is no such image; with size= one is made", options->image);
		return -ENOENT;
	}
	if (rp_plugin.disk_bytes && rp_plugin.disk_bytes < disk_bytes) {
		snprintf(message, 512, "size=%s: the disk in %s has %s, and does not shrink",
		         rp_size_print(rp_plugin.disk_bytes, asked), options->image, rp_size_print(disk_bytes, is));
		return -EINVAL;
	}
	if (rp_plugin.disk_bytes > disk_bytes && options->read_only && options->image) {
		snprintf(message, 512, "size: a disk cannot be made or grow with ro");
		return -EROFS;
	}
	options->size_bytes = rp_plugin.pool_bytes;
	if (!options->size_bytes && rp_plugin.disk_bytes > disk_bytes) {
		options->size_bytes = pool_bytes_for(rp_plugin.disk_bytes);
		if (options->size_bytes < pool_bytes)
			options->size_bytes = pool_bytes;
	}
	return 0;
}

int rp_plugin_get_ready(void)
{
	char message[512] = "";
	int error;

	error = rp_keep_check(&rp_plugin.options, message);
	if (!error)
		error = sizes_decide(&rp_plugin.options, message);
	if (error) {
		nbdkit_error("%s", message);
		return -1;
	}
	return 0;
}

/* ---- The disk ---------------------------------------------------------------------------------------------------- */

int rp_plugin_disk_make(struct rp_keep *keep, char message[512])
{
	struct rp_cred cred = { .uid = geteuid(), .gid = getegid(), .fsetid = true };
	struct rp_attr attr, wanted = { .size_bytes = rp_plugin.disk_bytes };
	struct rp_fs *fs = rp_keep_fs(keep);
	int error;

	if (!rp_plugin.disk_bytes)
		return 0;
	error = rp_fs_walk(fs, rp_plugin.disk_name, &attr);
	if (error == -ENOENT)
		error = rp_fs_make(fs, &cred, rp_fs_root(fs), rp_name_from(rp_plugin.disk_name), S_IFREG | 0600, 0,
		                   NULL, false, &attr);
	if (!error && !S_ISREG(attr.mode))
		error = -EISDIR;
	if (!error && attr.size_bytes < wanted.size_bytes)
		error = rp_fs_setattr(fs, attr.ino, RP_SET_SIZE, &wanted, &attr);
	if (error)
		snprintf(message, 512, "the disk %s cannot be made: %s", rp_plugin.disk_name, strerror(-error));
	return error;
}
