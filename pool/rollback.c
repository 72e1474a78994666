/* rollback.c: the live tree becomes a snapshot's again. */
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

static int rollback(struct rp_op *op, struct rp_snapshot *snapshot)
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
	if (rp_entry_is_frame(before))
		rp_frame_put(op, rp_entry_frame(before));
	pool->numbers_cursor = 0;
	atomic_fetch_add(&pool->tree_id, 1);
	return 0;
}

int rp_snapshot_rollback(struct rp_pool *pool, struct rp_snapshot *snapshot)
{
	struct rp_op op;
	int error;

	do {
		rp_gate_close(&op, pool, RP_OP_RESERVE);
		error = rollback(&op, snapshot);
	} while (rp_gate_open(&op, true, &error));
	return error;
}
