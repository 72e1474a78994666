/* space.c: holes: made, filled, found. */
#include "internal.h"

#define LEAVES_PER_CALL 64u /* nodes a call takes out or looks at: 128 MiB of a file, some 50 us */
#define PAGES_PER_CALL 256u

static rp_page pages_under(rp_entry root)
{
	return root ? rp_height_pages(rp_entry_height(root)) : 0;
}

/* Everything the map holds, if that ends at `last`. The nodes are walked after the operation; here it is one entry. */
static bool punch_all(struct rp_op *op, const struct rp_map *map, rp_page last)
{
	pthread_rwlock_t *shape = rp_shape(op->pool, map->object);
	rp_entry root = 0;

	if (last < pages_under(atomic_load(map->root)))
		return false;
	rp_race_point("all");
	pthread_rwlock_wrlock(shape);
	/* Again: a write behind the range may have raised the map meanwhile. Under the lock it cannot. */
	bool all = last >= pages_under(atomic_load(map->root));

	rp_race_point("all locked");
	if (all) {
		root = atomic_exchange(map->root, 0);
		__atomic_store_n(map->page_count, 0, __ATOMIC_RELAXED);
	}
	pthread_rwlock_unlock(shape);
	if (rp_entry_is_frame(root))
		rp_frame_put(op, rp_entry_frame(root));
	return all;
}

/* A level-1 node out of its map, whole. */
static int punch_leaf(struct rp_op *op, const struct rp_map *map, rp_page first)
{
	struct rp_spot spot = rp_map_spot(map, first, 1);
	_Atomic rp_entry *at;
	rp_entry e;
	uint64_t pages = 0;
	int error = rp_map_own(op, map, first, 1, false, &at);

	if (error || !at)
		return error;
	e = atomic_load(at);
	error = rp_entry_resolve(op, at, &e, &spot);
	if (error || !e)
		return error;
	rp_race_point("leaf");
	e = atomic_exchange(at, 0); /* a copy may have taken the node's place meanwhile; as many pages are in it */
	for (unsigned i = 0; i < RP_NODE_ENTRIES; i++)
		pages += atomic_load_explicit(&rp_node(op->pool, rp_entry_frame(e))[i], memory_order_relaxed) != 0;
	__atomic_sub_fetch(map->page_count, pages, __ATOMIC_RELAXED);
	rp_frame_put(op, rp_entry_frame(e));
	rp_map_prune(op, map, first);
	return 0;
}

static bool range_is_hole(_Atomic rp_entry *entry, rp_page first, rp_page last)
{
	for (unsigned i = first & (RP_NODE_ENTRIES - 1); first < last; first++, i++)
		if (atomic_load_explicit(&entry[i], memory_order_relaxed))
			return false;
	return true;
}

/* Some entries of one level-1 node, whose lock is held. Where nothing is, no node is copied. */
static int punch_entries(struct rp_op *op, const struct rp_map *map, rp_page first, rp_page last)
{
	_Atomic rp_entry *at;
	rp_frame node;
	rp_page end;
	int error = rp_map_leaf(op, map, first, &node, &end);

	if (error || !node || range_is_hole(rp_node(op->pool, node), first, last))
		return error;
	error = rp_map_own(op, map, first, 0, false, &at);
	if (error || !at)
		return error;
	for (; first < last; first++, at++) {
		rp_entry e = atomic_exchange(at, 0);

		if (!e)
			continue;
		__atomic_sub_fetch(map->page_count, 1, __ATOMIC_RELAXED);
		if (rp_entry_is_frame(e))
			rp_frame_put(op, rp_entry_frame(e));
	}
	rp_map_prune(op, map, last - 1);
	return 0;
}

