/* view.c: an image opened to be looked at, and walks through its tree. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "mkfs.h"

#define DEPTH_MAX 4096
#define BATCH 256

int rp_view_open(struct rp_view *view, const char *program, const char *path, uint64_t generation, const char *snapshot,
                 bool any_owner)
{
	char message[512] = "";
	struct rp_image_options options = { .read_only = true, .no_read_ahead = true, .generation = generation,
		.any_owner = any_owner, .message = message };
	int error;

	*view = (struct rp_view){ .program = program };
	error = rp_image_open(path, &options, &view->pool, &view->image);
	if (error) {
		view->pool = NULL;
		view->image = NULL;
		rp_say(program, "%s", message[0] ? message : rp_error_text(error));
		return error;
	}
	if (snapshot) {
		error = rp_snapshot_open(view->pool, snapshot, &view->snapshot);
		if (error)
			rp_say(program, "%s: snapshot %s: %s", path, snapshot,
			       error == -ENOENT ? "there is none of that name" : rp_error_text(error));
		else
			error = rp_fs_open_snapshot(view->pool, view->snapshot, &view->fs);
	} else {
		error = rp_fs_open(view->pool, true, &view->fs);
	}
	if (error && (!snapshot || view->snapshot))
		rp_say(program, "%s: the filesystem cannot be opened: %s", path, rp_error_text(error));
	if (error)
		rp_view_close(view);
	return error;
}

void rp_view_close(struct rp_view *view)
{
	if (view->fs)
		rp_fs_close(view->fs);
	if (view->snapshot)
		rp_snapshot_put(view->snapshot);
	if (view->image)
		rp_image_close(view->image);
	if (view->pool)
		rp_pool_destroy(view->pool);
	*view = (struct rp_view){ .program = view->program };
}

/* ---- Walks ---- */

/* Some names of a directory, kept because no call on the filesystem is made while it lists. */
struct batch {
	struct batch_entry {
		char *name;
		struct rp_attr attr;
	} entries[BATCH];
	size_t count;
	uint64_t cookie;
	int error;
};

struct level {
	struct rp_walk *walk;
	rp_object ino;
	unsigned depth;
	char *path;
};

static int batch_add(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next)
{
	struct batch *b = context;

	if (b->count == BATCH)
		return 1;
	if ((name.length == 1 && name.bytes[0] == '.') || (name.length == 2 && !memcmp(name.bytes, "..", 2))) {
		b->cookie = next;
		return 0;
	}
	b->entries[b->count].name = strndup(name.bytes, name.length);
	if (!b->entries[b->count].name) {
		b->error = -ENOMEM;
		return 1;
	}
	b->entries[b->count].attr = *attr;
	b->count++;
	b->cookie = next;
	return 0;
}

static void batch_clear(struct batch *b)
{
	for (size_t i = 0; i < b->count; i++)
		free(b->entries[i].name);
	b->count = 0;
}

static void fault(struct rp_walk *walk, const char *path, const char *what)
{
	char *printed = malloc(strlen(path) * 4 + 1);

	walk->faults++;
	rp_say(walk->view->program, "%s: %s", printed ? rp_name_print(path, strlen(path), printed) : path, what);
	free(printed);
}

static int level_walk(struct level *level);

/* A directory's ".." must be where we come from: else a damaged image could have it in many places, or in a circle. */
static int directory_enter(struct level *above, const char *path, const struct rp_attr *attr)
{
	struct rp_walk *walk = above->walk;
	struct level level = { .walk = walk, .ino = attr->ino, .depth = above->depth + 1, .path = (char *)path };
	struct rp_fs *fs = walk->view->fs;
	struct rp_attr up;

	if (attr->ino == rp_fs_root(fs) || rp_fs_lookup(fs, attr->ino, rp_name_from(".."), false, &up) ||
	    up.ino != above->ino) {
		fault(walk, path, "damaged: this directory belongs elsewhere");
		return 0;
	}
	if (level.depth > DEPTH_MAX) {
		fault(walk, path, "nested too deep");
		return 0;
	}
	return level_walk(&level);
}

static int entry_walk(struct level *level, const struct batch_entry *entry)
{
	struct rp_walk *walk = level->walk;
	char *path;
	int error;

	if (asprintf(&path, "%s%s%s", level->path, level->path[0] ? "/" : "", entry->name) < 0)
		return -ENOMEM;
	error = walk->each(walk->context, path, &entry->attr);
	if (!error && walk->recursive && S_ISDIR(entry->attr.mode))
		error = directory_enter(level, path, &entry->attr);
	free(path);
	return error;
}

static int level_walk(struct level *level)
{
	struct batch *b = calloc(1, sizeof(*b));
	struct rp_walk *walk = level->walk;
	uint64_t before;
	int error, result = 0;

	if (!b)
		return -ENOMEM;
	do {
		before = b->cookie;
		error = rp_fs_readdir(walk->view->fs, level->ino, b->cookie, true, false, batch_add, b);
		if (!error)
			error = b->error;
		if (error == -ENOMEM) {
			result = error;
		} else if (error) {
			fault(walk, level->path[0] ? level->path : "/", rp_error_text(error));
		}
		for (size_t i = 0; i < b->count && !result; i++)
			result = entry_walk(level, &b->entries[i]);
		batch_clear(b);
	} while (!result && !error && b->cookie != before);
	free(b);
	return result;
}

int rp_walk_tree(struct rp_walk *walk, const char *path, const struct rp_attr *start)
{
	struct level level = { .walk = walk, .ino = start->ino };
	int error;

	level.path = strdup(path);
	if (!level.path)
		return -ENOMEM;
	error = walk->each(walk->context, path, start);
	if (!error && S_ISDIR(start->mode))
		error = level_walk(&level);
	free(level.path);
	return error;
}
