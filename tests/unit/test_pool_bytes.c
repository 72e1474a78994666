/* test_pool_bytes.c: reading and writing at every alignment, extents, the last pages there can be, sharing. */
#include <errno.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/reference.h"

#define ROOM (5 * RP_PAGE_SIZE)

static struct rp_pool *pool;

static rp_object new_object(void)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &object, &generation)), 0);
	return object;
}

static void write_at(rp_object object, uint64_t offset, const void *bytes, size_t length)
{
	size_t done;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_write(&op, object, offset, bytes, length, &done)), 0);
	EXPECT_EQUAL(done, length);
}

static void read_at(rp_object object, uint64_t offset, void *bytes, size_t length)
{
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_bytes_read(&op, rp_pool_live(pool), object, offset, bytes, length)), 0);
}

/* Five pages somewhere, with every start and end near a page's boundary, against five pages of memory, from and to buffers
 * that stand anywhere in a cache line. */
static void test_alignment(uint64_t base)
{
	static const size_t near[] = { 0, 1, 7, 100, 4095, 4096, 4097, 8191, 8192, 8193, 12287, 16384, 16385, 20479, 20480 };
	static uint8_t should[ROOM], is_room[ROOM + 64], from_room[ROOM + 64];
	uint64_t random = base + 3;
	rp_object object = new_object();

	memset(should, 0, sizeof(should));
	for (unsigned round = 0; round < 400; round++) {
		size_t a = near[random_below(&random, 15)], b = near[random_below(&random, 15)];
		uint8_t *from = from_room + random_below(&random, 64), *is = is_room + random_below(&random, 64);

		if (a > b)
			continue;
		for (size_t i = a; i < b; i++)
			from[i] = should[i] = (uint8_t)random_next(&random);
		write_at(object, base + a, from + a, b - a);
		a = near[random_below(&random, 15)];
		b = near[random_below(&random, 15)];
		if (a <= b) {
			read_at(object, base + a, is, b - a);
			EXPECT(memcmp(is, should + a, b - a) == 0);
		}
		if (a < b && b - a < RP_PAGE_SIZE - a % RP_PAGE_SIZE) {
			EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_zero(&op, object, base + a, b - a)), 0);
			memset(should + a, 0, b - a);
		}
		read_at(object, base, is, ROOM);
		EXPECT(memcmp(is, should, ROOM) == 0);
	}
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, object)), 0);
}

static void expect_extent(rp_object object, uint64_t at, uint64_t end, bool data, uint64_t stop)
{
	bool is_data = false;

	for (uint64_t from = at; from < stop;) {
		uint64_t to = 0;

		EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_extent_get(&op, rp_pool_live(pool), object, from, end, &is_data, &to)), 0);
		EXPECT_EQUAL(is_data, data);
		EXPECT(to > from && to <= stop);
		from = to;
	}
}

static void test_extents(void)
{
	const uint64_t end = RP_PAGE_COUNT_MAX << RP_PAGE_SHIFT, far = UINT64_C(1) << 57;
	rp_object object = new_object();
	uint8_t byte = 1;
	rp_page next;

	expect_extent(object, 0, end, false, end);
	expect_extent(object, 12345, 20000, false, 20000);
	write_at(object, 3, &byte, 1);
	expect_extent(object, 0, end, true, RP_PAGE_SIZE);
	expect_extent(object, RP_PAGE_SIZE, end, false, end);
	write_at(object, far, &byte, 1);
	expect_extent(object, 0, end, true, RP_PAGE_SIZE);
	expect_extent(object, RP_PAGE_SIZE + 5, end, false, far);
	expect_extent(object, far + 100, end, true, far + RP_PAGE_SIZE);
	expect_extent(object, far + RP_PAGE_SIZE, end, false, end);
	/* Nodes full of pages are passed whole, and `end` is no page boundary. */
	for (rp_page page = 0; page < 2000; page = next)
		EXPECT_EQUAL(REF_OP(pool, 0, rp_pages_allocate(&op, object, page, 2000 - page, &next)), 0);
	expect_extent(object, 0, end, true, 2000 << RP_PAGE_SHIFT);
	expect_extent(object, 0, 1000001, true, 1000001);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, 512, 512, &next)), 0);
	expect_extent(object, 0, end, true, 512 << RP_PAGE_SHIFT);
	expect_extent(object, 512 << RP_PAGE_SHIFT, end, false, 1024 << RP_PAGE_SHIFT);
	expect_extent(object, 1024 << RP_PAGE_SHIFT, end, true, 2000 << RP_PAGE_SHIFT);
	/* Searching far is few calls. */
	unsigned calls = 0;

	for (uint64_t from = 2000 << RP_PAGE_SHIFT, to; from < far; from = to, calls++) {
		bool is_data;

		EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_extent_get(&op, rp_pool_live(pool), object, from, end, &is_data, &to)), 0);
		EXPECT(!is_data);
	}
	EXPECT(calls < 10);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, object)), 0);
}

