/* undo.c: what an operation did, so that it can be taken back, and what is to be done when it is kept.
 *
 * One record for each change of metadata, in the slot's own memory, which is kept from one operation to the next. Taking
 * back goes from the last record to the first. Only frames that are ours were changed in place, and ours stays ours while
 * the operation is inside the gate: so the addresses in the records stay good.
 */
#include <stdlib.h>
#include "internal.h"

enum undo_type { UNDO_BYTES, UNDO_ENTRY, UNDO_ADD, UNDO_CREATE, FINISH_REMOVE, FINISH_PUT, FINISH_PRUNE };

struct rp_undo {
	enum undo_type type;
	uint32_t length;           /* BYTES */
	void *where;               /* BYTES, ENTRY */
	union {
		struct {
			size_t at;         /* BYTES: of the old bytes in slot->undo_bytes */
		};
		struct {
			rp_entry old, new; /* ENTRY */
			uint64_t *page_count;
			int delta;
			bool root;         /* it stood in the record: page 0 was all that the map could hold */
		};
		struct {
			rp_object object;  /* CREATE, REMOVE, PRUNE */
			rp_page page;
		};
		struct {
			size_t offset;     /* ADD */
			int64_t amount;
		};
		rp_frame frame;        /* PUT */
	};
};

static int grow(struct rp_pool *pool, void **memory, size_t *room, size_t need, size_t unit)
{
	size_t more = *room ? *room : 32;
	void *larger;

	while (more < need)
		more *= 2;
	larger = pool->hooks.allocate(pool->hooks.context, more * unit);
	if (!larger)
		return -ENOMEM;
	if (*memory)
		memcpy(larger, *memory, *room * unit);
	free(*memory);
	*memory = larger;
	*room = more;
	return 0;
}

int rp_undo_reserve(struct rp_op *op, size_t count)
{
	struct rp_slot *slot = op->slot;

	if (op->flags & RP_OP_READ)
		return -EROFS;
	if (slot->undo_count + count <= slot->undo_room)
		return 0;
	return grow(op->pool, (void **)&slot->undo, &slot->undo_room, slot->undo_count + count, sizeof(struct rp_undo));
}

static int push(struct rp_op *op, struct rp_undo **out)
{
	int error = rp_undo_reserve(op, 1);

	if (!error)
		*out = &op->slot->undo[op->slot->undo_count++];
	return error;
}

int rp_undo_bytes(struct rp_op *op, void *where, size_t length)
{
	struct rp_slot *slot = op->slot;
	struct rp_undo *u;
	int error;

	if (slot->undo_bytes_used + length > slot->undo_bytes_room) {
		error = grow(op->pool, (void **)&slot->undo_bytes, &slot->undo_bytes_room, slot->undo_bytes_used + length, 1);
		if (error)
			return error;
	}
	error = push(op, &u);
	if (error)
		return error;
	*u = (struct rp_undo){ .type = UNDO_BYTES, .where = where, .length = (uint32_t)length, .at = slot->undo_bytes_used };
	memcpy(slot->undo_bytes + slot->undo_bytes_used, where, length);
	slot->undo_bytes_used += length;
	return 0;
}

int rp_undo_entry(struct rp_op *op, const struct rp_map *map, _Atomic rp_entry *where, rp_entry old, rp_entry new, int delta)
{
	struct rp_undo *u;
	int error = push(op, &u);

	if (!error)
		*u = (struct rp_undo){ .type = UNDO_ENTRY, .where = (void *)where, .old = old, .new = new,
			               .page_count = map->page_count, .delta = delta, .root = where == map->root };
	return error;
}

int rp_undo_add(struct rp_op *op, size_t header_offset, int64_t delta)
{
	struct rp_undo *u;
	int error = push(op, &u);

	if (!error)
		*u = (struct rp_undo){ .type = UNDO_ADD, .offset = header_offset, .amount = delta };
	return error;
}

static int push_object(struct rp_op *op, enum undo_type type, rp_object object, rp_page page)
{
	struct rp_undo *u;
	int error = push(op, &u);

	if (!error)
		*u = (struct rp_undo){ .type = type, .object = object, .page = page };
	return error;
}

