/* view.c: snapshots as read-only directories under .snapshots, which is found by name but not listed.
 *
 * A view is opened when the kernel looks a snapshot up, counts the kernel's lookups of all its nodes, and is closed
 * when the last is forgotten. A snapshot that is deleted meanwhile stays readable for those who are in it. Names in
 * .snapshots are asked for each time (no lifetime), because snapshots come and go without the kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "ramfs/server/internal.h"

void rp_views_init(struct rp_views *views)
{
	pthread_mutex_init(&views->lock, NULL);
}

static void view_free(struct rp_view *view)
{
	rp_fs_close(view->fs);
	rp_snapshot_put(view->snapshot);
	free(view);
}

void rp_views_end(struct rp_views *views)
{
	for (size_t i = 0; i < views->slot_count; i++) {
		if (views->slots[i])
			view_free(views->slots[i]);
	}
	free(views->slots);
	pthread_mutex_destroy(&views->lock);
}

static size_t view_index(fuse_ino_t number)
{
	return (size_t)((number & ~RP_NODE_VIEW) >> RP_NODE_OBJECT_BITS) - 1;
}

static struct rp_view *view_find_locked(struct rp_views *views, fuse_ino_t number)
{
	size_t index = view_index(number);

	return index < views->slot_count ? views->slots[index] : NULL;
}

struct rp_view *rp_view_find(struct rp_views *views, fuse_ino_t number)
{
	struct rp_view *view;

	pthread_mutex_lock(&views->lock);
	view = view_find_locked(views, number);
	pthread_mutex_unlock(&views->lock);
	return view;
}

void rp_view_hold(struct rp_views *views, struct rp_view *view)
{
	pthread_mutex_lock(&views->lock);
	view->lookups++;
	pthread_mutex_unlock(&views->lock);
}

void rp_view_forget(struct rp_views *views, fuse_ino_t number, uint64_t count)
{
	struct rp_view *view, *gone = NULL;

	pthread_mutex_lock(&views->lock);
	view = view_find_locked(views, number);
	if (view) {
		view->lookups -= count < view->lookups ? count : view->lookups;
		if (!view->lookups) {
			views->slots[view->index] = NULL;
			gone = view;
		}
	}
	pthread_mutex_unlock(&views->lock);
	if (gone)
		view_free(gone);
}

/* A free slot's index. */
static int slot_take_locked(struct rp_views *views, size_t *index)
{
	struct rp_view **wider;
	size_t count = views->slot_count ? views->slot_count * 2 : 8;

	for (*index = 0; *index < views->slot_count; ++*index) {
		if (!views->slots[*index])
			return 0;
	}
	wider = reallocarray(views->slots, count, sizeof(*wider));
	if (!wider)
		return -ENOMEM;
	memset(wider + views->slot_count, 0, (count - views->slot_count) * sizeof(*wider));
	views->slots = wider;
	views->slot_count = count;
	return 0;
}

/* The id of the snapshot of that name. */
static int snapshot_id(struct rp_pool *pool, const char *name, uint64_t *id)
{
	struct rp_snapshot_info *list;
	size_t count;
	int error = rp_snapshot_list(pool, false, &list, &count);

	if (error)
		return error;
	error = -ENOENT;
	for (size_t i = 0; i < count && error; i++) {
		if (!strcmp(list[i].name, name)) {
			*id = list[i].id;
			error = 0;
		}
	}
	free(list);
	return error;
}

static int view_make_locked(struct rp_server *server, const char *name, uint64_t id, struct rp_view **out)
{
	struct rp_view *view = calloc(1, sizeof(*view));
	int error;

	if (!view)
		return -ENOMEM;
	error = slot_take_locked(&server->views, &view->index);
	if (error)
		goto fail;
	error = rp_snapshot_open(server->pool, name, &view->snapshot);
	if (error)
		goto fail;
	error = rp_fs_open_snapshot(server->pool, view->snapshot, &view->fs);
	if (error)
		goto fail_put;
	view->id = id;
	view->node_base = RP_NODE_VIEW | (uint64_t)(view->index + 1) << RP_NODE_OBJECT_BITS;
	server->views.slots[view->index] = view;
	*out = view;
	return 0;
fail_put:
	rp_snapshot_put(view->snapshot);
fail:
	free(view);
	return error;
}

