/* test_pool_recycled.c: frames that held something else never show it: each way a page comes to be, in a pool whose frames
 * were all filled with a mark before. */
#include <errno.h>
#include <string.h>
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

#define PAGES 700u /* of 1024 frames */
#define MARK 0xa5

static struct rp_pool *pool;

static rp_object new_object(bool meta)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, meta, &object, &generation)), 0);
	return object;
}

static void write_bytes(rp_object object, uint64_t offset, int byte, size_t length)
{
	uint8_t bytes[3 * RP_PAGE_SIZE];
	size_t done;

	memset(bytes, byte, length);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_write(&op, object, offset, bytes, length, &done)), 0);
}

static void remove_object(rp_object object)
{
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, object)), 0);
}

/* All free frames get the mark, as data, as metadata, and in records. */
static void spoil(void)
{
	rp_object data = new_object(false), meta = new_object(true), records[60];
	struct rp_record *record;
	void *bytes;

	for (rp_page page = 0; page < PAGES; page++)
		write_bytes(data, page << RP_PAGE_SHIFT, MARK, RP_PAGE_SIZE);
	remove_object(data);
	for (rp_page page = 0; page < PAGES; page++)
		EXPECT_EQUAL(REF_OP(pool, 0, ({
			int e = rp_page_edit(&op, meta, page, 0, RP_PAGE_SIZE, &bytes);
			if (!e)
				memset(bytes, MARK, RP_PAGE_SIZE);
			e;
		})), 0);
	remove_object(meta);
	for (unsigned i = 0; i < 60; i++) {
		records[i] = new_object(false);
		EXPECT_EQUAL(REF_OP(pool, 0, ({
			int e = rp_record_edit(&op, records[i], offsetof(struct rp_record, size_bytes), 8, &record);
			if (!e)
				e = rp_record_edit(&op, records[i], offsetof(struct rp_record, user), RP_RECORD_USER_SIZE, &record);
			if (!e)
				memset(&record->size_bytes, MARK, 8);
			if (!e)
				memset(record->user, MARK, RP_RECORD_USER_SIZE);
			e;
		})), 0);
	}
	for (unsigned i = 0; i < 60; i++)
		remove_object(records[i]);
	ref_check(pool);
}

/* Bytes [offset, offset + length) are zero but for `except` of them from `start` on, which are `byte`. */
static void expect_zeroes(rp_object object, uint64_t offset, size_t length, size_t start, size_t except, int byte)
{
	static uint8_t bytes[4 * RP_PAGE_SIZE];

	EXPECT(length <= sizeof(bytes));
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_bytes_read(&op, rp_pool_live(pool), object, offset, bytes, length)), 0);
	for (size_t i = 0; i < length; i++)
		EXPECT_EQUAL(bytes[i], i >= start && i < start + except ? byte : 0);
}

static void test_partial_write(rp_object object)
{
	write_bytes(object, 100, 7, 50);
	expect_zeroes(object, 0, RP_PAGE_SIZE, 100, 50, 7);
	write_bytes(object, (10 << RP_PAGE_SHIFT) + 4000, 8, 200); /* across two pages */
	expect_zeroes(object, 9 << RP_PAGE_SHIFT, 4 * RP_PAGE_SIZE, RP_PAGE_SIZE + 4000, 200, 8);
	write_bytes(object, UINT64_C(1) << 50, 9, 1); /* new nodes of all levels: nothing between */
	expect_zeroes(object, 5000ull << RP_PAGE_SHIFT, 4 * RP_PAGE_SIZE, 0, 0, 0);
	expect_zeroes(object, (UINT64_C(1) << 50) - 5000, 2 * RP_PAGE_SIZE, 5000, 1, 9);
}

static void test_allocate(rp_object object)
{
	rp_page next;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_pages_allocate(&op, object, 20, 30, &next)), 0);
	EXPECT_EQUAL(next, 50);
	for (rp_page page = 20; page < 50; page++)
		expect_zeroes(object, page << RP_PAGE_SHIFT, RP_PAGE_SIZE, 0, 0, 0);
}

/* What was punched, or zeroed as a truncation does, is gone, also in the frame that comes in its place. */
static void test_punch(rp_object object)
{
	rp_page next;

	for (rp_page page = 60; page < 64; page++)
		write_bytes(object, page << RP_PAGE_SHIFT, 3, RP_PAGE_SIZE);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, 61, 1, &next)), 0);
	expect_zeroes(object, 61 << RP_PAGE_SHIFT, RP_PAGE_SIZE, 0, 0, 0);
	write_bytes(object, (61 << RP_PAGE_SHIFT) + 10, 4, 10);
	expect_zeroes(object, 61 << RP_PAGE_SHIFT, RP_PAGE_SIZE, 10, 10, 4);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_zero(&op, object, (62 << RP_PAGE_SHIFT) + 96, 4000)), 0);
	expect_zeroes(object, 62 << RP_PAGE_SHIFT, RP_PAGE_SIZE, 0, 96, 3);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, 63, RP_PAGE_COUNT_MAX - 63, &next)), 0);
	write_bytes(object, (64 << RP_PAGE_SHIFT) + 1, 5, 1);
	expect_zeroes(object, 63 << RP_PAGE_SHIFT, 2 * RP_PAGE_SIZE, RP_PAGE_SIZE + 1, 1, 5);
}

/* A page that a snapshot shares: the copy holds what the page held, the snapshot too, and nobody else's bytes. */
static void test_copy(rp_object object)
{
	static uint8_t bytes[RP_PAGE_SIZE];
	struct rp_snapshot *snapshot;

	write_bytes(object, (70 << RP_PAGE_SHIFT) + 500, 6, 20);
	EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot), 0);
	write_bytes(object, (70 << RP_PAGE_SHIFT) + 510, 6, 30);
	expect_zeroes(object, 70 << RP_PAGE_SHIFT, RP_PAGE_SIZE, 500, 40, 6);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_bytes_read(&op, rp_snapshot_tree(snapshot), object, 70 << RP_PAGE_SHIFT,
	                                                    bytes, sizeof(bytes))), 0);
	for (size_t i = 0; i < sizeof(bytes); i++)
		EXPECT_EQUAL(bytes[i], i >= 500 && i < 520 ? 6 : 0);
	rp_snapshot_put(snapshot);
}

static void test_metadata(void)
{
	rp_object meta = new_object(true);
	const struct rp_record *record;
	void *bytes;

	for (rp_page page = 0; page < 50; page++) {
		EXPECT_EQUAL(REF_OP(pool, 0, rp_page_edit(&op, meta, page << 15, 0, 0, &bytes)), 0);
		for (size_t i = 0; i < RP_PAGE_SIZE; i++)
			EXPECT_EQUAL(((uint8_t *)bytes)[i], 0);
	}
	for (unsigned i = 0; i < 100; i++) {
		rp_object object = new_object(false);

		EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_record_get(&op, rp_pool_live(pool), object, 0, &record)), 0);
		EXPECT_EQUAL(record->root, 0);
		EXPECT_EQUAL(record->size_bytes, 0);
		EXPECT_EQUAL(record->page_count, 0);
		for (unsigned k = 0; k < RP_RECORD_USER_SIZE; k++)
			EXPECT_EQUAL(record->user[k], 0);
	}
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 4 << 20 };

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	for (unsigned round = 0; round < 3; round++) {
		spoil();
		rp_object object = new_object(false);

		test_partial_write(object);
		test_allocate(object);
		test_punch(object);
		test_copy(object);
		test_metadata();
		remove_object(object);
		ref_check(pool);
	}
	rp_pool_destroy(pool);
	return 0;
}
