/* Pages and records that an image could bring and that cannot be: every call comes back, with an error or without, and the
 * checker sees what is wrong. Nothing here may crash or hang; what it says is not compared.
 * test-timeout: 240
 *
 * RP_SEED=n replays one round; RP_TEST_STEPS=n: how many rounds.
 */
#include "ramfs/namespace/internal.h"
#include "tests/lib/namespace.h"

enum { NAMES = 3000, CALLS = 60 };

static void log_nothing(void *context, const char *line)
{
	(void)context, (void)line;
}

static void count_fault(void *context, const char *line)
{
	(void)line;
	++*(unsigned *)context;
}

static struct rp_name numbered(char to[32], uint64_t n)
{
	return (struct rp_name){ to, (size_t)snprintf(to, 32, "name-%llu", (unsigned long long)n) };
}

static int take_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	unsigned *left = context;

	(void)attr, (void)next_cookie;
	NEED(name.length >= 1 && name.length <= 255);
	return --*left == 0;
}

/* Some random change of a page: bytes, a word of interest, or another page's contents. */
static void spoil(uint8_t *page, const uint8_t *other, uint64_t *random)
{
	static const uint64_t words[] = { 0, 1, 2, 31, 32, 4095, 4096, 65535, UINT32_MAX, INT64_MAX, UINT64_MAX };
	uint64_t word;

	switch (random_below(random, 5)) {
	case 0:
		for (unsigned i = 0; i < 1 + random_below(random, 20); i++)
			page[random_below(random, RP_PAGE_SIZE)] ^= (uint8_t)(1 << random_below(random, 8));
		break;
	case 1: /* the head */
		page[random_below(random, 32)] = (uint8_t)random_next(random);
		break;
	case 2: /* offsets or links */
		word = words[random_below(random, 11)];
		memcpy(page + 32 + random_below(random, 400) * 2, &word, random_below(random, 2) ? 2 : 8);
		break;
	case 3:
		memcpy(page, other, RP_PAGE_SIZE);
		break;
	default: /* all but the head */
		for (unsigned i = 32; i < RP_PAGE_SIZE; i += 8) {
			word = random_next(random);
			memcpy(page + i, &word, 8);
		}
	}
}

static void page_spoil(struct rp_fs *fs, rp_object object, uint64_t pages, uint64_t *random)
{
	uint8_t other[RP_PAGE_SIZE];
	const void *from;
	struct rp_op op;
	void *page;
	int error;

	if (pages == 0)
		return;
	do {
		rp_op_begin(&op, rp_fs_pool(fs), 0);
		error = rp_page_get(&op, rp_pool_live(rp_fs_pool(fs)), object, random_below(random, pages), &from);
		if (!error)
			memcpy(other, from, RP_PAGE_SIZE);
		if (!error)
			error = rp_page_edit(&op, object, random_below(random, pages), 0, RP_PAGE_SIZE, &page);
		if (!error)
			spoil(page, other, random);
	} while (rp_op_end(&op, &error));
}

/* The filesystem's part of a record, or its size. */
static void record_spoil(struct rp_fs *fs, rp_object object, uint64_t *random)
{
	struct rp_record *record;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, rp_fs_pool(fs), 0);
		error = rp_record_edit(&op, object, offsetof(struct rp_record, user), sizeof(record->user), &record);
		if (!error && random_below(random, 2)) {
			uint64_t word = random_below(random, 2) ? random_below(random, 5000) : random_next(random);

			memcpy(record->user + random_below(random, sizeof(record->user) / 8) * 8, &word, 8);
		} else if (!error) {
			record->user[random_below(random, sizeof(record->user))] ^= (uint8_t)(1 << random_below(random, 8));
		}
	} while (rp_op_end(&op, &error));
}

