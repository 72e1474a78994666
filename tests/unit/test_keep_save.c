/* test_keep_save.c: the keeper by itself: fresh and from an image, saving by time, by bytes, on request and at the end; what a
 * failing save does; what options that contradict each other or the image are told; a rollback through the verbs.
 *
 * A limit on the size of files makes saves fail; memory is not bound by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <ramfs/control/internal.h>
#include <tests/lib/expect.h>
#include <tests/lib/random.h>

static char directory[] = "/tmp/rampool-keep-XXXXXX";
static char message[512];
static _Atomic unsigned flushes, log_lines; /* the saving thread calls, too */
static char log_last[1200];

static int count_flush(void *context)
{
	(void)context;
	flushes++;
	return 0;
}

static void count_log(void *context, const char *line)
{
	(void)context;
	log_lines++;
	snprintf(log_last, sizeof(log_last), "%s", line);
}

static const struct rp_keep_server server = { .program = "test", .flush = count_flush, .log = count_log };

static struct rp_keep *start(const char *const *options, int error)
{
	struct rp_keep_options o = { 0 };
	struct rp_keep *keep = NULL;
	char key[32];
	int result;

	for (; *options; options++) {
		const char *equals = strchr(*options, '=');

		snprintf(key, sizeof(key), "%.*s", (int)(equals - *options), *options);
		EXPECT_EQUAL(rp_keep_option(&o, key, equals + 1, message), 1);
	}
	message[0] = 0;
	result = rp_keep_start(&o, &server, &keep, message);
	if (result != error) {
		printf("FAIL start: %d, not %d: %s\n", result, error, message);
		exit(1);
	}
	EXPECT(!error == !!keep);
	EXPECT(!error || (message[0] && !strchr(message, '\n')));
	rp_keep_options_free(&o);
	return keep;
}
#define START(error, ...) start((const char *const[]){ __VA_ARGS__, NULL }, error)

static void stop(struct rp_keep *keep)
{
	EXPECT_OK(rp_keep_stop(keep, message), message);
}

static rp_object file_make(struct rp_keep *keep, const char *name)
{
	struct rp_cred cred = { .fsetid = true };
	struct rp_fs *fs = rp_keep_fs(keep);
	struct rp_attr attr;

	EXPECT_EQUAL(rp_fs_make(fs, &cred, rp_fs_root(fs), rp_name_from(name), S_IFREG | 0600, 0, NULL, false, &attr), 0);
	return attr.ino;
}

static void file_write(struct rp_keep *keep, const char *name, const char *text)
{
	struct rp_fs *fs = rp_keep_fs(keep);
	struct rp_attr attr;
	rp_object ino = rp_fs_walk(fs, name, &attr) ? file_make(keep, name) : attr.ino;

	EXPECT_EQUAL(rp_fs_write(fs, ino, 0, text, strlen(text) + 1, 0), (long long)strlen(text) + 1);
	rp_keep_note_change(keep, strlen(text) + 1);
}

static void bytes_write(struct rp_keep *keep, const char *name, size_t size, uint64_t *seed)
{
	uint8_t *bytes = malloc(size);
	rp_object ino;
	size_t i;

	EXPECT(bytes);
	for (i = 0; i < size; i++)
		bytes[i] = (uint8_t)random_next(seed);
	ino = file_make(keep, name);
	EXPECT_EQUAL(rp_fs_write(rp_keep_fs(keep), ino, 0, bytes, size, 0), (long long)size);
	rp_keep_note_change(keep, size);
	free(bytes);
}

static bool file_is(struct rp_keep *keep, const char *name, const char *text)
{
	struct rp_fs *fs = rp_keep_fs(keep);
	struct rp_attr attr;
	char got[256] = "";

	return !rp_fs_walk(fs, name, &attr) && rp_fs_read(fs, attr.ino, 0, got, sizeof(got)) == (ssize_t)strlen(text) + 1 &&
	       !strcmp(got, text);
}

static uint64_t generation_of(struct rp_keep *keep)
{
	struct rp_image_status status;

	rp_image_status(keep->image, &status);
	return status.generation;
}

static char *status_of(struct rp_keep *keep)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	EXPECT(to);
	rp_keep_status_print(keep, to);
	EXPECT(!fclose(to));
	return text;
}

