/* test_control_rollback.c: a rollback while others write: every write that was answered is either in the state that was
 * replaced, which the serving side is given to compare with, or in the new live tree; none is lost between the two.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <ramfs/control/internal.h>
#include <tests/lib/expect.h>
#include <tests/lib/random.h>

#define ROUNDS 25
#define PAGES 20000u /* more than are written in a round; the file is sparse */

static char message[512];
static struct rp_keep *keep;
static rp_object ino;
static atomic_uint written; /* pages [0, written) were written, in order, and answered */
static atomic_bool stop;
static uint8_t in_before[PAGES];

static bool page_is_written(struct rp_fs *fs, unsigned page, unsigned round)
{
	uint32_t words[2] = { 0, 0 };

	EXPECT_EQUAL(rp_fs_read(fs, ino, (uint64_t)page * RP_PAGE_SIZE, words, sizeof(words)), sizeof(words));
	return words[0] == page + 1 && words[1] == round;
}

static unsigned round_now;

static void compare_before(void *context, struct rp_snapshot *before)
{
	struct rp_fs *fs;
	unsigned i;

	(void)context;
	EXPECT_EQUAL(rp_fs_open_snapshot(keep->pool, before, &fs), 0);
	for (i = 0; i < PAGES; i++)
		in_before[i] = page_is_written(fs, i, round_now);
	rp_fs_close(fs);
}

static void *writer(void *context)
{
	uint32_t words[2];
	unsigned i;

	(void)context;
	for (i = 0; i < PAGES && !atomic_load(&stop); i++) {
		words[0] = i + 1;
		words[1] = round_now;
		EXPECT_EQUAL(rp_fs_write(keep->fs, ino, (uint64_t)i * RP_PAGE_SIZE, words, sizeof(words), 0), sizeof(words));
		atomic_store(&written, i + 1);
	}
	return NULL;
}

static void roll_back(void)
{
	char words[3][16] = { "rollback", "empty", "force" }, *list[3] = { words[0], words[1], words[2] };
	struct rp_reply reply = { .broken = true };

	EXPECT_OK(rp_verb_run(keep, list, 3, &reply, message), message);
}

static void one_round(uint64_t *seed)
{
	unsigned wait_for = (unsigned)random_below(seed, 60), i, lost = 0, split = 0;
	pthread_t thread;

	atomic_store(&written, 0);
	atomic_store(&stop, false);
	memset(in_before, 0, sizeof(in_before));
	EXPECT_EQUAL(pthread_create(&thread, NULL, writer, NULL), 0);
	while (atomic_load(&written) < wait_for)
		sched_yield();
	roll_back();
	atomic_store(&stop, true);
	EXPECT_EQUAL(pthread_join(thread, NULL), 0);
	for (i = 0; i < atomic_load(&written); i++) {
		bool live = page_is_written(keep->fs, i, round_now);

		lost += !live && !in_before[i];
		split += live && in_before[i];
	}
	if (lost || split) {
		printf("FAIL round %u: %u of %u answered writes are in neither state, %u in both\n", round_now, lost,
		       atomic_load(&written), split);
		exit(1);
	}
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 20240605);
	struct rp_keep_options options = { .size_bytes = 128 << 20 };
	struct rp_keep_server server = { .rolled_back = compare_before };
	struct rp_cred cred = { .fsetid = true };
	struct rp_attr attr = { .size_bytes = (uint64_t)PAGES * RP_PAGE_SIZE };

	printf("seed %llu\n", (unsigned long long)seed);
	EXPECT_OK(rp_keep_start(&options, &server, &keep, message), message);
	EXPECT_EQUAL(rp_fs_make(keep->fs, &cred, rp_fs_root(keep->fs), rp_name_from("file"), S_IFREG | 0600, 0, NULL, false,
	                        &attr), 0);
	ino = attr.ino;
	attr.size_bytes = (uint64_t)PAGES * RP_PAGE_SIZE;
	EXPECT_EQUAL(rp_fs_setattr(keep->fs, ino, RP_SET_SIZE, &attr, &attr), 0);
	EXPECT_EQUAL(rp_snapshot_create(keep->pool, "empty"), 0);
	for (round_now = 1; round_now <= ROUNDS; round_now++)
		one_round(&seed);
	EXPECT_EQUAL(rp_pool_check(keep->pool, NULL, NULL), 0);
	EXPECT_OK(rp_keep_stop(keep, message), message);
	return 0;
}