int rp_undo_create(struct rp_op *op, rp_object object) { return push_object(op, UNDO_CREATE, object, 0); }

int rp_finish_remove(struct rp_op *op, rp_object object) { return push_object(op, FINISH_REMOVE, object, 0); }

int rp_finish_prune(struct rp_op *op, rp_object object, rp_page page) { return push_object(op, FINISH_PRUNE, object, page); }

int rp_finish_put(struct rp_op *op, rp_frame f)
{
	struct rp_undo *u;
	int error = push(op, &u);

	if (!error)
		*u = (struct rp_undo){ .type = FINISH_PUT, .frame = f };
	return error;
}

static void prune(struct rp_op *op, rp_object object, rp_page page)
{
	struct rp_record *record;
	struct rp_map map;

	/* The path is ours since the page on it was changed: neither call can fail. The object itself may be gone. */
	if (rp_record_own(op, object, &record, &map) != 0)
		return;
	pthread_rwlock_wrlock(rp_shape(op->pool, object));
	rp_map_prune(op, &map, page);
	pthread_rwlock_unlock(rp_shape(op->pool, object));
}

static void undo_header_add(struct rp_op *op, size_t offset, int64_t delta)
{
	void *page;

	if (rp_table_page_own(op, 0, &page) == 0) { /* ours since the operation added: cannot fail */
		pthread_mutex_lock(&op->pool->numbers_lock);
		__atomic_fetch_sub((uint64_t *)((uint8_t *)page + offset), (uint64_t)delta, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&op->pool->numbers_lock);
	}
}

static void undo_entry(struct rp_op *op, const struct rp_undo *u)
{
	/* A map that had no node may have grown since: what stands in the record then are nodes, with the page, if one came,
	 * below them and nothing else, for later changes are taken back already. All of that goes. */
	rp_entry seen = u->new;

	if (u->root)
		seen = atomic_exchange((_Atomic rp_entry *)u->where, u->old);
	else if (!atomic_compare_exchange_strong((_Atomic rp_entry *)u->where, &seen, u->old))
		return;
	if (rp_entry_is_frame(seen))
		rp_frame_put(op, rp_entry_frame(seen));
	if (u->page_count)
		__atomic_sub_fetch(u->page_count, (uint64_t)(int64_t)u->delta, __ATOMIC_RELAXED);
}

static void clear(struct rp_slot *slot)
{
	slot->undo_count = 0;
	slot->undo_bytes_used = 0;
}

static void prune_all(struct rp_op *op)
{
	for (size_t i = 0; i < op->slot->undo_count; i++)
		if (op->slot->undo[i].type == FINISH_PRUNE)
			prune(op, op->slot->undo[i].object, op->slot->undo[i].page);
}

/* Whichever way an operation ends, its objects' numbers become free last: from then on they may be others'. */
void rp_undo_keep(struct rp_op *op)
{
	prune_all(op);
	for (size_t i = 0; i < op->slot->undo_count; i++) {
		struct rp_undo *u = &op->slot->undo[i];

		if (u->type == FINISH_REMOVE)
			rp_object_free_now(op, u->object);
		else if (u->type == FINISH_PUT)
			rp_frame_put(op, u->frame);
	}
	clear(op->slot);
}

void rp_undo_back(struct rp_op *op)
{
	struct rp_slot *slot = op->slot;

	for (size_t i = slot->undo_count; i-- > 0;) {
		struct rp_undo *u = &slot->undo[i];

		if (u->type == UNDO_BYTES)
			memcpy(u->where, slot->undo_bytes + u->at, u->length);
		else if (u->type == UNDO_ENTRY)
			undo_entry(op, u);
		else if (u->type == UNDO_ADD)
			undo_header_add(op, u->offset, u->amount);
	}
	prune_all(op); /* a node that is empty halfway may get a page back: its turn comes when all entries stand again */
	for (size_t i = slot->undo_count; i-- > 0;)
		if (slot->undo[i].type == UNDO_CREATE)
			rp_object_free_now(op, slot->undo[i].object);
	clear(slot);
}