static void call(struct rp_fs *fs, rp_object dir, rp_object ino, uint64_t *random)
{
	static char value[65536];
	rp_object root = rp_fs_root(fs);
	struct rp_name name;
	struct rp_attr attr = { .mode = 0600, .size_bytes = random_below(random, 10000) }, out;
	unsigned left = 200;
	char bytes[32];

	name = numbered(bytes, random_below(random, NAMES));
	switch (random_below(random, 14)) {
	case 0:
		(void)!rp_fs_lookup(fs, dir, name, true, &out);
		break;
	case 1:
	case 2:
		(void)!rp_fs_make(fs, ns_root_cred(), dir, name, random_below(random, 2) ? S_IFREG : S_IFDIR, 0, NULL, false, &out);
		break;
	case 3:
	case 4:
	case 5:
		(void)!rp_fs_unlink(fs, dir, name, NULL);
		break;
	case 6:
		(void)!rp_fs_readdir(fs, dir, random_next(random) >> 1, true, random_below(random, 2), take_entry, &left);
		break;
	case 7:
		(void)!rp_fs_rename(fs, ns_root_cred(), dir, name, root, rp_name_from("moved"), (unsigned)random_below(random, 5));
		break;
	case 8:
		(void)!rp_fs_setattr(fs, ino, RP_SET_SIZE | RP_SET_MODE, &attr, &out);
		break;
	case 9:
		(void)!rp_fs_xattr_list(fs, ino, value, sizeof(value));
		(void)!rp_fs_xattr_get(fs, ino, "user.long", value, sizeof(value));
		break;
	case 10:
		(void)!rp_fs_xattr_set(fs, ino, "user.new", value, random_below(random, 2000), 0, false);
		break;
	case 11:
		(void)!rp_fs_read(fs, ino, random_below(random, 10000), value, sizeof(value));
		(void)!rp_fs_write(fs, ino, random_below(random, 10000), value, random_below(random, 10000), 0);
		break;
	case 12:
		(void)!rp_fs_tmpfile(fs, ns_root_cred(), dir, 0600, &out);
		break;
	default:
		(void)!rp_fs_rmdir(fs, root, rp_name_from("dir"), NULL);
		(void)!rp_fs_readlink(fs, ino, value);
	}
}

static void run(uint64_t seed)
{
	static const struct rp_hooks hooks = { .log = log_nothing };
	struct rp_fs *fs = ns_open(32 << 20, 0, &hooks), *again;
	struct rp_pool *pool = rp_fs_pool(fs);
	uint64_t random = seed, names = 1 + random_below(&random, NAMES), pages;
	rp_object dir, ino = 0, holder = 0;
	unsigned faults = 0;
	struct rp_op op;
	char bytes[32];
	int error;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "dir", S_IFDIR | 0755, &dir), 0);
	for (uint64_t n = 0; n < names; n++) {
		struct rp_attr attr;

		NEED_IS(rp_fs_make(fs, ns_root_cred(), dir, numbered(bytes, n), S_IFREG | 0644, 0, NULL, false, &attr), 0);
		if (n == names / 2)
			ino = attr.ino;
	}
	for (unsigned n = 0; n < 40; n++) {
		static const uint8_t value[5000];

		snprintf(bytes, sizeof(bytes), n ? "user.attribute-%u" : "user.long", n);
		NEED_IS(rp_fs_xattr_set(fs, ino, bytes, value, n % 5 ? 100 : 5000, 0, false), 0);
	}
	NEED_IS(rp_fs_write(fs, ino, 0, "0123456789", 10, 0), 10);
	do {
		const struct rp_record *record;

		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_record_get(&op, rp_pool_live(pool), ino, 0, &record);
		holder = rp_record_inode(record)->xattrs;
	} while (rp_op_end(&op, &error));
	NS_CHECK(fs);
	pages = ns_attr(fs, dir).page_count;
	for (unsigned i = 0; i < 1 + random_below(&random, 3); i++) {
		rp_object victims[] = { dir, dir, ino, holder };

		if (random_below(&random, 3))
			page_spoil(fs, random_below(&random, 4) ? dir : holder, pages, &random);
		else
			record_spoil(fs, victims[random_below(&random, 4)], &random);
	}
	rp_fs_check(fs, count_fault, &faults);
	for (unsigned i = 0; i < CALLS; i++)
		call(fs, dir, ino, &random);
	rp_fs_check(fs, count_fault, &faults);
	rp_fs_close(fs);
	/* The pool itself was never damaged, and opening again ends too. */
	NEED_IS(rp_pool_check(pool, ns_report, NULL), 0);
	if (rp_fs_open(pool, false, &again) == 0)
		rp_fs_close(again);
	rp_pool_destroy(pool);
}

int main(void)
{
	uint64_t rounds = number_from_environment("RP_TEST_STEPS", 300), only = number_from_environment("RP_SEED", 0);

	for (uint64_t seed = only ? only : 1; seed <= (only ? only : rounds); seed++) {
		printf("seed: RP_SEED=%llu\n", (unsigned long long)seed);
		fflush(stdout);
		run(seed);
	}
	printf("hostile: pass\n");
	return 0;
}
