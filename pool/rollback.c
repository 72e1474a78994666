/* rollback.c: the live tree becomes a snapshot's again. */
#include <stdlib.h>
#include "internal.h"

/* What must not go back with the rest: numbers once given out stay given out, and limits are the pool's, not the state's. */
static void carry_over(struct rp_header *to, const struct rp_header *from)
{
	if (to->generation_next < from->generation_next)
		to->generation_next = from->generation_next;
	if (to->page_next < from->page_next)
		to->page_next = from->page_next;
	to->object_limit = from->object_limit;
	to->size_bytes = from->size_bytes;
	memcpy(to->label, from->label, sizeof(to->label));
}

/* The old root's reference goes to `keep`, or away. */
static int rollback(struct rp_op *op, struct rp_snapshot *snapshot, struct rp_snapshot *keep)
{
	struct rp_pool *pool = op->pool;
	rp_entry before = atomic_load(&pool->live.root);
	const struct rp_header *header;
	struct rp_header old;
	void *page;
	int error = rp_header_get(op, &pool->live, &header);

	if (error)
		return error;
	old = *header;
	error = rp_header_get(op, &snapshot->tree, &header); /* brings root and first page in */
	if (error)
		return error;
	before = atomic_load(&pool->live.root);
	rp_entry root = atomic_load(&snapshot->tree.root);

	rp_frame_get(pool, rp_entry_frame(root));
	atomic_store(&pool->live.root, root);
	error = rp_table_page_own(op, 0, &page);
	if (error) {
		root = atomic_load(&pool->live.root); /* perhaps a copy by now */
		atomic_store(&pool->live.root, before);
		rp_frame_put(op, rp_entry_frame(root));
		return error;
	}
	carry_over(page, &old);
	if (keep)
		rp_snapshot_fill(keep, before);
	else if (rp_entry_is_frame(before))
		rp_frame_put(op, rp_entry_frame(before));
	pool->numbers_cursor = 0;
	atomic_fetch_add(&pool->tree_id, 1);
	return 0;
}

static int rollback_run(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_snapshot *keep)
{
	struct rp_op op;
	int error;

	do {
		rp_gate_close(&op, pool, RP_OP_RESERVE);
		error = rollback(&op, snapshot, keep);
	} while (rp_gate_open(&op, true, &error));
	return error;
}

int rp_snapshot_rollback(struct rp_pool *pool, struct rp_snapshot *snapshot)
{
	return rollback_run(pool, snapshot, NULL);
}

int rp_snapshot_exchange(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_snapshot **before)
{
	struct rp_snapshot *keep = rp_snapshot_new(pool);
	int error = keep ? rollback_run(pool, snapshot, keep) : -ENOMEM;

	if (error)
		free(keep);
	else
		*before = keep;
	return error;
}
