/* share.c: pages of one object become pages of another without a copy of their bytes.
 *
 * Sharing makes frames that are ours into frames that are not: so it closes the gate and begins an epoch, for at most one
 * node's worth of pages at a time. Nodes are not shared: the target's own node is made, its entries name the same frames.
 */
#include "internal.h"

struct side {
	rp_object object;
	struct rp_record *record;
	struct rp_map map;
};

/* One more reference to what the entry names; or a copy of it, when there are too many. */
static int name_again(struct rp_op *op, unsigned leaf, rp_entry *e)
{
	rp_frame f = rp_entry_frame(*e), copy;
	int error = 0;

	if (!rp_entry_is_frame(*e))
		return 0;
	if (atomic_load_explicit(&rp_info(op->pool, f)->refs, memory_order_relaxed) < RP_REFS_SHARED) {
		rp_frame_get(op->pool, f);
		return 0;
	}
	error = rp_frame_take(op, RP_CLASS_NORMAL, leaf, &copy);
	if (error)
		return error;
	rp_page_copy(rp_bytes(op->pool, copy), rp_bytes(op->pool, f));
	*e = rp_entry_from_frame(copy, 0);
	return 0;
}

/* What stood at an entry of the target is replaced by e, whose reference is handed over. */
static void put_entry(struct rp_op *op, struct side *to, _Atomic rp_entry *at, rp_entry e)
{
	rp_entry old = atomic_exchange(at, e);

	to->record->page_count += (uint64_t)(e != 0) - (uint64_t)(old != 0);
	if (rp_entry_is_frame(old))
		rp_frame_put(op, rp_entry_frame(old));
}

static int share_page(struct rp_op *op, struct side *from, rp_page page, struct side *to, rp_page target)
{
	_Atomic rp_entry *source, *at;
	rp_entry e, there = 0;
	int error = rp_map_peek(op, &from->map, page, &source, &e);

	if (!error && !e)
		error = rp_map_peek(op, &to->map, target, &at, &there);
	if (error || (!e && !there))
		return error;
	error = rp_map_own(op, &to->map, target, 0, true, &at);
	if (!error)
		error = name_again(op, to->map.leaf, &e);
	if (!error)
		put_entry(op, to, at, e & ~RP_ENTRY_HEIGHT_MASK);
	return error;
}

/* Where what stands at the page ends: its node, or the hole around it. */
static int stretch(struct rp_op *op, const struct side *side, rp_page page, bool *hole, rp_page *length)
{
	rp_frame node;
	rp_page end;
	int error = rp_map_leaf(op, &side->map, page, &node, &end);

	*hole = !node && !(page == 0 && end == 1);
	*length = error ? 0 : end - page;
	return error;
}

/* As many of *count pages as lie within one node on either side; or all that are holes on both. */
static int share_chunk(struct rp_op *op, struct side *from, rp_page first, struct side *to, rp_page target, rp_page *count)
{
	rp_page there = 0, here = 0, done = 0, limit = *count;
	bool from_hole, to_hole;
	int error = rp_record_own(op, to->object, &to->record, &to->map);

	*count = 0;
	if (!error)
		error = rp_record_map(op, &op->pool->live, from->object, &from->record, &from->map);
	if (!error && from->map.leaf != to->map.leaf)
		error = -EINVAL;
	if (!error)
		error = stretch(op, from, first, &from_hole, &there);
	if (!error)
		error = stretch(op, to, target, &to_hole, &here);
	if (error)
		return error;
	limit = limit < there ? limit : there;
	limit = limit < here ? limit : here;
	if (from_hole && to_hole) {
		*count = limit;
		return 0;
	}
	if (limit > RP_NODE_ENTRIES - (first & (RP_NODE_ENTRIES - 1)))
		limit = RP_NODE_ENTRIES - (first & (RP_NODE_ENTRIES - 1));
	if (limit > RP_NODE_ENTRIES - (target & (RP_NODE_ENTRIES - 1)))
		limit = RP_NODE_ENTRIES - (target & (RP_NODE_ENTRIES - 1));
	while (!error && done < limit) {
		error = share_page(op, from, first + done, to, target + done);
		done += error == 0;
	}
	rp_map_prune(op, &to->map, target + done - (error == 0));
	*count = done;
	return error;
}

int rp_pages_share(struct rp_pool *pool, rp_object from_object, rp_page from, rp_object to_object, rp_page to, rp_page count,
                   rp_page *done)
{
	struct side source = { .object = from_object }, target = { .object = to_object };
	int error = 0;

	for (*done = 0; !error && *done < count;) {
		struct rp_op op;
		rp_page n;

		do {
			n = count - *done;
			rp_gate_close(&op, pool, 0);
			error = share_chunk(&op, &source, from + *done, &target, to + *done, &n);
		} while (rp_gate_open(&op, true, &error));
		*done += n;
	}
	return error;
}
