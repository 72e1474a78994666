/* map.c: maps: radix trees of node frames, 512 entries each, from a page's index to its frame.
 *
 * Reading takes no lock: entries are atomic, nodes that are unlinked stay readable until every operation that may see them
 * has ended. Changing takes none either where it replaces like by like: a page or node that is not ours is copied, and the
 * copy is put in its place with a compare-and-swap; who loses starts again. Who finds that the page to be replaced has gone
 * makes nothing on the way there, but looks again and fills the hole as whoever fills holes.
 *
 * Locks: shape (an array, picked by object number): whoever turns a hole into a page holds it shared while making the nodes
 * above it, putting the entry in and counting it; whoever takes nodes out, or clears entries, holds it alone. So no page is
 * put into a node that has left the map, no node comes while another goes, and page_count is exact. Held for at most one
 * node's entries; nothing sleeps under it. Only arena.lock, and the resident index's, are taken inside it. The object table
 * and the catalog take none: numbers_lock and catalog_lock keep their shape.
 */
#include "internal.h"

unsigned rp_height_for(rp_page page)
{
	unsigned height = 0;

	while (page >= rp_height_pages(height))
		height++;
	return height;
}

static unsigned slot_of(rp_page page, unsigned level)
{
	return (unsigned)(page >> (RP_NODE_SHIFT * (level - 1))) & (RP_NODE_ENTRIES - 1);
}

static int want(struct rp_op *op, rp_addr addr, unsigned kind, uint32_t place)
{
	for (unsigned i = 0; i < op->absent_count; i++)
		if (op->absent[i] == addr)
			return RP_AGAIN;
	if (op->absent_count < sizeof(op->absent) / sizeof(op->absent[0])) {
		op->absent[op->absent_count] = addr;
		op->absent_kind[op->absent_count] = (uint8_t)kind;
		op->absent_place[op->absent_count++] = place;
	}
	return RP_AGAIN;
}

int rp_entry_resolve(struct rp_op *op, _Atomic rp_entry *where, rp_entry *e, const struct rp_spot *spot)
{
	struct rp_pool *pool = op->pool;
	uint32_t place = rp_spot_place(spot), stands = 0;

	while (rp_entry_is_addr(*e)) {
		rp_frame f = pool->resident ? rp_resident_get(pool, rp_entry_addr(*e), &stands) : 0;

		if (!f)
			return want(op, rp_entry_addr(*e), spot->kind, place);
		if (rp_frame_kind(pool, f) != spot->kind || stands != place) {
			/* Damaged. Whoever fetches finds the same, and says so. */
			rp_frame_put(op, f);
			return want(op, rp_entry_addr(*e), spot->kind, place);
		}
		if (atomic_compare_exchange_strong(where, e, rp_entry_from_frame(f, rp_entry_height(*e)))) {
			*e = rp_entry_from_frame(f, rp_entry_height(*e));
			return 0;
		}
		rp_frame_put(op, f);
	}
	return 0;
}

/* The root as it is now, in memory; its height says how to go on. */
static int root_get(struct rp_op *op, const struct rp_map *map, rp_entry *e)
{
	*e = atomic_load_explicit(map->root, memory_order_acquire);
	while (rp_entry_is_addr(*e)) {
		struct rp_spot spot = rp_map_spot(map, 0, rp_entry_height(*e));
		int error = rp_entry_resolve(op, map->root, e, &spot);

		if (error)
			return error;
	}
	return 0;
}

int rp_map_peek(struct rp_op *op, const struct rp_map *map, rp_page page, _Atomic rp_entry **at, rp_entry *e)
{
	*at = map->root;
	*e = atomic_load_explicit(map->root, memory_order_acquire);
	if (rp_entry_is_addr(*e) && rp_entry_height(*e) == 0 && page == 0)
		return 0;
	int error = root_get(op, map, e);

	if (!error && *e && page >= rp_height_pages(rp_entry_height(*e)))
		*e = 0;
	if (error || !*e)
		return error;
	for (unsigned level = rp_entry_height(*e); level > 0; level--) {
		struct rp_spot spot = rp_map_spot(map, page, level);

		if (rp_entry_is_addr(*e))
			error = rp_entry_resolve(op, *at, e, &spot);
		if (error || !*e)
			return error;
		*at = &rp_node(op->pool, rp_entry_frame(*e))[slot_of(page, level)];
		*e = atomic_load_explicit(*at, memory_order_acquire);
	}
	return 0;
}

