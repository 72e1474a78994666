/* The namespace against a simple reference in the heap: the same random calls on both, results and errors compared, the whole
 * tree compared now and then, with snapshots taken, compared, rolled back to and dropped, the filesystem closed and opened
 * again, and allocations that fail: a call that fails has changed nothing.
 * test-timeout: 240
 *
 * RP_SEED=n replays one seed; RP_TEST_STEPS=n is how many steps a seed has.
 */
#include "namespace_model.h"

/* ---- Steps: snapshots and opening again ----------------------------------------------------------------------------------- */

static void note_nothing(void *context, rp_object ino, bool directory)
{
	(void)ino, (void)directory;
	++*(uint64_t *)context;
}

/* Holds are the process's: those of inodes that are the same before and after stay, others are stale. */
static void roll_back(struct saved *to)
{
	static struct world old;
	struct rp_snapshot *before;
	uint64_t changes = 0;

	MUST_BE(rp_snapshot_take(nm.pool, &before), 0);
	if (rp_snapshot_rollback(nm.pool, to->snapshot)) {
		rp_snapshot_put(before);
		return;
	}
	MUST_BE(rp_fs_rolled_back(nm.fs, before, note_nothing, &changes), 0);
	rp_snapshot_put(before);
	old = nm.world;
	nm_world_copy(&nm.world, &to->world);
	for (int i = 0; i < INODES; i++)
		nm.world.node[i].holds = 0;
	for (int i = 0; i < INODES; i++) {
		struct rp_attr attr;
		int same = 0;

		if (!old.node[i].used || old.node[i].holds == 0)
			continue;
		while (same < INODES && (!nm.world.node[same].used || nm.world.node[same].ino != old.node[i].ino ||
					 nm.world.node[same].generation != old.node[i].generation))
			same++;
		if (same < INODES) {
			nm.world.node[same].holds = old.node[i].holds;
			continue;
		}
		MUST_BE(rp_fs_getattr(nm.fs, old.node[i].ino, &attr), -ESTALE);
		rp_fs_release(nm.fs, old.node[i].ino, old.node[i].holds);
	}
	nm_world_free(&old);
	for (int i = 0; i < INODES; i++)
		if (nm.world.node[i].used)
			nm_node_check_gone(i);
}

static void step_snapshot(void)
{
	struct saved *at = &nm.saved[nm_below(SNAPSHOTS)];
	bool was = nm.failing;

	nm.failing = false;
	if (!at->snapshot) {
		MUST_BE(rp_snapshot_take(nm.pool, &at->snapshot), 0);
		nm_world_copy(&at->world, &nm.world);
	} else if (nm_below(3) == 0) {
		roll_back(at);
	} else {
		rp_snapshot_put(at->snapshot);
		at->snapshot = NULL;
		nm_world_free(&at->world);
	}
	nm.failing = was;
}

static void step_reopen(void)
{
	bool was = nm.failing;

	nm.failing = false;
	rp_fs_close(nm.fs);
	MUST_BE(rp_fs_open(nm.pool, false, &nm.fs), 0);
	for (int i = 0; i < INODES; i++) {
		nm.world.node[i].holds = 0;
		if (nm.world.node[i].used)
			nm_node_check_gone(i);
	}
	nm.failing = was;
}

/* ---- Running ---------------------------------------------------------------------------------------------------------------- */

static void *allocate(void *context, size_t size)
{
	(void)context;
	/* Its own stream: which allocations there are must not change the steps that follow. */
	static uint64_t state = 1;

	return nm.failing && random_below(&state, 40) == 0 ? NULL : calloc(1, size);
}

static void log_nothing(void *context, const char *line)
{
	if (getenv("RP_TEST_LOG"))
		fprintf(stderr, "%s\n", line);
	(void)context;
}

