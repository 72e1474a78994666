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

/* What stood at an entry of the target is replaced by e (which gets a reference). */
static void put_entry(struct rp_op *op, struct side *to, _Atomic rp_entry *at, rp_entry e)
{
	if (rp_entry_is_frame(e))
		rp_frame_get(op->pool, rp_entry_frame(e));
	rp_entry old = atomic_exchange(at, e);

	to->record->page_count += (uint64_t)(e != 0) - (uint64_t)(old != 0);
	if (rp_entry_is_frame(old))
		rp_frame_put(op, rp_entry_frame(old));
}

/* Page by page within one node on either side. */
static int share_pages(struct rp_op *op, struct side *from, rp_page first, struct side *to, rp_page target, rp_page count)
{
	for (rp_page i = 0; i < count; i++) {
		_Atomic rp_entry *source, *at;
		rp_entry e;
		int error = rp_map_peek(op, &from->map, first + i, &source, &e);

		if (error)
			return error;
		if (!e) {
			rp_entry there;

			error = rp_map_peek(op, &to->map, target + i, &at, &there);
			if (error)
				return error;
			if (!there)
				continue;
		}
		error = rp_map_own(op, &to->map, target + i, 0, &at);
		if (error)
			return error;
		put_entry(op, to, at, e & ~RP_ENTRY_HEIGHT_MASK);
	}
	rp_map_prune(op, &to->map, target + count - 1);
	return 0;
}

static int share_chunk(struct rp_op *op, struct side *from, rp_page first, struct side *to, rp_page target, rp_page *count)
{
	rp_page room = RP_NODE_ENTRIES - (first & (RP_NODE_ENTRIES - 1));
	rp_page target_room = RP_NODE_ENTRIES - (target & (RP_NODE_ENTRIES - 1));
	int error = rp_record_own(op, to->object, &to->record, &to->map);

	if (!error)
		error = rp_record_map(op, &op->pool->live, from->object, &from->record, &from->map);
	if (*count > room)
		*count = room;
	if (*count > target_room)
		*count = target_room;
	return error ? error : share_pages(op, from, first, to, target, *count);
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
		if (!error)
			*done += n;
	}
	return error;
}