int rp_map_find(struct rp_op *op, const struct rp_map *map, rp_page page, rp_frame *out)
{
	_Atomic rp_entry *at;
	rp_entry e;
	struct rp_spot spot = rp_map_spot(map, page, 0);
	int error = rp_map_peek(op, map, page, &at, &e);

	*out = 0;
	if (!error && rp_entry_is_addr(e))
		error = rp_entry_resolve(op, at, &e, &spot);
	if (!error)
		*out = rp_entry_frame(e);
	return error;
}

/* The first page behind a hole at `page`, whose entry among the node's is empty; an entry's children are of this level. */
static rp_page hole_end(_Atomic rp_entry *entries, rp_page page, unsigned level)
{
	rp_page end = (page | (rp_height_pages(level) - 1)) + 1;

	for (unsigned i = slot_of(page, level + 1) + 1; i < RP_NODE_ENTRIES; i++, end += rp_height_pages(level))
		if (atomic_load_explicit(&entries[i], memory_order_relaxed))
			break;
	return end;
}

int rp_map_leaf(struct rp_op *op, const struct rp_map *map, rp_page page, rp_frame *node, rp_page *end)
{
	rp_entry e;
	int error = root_get(op, map, &e);
	unsigned level = rp_entry_height(e);

	*node = 0;
	*end = RP_PAGE_COUNT_MAX;
	if (error || !e || page >= rp_height_pages(level))
		return error;
	while (level > 1) {
		_Atomic rp_entry *entries = rp_node(op->pool, rp_entry_frame(e)), *at = &entries[slot_of(page, level)];

		level--;
		e = atomic_load_explicit(at, memory_order_acquire);
		struct rp_spot spot = rp_map_spot(map, page, level);

		if (rp_entry_is_addr(e))
			error = rp_entry_resolve(op, at, &e, &spot);
		if (error)
			return error;
		if (!e) {
			*end = hole_end(entries, page, level);
			return 0;
		}
	}
	*node = level == 1 ? rp_entry_frame(e) : 0;
	*end = level == 1 ? (page | (RP_NODE_ENTRIES - 1)) + 1 : 1;
	return 0;
}

/* A node of zeroes at a hole, or above a root that is too low. */
static int make_node(struct rp_op *op, _Atomic rp_entry *at, rp_entry e, unsigned level, bool root)
{
	rp_frame f;
	int error = rp_frame_take(op, RP_CLASS_NORMAL, RP_KIND_NODE + level - 1, &f);

	if (error)
		return error;
	rp_page_zero(rp_bytes(op->pool, f));
	atomic_store_explicit(rp_node(op->pool, f), e & ~RP_ENTRY_HEIGHT_MASK, memory_order_relaxed);
	rp_race_point("node");
	if (!atomic_compare_exchange_strong(at, &e, rp_entry_from_frame(f, root ? level : 0))) {
		atomic_store_explicit(rp_node(op->pool, f), 0, memory_order_relaxed);
		rp_frame_put(op, f);
	}
	return 0;
}

/* A copy of the node in its place, unless it is ours already. *e: what stands there afterwards. */
static int own_node(struct rp_op *op, _Atomic rp_entry *at, rp_entry *e)
{
	rp_frame f = rp_entry_frame(*e), copy;
	int error;

	if (rp_frame_is_ours(op, f))
		return 0;
	error = rp_frame_copy(op, f, &copy);
	if (error == RP_RACE) {
		*e = atomic_load_explicit(at, memory_order_acquire);
		return 0;
	}
	if (error)
		return error;
	rp_entry new = rp_entry_from_frame(copy, rp_entry_height(*e));

	rp_race_point("copy");
	if (atomic_compare_exchange_strong(at, e, new)) {
		*e = new;
		rp_frame_put_replaced(op, f);
	} else {
		rp_frame_put(op, copy); /* *e is what the winner put */
	}
	return 0;
}

/* The root, in memory and, when nodes are to be made, high enough for the page. */
static int own_root(struct rp_op *op, const struct rp_map *map, rp_page page, bool make, rp_entry *e)
{
	unsigned need = rp_height_for(page);

	for (;;) {
		int error = root_get(op, map, e);
		unsigned height = rp_entry_height(*e);

		if (error || !make || (*e && height >= need) || (!*e && need == 0))
			return error;
		error = make_node(op, map->root, *e, *e ? height + 1 : need, true);
		if (error)
			return error;
	}
}