int rp_view_open(struct rp_server *server, const char *name, struct rp_view **out)
{
	struct rp_views *views = &server->views;
	struct rp_view *view = NULL;
	uint64_t id;
	int error = snapshot_id(server->pool, name, &id);

	if (error)
		return error;
	pthread_mutex_lock(&views->lock);
	for (size_t i = 0; i < views->slot_count && !view; i++) {
		if (views->slots[i] && views->slots[i]->id == id)
			view = views->slots[i];
	}
	if (!view)
		error = view_make_locked(server, name, id, &view);
	if (!error) {
		view->lookups++;
		*out = view;
	}
	pthread_mutex_unlock(&views->lock);
	return error;
}

/* ---- The directory .snapshots ------------------------------------------------------------------------------------ */

void rp_catalog_attr(struct rp_server *server, struct rp_attr *out)
{
	struct rp_attr root;
	struct timespec now;

	memset(out, 0, sizeof(*out));
	out->mode = S_IFDIR | 0555;
	out->nlink = 2;
	out->generation = 1;
	if (!rp_fs_getattr(server->fs, server->root, &root)) {
		out->uid = root.uid;
		out->gid = root.gid;
		out->btime = root.btime;
	}
	/* It may have changed since it was last looked at. The kernel keeps a listing as long as this time stays. */
	clock_gettime(CLOCK_REALTIME, &now);
	out->atime = out->mtime = out->ctime = (struct rp_time){ .sec = now.tv_sec, .nsec = (uint32_t)now.tv_nsec };
}

void rp_catalog_entry(struct rp_server *server, struct fuse_entry_param *entry)
{
	const struct rp_node node = { .kind = RP_NODE_IS_CATALOG };
	struct rp_attr attr;

	rp_catalog_attr(server, &attr);
	rp_entry_fill(server, &node, &attr, entry);
	entry->attr_timeout = entry->entry_timeout = 0;
}

int rp_catalog_lookup(struct rp_server *server, const char *name, struct fuse_entry_param *entry)
{
	struct rp_node node = { .kind = RP_NODE_IN_VIEW };
	struct rp_attr attr;
	int error;

	if (!strcmp(name, ".")) {
		rp_catalog_entry(server, entry);
		return 0;
	}
	if (!strcmp(name, "..")) {
		node.kind = RP_NODE_LIVE;
		error = rp_fs_lookup(server->fs, server->root, rp_name_from("."), true, &attr);
		if (!error)
			rp_entry_fill(server, &node, &attr, entry);
		return error;
	}
	error = rp_view_open(server, name, &node.view);
	if (error)
		return error;
	error = rp_fs_getattr(node.view->fs, rp_fs_root(node.view->fs), &attr);
	if (error) {
		rp_view_forget(&server->views, node.view->node_base, 1);
		return error;
	}
	rp_entry_fill(server, &node, &attr, entry);
	entry->entry_timeout = 0;
	return 0;
}

static size_t catalog_add(fuse_req_t req, char *to, size_t space, const char *name, const struct stat *st, off_t next,
                          bool plus)
{
	struct fuse_entry_param entry = { .attr = *st };

	/* A node of 0 tells the kernel that this entry is no lookup. */
	return plus ? fuse_add_direntry_plus(req, to, space, name, &entry, next)
	            : fuse_add_direntry(req, to, space, name, st, next);
}

ssize_t rp_catalog_read(struct rp_server *server, fuse_req_t req, off_t cookie, char *buffer, size_t size, bool plus)
{
	const struct rp_node self = { .kind = RP_NODE_IS_CATALOG };
	struct rp_snapshot_info *list;
	struct rp_attr attr;
	struct stat st;
	size_t count, used = 0;
	int error = rp_snapshot_list(server->pool, false, &list, &count);

	if (error)
		return error;
	rp_catalog_attr(server, &attr);
	rp_attr_to_stat(server, &self, &attr, &st);
	for (size_t at = (size_t)cookie; at < count + 2; at++) {
		const char *name = at == 0 ? "." : at == 1 ? ".." : list[at - 2].name;
		size_t need;

		/* The number a snapshot's root has is known only when it is looked at: 1 + its id will do for a
		 * listing. */
		if (at >= 2)
			st.st_ino = RP_NODE_VIEW | (list[at - 2].id + 1);
		need = catalog_add(req, buffer + used, size - used, name, &st, (off_t)at + 1, plus);
		if (need > size - used)
			break;
		used += need;
	}
	free(list);
	return (ssize_t)used;
}
