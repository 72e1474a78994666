/* test_pool_reclaim.c: what an operation looks at stays as it is until the operation ends, whatever others replace, drop
 * and reuse meanwhile; and then it does become free. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

#define ROUNDS 300u

static struct rp_pool *pool;
static rp_object meta, data;

static uint64_t used(void)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	return status.frame_used;
}

static rp_object new_object(bool is_meta)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, is_meta, &object, &generation)), 0);
	return object;
}

static int edit(struct rp_op *op, rp_object object, rp_page page, int byte)
{
	void *bytes;
	int error = rp_page_edit(op, object, page, 0, RP_PAGE_SIZE, &bytes);

	if (!error)
		memset(bytes, byte, RP_PAGE_SIZE);
	return error;
}

/* Another thread's work: the page is dropped, or copied after a snapshot; its object goes; frames are taken and filled. */
static void *replace(void *context)
{
	unsigned kind = *(unsigned *)context;

	if (kind == 0)
		EXPECT_EQUAL(REF_OP(pool, 0, rp_page_drop(&op, meta, 3)), 0);
	if (kind == 1)
		EXPECT_EQUAL(REF_OP(pool, 0, edit(&op, meta, 3, 0xee)), 0);
	if (kind == 2)
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, meta)), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		EXPECT_EQUAL(REF_OP(pool, 0, edit(&op, data, i % 100, 0xdd)), 0);
		if (i % 7 == 0)
			EXPECT_EQUAL(REF_OP(pool, 0, rp_page_drop(&op, data, i % 100)), 0);
	}
	rp_pool_reclaim(pool);
	for (unsigned i = 0; i < 200; i++)
		EXPECT_EQUAL(REF_OP(pool, 0, edit(&op, data, 1000 + i, 0xcc)), 0);
	return NULL;
}

static void expect_still(const void *bytes, int byte)
{
	for (unsigned i = 0; i < RP_PAGE_SIZE; i++)
		EXPECT_EQUAL(((const uint8_t *)bytes)[i], byte);
}

static void look(unsigned kind)
{
	struct rp_snapshot *snapshot;
	const void *bytes, *node;
	pthread_t thread;
	struct rp_op watch;
	int error = 0;

	meta = new_object(true);
	data = new_object(true);
	for (rp_page page = 0; page < 8; page++)
		EXPECT_EQUAL(REF_OP(pool, 0, edit(&op, meta, page, 0x11)), 0);
	uint64_t before = used();

	if (kind == 1) {
		/* What is there now is not ours any more: changing it copies, and drops the original. */
		EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot), 0);
		rp_snapshot_put(snapshot);
	}
	rp_op_begin(&watch, pool, RP_OP_READ);
	EXPECT_EQUAL(rp_page_get(&watch, rp_pool_live(pool), meta, 3, &bytes), 0);
	/* The node above the page, as a reader on its way down would hold it. */
	struct rp_record *record;
	struct rp_map map;
	_Atomic rp_entry *at;
	rp_entry e;

	EXPECT_EQUAL(rp_record_map(&watch, rp_pool_live(pool), meta, &record, &map), 0);
	EXPECT_EQUAL(rp_map_peek(&watch, &map, 3, &at, &e), 0);
	node = (const void *)((uintptr_t)at & ~(uintptr_t)(RP_PAGE_SIZE - 1));
	EXPECT_EQUAL(pthread_create(&thread, NULL, replace, &kind), 0);
	pthread_join(thread, NULL);
	expect_still(bytes, 0x11);
	/* The node may have changed in place; but it is still a node of this map. */
	for (unsigned i = 0; i < 8; i++)
		EXPECT(i == 3 || rp_entry_is_frame(((const rp_entry *)node)[i]));
	rp_op_end(&watch, &error);
	EXPECT_EQUAL(error, 0);
	if (kind != 2)
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, meta)), 0);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, data)), 0);
	ref_check(pool);
	EXPECT(used() < before);
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 8 << 20 };

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	for (unsigned round = 0; round < 5; round++)
		for (unsigned kind = 0; kind < 3; kind++)
			look(kind);
	rp_pool_destroy(pool);
	return 0;
}
