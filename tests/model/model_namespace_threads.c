/* Many threads in one filesystem: each works on names and files of its own and on shared ones, while snapshots are taken;
 * what each knows of its own must hold, and afterwards both checkers have nothing to say. Meant for the thread sanitizer.
 * test-timeout: 240
 *
 * RP_SEED=n: another seed; RP_TEST_STEPS=n: steps of each thread.
 */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include "tests/lib/namespace.h"

#define THREADS 6
#define SHARED_DIRS 4
#define SHARED_NAMES 12
#define BLOCK 4096u
#define BLOCKS 64u

static struct rp_fs *fs;
static rp_object shared_dir[SHARED_DIRS], shared_file;
static atomic_bool stop;

struct worker {
	pthread_t thread;
	unsigned number;
	uint64_t random, steps;
};

static const char *shared_name(uint64_t n)
{
	static const char *const names[SHARED_NAMES] = { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l" };

	return names[n % SHARED_NAMES];
}

/* Errors that others' steps may cause. */
static void need_expected(long long got)
{
	static const int expected[] = { ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, ESTALE, EPERM };

	if (got >= 0)
		return;
	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (got == -expected[i])
			return;
	fprintf(stderr, "a call gave %lld\n", got);
	exit(1);
}

static int take_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	uint64_t *left = context;

	(void)next_cookie;
	if (*left == 0)
		return 1;
	--*left;
	if (name.bytes[0] != '.')
		rp_fs_release(fs, attr->ino, 1);
	return 0;
}

