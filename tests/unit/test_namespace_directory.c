/* Directories as trees of pages: a million names with bounded work for each, little memory, cookies that stay good, names
 * of the same hash, and frames that come back.
 * test-timeout: 240 */
#include "ramfs/namespace/internal.h"
#include "tests/lib/namespace.h"

static struct rp_name numbered(char to[32], uint64_t n)
{
	return (struct rp_name){ to, (size_t)snprintf(to, 32, "file-%07llu", (unsigned long long)n) };
}

static void make_numbered(struct rp_fs *fs, rp_object dir, uint64_t n)
{
	struct rp_attr attr;
	char bytes[32];

	NEED_IS(rp_fs_make(fs, ns_root_cred(), dir, numbered(bytes, n), S_IFREG | 0644, 0, NULL, false, &attr), 0);
}

/* ---- A million ---------------------------------------------------------------------------------------------------- */

static uint64_t visits_of(atomic_uint_fast64_t *visits, uint64_t *before)
{
	uint64_t now = atomic_load(visits), spent = now - *before;

	*before = now;
	return spent;
}

static void test_million(struct rp_fs *fs, uint64_t count, uint64_t *random)
{
	atomic_uint_fast64_t visits = 0;
	uint64_t before = 0, empty, full, spent;
	rp_object dir;
	char bytes[32];

	NEED_IS(ns_make(fs, rp_fs_root(fs), "many", S_IFDIR | 0755, &dir), 0);
	empty = ns_frames(fs);
	fs->visits = &visits;
	for (uint64_t n = 0; n < count; n++) {
		make_numbered(fs, dir, n);
		/* Down a tree of at most four levels, twice to see that it is new (its place may begin at the end of a
		 * page) and once to put it in. */
		spent = visits_of(&visits, &before);
		NEED(spent <= 3 * 4);
	}
	full = ns_frames(fs) - empty;
	printf("%llu files: %llu bytes each\n", (unsigned long long)count,
	       (unsigned long long)(full * RP_PAGE_SIZE / count));
	NEED(full * RP_PAGE_SIZE <= 400 * count);
	for (uint64_t i = 0; i < count / 10; i++) {
		struct rp_attr attr;

		NEED_IS(rp_fs_lookup(fs, dir, numbered(bytes, random_below(random, count)), false, &attr), 0);
		spent = visits_of(&visits, &before);
		NEED(spent <= 2 * 4);
	}
	NS_CHECK(fs);
	before = atomic_load(&visits);
	for (uint64_t n = 0; n < count; n++) {
		/* In another order than they came. */
		uint64_t which = n * 7919 % count;

		NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, which), NULL), 0);
		/* Down to find and to remove, each perhaps twice; at each level two neighbours looked at and one page moved. */
		spent = visits_of(&visits, &before);
		NEED(spent <= 4 * 4 + 4 * (4 + 4));
	}
	fs->visits = NULL;
	NS_CHECK(fs);
	NEED_IS(rp_fs_rmdir(fs, rp_fs_root(fs), rp_name_from("many"), NULL), 0);
	NS_CHECK(fs);
	printf("frames: %llu before, %llu after\n", (unsigned long long)empty, (unsigned long long)ns_frames(fs));
	/* The object table remembers which of its numbers were used: some pages for a million. */
	NEED(ns_frames(fs) <= empty + 8);
}

/* ---- Cookies -------------------------------------------------------------------------------------------------------- */

struct reading {
	uint8_t *seen;          /* by number: how often */
	uint64_t limit;         /* entries a call may take */
	uint64_t taken;
	uint64_t next;
};

static int read_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct reading *reading = context;

	if (reading->taken == reading->limit)
		return 1;
	NEED(next_cookie <= INT64_MAX);
	NEED(attr->ino != 0);
	reading->taken++;
	reading->next = next_cookie;
	if (name.bytes[0] == 'f')
		reading->seen[strtoull(name.bytes + 5, NULL, 10)]++;
	return 0;
}