/* What lies in one node, whole or in part. *end: where that ends. */
static int punch_piece(struct rp_op *op, const struct rp_map *map, rp_page first, rp_page last, rp_page *end)
{
	pthread_rwlock_t *shape = rp_shape(op->pool, map->object);
	rp_frame node;
	int error = rp_map_leaf(op, map, first, &node, end);

	if (error)
		return error;
	if (*end > last)
		*end = last;
	rp_race_point("piece");
	if (node) {
		pthread_rwlock_wrlock(shape);
		if (*end - first == RP_NODE_ENTRIES)
			error = punch_leaf(op, map, first);
		else
			error = punch_entries(op, map, first, *end);
		if (!error)
			rp_map_lower(op, map);
		pthread_rwlock_unlock(shape);
	}
	return error;
}

int rp_pages_punch(struct rp_op *op, rp_object object, rp_page first, rp_page count, rp_page *next)
{
	rp_page last = first + count;
	struct rp_record *record;
	struct rp_map map;
	int error = rp_record_own(op, object, &record, &map);

	*next = first;
	if (error)
		return error;
	if (first == 0 && punch_all(op, &map, last)) {
		*next = last;
		return 0;
	}
	for (unsigned leaves = 0; !error && *next < last && leaves < LEAVES_PER_CALL; leaves++) {
		rp_page end;

		error = punch_piece(op, &map, *next, last, &end);
		if (!error)
			*next = end;
	}
	return error;
}

int rp_pages_allocate(struct rp_op *op, rp_object object, rp_page first, rp_page count, rp_page *next)
{
	rp_page last = first + count;
	struct rp_record *record;
	struct rp_map map;
	int error = rp_record_own(op, object, &record, &map);

	*next = first;
	if (!error && last > first + PAGES_PER_CALL)
		last = first + PAGES_PER_CALL;
	while (!error && *next < last) {
		_Atomic rp_entry *at;
		rp_entry e;
		rp_frame f;

		error = rp_map_peek(op, &map, *next, &at, &e);
		if (!error && !e) {
			error = rp_frame_take(op, RP_CLASS_NORMAL, map.leaf, &f);
			if (error)
				return error;
			rp_page_zero(rp_bytes(op->pool, f));
			error = rp_map_publish(op, &map, *next, 0, f);
			if (error == RP_RACE)
				error = 0; /* someone else's page stands there: as good */
		}
		if (!error)
			++*next;
	}
	return error;
}

/* From `page` on, all of one sort up to *end; looks at no more than one node. */
static int run_get(struct rp_op *op, const struct rp_map *map, rp_page page, bool *is_data, rp_page *end)
{
	rp_frame node;
	int error = rp_map_leaf(op, map, page, &node, end);

	if (error)
		return error;
	if (node) {
		_Atomic rp_entry *entry = rp_node(op->pool, node);
		unsigned i = page & (RP_NODE_ENTRIES - 1);

		*is_data = atomic_load_explicit(&entry[i], memory_order_relaxed) != 0;
		for (*end = page; i < RP_NODE_ENTRIES; i++, ++*end)
			if ((atomic_load_explicit(&entry[i], memory_order_relaxed) != 0) != *is_data)
				break;
	} else {
		rp_race_point("extent");
		*is_data = *end == 1; /* that of rp_map_leaf(): by now the root may be another */
	}
	return 0;
}

int rp_extent_get(struct rp_op *op, struct rp_tree *tree, rp_object object, uint64_t offset, uint64_t end, bool *is_data,
                  uint64_t *extent_end)
{
	struct rp_record *record;
	struct rp_map map;
	rp_page page = offset >> RP_PAGE_SHIFT, page_end = page;
	int error = rp_record_map(op, tree, object, &record, &map);

	if (error)
		return error;
	for (unsigned runs = 0; runs < LEAVES_PER_CALL && page_end << RP_PAGE_SHIFT < end; runs++) {
		bool data;
		rp_page run_end;

		error = run_get(op, &map, page_end, &data, &run_end);
		if (error)
			return error;
		if (runs == 0)
			*is_data = data;
		if (data != *is_data)
			break;
		page_end = run_end;
		if (page_end >= RP_PAGE_COUNT_MAX)
			break;
	}
	*extent_end = page_end >= RP_PAGE_COUNT_MAX || page_end << RP_PAGE_SHIFT > end ? end : page_end << RP_PAGE_SHIFT;
	return 0;
}
