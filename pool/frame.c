/* frame.c: frames: taken, named, shared, dropped. What happens after the last reference is gone stands in reclaim.c. */
#include "internal.h"

unsigned rp_kind_children(unsigned kind, unsigned *first, unsigned *step)
{
	*first = 0;
	*step = 1;
	if (rp_kind_is_node(kind))
		return RP_NODE_ENTRIES;
	if (kind == RP_KIND_TABLE) {
		*first = *step = RP_RECORD_SIZE / 8; /* record 0 is the head; a record's root is its first word */
		return RP_RECORDS_PER_PAGE - 1;
	}
	if (kind == RP_KIND_CATALOG) {
		*step = sizeof(struct rp_catalog_entry) / 8;
		return RP_CATALOG_PER_PAGE;
	}
	return 0;
}

unsigned rp_child_kind(unsigned kind, unsigned leaf, const void *page, unsigned word)
{
	const rp_entry *words = page;
	unsigned height;

	if (rp_kind_is_node(kind))
		return kind == RP_KIND_NODE ? leaf : kind - 1;
	height = rp_entry_height(words[word]);
	if (height)
		return RP_KIND_NODE + height - 1;
	if (kind == RP_KIND_CATALOG)
		return RP_KIND_TABLE;
	const struct rp_record *record = (const struct rp_record *)(words + word);

	return record->flags & RP_RECORD_META ? RP_KIND_META : RP_KIND_DATA;
}

static void frame_born(struct rp_pool *pool, rp_frame f, unsigned kind, uint64_t epoch)
{
	struct rp_frame_info *i = rp_info(pool, f);

	atomic_store_explicit(&i->addr_low, 0, memory_order_relaxed);
	atomic_store_explicit(&i->life, (uint64_t)kind << RP_EPOCH_BITS | epoch, memory_order_relaxed);
	atomic_store_explicit(&i->refs, 1, memory_order_relaxed);
}

/* The arena is nearly empty: frames must not wait in caches, and every class has its own limit. */
static int take_tight(struct rp_op *op, enum rp_class class, rp_frame *out)
{
	struct rp_slot *slot = op->slot;

	if (slot->cached) {
		rp_arena_give(&op->pool->arena, slot->cache, slot->cached);
		rp_slot_cached_set(slot, 0);
	}
	if (rp_arena_take(&op->pool->arena, class, out, 1) == 1)
		return 0;
	if (atomic_load(&op->pool->commits) > 0) {
		op->wait_commit = true;
		return RP_AGAIN;
	}
	op->starved = true;
	return -ENOSPC;
}

/* Frames leave the cache from its end. What is written in order is to stand in order: copying many pages is half as fast
 * again where they ascend as where they descend or lie anywhere (AMD EPYC: 15 to 18 against 9 to 12 GB/s). */
static void cache_fill(struct rp_pool *pool, struct rp_slot *slot)
{
	unsigned count = rp_arena_take(&pool->arena, RP_CLASS_NORMAL, slot->cache, RP_CACHE_BATCH);

	for (unsigned i = 0; i < count / 2; i++) {
		rp_frame f = slot->cache[i];

		slot->cache[i] = slot->cache[count - 1 - i];
		slot->cache[count - 1 - i] = f;
	}
	rp_slot_cached_set(slot, count);
}

int rp_frame_take(struct rp_op *op, enum rp_class class, unsigned kind, rp_frame *out)
{
	struct rp_slot *slot = op->slot;

	if (class == RP_CLASS_NORMAL && (op->flags & RP_OP_RESERVE))
		class = RP_CLASS_RESERVE;
	if (!slot->cached && !atomic_load_explicit(&op->pool->arena.tight, memory_order_relaxed))
		cache_fill(op->pool, slot);
	if (!slot->cached || atomic_load_explicit(&op->pool->arena.tight, memory_order_relaxed)) {
		int error = take_tight(op, class, out);

		if (error)
			return error;
	} else {
		rp_slot_cached_set(slot, slot->cached - 1);
		*out = slot->cache[slot->cached];
	}
	frame_born(op->pool, *out, kind, op->epoch);
	return 0;
}

bool rp_frame_get_live(struct rp_pool *pool, rp_frame f)
{
	_Atomic uint32_t *refs = &rp_info(pool, f)->refs;
	uint32_t seen = atomic_load(refs);

	while (seen && seen < RP_REFS_MAX)
		if (atomic_compare_exchange_weak(refs, &seen, seen + 1))
			return true;
	return false;
}

void rp_frame_put(struct rp_op *op, rp_frame f)
{
	if (atomic_fetch_sub_explicit(&rp_info(op->pool, f)->refs, 1, memory_order_acq_rel) == 1)
		rp_retire(op, f);
}

