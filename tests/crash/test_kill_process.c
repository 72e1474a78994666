/* A process that saves a pool into a real file is killed with SIGKILL at a random moment, 200 times; what it said was saved must
 * be there, each time, and the file must take the next life's commits.
 *
 * test-timeout: 240
 * RP_KILL_ROUNDS: how often (200). RP_TEST_SEED: of the moments. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <rampool/image.h>
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define OBJECTS 12

static char message[512];

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static const struct rp_hooks hooks = { .log = quiet };

static struct rp_image_options options_for(uint64_t round)
{
	return (struct rp_image_options){
		.hooks = &hooks, .small_pages = true, .message = message, .codec_set = true, .codec = (enum rp_codec)(round % 3),
		.no_read_ahead = round % 2,
	};
}

/* Every object gets the number in its record, in its first page and in a far one, all in one operation. */
static int number_write(struct rp_pool *pool, uint64_t number)
{
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, 0);
		error = 0;
		for (rp_object object = 2; object < 2 + OBJECTS && !error; object++) {
			struct rp_record *record;
			void *page;

			error = rp_record_edit(&op, object, offsetof(struct rp_record, user), 8, &record);
			if (!error)
				memcpy(record->user, &number, 8);
			if (!error)
				error = rp_page_edit(&op, object, 0, 0, 8, &page);
			if (!error)
				memcpy(page, &number, 8);
			if (!error)
				error = rp_page_edit(&op, object, number % 2000, 8, 8, &page);
			if (!error)
				memcpy((char *)page + 8, &number, 8);
		}
	} while (rp_op_end(&op, &error));
	return error;
}

/* The number, which must be the same everywhere. */
static uint64_t number_read(struct rp_pool *pool)
{
	uint64_t first = 0;

	for (rp_object object = 2; object < 2 + OBJECTS; object++) {
		uint64_t user = 0, near = 0, far = 0;
		const struct rp_record *record;
		const void *page;
		struct rp_op op;
		int error;

		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_record_get(&op, rp_pool_live(pool), object, 0, &record);
			if (!error)
				memcpy(&user, record->user, 8);
			if (!error)
				error = rp_page_get(&op, rp_pool_live(pool), object, 0, &page);
			if (!error)
				memcpy(&near, page, 8);
			if (!error)
				error = rp_page_get(&op, rp_pool_live(pool), object, user % 2000, &page);
			if (!error)
				memcpy(&far, (const char *)page + 8, 8);
		} while (rp_op_end(&op, &error));
		EXPECT_OK(error, "read");
		EXPECT_EQUAL(near, user);
		EXPECT_EQUAL(far, user);
		if (object == 2)
			first = user;
		EXPECT_EQUAL(user, first);
	}
	return first;
}

static void image_make(void)
{
	struct rp_pool_options pool_options = { .size_bytes = 64 << 20, .small_pages = true, .hooks = &hooks };
	struct rp_image_options options = options_for(0);
	struct rp_image *image;
	struct rp_pool *pool;

	EXPECT_OK(rp_pool_create(&pool_options, &pool), "pool");
	for (unsigned i = 0; i < OBJECTS; i++)
		EXPECT_EQUAL(world_object_make(pool, true), 2 + i);
	EXPECT_OK(number_write(pool, 1), "write");
	EXPECT_OK(rp_image_create(pool, "image", false, &options, &image), message);
	rp_image_close(image);
	rp_pool_destroy(pool);
}

/* Writes, saves, tells through the pipe what is saved; compacts now and then. Never ends by itself. */
static void child_run(uint64_t round, int to)
{
	struct rp_image_options options = options_for(round);
	struct rp_image *image;
	struct rp_pool *pool;
	uint64_t number;

	EXPECT_OK(rp_image_open("image", &options, &pool, &image), message);
	number = number_read(pool);
	for (;;) {
		EXPECT_OK(number_write(pool, ++number), "write");
		EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
		if (write(to, &number, sizeof(number)) != sizeof(number))
			_exit(1);
		if (number % 7 == 0) {
			int error = rp_image_compact(image);

			EXPECT(error == 0 || error == -EAGAIN);
		}
	}
}

/* One life; returns the last number that was told. */
static uint64_t life_run(uint64_t round, uint64_t *random, uint64_t before)
{
	uint64_t number, last = before;
	int ends[2], status;
	pid_t pid;

	EXPECT(pipe(ends) == 0);
	fflush(stdout);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		close(ends[0]);
		child_run(round, ends[1]);
	}
	close(ends[1]);
	usleep((useconds_t)random_below(random, 80000));
	EXPECT(kill(pid, SIGKILL) == 0);
	EXPECT(waitpid(pid, &status, 0) == pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		printf("FAIL round %llu: the process ended by itself\n", (unsigned long long)round);
		exit(1);
	}
	while (read(ends[0], &number, sizeof(number)) == sizeof(number))
		last = number;
	close(ends[0]);
	return last;
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1), rounds = number_from_environment("RP_KILL_ROUNDS", 200);
	char directory[256];
	uint64_t random = seed, saved = 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	directory_enter(directory);
	image_make();
	for (uint64_t round = 1; round <= rounds; round++) {
		struct rp_image_options options = options_for(round);
		uint64_t told = life_run(round, &random, saved);
		struct rp_image *image;
		struct rp_pool *pool;

		options.read_only = true;
		EXPECT_OK(rp_image_open("image", &options, &pool, &image), message);
		saved = number_read(pool);
		if (saved < told || saved > told + 1) {
			printf("FAIL round %llu: %llu was said to be saved, %llu is there\n", (unsigned long long)round,
			       (unsigned long long)told, (unsigned long long)saved);
			exit(1);
		}
		rp_image_close(image);
		rp_pool_destroy(pool);
	}
	printf("killed %llu times, %llu commits, none lost\n", (unsigned long long)rounds, (unsigned long long)saved - 1);
	EXPECT(saved > 1);
	directory_leave(directory);
	return 0;
}
