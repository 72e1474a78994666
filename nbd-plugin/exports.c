/* exports.c: every regular file is an export, by its path; PATH@SNAPSHOT is the file as a snapshot holds it, read-only.
 *
 * A file whose own name has an '@' comes before a snapshot of that reading. The default export is the disk that the
 * parameters name, or the only file there is.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include "plugin.h"

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* One file has one name as an export: no "a//b", "./a", "a/../b". */
static bool path_is_plain(const char *path)
{
	size_t length;

	do {
		length = strcspn(path, "/");
		if (!length || (path[0] == '.' && (length == 1 || (length == 2 && path[1] == '.'))))
			return false;
		path += length;
	} while (*path++);
	return true;
}

static int file_find(struct rp_fs *fs, const char *path, struct rp_attr *attr)
{
	int error = path_is_plain(path) ? rp_fs_walk(fs, path, attr) : -ENOENT;

	if (error)
		return error == -ENOTDIR || error == -ENAMETOOLONG || error == -EINVAL ? -ENOENT : error;
	return S_ISREG(attr->mode) ? 0 : -ENOENT;
}

static void description_fill(struct rp_export *export, const struct rp_attr *attr, const char *snapshot)
{
	char size[32], used[32];

	snprintf(export->description, sizeof(export->description), "%s, %s used%s%.80s",
	         rp_size_print(attr->size_bytes, size), rp_size_print(attr->page_count * RP_PAGE_SIZE, used),
	         snapshot ? ", snapshot " : "", snapshot ? snapshot : "");
}

static int live_open(struct rp_keep *keep, const char *name, bool read_only, struct rp_export *export)
{
	struct rp_attr attr;
	int error;

	error = file_find(rp_keep_fs(keep), name, &attr);
	if (!error)
		error = rp_fs_hold(rp_keep_fs(keep), attr.ino, attr.generation);
	if (error)
		return error;
	export->fs = rp_keep_fs(keep);
	export->tree = rp_pool_live(rp_keep_pool(keep));
	export->ino = attr.ino;
	export->generation = attr.generation;
	export->size_bytes = attr.size_bytes;
	export->writable = !read_only && !rp_plugin.options.read_only;
	description_fill(export, &attr, NULL);
	return 0;
}

static int snapshot_open(struct rp_keep *keep, const char *name, struct rp_export *export)
{
	const char *at = strrchr(name, '@');
	struct rp_attr attr;
	char *path;
	int error;

	if (!at)
		return -ENOENT;
	path = strndup(name, (size_t)(at - name));
	if (!path)
		return -ENOMEM;
	error = rp_snapshot_open(rp_keep_pool(keep), at + 1, &export->snapshot);
	if (error)
		goto out;
	error = rp_fs_open_snapshot(rp_keep_pool(keep), export->snapshot, &export->fs);
	if (error)
		goto out_snapshot;
	error = file_find(export->fs, path, &attr);
	if (error)
		goto out_fs;
	export->tree = rp_snapshot_tree(export->snapshot);
	export->ino = attr.ino;
	export->generation = attr.generation;
	export->size_bytes = attr.size_bytes;
	description_fill(export, &attr, at + 1);
	free(path);
	return 0;
out_fs:
	rp_fs_close(export->fs);
out_snapshot:
	rp_snapshot_put(export->snapshot);
out:
	free(path);
	return error == -EINVAL ? -ENOENT : error;
}

/* The name as paths are found: without slashes in front; empty: the default's. */
static const char *name_normal(const char *name)
{
	const char *path = name + strspn(name, "/");

	return *path ? path : rp_exports_default(0, 0);
}

int rp_export_open(struct rp_keep *keep, const char *name, bool read_only, struct rp_export **out)
{
	struct rp_export *export;
	int error;

	name = name_normal(name);
	if (!name)
		return -ENOENT;
	export = calloc(1, sizeof(*export));
	if (!export)
		return -ENOMEM;
	error = live_open(keep, name, read_only, export);
	if (error == -ENOENT)
		error = snapshot_open(keep, name, export);
	if (error) {
		free(export);
		return error;
	}
	rp_counters_connect(export);
	*out = export;
	return 0;
}

void rp_export_close(struct rp_export *export)
{
	rp_counters_disconnect(export);
	if (export->snapshot) {
		rp_fs_close(export->fs);
		rp_snapshot_put(export->snapshot);
	} else {
		rp_io_touch(export);
		rp_fs_release(export->fs, export->ino, 1);
	}
	free(export);
}

/* ---- Walking ----------------------------------------------------------------------------------------------------- */

struct pending {
	struct pending *next;
	rp_object ino;
	char path[];
};

/* Called for each regular file; nonzero ends the walk. */
struct walk {
	struct pending *pending;
	const char *path;   /* of the directory that is read */
	int (*file)(struct walk *walk, const char *path, const struct rp_attr *attr);
	int error;
	/* for the callbacks */
	struct nbdkit_exports *exports;
	const char *snapshot;
	size_t count;
	char *only;
};

