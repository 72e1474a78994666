/* test_pool_budget.c: the size is kept to the frame, the reserve is there when it is needed, nothing is lost over many
 * rounds of filling and deleting, and memory goes back to the system. */
#include <errno.h>
#include <string.h>
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

#define MIB (UINT64_C(1) << 20)

static struct rp_pool *new_pool(uint64_t size)
{
	struct rp_pool_options options = { .size_bytes = size };
	struct rp_pool *pool;

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	return pool;
}

static struct rp_pool_status status_of(struct rp_pool *pool)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	return status;
}

static uint64_t used(struct rp_pool *pool) { return status_of(pool).frame_used; }

static rp_object new_object(struct rp_pool *pool)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &object, &generation)), 0);
	return object;
}

static int write_page(struct rp_pool *pool, rp_object object, rp_page page, int byte)
{
	uint8_t bytes[RP_PAGE_SIZE];
	size_t done;

	memset(bytes, byte, sizeof(bytes));
	return REF_OP(pool, 0, rp_bytes_write(&op, object, page << RP_PAGE_SHIFT, bytes, sizeof(bytes), &done));
}

/* Pages from 0 on until there is no frame; how many. */
static rp_page fill(struct rp_pool *pool, rp_object object, int byte)
{
	rp_page page = 0;
	int error;

	while ((error = write_page(pool, object, page, byte)) == 0)
		page++;
	EXPECT_EQUAL(error, -ENOSPC);
	return page;
}

static void punch_all(struct rp_pool *pool, rp_object object)
{
	rp_page next;

	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, 0, RP_PAGE_COUNT_MAX, &next)), 0);
	EXPECT_EQUAL(next, RP_PAGE_COUNT_MAX);
}

/* ENOSPC comes when the last frame but the reserve is used, not before, not later; and then pages that are there can still
 * be written, and one page that is given back is one page that can be written. */
static void test_exact(uint64_t size)
{
	struct rp_pool *pool = new_pool(size);
	rp_object object = new_object(pool);
	uint64_t limit = status_of(pool).frame_limit, reserve = status_of(pool).frame_reserve;
	rp_page next, pages = fill(pool, object, 1);

	EXPECT_EQUAL(limit, size / RP_PAGE_SIZE);
	EXPECT(used(pool) + reserve <= limit);
	/* The page that failed may have begun a node: then one frame more was missing. */
	EXPECT(used(pool) + reserve >= limit - (pages % 512 == 0));
	for (rp_page page = 0; page < pages; page++)
		EXPECT_EQUAL(write_page(pool, object, page, 2), 0);
	EXPECT_EQUAL(write_page(pool, object, RP_PAGE_COUNT_MAX - 1, 1), -ENOSPC);
	uint64_t before = used(pool);

	for (unsigned i = 0; i < 50; i++) {
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, i * 3, 1, &next)), 0);
		EXPECT_EQUAL(used(pool), before - 1);
		EXPECT_EQUAL(write_page(pool, object, i * 3, 3), 0);
		EXPECT_EQUAL(used(pool), before);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
}

/* Another size, full or not: the reserve is as large as that of a pool made so, and the last frame is as exact. */
static void test_resize(void)
{
	static const uint64_t sizes[] = { 40 * MIB, 9 * MIB, 3 * MIB, 17 * MIB };
	struct rp_pool *pool = new_pool(2 * MIB);
	rp_object object = new_object(pool);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct rp_pool *made = new_pool(sizes[i]);
		rp_page pages;

		EXPECT_EQUAL(rp_pool_resize(pool, sizes[i]), 0);
		EXPECT_EQUAL(status_of(pool).frame_limit, status_of(made).frame_limit);
		EXPECT_EQUAL(status_of(pool).frame_reserve, status_of(made).frame_reserve);
		EXPECT_EQUAL(fill(pool, object, 1), pages = fill(made, new_object(made), 1));
		/* Full: one frame less is too few, just as much is enough. */
		EXPECT_EQUAL(rp_pool_resize(pool, sizes[i] - sizes[i] / 4), -ENOSPC);
		EXPECT_EQUAL(rp_pool_resize(pool, sizes[i]), 0);
		EXPECT_EQUAL(write_page(pool, object, pages, 1), -ENOSPC);
		punch_all(pool, object);
		rp_pool_destroy(made);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
}