/* Names that everybody makes, moves and removes. */
static void step_shared(struct worker *w)
{
	rp_object dir = shared_dir[random_below(&w->random, SHARED_DIRS)], to = shared_dir[random_below(&w->random, SHARED_DIRS)];
	const char *name = shared_name(random_next(&w->random)), *to_name = shared_name(random_next(&w->random));
	static const unsigned flags[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	uint64_t left = random_below(&w->random, 20);
	struct rp_attr attr;
	int error;

	switch (random_below(&w->random, 10)) {
	case 0:
	case 1:
		error = rp_fs_make(fs, ns_root_cred(), dir, rp_name_from(name),
				   random_below(&w->random, 3) ? S_IFREG | 0644 : S_IFDIR | 0755, 0, NULL, true, &attr);
		need_expected(error);
		if (!error && S_ISREG(attr.mode))
			need_expected(rp_fs_write(fs, attr.ino, 0, name, 1, 0));
		if (!error)
			rp_fs_release(fs, attr.ino, 1);
		break;
	case 2:
		need_expected(rp_fs_unlink(fs, dir, rp_name_from(name), NULL));
		break;
	case 3:
		need_expected(rp_fs_rmdir(fs, dir, rp_name_from(name), NULL));
		break;
	case 4:
	case 5:
		need_expected(ns_rename(fs, dir, name, to, to_name, flags[random_below(&w->random, 5)]));
		break;
	case 6:
		error = rp_fs_lookup(fs, dir, rp_name_from(name), true, &attr);
		need_expected(error);
		if (error)
			break;
		/* Held, so it is there whatever happens to its name. */
		NEED_IS(rp_fs_getattr(fs, attr.ino, &attr), 0);
		if (S_ISREG(attr.mode))
			need_expected(rp_fs_link(fs, attr.ino, to, rp_name_from(to_name), false, &attr));
		need_expected(rp_fs_xattr_set(fs, attr.ino, "trusted.t", name, 1, 0, false));
		rp_fs_release(fs, attr.ino, 1);
		break;
	case 7:
		need_expected(rp_fs_readdir(fs, dir, 0, true, true, take_entry, &left));
		break;
	case 8:
		error = rp_fs_tmpfile(fs, ns_root_cred(), dir, 0600, &attr);
		NEED_IS(error, 0);
		if (random_below(&w->random, 2))
			need_expected(rp_fs_link(fs, attr.ino, dir, rp_name_from(name), false, &attr));
		rp_fs_release(fs, attr.ino, 1);
		break;
	default:
		NEED_IS(rp_fs_getattr(fs, dir, &attr), 0);
		attr.mode = 0700 + (uint32_t)w->number;
		NEED_IS(rp_fs_setattr(fs, dir, RP_SET_MODE, &attr, &attr), 0);
	}
}

/* A block of the shared file is always one number over: blocks are written whole. */
static void step_file(struct worker *w)
{
	uint64_t words[BLOCK / 8], at = random_below(&w->random, BLOCKS) * BLOCK, value = random_next(&w->random);
	struct rp_attr attr;
	ssize_t got;

	switch (random_below(&w->random, 8)) {
	case 0:
	case 1:
	case 2:
		for (unsigned i = 0; i < BLOCK / 8; i++)
			words[i] = value;
		NEED_IS(rp_fs_write(fs, shared_file, at, words, BLOCK, 0), BLOCK);
		break;
	case 3:
	case 4:
		got = rp_fs_read(fs, shared_file, at, words, BLOCK);
		NEED(got >= 0 && (size_t)got <= BLOCK);
		break;
	case 5:
		attr.size_bytes = random_below(&w->random, BLOCKS) * BLOCK;
		NEED_IS(rp_fs_setattr(fs, shared_file, RP_SET_SIZE, &attr, &attr), 0);
		break;
	case 6:
		NEED_IS(rp_fs_fallocate(fs, shared_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, BLOCK, false), 0);
		break;
	default:
		NEED_IS(rp_fs_getattr(fs, shared_file, &attr), 0);
		NEED(attr.size_bytes <= BLOCKS * BLOCK);
	}
}

/* Names only this thread uses, in a directory all use: what it made is there, what it removed is not. */
static void step_own(struct worker *w, bool *there)
{
	uint64_t n = random_below(&w->random, 32);
	struct rp_attr attr;
	char name[32];

	snprintf(name, sizeof(name), "own-%u-%u", w->number, (unsigned)n);
	NEED_IS(ns_lookup(fs, shared_dir[0], name, &attr), there[n] ? 0 : -ENOENT);
	if (there[n])
		NEED_IS(rp_fs_unlink(fs, shared_dir[0], rp_name_from(name), NULL), 0);
	else
		NEED_IS(ns_make(fs, shared_dir[0], name, S_IFREG | 0644, NULL), 0);
	there[n] = !there[n];
}

static void *work(void *context)
{
	struct worker *w = context;
	bool there[32] = { false };

	for (uint64_t i = 0; i < w->steps; i++) {
		switch (random_below(&w->random, 3)) {
		case 0:
			step_own(w, there);
			break;
		case 1:
			step_file(w);
			break;
		default:
			step_shared(w);
		}
	}
	return NULL;
}

/* Snapshots under load: each is whole. */
static void *watch(void *context)
{
	unsigned *count = context;
	const struct timespec pause = { .tv_nsec = 20000000 };

	while (!atomic_load(&stop)) {
		struct rp_snapshot *snapshot;
		struct rp_fs *old;

		NEED_IS(rp_snapshot_take(rp_fs_pool(fs), &snapshot), 0);
		NEED_IS(rp_fs_open_snapshot(rp_fs_pool(fs), snapshot, &old), 0);
		NEED_IS(rp_fs_check(old, ns_report, NULL), 0);
		rp_fs_close(old);
		rp_snapshot_put(snapshot);
		++*count;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int main(void)
{
	uint64_t steps = number_from_environment("RP_TEST_STEPS", 60000), seed = number_from_environment("RP_SEED", 5);
	struct worker workers[THREADS];
	unsigned snapshots = 0;
	pthread_t watcher;
	char name[16];

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	if (!getenv("RP_TEST_STEPS"))
		steps = 4000;
#endif
	printf("seed: RP_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	fs = ns_open(256 << 20, 0, NULL);
	for (unsigned i = 0; i < SHARED_DIRS; i++) {
		snprintf(name, sizeof(name), "shared-%u", i);
		NEED_IS(ns_make(fs, rp_fs_root(fs), name, S_IFDIR | 0755, &shared_dir[i]), 0);
	}
	NEED_IS(ns_make(fs, rp_fs_root(fs), "file", S_IFREG | 0644, &shared_file), 0);
	NEED_IS(pthread_create(&watcher, NULL, watch, &snapshots), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .number = i, .random = seed * 1000 + i, .steps = steps };
		NEED_IS(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		NEED_IS(pthread_join(workers[i].thread, NULL), 0);
	atomic_store(&stop, true);
	NEED_IS(pthread_join(watcher, NULL), 0);
	NS_CHECK(fs);
	printf("threads: pass (%u snapshots)\n", snapshots);
	ns_close(fs);
	return 0;
}