int rp_map_own(struct rp_op *op, const struct rp_map *map, rp_page page, unsigned stop, bool make, _Atomic rp_entry **out)
{
	_Atomic rp_entry *at;
	rp_entry e;
	int error;

restart:
	error = own_root(op, map, page, make, &e);
	at = map->root;
	*out = NULL;
	if (error || (!make && (!e || page >= rp_height_pages(rp_entry_height(e)) || rp_entry_height(e) < stop)))
		return error;
	for (unsigned level = rp_entry_height(e); level > stop;) {
		unsigned height = rp_entry_height(e);
		struct rp_spot spot = rp_map_spot(map, page, level);

		if (rp_entry_is_addr(e)) {
			error = rp_entry_resolve(op, at, &e, &spot);
		} else if (e) {
			error = own_node(op, at, &e);
		} else if (!make) {
			return 0;
		} else {
			error = make_node(op, at, 0, level, at == map->root);
			e = atomic_load_explicit(at, memory_order_acquire);
		}
		if (error)
			return error;
		if (at == map->root && rp_entry_height(e) != height)
			goto restart;
		if (!rp_entry_is_frame(e) || !rp_frame_is_ours(op, rp_entry_frame(e)))
			continue;
		at = &rp_node(op->pool, rp_entry_frame(e))[slot_of(page, level)];
		rp_race_point("descend");
		e = atomic_load_explicit(at, memory_order_acquire);
		level--;
	}
	*out = at;
	return 0;
}

static void count_pages(const struct rp_map *map, int64_t delta)
{
	if (map->page_count)
		__atomic_add_fetch(map->page_count, (uint64_t)delta, __ATOMIC_RELAXED);
}

/* The nodes above the page were made, and room for two records of what is to be taken back. */
static int fill_hole(struct rp_op *op, const struct rp_map *map, _Atomic rp_entry *at, rp_page page, bool logged, rp_frame *out)
{
	rp_entry empty = 0;
	int error;

	/* Taken back last to first: the entry goes, then the nodes that are empty without it. */
	error = logged ? rp_finish_prune(op, map->object, page) : 0;
	if (!error)
		error = rp_frame_take(op, RP_CLASS_NORMAL, map->leaf, out);
	if (error) {
		if (!logged)
			rp_map_prune(op, map, page);
		return error;
	}
	error = logged ? rp_undo_entry(op, map, at, 0, rp_entry_from_frame(*out, 0), 1) : 0;
	if (error) {
		rp_frame_put(op, *out);
		return error;
	}
	rp_page_zero(rp_bytes(op->pool, *out));
	if (!atomic_compare_exchange_strong(at, &empty, rp_entry_from_frame(*out, 0))) {
		rp_frame_put(op, *out);
		return -EIO; /* the owner's lock was not held: our own fault */
	}
	count_pages(map, 1);
	return 0;
}

int rp_map_edit(struct rp_op *op, const struct rp_map *map, rp_page page, bool logged, rp_frame *out)
{
	struct rp_spot spot = rp_map_spot(map, page, 0);
	_Atomic rp_entry *at;
	int error = logged ? rp_undo_reserve(op, 2) : 0;

	if (error)
		return error;
	error = rp_map_own(op, map, page, 0, true, &at);
	if (error)
		rp_map_prune(op, map, page); /* nodes made before frames ran out; nobody else shapes this map now */
	while (!error) {
		rp_entry e = atomic_load_explicit(at, memory_order_acquire);

		error = rp_entry_resolve(op, at, &e, &spot);
		if (error)
			return error;
		if (!e)
			return fill_hole(op, map, at, page, logged, out);
		error = own_node(op, at, &e);
		if (!error && rp_frame_is_ours(op, rp_entry_frame(e))) {
			*out = rp_entry_frame(e);
			return 0;
		}
	}
	return error;
}

/* The page's entry, if it is `old` still, becomes the frame's. RP_RACE: it is not. */
static int put_page(struct rp_op *op, const struct rp_map *map, rp_page page, rp_entry old, rp_frame new)
{
	_Atomic rp_entry *at;
	int error = rp_map_own(op, map, page, 0, !old, &at);

	rp_race_point("put");
	if (error)
		return error;
	return at && atomic_compare_exchange_strong(at, &old, rp_entry_from_frame(new, 0)) ? 0 : RP_RACE;
}