/* Full to the last frame, with a snapshot that holds it all: deleting still works, and names too. */
static void test_delete_when_full(void)
{
	struct rp_pool *pool = new_pool(4 * MIB);
	rp_object objects[20];
	uint64_t empty;

	for (unsigned i = 0; i < 20; i++)
		objects[i] = new_object(pool);
	empty = used(pool);
	for (unsigned i = 0; i < 19; i++)
		for (rp_page page = 0; page < 10; page++)
			EXPECT_EQUAL(write_page(pool, objects[i], page * 1000, (int)i), 0);
	EXPECT_EQUAL(rp_snapshot_create(pool, "all"), 0);
	fill(pool, objects[19], 9);
	/* What the snapshot shares gives nothing back, and copies of what describes it take from the reserve. */
	for (unsigned i = 0; i < 10; i++)
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, objects[i])), 0);
	EXPECT(used(pool) <= status_of(pool).frame_limit);
	EXPECT_EQUAL(rp_snapshot_delete(pool, "all"), 0);
	for (unsigned i = 10; i < 20; i++)
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, objects[i])), 0);
	ref_check(pool);
	EXPECT(used(pool) <= empty);
	rp_pool_destroy(pool);
}

/* Overwriting a full pool's pages needs no frames once a snapshot that shared them is gone. */
static void test_overwrite_after_snapshot(void)
{
	struct rp_pool *pool = new_pool(8 * MIB);
	rp_object object = new_object(pool);
	rp_page pages = fill(pool, object, 1);
	struct rp_snapshot *snapshot;

	for (unsigned round = 0; round < 5; round++) {
		EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot), 0);
		EXPECT_EQUAL(write_page(pool, object, 7, 1), -ENOSPC); /* shared: it would be a page more */
		rp_snapshot_put(snapshot);
		for (rp_page page = 0; page < pages; page++)
			EXPECT_EQUAL(write_page(pool, object, page, 2), 0);
		ref_check(pool);
		EXPECT(used(pool) + status_of(pool).frame_reserve <= status_of(pool).frame_limit);
	}
	rp_pool_destroy(pool);
}

static void test_rounds(void)
{
	struct rp_pool *pool = new_pool(16 * MIB);
	uint64_t empty = used(pool);
	rp_page first = 0;

	for (unsigned round = 0; round < 20; round++) {
		rp_object object = new_object(pool);
		rp_page pages = fill(pool, object, (int)round);

		first = round ? first : pages;
		EXPECT_EQUAL(pages, first);
		if (round % 2)
			punch_all(pool, object);
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, object)), 0);
		EXPECT_EQUAL(used(pool), empty);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
}

static void test_memory_goes_back(void)
{
	struct rp_pool *pool = new_pool(256 * MIB);
	rp_object object = new_object(pool);

	for (rp_page page = 0; page < 192 * MIB / RP_PAGE_SIZE; page++)
		EXPECT_EQUAL(write_page(pool, object, page, 1), 0);
	EXPECT(status_of(pool).arena_bytes >= 192 * MIB);
	punch_all(pool, object);
	used(pool);
	/* Some warm extents stay for what comes next; a trim gives them back, too. */
	EXPECT(status_of(pool).arena_bytes <= 96 * MIB);
	rp_pool_trim(pool);
	EXPECT(status_of(pool).arena_bytes <= 8 * MIB);
	/* And what was given back can be had again. */
	for (rp_page page = 0; page < 64 * MIB / RP_PAGE_SIZE; page++)
		EXPECT_EQUAL(write_page(pool, object, page, 1), 0);
	ref_check(pool);
	rp_pool_destroy(pool);
}