static void test_last_pages(void)
{
	const uint64_t end = RP_PAGE_COUNT_MAX << RP_PAGE_SHIFT;
	rp_object object = new_object();
	uint8_t bytes[2 * RP_PAGE_SIZE], is[2 * RP_PAGE_SIZE];
	rp_page next;

	memset(bytes, 5, sizeof(bytes));
	write_at(object, end - sizeof(bytes), bytes, sizeof(bytes));
	read_at(object, end - sizeof(bytes), is, sizeof(is));
	EXPECT(memcmp(is, bytes, sizeof(is)) == 0);
	expect_extent(object, 0, end, false, end - sizeof(bytes));
	expect_extent(object, end - 2 * RP_PAGE_SIZE, end, true, end);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, 1, RP_PAGE_COUNT_MAX - 1, &next)), 0);
	EXPECT_EQUAL(next, RP_PAGE_COUNT_MAX);
	expect_extent(object, 0, end, false, end);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, object)), 0);
}

static uint64_t used(void)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	return status.frame_used;
}

/* Shared pages cost nodes and no pages, until one side changes; holes are shared in no time, however large. */
static void test_share(void)
{
	rp_object a = new_object(), b = new_object();
	uint8_t bytes[RP_PAGE_SIZE], is[RP_PAGE_SIZE];
	struct rp_pool_status before, after;
	rp_page done, next;

	for (rp_page page = 0; page < 600; page++) {
		memset(bytes, (int)page, sizeof(bytes));
		write_at(a, page << RP_PAGE_SHIFT, bytes, sizeof(bytes));
	}
	uint64_t frames = used();

	EXPECT_EQUAL(rp_pages_share(pool, a, 0, b, 100, 600, &done), 0);
	EXPECT_EQUAL(done, 600);
	EXPECT(used() <= frames + 4);
	for (rp_page page = 0; page < 600; page++) {
		read_at(b, (page + 100) << RP_PAGE_SHIFT, is, sizeof(is));
		EXPECT(is[0] == (uint8_t)page && is[4095] == (uint8_t)page);
	}
	memset(bytes, 77, sizeof(bytes));
	write_at(a, 0, bytes, 10);
	read_at(b, 100 << RP_PAGE_SHIFT, is, sizeof(is));
	EXPECT_EQUAL(is[0], 0);
	write_at(b, 101 << RP_PAGE_SHIFT, bytes, 10);
	read_at(a, 1 << RP_PAGE_SHIFT, is, sizeof(is));
	EXPECT_EQUAL(is[0], 1);
	/* Holes over pages make holes. */
	EXPECT_EQUAL(rp_pages_share(pool, a, 1000, b, 100, 50, &done), 0);
	expect_extent(b, 0, UINT64_C(1) << 40, false, 150 << RP_PAGE_SHIFT);
	rp_pool_status(pool, &before);
	EXPECT_EQUAL(rp_pages_share(pool, a, UINT64_C(1) << 40, b, UINT64_C(1) << 41, UINT64_C(1) << 40, &done), 0);
	EXPECT_EQUAL(done, UINT64_C(1) << 40);
	rp_pool_status(pool, &after);
	EXPECT(after.gate_closings - before.gate_closings < 100);
	EXPECT_EQUAL(rp_pages_share(pool, a, 0, 99, 0, 1, &done), -ENOENT);
	EXPECT_EQUAL(done, 0);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, a, 0, RP_PAGE_COUNT_MAX, &next)), 0);
	read_at(b, 699 << RP_PAGE_SHIFT, is, sizeof(is));
	EXPECT_EQUAL(is[0], (uint8_t)599);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, a)), 0);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, b)), 0);
}

/* A file that was large, or had a page far out, keeps one node when only its beginning is left; also when a snapshot that came
 * and went has made every node one to copy. */