static void expect_status(struct rp_keep *keep, const char *line)
{
	char *text = status_of(keep);

	if (!strstr(text, line)) {
		printf("FAIL status lacks \"%s\":\n%s", line, text);
		exit(1);
	}
	free(text);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void memory_alone(void)
{
	struct rp_keep *keep = START(0, "size=16M", "label=here", "mode=750", "uid=7", "gid=8");
	struct rp_pool_status status;
	struct rp_attr attr;

	EXPECT_EQUAL(rp_fs_getattr(rp_keep_fs(keep), rp_fs_root(rp_keep_fs(keep)), &attr), 0);
	EXPECT_EQUAL(attr.mode, S_IFDIR | 0750);
	EXPECT_EQUAL(attr.uid, 7);
	EXPECT_EQUAL(attr.gid, 8);
	rp_pool_status(rp_keep_pool(keep), &status);
	EXPECT_EQUAL(status.size_bytes, 16 << 20);
	EXPECT_EQUAL(rp_keep_sync(keep), 0);
	EXPECT(!rp_keep_syncs(keep) && !rp_keep_refuses_changes(keep));
	EXPECT_EQUAL(rp_keep_save(keep, NULL, NULL), -EINVAL);
	expect_status(keep, "lost if the power went now: everything (there is no image)\n");
	expect_status(keep, "label: here\n");
	stop(keep);
	keep = START(0, "inodes=100");
	rp_pool_status(rp_keep_pool(keep), &status);
	EXPECT_EQUAL(status.size_bytes, rp_memory_total() / 2 & ~UINT64_C(4095));
	stop(keep);
}

static void contradictions(void)
{
	static const char *const lonely[] = { "autosave=1s", "sync=image", "generation=3", "keep=2", "on-save-error=readonly" };
	char image[128];
	size_t i;

	for (i = 0; i < sizeof(lonely) / sizeof(*lonely); i++) {
		START(-EINVAL, "size=16M", lonely[i]);
		EXPECT(strstr(message, "image=FILE"));
	}
	START(-EINVAL, "size=4K");
	snprintf(image, sizeof(image), "image=%s/none", directory);
	START(-ENOENT, image, "ro=1");
	START(-ENOENT, image, "generation=1");
	snprintf(image, sizeof(image), "image=%s", directory);
	START(-EISDIR, image);
	snprintf(image, sizeof(image), "image=%s/none/none", directory);
	START(-ENOENT, image, "size=16M");
	START(-ENOENT, "size=16M", "directory=/nonexistent/x");
}

static void image_life(uint64_t *seed)
{
	char image[128], held[160];
	struct rp_keep *keep;
	uint64_t generation;

	snprintf(image, sizeof(image), "image=%s/life", directory);
	keep = START(0, image, "size=32M", "inodes=50");
	expect_status(keep, "start: fresh\n");
	expect_status(keep, "sync: ram\n");
	file_write(keep, "a", "one");
	START(-EBUSY, image);
	EXPECT(strstr(message, "life"));
	stop(keep);

	keep = START(0, image, "sync=image");
	expect_status(keep, "start: after a clean end\n");
	expect_status(keep, "lost if the power went now: nothing\n");
	EXPECT(file_is(keep, "a", "one"));
	generation = generation_of(keep);
	file_write(keep, "a", "two");
	flushes = 0;
	EXPECT_EQUAL(rp_keep_sync(keep), 0);
	EXPECT_EQUAL(flushes, 0); /* the client itself is waiting */
	EXPECT(generation_of(keep) > generation);
	generation = generation_of(keep);
	EXPECT_EQUAL(rp_keep_sync(keep), 0);
	EXPECT_EQUAL(generation_of(keep), generation);
	EXPECT_EQUAL(rp_keep_save(keep, NULL, NULL), 0);
	EXPECT_EQUAL(flushes, 1);
	bytes_write(keep, "large", 8 << 20, seed);
	stop(keep);

	START(-ENOSPC, image, "size=6M");
	EXPECT(strstr(message, "size"));
	START(-ENOSPC, image, "inodes=1");
	snprintf(held, sizeof(held), "directory=%s", directory);
	START(-EEXIST, image, held);
	keep = START(0, image, "size=64M", "nosave=1");
	expect_status(keep, "size: 67108864 bytes (64 MiB)\n");
	file_write(keep, "a", "three");
	stop(keep);
	keep = START(0, image, "ro=1");
	EXPECT(file_is(keep, "a", "two"));
	EXPECT(rp_keep_refuses_changes(keep));
	EXPECT_EQUAL(rp_keep_save(keep, NULL, NULL), -EROFS);
	stop(keep);
}

static void wait_for_generation(struct rp_keep *keep, uint64_t beyond)
{
	unsigned rounds;

	for (rounds = 0; generation_of(keep) <= beyond; rounds++) {
		if (rounds == 6000) {
			printf("FAIL autosave: nothing was saved\n%s", status_of(keep));
			exit(1);
		}
		usleep(10000);
	}
}

static void autosave(uint64_t *seed)
{
	static const char *const when[] = { "autosave=1s", "autosave=1M", "autosave=9999s/1M" };
	struct rp_keep *keep;
	uint64_t generation;
	char image[128];
	size_t i;

	for (i = 0; i < sizeof(when) / sizeof(*when); i++) {
		snprintf(image, sizeof(image), "image=%s/auto%zu", directory, i);
		keep = START(0, image, "size=32M", when[i]);
		generation = generation_of(keep);
		flushes = 0;
		file_write(keep, "small", "x");
		if (i) { /* too little: the thread looks once a second at least */
			usleep(1500000);
			EXPECT_EQUAL(generation_of(keep), generation);
		}
		bytes_write(keep, "large", 2 << 20, seed);
		wait_for_generation(keep, generation);
		EXPECT(flushes > 0);
		stop(keep);
	}
}

static void limit_set(rlim_t bytes)
{
	struct rlimit limit = { bytes, RLIM_INFINITY };

	EXPECT_EQUAL(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void failing_saves(uint64_t *seed)
{
	char image[128];
	struct rp_keep *keep;
	struct rp_attr attr;
	uint64_t generation;

	snprintf(image, sizeof(image), "image=%s/fails", directory);
	keep = START(0, image, "size=32M", "on-save-error=readonly", "sync=image");
	generation = generation_of(keep);
	log_lines = 0;
	bytes_write(keep, "one", 1 << 20, seed);
	limit_set(256 << 10);
	EXPECT_EQUAL(rp_keep_sync(keep), -EFBIG);
	EXPECT(rp_keep_refuses_changes(keep));
	EXPECT(log_lines >= 1 && strchr(log_last, ':'));
	expect_status(keep, "save state: failing since ");
	expect_status(keep, "changes: refused\n");
	EXPECT_EQUAL(generation_of(keep), generation);
	EXPECT_EQUAL(rp_keep_save(keep, NULL, NULL), -EFBIG);
	limit_set(RLIM_INFINITY);
	EXPECT_EQUAL(rp_keep_save(keep, NULL, NULL), 0);
	EXPECT(!rp_keep_refuses_changes(keep));
	EXPECT(strstr(log_last, "works again"));
	expect_status(keep, "save state: well\n");
	bytes_write(keep, "two", 1 << 20, seed);
	limit_set(256 << 10);
	EXPECT_EQUAL(rp_keep_stop(keep, message), -EFBIG);
	EXPECT(strstr(message, "last save failed"));
	limit_set(RLIM_INFINITY);
	keep = START(0, image);
	expect_status(keep, "start: after an end that was not clean");
	EXPECT_EQUAL(rp_fs_walk(rp_keep_fs(keep), "one", &attr), 0);
	EXPECT_EQUAL(rp_fs_walk(rp_keep_fs(keep), "two", &attr), -ENOENT);
	stop(keep);
}

static int cancel(void *context, const struct rp_progress *progress)
{
	(void)context;
	(void)progress;
	return 1;
}

static void canceled_save(uint64_t *seed)
{
	char image[128];
	struct rp_keep *keep;
	uint64_t generation;

	snprintf(image, sizeof(image), "image=%s/canceled", directory);
	keep = START(0, image, "size=64M", "on-save-error=readonly");
	generation = generation_of(keep);
	bytes_write(keep, "one", 16 << 20, seed);
	EXPECT_EQUAL(rp_keep_save(keep, cancel, NULL), -ECANCELED);
	EXPECT_EQUAL(generation_of(keep), generation);
	EXPECT(!rp_keep_refuses_changes(keep)); /* nothing is wrong with the image */
	EXPECT_EQUAL(rp_keep_save(keep, NULL, NULL), 0);
	EXPECT(generation_of(keep) > generation);
	stop(keep);
}

/* A look before a fork changes nothing, and says what starting would. */
static void looked_at(void)
{
	struct rp_keep_options o = { 0 };
	char path[128];
	struct stat before, after;

	snprintf(path, sizeof(path), "%s/life", directory);
	EXPECT_EQUAL(rp_keep_option(&o, "image", path, message), 1);
	EXPECT_EQUAL(stat(path, &before), 0);
	EXPECT_OK(rp_keep_check(&o, message), message);
	EXPECT_EQUAL(stat(path, &after), 0);
	EXPECT(before.st_size == after.st_size && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	EXPECT_EQUAL(rp_keep_option(&o, "generation", "100000", message), 1);
	EXPECT_EQUAL(rp_keep_check(&o, message), -ESRCH);
	o.generation = 0;
	EXPECT_EQUAL(rp_keep_option(&o, "image", "/nonexistent/image", message), 1);
	EXPECT_EQUAL(rp_keep_check(&o, message), -ENOENT);
	EXPECT(strstr(message, "/nonexistent"));
	rp_keep_options_free(&o);
}

/* ---- Verbs --------------------------------------------------------------------------------------------------------- */

static char answer[65536];

static int verb(struct rp_keep *keep, const char *first, const char *second, const char *third)
{
	char words[3][256], *list[3] = { words[0], words[1], words[2] };
	struct rp_reply reply = { .broken = true }; /* nobody to send to: read from the buffer */
	int error;

	snprintf(words[0], sizeof(words[0]), "%s", first);
	snprintf(words[1], sizeof(words[1]), "%s", second ? second : "");
	snprintf(words[2], sizeof(words[2]), "%s", third ? third : "");
	message[0] = 0;
	error = rp_verb_run(keep, list, third ? 3 : second ? 2 : 1, &reply, message);
	snprintf(answer, sizeof(answer), "%.*s", (int)reply.used, reply.buffer);
	return error;
}

static unsigned rolled_back;
static void count_rollback(void *context, struct rp_snapshot *before)
{
	(void)context;
	EXPECT(before);
	rolled_back++;
}

static int refuse_rollback(void *context, bool forced, char why[512])
{
	(void)context;
	if (forced)
		return 0;
	strcpy(why, "somebody is there");
	return -EBUSY;
}

static void verbs(void)
{
	struct rp_keep *keep = START(0, "size=16M");

	file_write(keep, "a", "one");
	EXPECT_EQUAL(verb(keep, "snapshot", "s", NULL), 0);
	file_write(keep, "a", "two");
	file_write(keep, "b", "new");
	EXPECT_EQUAL(verb(keep, "diff", "s", NULL), 0);
	EXPECT(!strcmp(answer, "= M /a\n= + /b\n"));
	keep->server.rolled_back = count_rollback;
	keep->server.rollback_allowed = refuse_rollback;
	EXPECT_EQUAL(verb(keep, "rollback", "s", NULL), -EBUSY);
	EXPECT(!strcmp(message, "somebody is there") && !rolled_back && file_is(keep, "a", "two"));
	EXPECT_EQUAL(verb(keep, "rollback", "s", "please"), -EINVAL);
	keep->server.rolled_back = NULL; /* then the namespace is told by itself */
	EXPECT_EQUAL(verb(keep, "rollback", "s", "force"), 0);
	EXPECT(file_is(keep, "a", "one"));
	keep->server.rolled_back = count_rollback;
	EXPECT_EQUAL(verb(keep, "rollback", "s", "force"), 0);
	EXPECT_EQUAL(rolled_back, 1);
	EXPECT_EQUAL(verb(keep, "rollback", "t", "force"), -ENOENT);
	EXPECT_EQUAL(verb(keep, "snapshots", NULL, NULL), 0);
	EXPECT(strstr(answer, "in all  s\n"));
	EXPECT_EQUAL(verb(keep, "save", NULL, NULL), -EINVAL);
	EXPECT(strstr(message, "image=") && strstr(message, "save --as"));
	EXPECT_EQUAL(verb(keep, "resize", "64K", NULL), -EINVAL);
	EXPECT_EQUAL(verb(keep, "resize", "32M", NULL), 0);
	EXPECT_EQUAL(verb(keep, "check", NULL, NULL), 0);
	EXPECT_EQUAL(verb(keep, "check", "frames", NULL), 0);
	EXPECT_EQUAL(verb(keep, "save-as", "relative", NULL), -EINVAL);
	EXPECT_EQUAL(verb(keep, "status", "x", NULL), -EINVAL);
	EXPECT_EQUAL(verb(keep, "unknown", NULL, NULL), -EINVAL);
	stop(keep);
}

static void remove_all(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	if (system(command))
		printf("%s stays\n", directory);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 20240602);

	printf("seed %llu\n", (unsigned long long)seed);
	EXPECT(mkdtemp(directory));
	atexit(remove_all);
	memory_alone();
	contradictions();
	image_life(&seed);
	autosave(&seed);
	failing_saves(&seed);
	canceled_save(&seed);
	looked_at();
	verbs();
	return 0;
}