static int publish_in_hole(struct rp_op *op, const struct rp_map *map, rp_page page, rp_frame new)
{
	pthread_rwlock_t *shape = rp_shape(op->pool, map->object);
	int error;

	pthread_rwlock_rdlock(shape);
	error = put_page(op, map, page, 0, new);
	if (!error)
		count_pages(map, 1);
	pthread_rwlock_unlock(shape);
	if (error) {
		/* Nodes made before frames ran out, or for a page that another put and that was punched already. */
		pthread_rwlock_wrlock(shape);
		rp_map_prune(op, map, page);
		pthread_rwlock_unlock(shape);
		rp_frame_put(op, new);
	}
	return error;
}

int rp_map_publish(struct rp_op *op, const struct rp_map *map, rp_page page, rp_entry old, rp_frame new)
{
	int error;

	rp_race_point("publish");
	if (!old)
		return publish_in_hole(op, map, page, new);
	error = put_page(op, map, page, old, new);
	if (error)
		rp_frame_put(op, new);
	else if (rp_entry_is_frame(old))
		rp_frame_put(op, rp_entry_frame(old));
	return error;
}

static bool node_is_empty(struct rp_pool *pool, rp_frame f)
{
	_Atomic rp_entry *entry = rp_node(pool, f);

	for (unsigned i = 0; i < RP_NODE_ENTRIES; i++)
		if (atomic_load_explicit(&entry[i], memory_order_relaxed))
			return false;
	return true;
}

void rp_map_prune(struct rp_op *op, const struct rp_map *map, rp_page page)
{
	_Atomic rp_entry *at[RP_HEIGHT_MAX + 1];
	rp_entry e = atomic_load_explicit(map->root, memory_order_acquire);
	unsigned height = rp_entry_height(e), level = height;

	at[height] = map->root;
	if (!e || page >= rp_height_pages(height))
		return;
	for (; level > 0 && rp_entry_is_frame(e) && rp_frame_is_ours(op, rp_entry_frame(e)); level--) {
		at[level - 1] = &rp_node(op->pool, rp_entry_frame(e))[slot_of(page, level)];
		e = atomic_load_explicit(at[level - 1], memory_order_acquire);
	}
	if (e)
		return; /* the page is there, or a node that is not ours and so not empty */
	for (level++; level <= height; level++) {
		e = atomic_load_explicit(at[level], memory_order_acquire);
		if (!rp_entry_is_frame(e) || !node_is_empty(op->pool, rp_entry_frame(e)))
			return;
		rp_race_point("prune");
		atomic_store_explicit(at[level], 0, memory_order_release);
		rp_frame_put(op, rp_entry_frame(e));
	}
}

/* Does the root name a node that has nothing but its first child, a node too? That child. */
static rp_frame only_child(struct rp_op *op, rp_entry root)
{
	_Atomic rp_entry *entry = rp_node(op->pool, rp_entry_frame(root));
	rp_entry e;

	if (rp_entry_height(root) < 2 || !rp_entry_is_frame(root) || !rp_frame_is_ours(op, rp_entry_frame(root)))
		return 0;
	for (unsigned i = 1; i < RP_NODE_ENTRIES; i++)
		if (atomic_load_explicit(&entry[i], memory_order_relaxed))
			return 0;
	e = atomic_load_explicit(&entry[0], memory_order_acquire);
	if (rp_entry_is_frame(e) && own_node(op, &entry[0], &e))
		return 0; /* no frame for a copy: it stays as it is */
	return rp_entry_is_frame(e) && rp_frame_is_ours(op, rp_entry_frame(e)) ? rp_entry_frame(e) : 0;
}

void rp_map_lower(struct rp_op *op, const struct rp_map *map)
{
	for (;;) {
		rp_entry root = atomic_load_explicit(map->root, memory_order_acquire);
		rp_frame child = only_child(op, root);

		if (!child)
			return;
		/* Both are ours: nobody copies them, so whoever came by the node before changes what the map holds still. */
		rp_race_point("lower");
		rp_frame_get(op->pool, child);
		atomic_store_explicit(map->root, rp_entry_from_frame(child, rp_entry_height(root) - 1), memory_order_release);
		rp_frame_put_replaced(op, rp_entry_frame(root));
	}
}