/* Every name that stays is seen once while others come and go between the calls. */
static void test_cookies(struct rp_fs *fs, uint64_t *random)
{
	enum { STAY = 2000, COME = 4000 };
	struct reading reading = { .next = 0 };
	bool there[COME] = { false };
	rp_object dir;
	char bytes[32];

	NEED_IS(ns_make(fs, rp_fs_root(fs), "cookies", S_IFDIR | 0755, &dir), 0);
	for (unsigned round = 0; round < 6; round++) {
		reading.seen = calloc(COME, 1);
		NEED(reading.seen);
		for (unsigned n = 0; n < STAY; n++)
			if (round == 0)
				make_numbered(fs, dir, n);
		reading.next = 0;
		do {
			reading.taken = 0;
			reading.limit = 1 + random_below(random, 100);
			NEED_IS(rp_fs_readdir(fs, dir, reading.next, round & 1, false, read_entry, &reading), 0);
			for (unsigned i = 0; i < 60; i++) {
				uint64_t n = STAY + random_below(random, COME - STAY);

				if (there[n])
					NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, n), NULL), 0);
				else
					make_numbered(fs, dir, n);
				there[n] = !there[n];
			}
		} while (reading.taken > 0);
		for (unsigned n = 0; n < STAY; n++)
			NEED_IS(reading.seen[n], 1);
		for (unsigned n = STAY; n < COME; n++)
			NEED(reading.seen[n] <= 1 + 60);
		free(reading.seen);
		NS_CHECK(fs);
	}
	for (unsigned n = 0; n < COME; n++)
		if (n < STAY || there[n])
			NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, n), NULL), 0);
	NEED_IS(ns_attr(fs, dir).page_count, 0);
	NS_CHECK(fs);
}

/* Holds taken while reading: one for each entry that was taken, none for the others. */
static void test_reading_with_holds(struct rp_fs *fs)
{
	struct reading reading = { .limit = 70 };
	rp_object dir;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "holds", S_IFDIR | 0755, &dir), 0);
	for (unsigned n = 0; n < 200; n++)
		make_numbered(fs, dir, n);
	reading.seen = calloc(200, 1);
	NEED(reading.seen);
	NEED_IS(rp_fs_readdir(fs, dir, 0, true, true, read_entry, &reading), 0);
	NEED_IS(reading.taken, 70);
	for (unsigned n = 0; n < 200; n++) {
		struct rp_attr attr;
		char bytes[32];

		NEED_IS(rp_fs_lookup(fs, dir, numbered(bytes, n), false, &attr), 0);
		NEED_IS(rp_hold_is_held(fs, attr.ino, attr.generation), reading.seen[n]);
		if (reading.seen[n])
			rp_fs_release(fs, attr.ino, 1);
		NEED(!rp_hold_is_held(fs, attr.ino, attr.generation));
	}
	free(reading.seen);
}

/* ---- The same hash -------------------------------------------------------------------------------------------------------- */

/* With few bits left in the hash most names share one with others: found, missed and removed as always. */
static void test_collisions(struct rp_fs *fs, uint64_t *random)
{
	enum { NAMES = 1500 };
	bool there[NAMES] = { false };
	rp_object dir;
	char bytes[32];

	fs->hash_mask = UINT64_C(0xf) << 60;
	NEED_IS(ns_make(fs, rp_fs_root(fs), "same", S_IFDIR | 0755, &dir), 0);
	for (unsigned step = 0; step < 20000; step++) {
		uint64_t n = random_below(random, NAMES);
		struct rp_attr attr;

		NEED_IS(rp_fs_lookup(fs, dir, numbered(bytes, n), false, &attr), there[n] ? 0 : -ENOENT);
		if (there[n])
			NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, n), NULL), 0);
		else
			make_numbered(fs, dir, n);
		there[n] = !there[n];
		if (step % 4000 == 0)
			NS_CHECK(fs);
	}
	NS_CHECK(fs);
	for (unsigned n = 0; n < NAMES; n++)
		if (there[n])
			NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, n), NULL), 0);
	NEED_IS(rp_fs_rmdir(fs, rp_fs_root(fs), rp_name_from("same"), NULL), 0);
	/* More than 256 names of one hash do not fit, and say so. */
	fs->hash_mask = 0;
	NEED_IS(ns_make(fs, rp_fs_root(fs), "same", S_IFDIR | 0755, &dir), 0);
	for (unsigned n = 0; n < 256; n++)
		make_numbered(fs, dir, n);
	NEED_IS(ns_make(fs, dir, "one more", S_IFREG | 0644, NULL), -ENOSPC);
	NS_CHECK(fs);
	NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, 77), NULL), 0);
	NEED_IS(ns_make(fs, dir, "one more", S_IFREG | 0644, NULL), 0);
	NEED_IS(rp_fs_unlink(fs, dir, rp_name_from("one more"), NULL), 0);
	for (unsigned n = 0; n < 256; n++)
		if (n != 77)
			NEED_IS(rp_fs_unlink(fs, dir, numbered(bytes, n), NULL), 0);
	NEED_IS(rp_fs_rmdir(fs, rp_fs_root(fs), rp_name_from("same"), NULL), 0);
	fs->hash_mask = UINT64_MAX;
}

