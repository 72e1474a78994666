/* Indexes by themselves, with keys of the test's choosing: whole ranges come and go, so that pages empty beside full ones,
 * split and merge at every place of a tree of three levels. Compared with a flat array of what should be there.
 *
 * RP_SEED=n: another seed; RP_TEST_STEPS=n: how many ranges for each seed.
 */
#include "ramfs/namespace/internal.h"
#include "tests/lib/namespace.h"

enum { KEYS = 6000, STRIDE = 1000 };

static struct rp_fs *fs;
static struct rp_index ix;
static uint16_t size_of[KEYS];      /* of the data under key n * STRIDE + offset; 0: not there */
static uint64_t offset_of[KEYS];    /* keys differ within their stride from one life to the next */

static uint64_t key_of(unsigned n) { return 1000 + (uint64_t)n * STRIDE + offset_of[n]; }

static void add(unsigned n, uint64_t *random)
{
	static uint8_t data[RP_INDEX_DATA_MAX];
	uint16_t size = (uint16_t)(300 + random_below(random, RP_INDEX_DATA_MAX - 300));
	uint64_t offset = random_below(random, STRIDE);
	struct rp_item item = {
		.ref = n, .name = (const uint8_t *)"n", .name_length = 1, .data = data, .data_length = size, .key = 0,
	};
	uint64_t pages = ix.pages;
	struct rp_op op;
	int error;

	offset_of[n] = offset;
	item.key = key_of(n);
	do {
		rp_op_begin(&op, fs->pool, 0);
		ix.op = &op;
		ix.pages = pages;
		error = rp_index_insert(&ix, &item);
	} while (rp_op_end(&op, &error));
	NEED_IS(error, 0);
	size_of[n] = size;
}

static void drop(unsigned n)
{
	struct rp_index_path path;
	uint64_t pages = ix.pages;
	struct rp_item item;
	struct rp_op op;
	const void *leaf;
	int error;

	do {
		rp_op_begin(&op, fs->pool, RP_OP_RESERVE);
		ix.op = &op;
		ix.pages = pages;
		error = rp_index_descend(&ix, key_of(n), 0, &path, &leaf);
		if (!error) {
			NEED(path.step[path.depth - 1].slot < rp_index_head_const(leaf)->count);
			NEED(rp_index_cell_get(leaf, path.step[path.depth - 1].slot, &item));
			NEED_IS(item.key, key_of(n));
			NEED_IS(item.ref, n);
			error = rp_index_remove(&ix, &path);
		}
	} while (rp_op_end(&op, &error));
	NEED_IS(error, 0);
	size_of[n] = 0;
}

/* Reading from the start gives exactly what is there, in order. */
static void compare(void)
{
	struct rp_index_page leaf;
	uint64_t key = 0;
	unsigned n = 0, slot;
	struct rp_op op;
	int error;

	for (;;) {
		do {
			rp_op_begin(&op, fs->pool, RP_OP_READ);
			ix.op = &op;
			error = rp_index_leaf(&ix, key, &leaf, &slot);
		} while (rp_op_end(&op, &error));
		if (error)
			break;
		for (; slot < rp_index_head_const(leaf.bytes)->count; slot++) {
			struct rp_item item;

			while (n < KEYS && size_of[n] == 0)
				n++;
			NEED(n < KEYS);
			NEED(rp_index_cell_get(leaf.bytes, slot, &item));
			NEED_IS(item.key, key_of(n));
			NEED_IS(item.data_length, size_of[n]);
			key = item.key + 1;
			n++;
		}
	}
	NEED_IS(error, -ENOENT);
	while (n < KEYS && size_of[n] == 0)
		n++;
	NEED_IS(n, KEYS);
}

static void range(unsigned first, unsigned count, bool fill, uint64_t *random)
{
	for (unsigned n = first; n < KEYS && n < first + count; n++) {
		if (fill && size_of[n] == 0)
			add(n, random);
		else if (!fill && size_of[n] != 0)
			drop(n);
	}
}

static void run(uint64_t seed, uint64_t steps)
{
	uint64_t random = seed, highest = 0, generation;
	struct rp_op op;
	int error;

	fs = ns_open(64 << 20, 0, NULL);
	do {
		rp_op_begin(&op, fs->pool, 0);
		error = rp_object_create(&op, true, &ix.object, &generation);
	} while (rp_op_end(&op, &error));
	NEED_IS(error, 0);
	ix.fs = fs;
	ix.pages = 0;
	range(0, KEYS, true, &random);
	compare();
	for (uint64_t step = 0; step < steps; step++) {
		bool fill = random_below(&random, 2);

		range((unsigned)random_below(&random, KEYS), (unsigned)random_below(&random, random_below(&random, 4) ? 30 : 1500),
		      fill, &random);
		if (step % 16 == 0)
			compare();
		if (ix.pages > highest)
			highest = ix.pages;
	}
	compare();
	NEED(highest > 3 * RP_INDEX_LINKS);
	range(0, KEYS, false, &random);
	NEED_IS(ix.pages, 0);
	NEED_IS(rp_pool_check(fs->pool, ns_report, NULL), 0);
	ns_close(fs);
}

int main(void)
{
	uint64_t steps = number_from_environment("RP_TEST_STEPS", 4000), only = number_from_environment("RP_SEED", 0);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	if (!getenv("RP_TEST_STEPS"))
		steps = 300;
#endif
	for (uint64_t seed = only ? only : 9; seed <= (only ? only : 12); seed++) {
		printf("seed: RP_SEED=%llu\n", (unsigned long long)seed);
		fflush(stdout);
		run(seed, steps);
	}
	printf("index: pass\n");
	return 0;
}
