/* test_pool_absent.c: operations in a full pool that meet pages which are not in memory: what was brought in for one is still
 * there when it finds its frame, and the other way round. The image is a function. */
#include <errno.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/expect.h"
#include "tests/lib/reference.h"

#define PAGES 40u
#define FIRST_ADDR 1000u

static struct rp_pool *pool;
static unsigned fetched;

static int fetch(void *context, rp_addr addr, unsigned kind, uint32_t place, rp_frame *out)
{
	rp_frame f;

	(void)context;
	fetched++;
	EXPECT_EQUAL(rp_frame_take_outside(pool, kind, 0, addr, &f), 0);
	memset(rp_bytes(pool, f), (int)(addr - FIRST_ADDR), RP_PAGE_SIZE);
	EXPECT_EQUAL(rp_resident_add(pool, addr, place, f, out), 0);
	EXPECT_EQUAL(*out, f);
	return 0;
}

static rp_object new_object(bool meta)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, meta, &object, &generation)), 0);
	return object;
}

static int edit(struct rp_op *op, rp_object object, rp_page page)
{
	void *bytes;

	return rp_page_edit(op, object, page, 0, 8, &bytes);
}

/* Instead of the page's frame, an address. */
static int forget(struct rp_op *op, rp_object object, rp_page page)
{
	struct rp_record *record;
	struct rp_map map;
	_Atomic rp_entry *at;
	rp_entry e;
	int error = rp_record_map(op, rp_pool_live(pool), object, &record, &map);

	if (!error)
		error = rp_map_peek(op, &map, page, &at, &e);
	if (error)
		return error;
	atomic_store(at, rp_entry_from_addr(FIRST_ADDR + page, 0));
	rp_frame_put(op, rp_entry_frame(e));
	return 0;
}

static void fill(rp_object object)
{
	uint8_t bytes[RP_PAGE_SIZE] = { 1 };
	size_t done;

	for (rp_page page = 0;; page++) {
		int error = REF_OP(pool, 0, rp_bytes_write(&op, object, page << RP_PAGE_SHIFT, bytes, sizeof(bytes), &done));

		if (error == -ENOSPC)
			return;
		EXPECT_EQUAL(error, 0);
	}
}

/* Needs a frame, then the page. */
static int take_and_look(struct rp_op *op, rp_object taking, rp_object looking, rp_page page)
{
	const uint8_t *bytes;
	int error = edit(op, taking, page);

	if (!error)
		error = rp_page_get(op, rp_pool_live(pool), looking, page, (const void **)&bytes);
	if (!error)
		EXPECT_EQUAL(bytes[77], page);
	return error;
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 4 << 20, .small_pages = true };
	const struct rp_source source = { .fetch = fetch };
	rp_object taking, looking, data;
	rp_page next;

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	EXPECT_EQUAL(rp_resident_init(pool), 0);
	rp_pool_source_set(pool, &source);
	taking = new_object(true);
	looking = new_object(true);
	data = new_object(false);
	EXPECT_EQUAL(REF_OP(pool, 0, edit(&op, taking, PAGES)), 0);
	for (rp_page page = 0; page < PAGES; page++)
		EXPECT_EQUAL(REF_OP(pool, 0, edit(&op, looking, page)), 0);
	for (rp_page page = 0; page < PAGES; page++)
		EXPECT_EQUAL(REF_OP(pool, 0, forget(&op, looking, page)), 0);
	fill(data);
	for (rp_page page = 0; page < PAGES; page++) {
		/* One frame for it, which is still on its way, and one for the page that is brought in. */
		EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_pages_punch(&op, data, page * 2, 2, &next)), 0);
		EXPECT_EQUAL(REF_OP(pool, 0, take_and_look(&op, taking, looking, page)), 0);
		EXPECT_EQUAL(fetched, page + 1);
	}
	ref_check(pool);
	rp_pool_destroy(pool);
	return 0;
}