static void test_limits(void)
{
	struct rp_pool_options options = { .size_bytes = MIB - 1 };
	struct rp_pool *pool;
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(rp_pool_create(&options, &pool), -EINVAL);
	options.size_bytes = UINT64_MAX;
	EXPECT_EQUAL(rp_pool_create(&options, &pool), -EINVAL);
	options.size_bytes = MIB;
	options.label = "a label of more than thirty-two bytes";
	EXPECT_EQUAL(rp_pool_create(&options, &pool), -EINVAL);
	options.label = "label";
	options.object_limit = 3;
	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	EXPECT(strcmp(status_of(pool).label, "label") == 0);
	for (unsigned i = 0; i < 3; i++)
		object = new_object(pool);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &object, &generation)), -ENOSPC);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, object)), 0);
	object = new_object(pool);
	/* Down to what is used and the reserve, no further; up to what there is address space for. */
	EXPECT_EQUAL(rp_pool_resize(pool, MIB - RP_PAGE_SIZE), -EINVAL);
	fill(pool, object, 1);
	EXPECT_EQUAL(rp_pool_resize(pool, 2 * MIB), 0);
	fill(pool, object, 1);
	EXPECT_EQUAL(rp_pool_resize(pool, MIB), -ENOSPC);
	EXPECT_EQUAL(rp_pool_resize(pool, UINT64_C(1) << 60), -ENOMEM);
	EXPECT_EQUAL(status_of(pool).size_bytes, 2 * MIB);
	punch_all(pool, object);
	EXPECT_EQUAL(rp_pool_resize(pool, MIB), 0);
	EXPECT_EQUAL(status_of(pool).frame_limit, 256);
	ref_check(pool);
	rp_pool_destroy(pool);
}

/* An operation that fails half-way up a new path gives all of it back, wherever the frames ran out. */
static void test_failed_path(void)
{
	struct rp_pool *pool = new_pool(4 * MIB);
	uint64_t generation;
	rp_object data = new_object(pool), meta;
	rp_page next;
	void *bytes;
	int error = -ENOSPC;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, true, &meta, &generation)), 0);
	fill(pool, data, 1);
	for (unsigned i = 0; i < 10 && error == -ENOSPC; i++) {
		uint64_t before = used(pool);

		error = REF_OP(pool, 0, rp_page_edit(&op, meta, UINT64_C(1) << 40, 0, 8, &bytes));
		EXPECT(error == (i < 6 ? -ENOSPC : 0)); /* five nodes and the page */
		EXPECT_EQUAL(used(pool), error ? before : before + 6);
		if (error)
			EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, data, i, 1, &next)), 0);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
}

/* What is on its way back for a moment does not count as used. */
static void test_resize_while_freeing(void)
{
	struct rp_pool *pool = new_pool(8 * MIB);
	rp_object object = new_object(pool);
	rp_page next;

	fill(pool, object, 1);
	for (unsigned i = 0; i < 100; i++) {
		EXPECT_EQUAL(rp_pool_resize(pool, 8 * MIB - (i + 1) * RP_PAGE_SIZE), -ENOSPC);
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, i, 1, &next)), 0);
		EXPECT_EQUAL(rp_pool_resize(pool, 8 * MIB - (i + 1) * RP_PAGE_SIZE), 0);
		EXPECT_EQUAL(status_of(pool).size_bytes, 8 * MIB - (i + 1) * RP_PAGE_SIZE);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
}

int main(void)
{
	test_exact(MIB);
	test_exact(4 * MIB);
	test_exact(33 * MIB);
	test_resize();
	test_resize_while_freeing();
	test_failed_path();
	test_delete_when_full();
	test_overwrite_after_snapshot();
	test_rounds();
	test_memory_goes_back();
	test_limits();
	return 0;
}