static int walk_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct walk *walk = context;
	size_t length = strlen(walk->path) + 1 + name.length;
	struct pending *found;

	(void)next_cookie;
	if ((!S_ISDIR(attr->mode) && !S_ISREG(attr->mode)) || length > RP_EXPORT_NAME_MAX ||
	    (name.bytes[0] == '.' && (name.length == 1 || (name.length == 2 && name.bytes[1] == '.'))))
		return 0;
	found = malloc(sizeof(*found) + length + 1);
	if (!found) {
		walk->error = -ENOMEM;
		return 1;
	}
	sprintf(found->path, "%s%s%.*s", walk->path, *walk->path ? "/" : "", (int)name.length, name.bytes);
	if (S_ISDIR(attr->mode)) {
		found->ino = attr->ino;
		found->next = walk->pending;
		walk->pending = found;
		return 0;
	}
	walk->error = walk->file(walk, found->path, attr);
	free(found);
	return walk->error != 0;
}

static int walk_files(struct rp_fs *fs, struct walk *walk)
{
	struct pending *at = calloc(1, sizeof(*at) + 1);
	int error = at ? 0 : -ENOMEM;

	if (at)
		at->ino = rp_fs_root(fs);
	walk->pending = at;
	while ((at = walk->pending)) {
		walk->pending = at->next;
		walk->path = at->path;
		if (!error)
			error = rp_fs_readdir(fs, at->ino, 0, true, false, walk_entry, walk);
		if (error == -ENOENT) /* removed meanwhile */
			error = 0;
		if (walk->error)
			error = walk->error;
		free(at);
	}
	return error;
}

/* ---- Listing ----------------------------------------------------------------------------------------------------- */

static int list_file(struct walk *walk, const char *path, const struct rp_attr *attr)
{
	struct rp_export export;
	const char *name = path;
	char *whole = NULL;
	int result;

	if (walk->count >= RP_EXPORTS_MAX) {
		nbdkit_debug("more than %u exports: the others are not listed, but can be used", RP_EXPORTS_MAX);
		return 1;
	}
	if (walk->snapshot) {
		if (strlen(path) + 1 + strlen(walk->snapshot) > RP_EXPORT_NAME_MAX)
			return 0;
		if (asprintf(&whole, "%s@%s", path, walk->snapshot) < 0)
			return -ENOMEM;
		name = whole;
	}
	description_fill(&export, attr, walk->snapshot);
	result = nbdkit_add_export(walk->exports, name, export.description);
	free(whole);
	walk->count++;
	return result ? -errno : 0;
}

static int list_snapshot(struct rp_pool *pool, struct walk *walk)
{
	struct rp_snapshot *snapshot;
	struct rp_fs *fs;
	int error;

	error = rp_snapshot_open(pool, walk->snapshot, &snapshot);
	if (error)
		return error == -ENOENT ? 0 : error; /* deleted meanwhile */
	error = rp_fs_open_snapshot(pool, snapshot, &fs);
	if (!error) {
		error = walk_files(fs, walk);
		rp_fs_close(fs);
	}
	rp_snapshot_put(snapshot);
	return error;
}

int rp_exports_list(int read_only, int is_tls, struct nbdkit_exports *exports)
{
	struct rp_pool *pool = rp_keep_pool(rp_plugin.keep);
	struct walk walk = { .file = list_file, .exports = exports };
	struct rp_snapshot_info *list = NULL;
	size_t count = 0, i;
	int error;

	(void)read_only;
	(void)is_tls;
	error = walk_files(rp_keep_fs(rp_plugin.keep), &walk);
	if (!error)
		error = rp_snapshot_list(pool, false, &list, &count);
	for (i = 0; !error && i < count; i++) {
		walk.snapshot = list[i].name;
		error = list_snapshot(pool, &walk);
	}
	free(list);
	if (error < 0) {
		nbdkit_error("the exports cannot be listed: %s", strerror(-error));
		nbdkit_set_error(-error);
		return -1;
	}
	return 0;
}

/* ---- The default ------------------------------------------------------------------------------------------------- */

/* Ends at the second file. */
static int only_file(struct walk *walk, const char *path, const struct rp_attr *attr)
{
	(void)attr;
	if (walk->count++)
		return 1;
	walk->only = strdup(path);
	return walk->only ? 0 : -ENOMEM;
}

const char *rp_exports_default(int read_only, int is_tls)
{
	struct rp_fs *fs = rp_keep_fs(rp_plugin.keep);
	struct walk walk = { .file = only_file };
	const char *name = NULL;
	struct rp_attr attr;

	(void)read_only;
	(void)is_tls;
	if (!file_find(fs, rp_plugin.disk_name, &attr))
		return rp_plugin.disk_name;
	if (!walk_files(fs, &walk) && walk.count == 1)
		name = nbdkit_strdup_intern(walk.only);
	free(walk.only);
	return name;
}