static void one_step(void)
{
	static const struct {
		unsigned weight;
		void (*run)(void);
	} steps[] = {
		{ 24, nm_step_make }, { 16, nm_step_remove }, { 14, nm_step_rename }, { 6, nm_step_link },
		{ 3, nm_step_tmpfile }, { 8, nm_step_hold }, { 16, nm_step_write }, { 6, nm_step_truncate },
		{ 6, nm_step_fallocate }, { 4, nm_step_copy }, { 6, nm_step_setattr },
		{ 10, nm_step_xattr },
	};
	uint64_t which = nm_below(119);

	if (nm_below(200) == 0) {
		step_snapshot();
		return;
	}
	if (nm_below(500) == 0) {
		step_reopen();
		return;
	}
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (which < steps[i].weight) {
			steps[i].run();
			return;
		}
		which -= steps[i].weight;
	}
}

static void world_begin(void)
{
	struct rp_attr attr;

	memset(&nm.world, 0, sizeof(nm.world));
	for (int i = 0; i < ENTRIES; i++)
		nm.world.entry[i].dir = -1;
	MUST_BE(rp_fs_getattr(nm.fs, rp_fs_root(nm.fs), &attr), 0);
	nm_node_fill(0, 0, S_IFDIR | 0755, 0, &attr);
	nm.world.node[0].uid = nm.world.node[0].gid = 0;
}

/* Remove everything: the frames come back. */
static void world_end(uint64_t frames)
{
	char bytes[256];
	bool again = true;

	nm.failing = false;
	step_reopen();
	for (int i = 0; i < SNAPSHOTS; i++) {
		if (nm.saved[i].snapshot)
			rp_snapshot_put(nm.saved[i].snapshot);
		nm.saved[i].snapshot = NULL;
		nm_world_free(&nm.saved[i].world);
	}
	while (again) {
		again = false;
		for (int i = 0; i < ENTRIES; i++) {
			struct entry *entry = &nm.world.entry[i];

			if (entry->dir < 0)
				continue;
			again = true;
			if (nm_is_dir(entry->node) && !nm_dir_is_empty(entry->node))
				continue;
			MUST_BE((nm_is_dir(entry->node) ? rp_fs_rmdir : rp_fs_unlink)(nm.fs, nm.world.node[entry->dir].ino,
										    nm_name_of(entry->name, bytes), NULL), 0);
			entry->dir = -1;
			nm_node_unlink(entry->node);
		}
	}
	/* The root stays, its attributes go. */
	for (unsigned i = 0; i < ATTRIBUTES; i++) {
		MUST_BE(rp_fs_xattr_remove(nm.fs, nm.world.node[0].ino, nm_attribute_names[i]),
			nm.world.node[0].attribute[i] ? 0 : -ENODATA);
		nm.world.node[0].attribute[i] = 0;
	}
	nm_check_all();
	if (ns_frames(nm.fs) > frames + 8)
		fprintf(stderr, "frames: %llu before, %llu after\n", (unsigned long long)frames,
			(unsigned long long)ns_frames(nm.fs));
	MUST(ns_frames(nm.fs) <= frames + 8);
	nm_world_free(&nm.world);
}

static void run(uint64_t seed, uint64_t steps, bool small)
{
	static const struct rp_hooks hooks = { .allocate = allocate, .log = log_nothing };
	uint64_t frames;

	nm.random_state = seed;
	nm.failing = false;
	nm.fs = ns_open(small ? 3 << 20 : 64 << 20, 0, &hooks);
	nm.pool = rp_fs_pool(nm.fs);
	frames = ns_frames(nm.fs);
	world_begin();
	for (nm.step = 1; nm.step <= steps; nm.step++) {
		if (nm.step % 1000 == 0)
			nm.failing = !nm.failing;
		one_step();
		if (nm.step % 200 == 0)
			nm_check_all();
	}
	world_end(frames);
	ns_close(nm.fs);
}

int main(void)
{
	uint64_t steps = number_from_environment("RP_TEST_STEPS", 6000), only = number_from_environment("RP_SEED", 0);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	if (!getenv("RP_TEST_STEPS"))
		steps = 2000;
#endif
	if (only) {
		run(only, steps, only & 1);
		printf("seed %llu: pass\n", (unsigned long long)only);
		return 0;
	}
	for (uint64_t seed = 1; seed <= 12; seed++) {
		printf("seed: RP_SEED=%llu\n", (unsigned long long)seed);
		fflush(stdout);
		run(seed, steps, seed & 1);
	}
	printf("model_namespace: pass\n");
	return 0;
}