void rp_frame_addr_set(struct rp_pool *pool, rp_frame f, rp_addr addr)
{
	struct rp_frame_info *i = rp_info(pool, f);
	uint64_t life = atomic_load_explicit(&i->life, memory_order_relaxed);
	bool had = rp_frame_addr(pool, f) != 0;

	atomic_store_explicit(&i->addr_low, (uint32_t)addr, memory_order_relaxed);
	atomic_store_explicit(&i->life, (life & ~(UINT64_C(0xff) << 56)) | addr >> 32 << 56, memory_order_release);
	if (had != (addr != 0))
		atomic_fetch_add_explicit(&pool->addressed, addr ? 1 : UINT64_MAX, memory_order_relaxed);
}

int rp_frame_take_outside(struct rp_pool *pool, unsigned kind, uint64_t birth, rp_addr addr, rp_frame *out)
{
	for (unsigned tries = 0; rp_arena_take(&pool->arena, RP_CLASS_OVERDRAFT, out, 1) != 1; tries++) {
		if (tries == 8 || !rp_pool_reclaim_wait(pool, RP_CLASS_OVERDRAFT))
			return -ENOSPC;
	}
	frame_born(pool, *out, kind, birth);
	if (addr)
		rp_frame_addr_set(pool, *out, addr);
	return 0;
}

void rp_frame_put_outside(struct rp_pool *pool, rp_frame f)
{
	struct rp_slot *slot = rp_slot_claim(pool);
	struct rp_op op = { .pool = pool, .slot = slot };

	rp_frame_put(&op, f);
	rp_slot_reclaim(pool, slot, 0); /* tells the reclaimer */
	rp_slot_release(slot);
}

enum rp_class rp_class_for_copy(const struct rp_op *op, rp_frame f)
{
	if (atomic_load_explicit(&rp_info(op->pool, f)->refs, memory_order_relaxed) == 1 || atomic_load(&op->pool->commits) > 0)
		return RP_CLASS_OVERDRAFT;
	return RP_CLASS_NORMAL;
}

RP_RACY void rp_page_copy(void *to, const void *from)
{
	memcpy(to, from, RP_PAGE_SIZE);
}

void rp_page_zero(void *to)
{
	memset(to, 0, RP_PAGE_SIZE);
}

int rp_frame_copy(struct rp_op *op, rp_frame from, rp_frame *out)
{
	struct rp_pool *pool = op->pool;
	unsigned kind = rp_frame_kind(pool, from), first, step, count = rp_kind_children(kind, &first, &step);
	int error = rp_frame_take(op, rp_class_for_copy(op, from), kind, out);

	if (error)
		return error;
	if (!rp_kind_is_node(kind))
		rp_page_copy(rp_bytes(pool, *out), rp_bytes(pool, from));
	_Atomic rp_entry *source = rp_node(pool, from), *target = rp_node(pool, *out);

	rp_race_point("copying");
	for (unsigned i = first, n = 0; n < count; n++, i += step) {
		/* Read once: a page that is being brought in may turn an address into a frame just now. */
		rp_entry e = atomic_load_explicit(&source[i], memory_order_acquire);

		if (rp_entry_is_frame(e) && !rp_frame_get_live(pool, rp_entry_frame(e))) {
			for (; n < count; n++, i += step)
				atomic_store_explicit(&target[i], 0, memory_order_relaxed);
			rp_frame_put(op, *out);
			return atomic_load(&rp_info(pool, rp_entry_frame(e))->refs) < RP_REFS_MAX ? RP_RACE : -ENOSPC;
		}
		atomic_store_explicit(&target[i], e, memory_order_relaxed);
	}
	return 0;
}

void rp_frame_put_replaced(struct rp_op *op, rp_frame f)
{
	struct rp_pool *pool = op->pool;
	unsigned first, step, count = rp_kind_children(rp_frame_kind(pool, f), &first, &step), n;
	_Atomic rp_entry *entry = rp_node(pool, f) + first;

	if (atomic_fetch_sub_explicit(&rp_info(pool, f)->refs, 1, memory_order_acq_rel) != 1)
		return;
	rp_race_point("replaced");
	/* An address may still become a reference: then they all wait for the frame's own end. */
	for (n = 0; n < count; n++)
		if (rp_entry_is_addr(atomic_load_explicit(&entry[n * step], memory_order_relaxed)))
			break;
	if (count && n == count) {
		struct rp_frame_info *i = rp_info(pool, f);
		uint64_t life = atomic_load_explicit(&i->life, memory_order_relaxed);

		for (n = 0; n < count; n++) {
			rp_entry e = atomic_load_explicit(&entry[n * step], memory_order_acquire);

			if (rp_entry_is_frame(e))
				rp_frame_put(op, rp_entry_frame(e));
		}
		rp_race_point("childless");
		life &= ~(UINT64_C(0xff) << RP_EPOCH_BITS);
		atomic_store_explicit(&i->life, life | (uint64_t)RP_KIND_DATA << RP_EPOCH_BITS, memory_order_relaxed);
	}
	rp_retire(op, f);
}
