/* names.c: from numbers of inodes to paths, in a state of the filesystem that does not change (a snapshot).
 *
 * A directory knows its parent; its name there is found by reading the parent. What was read is kept: so the cost is
 * that of the directories on the way to what is asked for, each read once, whatever else the tree holds.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include "internal.h"

/* ---- Listings ---------------------------------------------------------------------------------------------------- */

struct listing_fill {
	struct rp_listing *to;
	int error;
};

static int listing_add(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct listing_fill *fill = context;
	struct rp_listing *to = fill->to;
	struct rp_listed *names;
	size_t room;

	(void)next_cookie;
	if (name.bytes[0] == '.' && (name.length == 1 || (name.length == 2 && name.bytes[1] == '.')))
		return 0;
	if (to->count == to->room) {
		room = to->room ? to->room * 2 : 16;
		names = reallocarray(to->names, room, sizeof(*names));
		if (!names)
			goto no_memory;
		to->names = names;
		to->room = room;
	}
	names = &to->names[to->count];
	names->name = malloc(name.length + 1);
	if (!names->name)
		goto no_memory;
	memcpy(names->name, name.bytes, name.length);
	names->name[name.length] = 0;
	names->name_length = (uint32_t)name.length;
	names->ino = attr->ino;
	names->generation = attr->generation;
	names->mode = attr->mode;
	to->count++;
	return 0;
no_memory:
	fill->error = -ENOMEM;
	return 1;
}

int rp_listing_load(struct rp_fs *fs, rp_object directory, struct rp_listing *to)
{
	struct listing_fill fill = { .to = to };
	int error;

	*to = (struct rp_listing){ 0 };
	error = rp_fs_readdir(fs, directory, 0, true, false, listing_add, &fill);
	if (fill.error)
		error = fill.error;
	if (error < 0)
		rp_listing_free(to);
	return error < 0 ? error : 0;
}

void rp_listing_free(struct rp_listing *listing)
{
	size_t i;

	for (i = 0; i < listing->count; i++)
		free(listing->names[i].name);
	free(listing->names);
	*listing = (struct rp_listing){ 0 };
}

/* ---- Directories that were looked at ----------------------------------------------------------------------------- */

struct directory {
	struct directory *next;     /* in its bucket */
	rp_object ino;
	char *path;                 /* null: not asked for yet */
	bool listed;
	struct rp_listing listing;  /* by inode number */
};

struct rp_names {
	struct rp_fs *fs;
	struct directory **buckets; /* a power of two of them */
	size_t bucket_count, count;
};

static struct directory **bucket_of(struct rp_names *names, rp_object ino)
{
	return &names->buckets[(ino * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (names->bucket_count - 1)];
}

static void table_grow(struct rp_names *names)
{
	struct directory **old = names->buckets, *directory, **to;
	size_t old_count = names->bucket_count, i;

	names->buckets = calloc(old_count * 2, sizeof(*old));
	if (!names->buckets) { /* longer chains do as well */
		names->buckets = old;
		return;
	}
	names->bucket_count = old_count * 2;
	for (i = 0; i < old_count; i++)
		while ((directory = old[i])) {
			old[i] = directory->next;
			to = bucket_of(names, directory->ino);
			directory->next = *to;
			*to = directory;
		}
	free(old);
}

static struct directory *directory_get(struct rp_names *names, rp_object ino)
{
	struct directory *directory, **bucket;

	for (directory = *bucket_of(names, ino); directory; directory = directory->next)
		if (directory->ino == ino)
			return directory;
	if (names->count >= names->bucket_count)
		table_grow(names);
	directory = calloc(1, sizeof(*directory));
	if (!directory)
		return NULL;
	directory->ino = ino;
	bucket = bucket_of(names, ino);
	directory->next = *bucket;
	*bucket = directory;
	names->count++;
	return directory;
}

int rp_names_open(struct rp_fs *fs, struct rp_names **out)
{
	struct rp_names *names = calloc(1, sizeof(*names));
	struct directory *root;

	if (!names)
		return -ENOMEM;
	names->fs = fs;
	names->bucket_count = 64;
	names->buckets = calloc(names->bucket_count, sizeof(*names->buckets));
	root = names->buckets ? directory_get(names, rp_fs_root(fs)) : NULL;
	if (root)
		root->path = strdup("");
	if (!root || !root->path) {
		rp_names_close(names);
		return -ENOMEM;
	}
	*out = names;
	return 0;
}

void rp_names_close(struct rp_names *names)
{
	struct directory *directory;
	size_t i;

	for (i = 0; names->buckets && i < names->bucket_count; i++)
		while ((directory = names->buckets[i])) {
			names->buckets[i] = directory->next;
			rp_listing_free(&directory->listing);
			free(directory->path);
			free(directory);
		}
	free(names->buckets);
	free(names);
}

/* ---- Paths ------------------------------------------------------------------------------------------------------- */

static int by_ino(const void *a, const void *b)
{
	const struct rp_listed *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* The name of `ino` in a directory whose path is known, joined to that. */
static int path_join(struct rp_names *names, struct directory *in, rp_object ino, char **path)
{
	struct rp_listed wanted = { .ino = ino }, *found;
	int error;

	if (!in->listed) {
		error = rp_listing_load(names->fs, in->ino, &in->listing);
		if (error)
			return error == -ENOTDIR ? -ENOENT : error;
		if (in->listing.count)
			qsort(in->listing.names, in->listing.count, sizeof(*in->listing.names), by_ino);
		in->listed = true;
	}
	found = NULL;
	if (in->listing.count)
		found = bsearch(&wanted, in->listing.names, in->listing.count, sizeof(wanted), by_ino);
	if (!found)
		return -ENOENT;
	return asprintf(path, "%s/%s", in->path, found->name) < 0 ? -ENOMEM : 0;
}

static int parent_of(struct rp_names *names, rp_object directory, rp_object *parent)
{
	static const struct rp_name up = { "..", 2 };
	struct rp_attr attr;
	int error;

	error = rp_fs_lookup(names->fs, directory, up, false, &attr);
	*parent = attr.ino;
	return error == -ENOTDIR || error == -ESTALE ? -ENOENT : error;
}

/* Up to a directory with a known path, remembering the way; then down, naming each. A tree deeper than a stack is no
 * harm. */
int rp_names_directory(struct rp_names *names, rp_object directory, const char **path)
{
	struct directory *at = directory_get(names, directory), *below;
	rp_object *way = NULL, *longer, parent;
	size_t depth = 0, room = 0;
	int error = at ? 0 : -ENOMEM;

	while (!error && !at->path) {
		if (depth == room) {
			room = room ? room * 2 : 16;
			longer = reallocarray(way, room, sizeof(*way));
			if (!longer) {
				error = -ENOMEM;
				break;
			}
			way = longer;
		}
		way[depth++] = at->ino;
		error = parent_of(names, at->ino, &parent);
		if (!error && (parent == at->ino || !parent))
			error = -ENOENT; /* without a name, and not the root */
		at = error ? at : directory_get(names, parent);
		if (!at)
			error = -ENOMEM;
	}
	while (!error && depth) {
		below = directory_get(names, way[--depth]);
		error = below ? path_join(names, at, below->ino, &below->path) : -ENOMEM;
		at = below;
	}
	free(way);
	if (!error)
		*path = at->path;
	return error;
}

int rp_names_within(struct rp_names *names, rp_object hint, rp_object ino, char **path)
{
	const char *directory;
	int error;

	if (!hint)
		return -ENOENT;
	error = rp_names_directory(names, hint, &directory);
	return error ? error : path_join(names, directory_get(names, hint), ino, path);
}
