/* test_pool_objects.c: numbers and generations of objects, records, the header, and operations that are taken back. */
#include <errno.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/reference.h"

static struct rp_pool *pool;

static uint64_t used(void)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	return status.frame_used;
}

static rp_object new_object(bool meta)
{
	uint64_t generation;
	rp_object object;

	EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, meta, &object, &generation)), 0);
	return object;
}

static void remove_object(rp_object object)
{
	EXPECT_EQUAL(REF_OP(pool, RP_OP_RESERVE, rp_object_remove(&op, object)), 0);
}

static int get(rp_object object, uint64_t generation)
{
	const struct rp_record *record;

	return REF_OP(pool, RP_OP_READ, rp_record_get(&op, rp_pool_live(pool), object, generation, &record));
}

/* A hundred thousand, removed in another order: numbers differ, free ones come again with another generation, and the
 * table is as small as before. */
static void test_many(void)
{
	const unsigned count = 100000;
	rp_object *object = calloc(count, sizeof(*object));
	uint64_t *generation = calloc(count, sizeof(*generation));
	uint8_t *seen = calloc(count, 2);
	uint64_t empty = used(), random = 5;

	EXPECT(object && generation && seen);
	for (unsigned i = 0; i < count; i++) {
		EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &object[i], &generation[i])), 0);
		EXPECT(object[i] % RP_RECORDS_PER_PAGE != 0 && object[i] < 2 * count);
		EXPECT(!seen[object[i]]);
		seen[object[i]] = 1;
		EXPECT(i == 0 || generation[i] > generation[i - 1]);
	}
	EXPECT(used() <= empty + count / 15 + 40);
	for (unsigned i = 0; i < 10000; i++) {
		unsigned k = (unsigned)random_below(&random, count);
		uint64_t old = generation[k];

		EXPECT_EQUAL(get(object[k], old), 0);
		remove_object(object[k]);
		EXPECT_EQUAL(get(object[k], old), -ENOENT);
		EXPECT_EQUAL(REF_OP(pool, 0, rp_object_create(&op, false, &object[k], &generation[k])), 0);
		EXPECT(generation[k] != old);
		EXPECT_EQUAL(get(object[k], old), -ESTALE);
	}
	ref_check(pool);
	for (unsigned i = 0; i < count; i++) {
		unsigned k = i + (unsigned)random_below(&random, count - i);
		rp_object swap = object[k];

		object[k] = object[i];
		remove_object(swap);
	}
	ref_check(pool);
	EXPECT_EQUAL(used(), 2 + rp_entry_height(atomic_load(&pool->live.root)));
	free(object);
	free(generation);
	free(seen);
}

static void test_refused(void)
{
	rp_object object = new_object(true), data = new_object(false);
	uint64_t generation;
	struct rp_record *record;
	struct rp_header *header;
	void *bytes;
	rp_page done;

	EXPECT_EQUAL(get(0, 0), -ENOENT);
	EXPECT_EQUAL(get(16, 0), -ENOENT);
	EXPECT_EQUAL(get(UINT64_MAX, 0), -ENOENT);
	EXPECT_EQUAL(get(object + 16000, 0), -ENOENT);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_object_create(&op, true, &data, &generation)), -EROFS);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_object_remove(&op, object)), -EROFS);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_record_edit(&op, object, 16, 8, &record)), -EROFS);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_header_add(&op, offsetof(struct rp_header, user), 1)), -EROFS);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_header_edit(&op, offsetof(struct rp_header, user), 8, &header)), -EROFS);
	EXPECT_EQUAL(REF_OP(pool, RP_OP_READ, rp_page_edit(&op, object, 0, 0, 8, &bytes)), -EROFS);
	EXPECT_EQUAL(rp_pages_share(pool, object, 0, new_object(false), 0, 1, &done), -EINVAL);
	ref_check(pool);
}

/* Page 0 of a map without nodes, with nodes coming and going above it within one operation: all of it is taken back. */
static int upheaval(struct rp_op *op, rp_object object, unsigned kind)
{
	static const rp_page page[3][4] = { { 0, 600, 1 << 20, 0 }, { 600, 0, 1 << 20, 600 }, { 0, 1, 2, 3 } };
	void *bytes;
	int error = 0;

	for (unsigned i = 0; !error && i < 4; i++) {
		if (kind & 1)
			error = rp_page_drop(op, object, page[kind / 4][i]);
		if (!error)
			error = rp_page_edit(op, object, page[kind / 4][i], 0, 8, &bytes);
		if (!error)
			memset(bytes, 0x77, 8);
		if (!error && kind & 2)
			error = rp_page_drop(op, object, page[kind / 4][i]);
	}
	return error ? error : -ECANCELED;
}

static void test_taken_back(void)
{
	for (unsigned kind = 0; kind < 12; kind++) {
		/* before: nothing, page 0 alone, page 600 alone, both */
		for (unsigned before = 0; before < 4; before++) {
			rp_object object = new_object(true);
			const void *bytes;
			void *page;

			for (unsigned i = 0; i < 2; i++) {
				if (!(before >> i & 1))
					continue;
				EXPECT_EQUAL(REF_OP(pool, 0, ({
					int e = rp_page_edit(&op, object, i * 600, 0, 8, &page);
					if (!e)
						memset(page, (int)i + 1, 8);
					e;
				})), 0);
			}
			uint64_t frames = used();

			EXPECT_EQUAL(REF_OP(pool, 0, upheaval(&op, object, kind)), -ECANCELED);
			ref_check(pool);
			for (unsigned i = 0; i < 2; i++) {
				EXPECT_EQUAL(REF_OP(pool, RP_OP_READ,
				                    rp_page_get(&op, rp_pool_live(pool), object, i * 600, &bytes)), 0);
				EXPECT_EQUAL(*(const uint8_t *)bytes, before >> i & 1 ? i + 1 : 0);
			}
			/* Nothing stays but nodes above a map that was higher for a while. */
			EXPECT(used() <= frames + (before == 1 ? 3 : before ? 1 : 0));
			remove_object(object);
		}
	}
}

static int create_some(struct rp_op *op, rp_object *object, unsigned count, rp_object removed)
{
	uint64_t generation;
	int error = removed ? rp_object_remove(op, removed) : 0;

	for (unsigned i = 0; !error && i < count; i++)
		error = rp_object_create(op, i % 2, &object[i], &generation);
	return error ? error : -ECANCELED;
}

static void test_creation_taken_back(void)
{
	rp_object kept = new_object(false), object[100];
	uint64_t frames = used();

	for (unsigned round = 0; round < 5; round++) {
		EXPECT_EQUAL(REF_OP(pool, 0, create_some(&op, object, 100, kept)), -ECANCELED);
		ref_check(pool);
		for (unsigned i = 0; i < 100; i++)
			EXPECT_EQUAL(get(object[i], 0), -ENOENT);
		EXPECT_EQUAL(get(kept, 0), 0);
		EXPECT(used() <= frames + 2);
	}
	remove_object(kept);
}

int main(void)
{
	struct rp_pool_options options = { .size_bytes = 256 << 20 };

	EXPECT_EQUAL(rp_pool_create(&options, &pool), 0);
	test_many();
	test_refused();
	test_taken_back();
	test_creation_taken_back();
	rp_pool_destroy(pool);
	return 0;
}