static void test_lower(bool shared)
{
	rp_object object = new_object();
	struct rp_snapshot *snapshot = NULL;
	uint8_t bytes[RP_PAGE_SIZE], is[RP_PAGE_SIZE];
	rp_page next;

	memset(bytes, 9, sizeof(bytes));
	write_at(object, RP_PAGE_SIZE, bytes, sizeof(bytes));
	uint64_t small = used();

	for (unsigned shift = 9; shift < 51; shift += 6) {
		write_at(object, (UINT64_C(1) << shift) << RP_PAGE_SHIFT, bytes, 1);
		if (shared) {
			EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot), 0);
			rp_snapshot_put(snapshot);
			if (shift % 12 == 9)
				write_at(object, (UINT64_C(1) << shift) << RP_PAGE_SHIFT, bytes, 1);
		}
		EXPECT(used() > small);
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, object, 5, RP_PAGE_COUNT_MAX - 5, &next)), 0);
		EXPECT_EQUAL(used(), small);
		read_at(object, RP_PAGE_SIZE, is, sizeof(is));
		EXPECT(memcmp(is, bytes, sizeof(is)) == 0);
		expect_extent(object, 0, UINT64_C(1) << 62, false, RP_PAGE_SIZE);
		expect_extent(object, RP_PAGE_SIZE, UINT64_C(1) << 62, true, 2 * RP_PAGE_SIZE);
		expect_extent(object, 2 * RP_PAGE_SIZE, UINT64_C(1) << 62, false, UINT64_C(1) << 62);
	}
	ref_check(pool);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, object)), 0);
}

static rp_frame frame_of(rp_object object, rp_page page)
{
	struct rp_record *record;
	struct rp_map map;
	rp_frame f = 0;

	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, ({
		int e = rp_record_map(&op, rp_pool_live(pool), object, &record, &map);
		e ? e : rp_map_find(&op, &map, page, &f);
	})), 0);
	return f;
}

/* A page that has as many names as are allowed to it is copied instead; and no copy of a node takes its counter round. */
static void test_share_too_often(void)
{
	rp_object a = new_object(), b = new_object();
	struct rp_snapshot *snapshot;
	uint8_t bytes[RP_PAGE_SIZE], is[RP_PAGE_SIZE];
	rp_page done;
	size_t n;

	memset(bytes, 5, sizeof(bytes));
	write_at(a, 0, bytes, sizeof(bytes));
	write_at(a, RP_PAGE_SIZE, bytes, sizeof(bytes));
	rp_frame f = frame_of(a, 1);

	atomic_fetch_add(&rp_info(pool, f)->refs, RP_REFS_SHARED - 2);
	EXPECT_EQUAL(rp_pages_share(pool, a, 1, b, 1, 1, &done), 0);
	EXPECT_EQUAL(frame_of(b, 1), f);
	EXPECT_EQUAL(rp_pages_share(pool, a, 1, b, 2, 1, &done), 0);
	EXPECT(frame_of(b, 2) != f);
	read_at(b, 2 * RP_PAGE_SIZE, is, sizeof(is));
	EXPECT(memcmp(is, bytes, sizeof(is)) == 0);
	atomic_fetch_add(&rp_info(pool, f)->refs, RP_REFS_MAX - RP_REFS_SHARED);
	EXPECT_EQUAL(rp_snapshot_take(pool, &snapshot), 0);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_write(&op, a, 0, bytes, 1, &n)), -ENOSPC);
	atomic_fetch_sub(&rp_info(pool, f)->refs, RP_REFS_MAX - 2);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_bytes_write(&op, a, 0, bytes, 1, &n)), 0);
	rp_snapshot_put(snapshot);
	ref_check(pool);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, a)), 0);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, b)), 0);
}

/* Pages written in order stand in order in memory, which copying is much quicker for. */
static void test_order(void)
{
	static uint8_t bytes[1 << 20];
	rp_page count = 4 * sizeof(bytes) >> RP_PAGE_SHIFT;
	unsigned ascending = 0;
	rp_object object = new_object();

	memset(bytes, 6, sizeof(bytes));
	for (uint64_t at = 0; at < 4 * sizeof(bytes); at += sizeof(bytes))
		write_at(object, at, bytes, sizeof(bytes));
	for (rp_page page = 1; page < count; page++)
		ascending += frame_of(object, page) == frame_of(object, page - 1) + 1;
	EXPECT(ascending > count * 9 / 10);
	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_remove(&op, object)), 0);
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 64 << 20 };

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	uint64_t empty = used();

	test_order();

	test_alignment(0);
	test_alignment((UINT64_C(511) << RP_PAGE_SHIFT));
	test_alignment(((UINT64_C(1) << 18) - 2) << RP_PAGE_SHIFT);
	test_alignment(INT64_MAX - ROOM + 1);
	test_extents();
	test_last_pages();
	test_share();
	test_share_too_often();
	test_lower(false);
	test_lower(true);
	ref_check(pool);
	EXPECT_EQUAL(used(), empty);
	rp_pool_destroy(pool);
	return 0;
}