/* ---- Long names ------------------------------------------------------------------------------------------------------------ */

enum { LONG = 12000 };

static struct rp_name long_numbered(char to[256], uint64_t n)
{
	memset(to, 'l', 255);
	snprintf(to, 32, "%06llu", (unsigned long long)n);
	to[6] = 'x';
	return (struct rp_name){ to, 255 };
}

static void long_toggle(struct rp_fs *fs, rp_object dir, uint64_t n, bool *there)
{
	struct rp_attr attr;
	char bytes[256];

	NEED_IS(rp_fs_lookup(fs, dir, long_numbered(bytes, n), false, &attr), there[n] ? 0 : -ENOENT);
	if (there[n])
		NEED_IS(rp_fs_unlink(fs, dir, long_numbered(bytes, n), NULL), 0);
	else
		NEED_IS(rp_fs_make(fs, ns_root_cred(), dir, long_numbered(bytes, n), S_IFIFO | 0644, 0, NULL, false, &attr), 0);
	there[n] = !there[n];
}

/* A tree of three levels that grows and shrinks, always with some of the other, so that pages of all levels split and
 * merge at every place; and what is thin does not keep its pages. */
static void test_churn(struct rp_fs *fs, uint64_t *random)
{
	static bool there[LONG];
	uint64_t count = 0;
	rp_object dir;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "long", S_IFDIR | 0755, &dir), 0);
	for (unsigned phase = 0; phase < 8; phase++) {
		bool growing = phase % 2 == 0;

		while (growing ? count < LONG * 9 / 10 : count > LONG / 10) {
			uint64_t n = random_below(random, LONG);

			/* Now and then in the wrong direction. */
			if (there[n] == growing && random_below(random, 16))
				continue;
			count += there[n] ? (uint64_t)-1 : 1;
			long_toggle(fs, dir, n, there);
		}
		NS_CHECK(fs);
		if (growing)
			NEED(ns_attr(fs, dir).page_count > 2 * 254);
		else
			NEED(ns_attr(fs, dir).page_count < 300);
	}
	for (unsigned n = 0; n < LONG; n++)
		if (there[n])
			long_toggle(fs, dir, n, there);
	NEED_IS(ns_attr(fs, dir).page_count, 0);
	NS_CHECK(fs);
}

int main(void)
{
	uint64_t count = number_from_environment("RP_TEST_STEPS", 1000000), seed, random;
	struct rp_fs *fs;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	if (!getenv("RP_TEST_STEPS"))
		count = 100000;
#endif
	seed = number_from_environment("RP_SEED", 20240611);
	random = seed;
	printf("seed: RP_SEED=%llu\n", (unsigned long long)seed);
	fs = ns_open(UINT64_C(1) << 30, 0, NULL);
	test_cookies(fs, &random);
	test_reading_with_holds(fs);
	ns_close(fs);
	fs = ns_open(UINT64_C(1) << 30, 0, NULL);
	test_million(fs, count, &random);
	ns_close(fs);
	fs = ns_open(64 << 20, 0, NULL);
	test_collisions(fs, &random);
	test_churn(fs, &random);
	ns_close(fs);
	printf("directory: pass\n");
	return 0;
}
