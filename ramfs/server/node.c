/* node.c: node numbers (the kernel's nodeid) and what they name; see internal.h for their layout.
 *
 * The kernel keeps a count of lookups for each node. For the live tree the namespace keeps it (rp_fs_hold), for
 * snapshots the view does, so that a view can be closed when the kernel has forgotten all of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ramfs/server/internal.h"

/* Node 1 is the root: the two numbers change places. */
static uint64_t object_swap(const struct rp_server *server, uint64_t number)
{
	if (number == server->root)
		return FUSE_ROOT_ID;
	return number == FUSE_ROOT_ID ? server->root : number;
}

/* ---- Eras -------------------------------------------------------------------------------------------------------- */

int rp_eras_init(struct rp_eras *eras)
{
	return -pthread_rwlock_init(&eras->lock, NULL);
}

void rp_eras_end(struct rp_eras *eras)
{
	pthread_rwlock_destroy(&eras->lock);
	free(eras->places);
}

static size_t era_place(const struct rp_eras *eras, rp_object object)
{
	size_t at = (size_t)(object * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (eras->place_count - 1);

	while (eras->places[at].object && eras->places[at].object != object)
		at = (at + 1) & (eras->place_count - 1);
	return at;
}

static uint32_t era_of(struct rp_eras *eras, rp_object object)
{
	uint32_t era = 0;

	if (!atomic_load_explicit(&eras->last, memory_order_acquire))
		return 0;
	pthread_rwlock_rdlock(&eras->lock);
	if (eras->places) {
		const struct rp_era *place = &eras->places[era_place(eras, object)];

		era = place->object ? place->era : 0;
	}
	pthread_rwlock_unlock(&eras->lock);
	return era;
}

/* Twice the places, when half are used. */
static int eras_grow(struct rp_eras *eras)
{
	struct rp_eras wider = { .place_count = eras->place_count ? eras->place_count * 2 : 256 };

	wider.places = calloc(wider.place_count, sizeof(*wider.places));
	if (!wider.places)
		return -ENOMEM;
	for (size_t i = 0; i < eras->place_count; i++) {
		if (eras->places[i].object)
			wider.places[era_place(&wider, eras->places[i].object)] = eras->places[i];
	}
	free(eras->places);
	eras->places = wider.places;
	eras->place_count = wider.place_count;
	return 0;
}

int rp_eras_begin(struct rp_eras *eras, const rp_object *objects, size_t count)
{
	uint32_t era = atomic_load(&eras->last) + 1;
	int error = 0;

	pthread_rwlock_wrlock(&eras->lock);
	for (size_t i = 0; i < count && !error; i++) {
		struct rp_era *place;

		if (eras->used * 2 >= eras->place_count)
			error = eras_grow(eras);
		if (error)
			break;
		place = &eras->places[era_place(eras, objects[i])];
		eras->used += !place->object;
		*place = (struct rp_era){ .object = objects[i], .era = era };
	}
	if (count)
		atomic_store_explicit(&eras->last, era, memory_order_release);
	pthread_rwlock_unlock(&eras->lock);
	return error;
}

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

int rp_node_find(struct rp_server *server, fuse_ino_t number, struct rp_node *out)
{
	uint64_t object = number & RP_NODE_OBJECT_MASK;

	out->view = NULL;
	if (number == RP_NODE_CATALOG) {
		out->kind = RP_NODE_IS_CATALOG;
		out->fs = NULL;
		out->object = 0;
		return 0;
	}
	if (number & RP_NODE_VIEW) {
		out->view = rp_view_find(&server->views, number);
		if (!out->view)
			return -ESTALE;
		out->kind = RP_NODE_IN_VIEW;
		out->fs = out->view->fs;
		out->object = object;
		return 0;
	}
	out->kind = RP_NODE_LIVE;
	out->fs = server->fs;
	out->object = object_swap(server, object);
	return number >> RP_NODE_OBJECT_BITS == era_of(&server->eras, out->object) ? 0 : -ESTALE;
}

int rp_node_find_to_change(struct rp_server *server, fuse_ino_t number, struct rp_node *out)
{
	int error = rp_node_find(server, number, out);

	if (error)
		return error;
	return out->kind != RP_NODE_LIVE || rp_keep_refuses_changes(server->keep) ? -EROFS : 0;
}

fuse_ino_t rp_node_number(struct rp_server *server, const struct rp_node *node, rp_object object)
{
	if (node->kind == RP_NODE_IS_CATALOG)
		return RP_NODE_CATALOG;
	if (node->kind == RP_NODE_IN_VIEW)
		return node->view->node_base | object;
	return object_swap(server, object) | (uint64_t)era_of(&server->eras, object) << RP_NODE_OBJECT_BITS;
}

/* ---- Attributes -------------------------------------------------------------------------------------------------- */

static struct timespec time_from(const struct rp_time *time)
{
	return (struct timespec){ .tv_sec = time->sec, .tv_nsec = time->nsec };
}

void rp_attr_to_stat(struct rp_server *server, const struct rp_node *node, const struct rp_attr *attr, struct stat *to)
{
	memset(to, 0, sizeof(*to));
	/* A file keeps its inode number whatever its era. */
	to->st_ino = rp_node_number(server, node, attr->ino);
	if (node->kind == RP_NODE_LIVE)
		to->st_ino &= RP_NODE_OBJECT_MASK;
	to->st_mode = attr->mode;
	to->st_nlink = attr->nlink;
	to->st_uid = attr->uid;
	to->st_gid = attr->gid;
	to->st_rdev = attr->rdev;
	to->st_size = (off_t)attr->size_bytes;
	to->st_blksize = RP_PAGE_SIZE;
	to->st_blocks = (blkcnt_t)(attr->page_count * (RP_PAGE_SIZE / 512));
	to->st_atim = time_from(&attr->atime);
	to->st_mtim = time_from(&attr->mtime);
	to->st_ctim = time_from(&attr->ctime);
}

int rp_node_getattr(struct rp_server *server, const struct rp_node *node, struct rp_attr *out)
{
	if (node->kind == RP_NODE_IS_CATALOG) {
		rp_catalog_attr(server, out);
		return 0;
	}
	return rp_fs_getattr(node->fs, node->object, out);
}

void rp_entry_fill(struct rp_server *server, const struct rp_node *node, const struct rp_attr *attr,
                   struct fuse_entry_param *entry)
{
	memset(entry, 0, sizeof(*entry));
	entry->ino = rp_node_number(server, node, attr->ino);
	entry->generation = attr->generation;
	entry->attr_timeout = RP_FOREVER;
	entry->entry_timeout = RP_FOREVER;
	rp_attr_to_stat(server, node, attr, &entry->attr);
}

void rp_node_forget(struct rp_server *server, fuse_ino_t number, uint64_t count)
{
	if (number == RP_NODE_CATALOG || number == FUSE_ROOT_ID)
		return;
	if (number & RP_NODE_VIEW)
		rp_view_forget(&server->views, number, count);
	else
		rp_fs_release(server->fs, object_swap(server, number & RP_NODE_OBJECT_MASK), count);
}
