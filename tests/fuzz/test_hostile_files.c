/* Hostile images, seen from the files in them. Pages of real images are changed by one who knows what stands in them, with all
 * checksums right again (hostile_change.c); then everything programs do with an image is done with it (hostile_use.c), some
 * of it by fsck.rampool and dump.rampool themselves. No crash, no call that does not end, no error nobody knows, no memory
 * without bound. What test_fuzz_image does for the pool, this does for the namespace on it.
 *
 * Cases run in child processes, many in each; the parent says which case ended one, and keeps its image.
 *
 * test-timeout: 240
 *     --seed N      the first case (1)
 *     --case N      this one alone, in this process
 *     --seconds N   how long (60, but no more than 1500 cases: the same ones everywhere; RP_FUZZ_SECONDS)
 *     --file F      an image that was kept, with the seed of --seed
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "hostile.h"
#include "tests/lib/expect.h"

enum { CASES_A_CHILD = 100, CASE_SECONDS = 60, DUMP_MAX = 32 << 20, TAR_SECONDS = 3, SANITIZER_STATUS = 99 };

/* What parent and child both see. */
struct shared {
	_Atomic uint64_t number;
	_Atomic uint64_t size;
	_Atomic uint64_t programs;
	uint8_t bytes[HOSTILE_SIZE_MAX];
};

static struct shared *shared;
static struct sample samples[SAMPLE_COUNT];
static char programs[2][4096], file[4096];

#ifdef __SANITIZE_ADDRESS__
static const long memory_max_kib = 6 << 20;
#else
static const long memory_max_kib = 1 << 20;
#endif

/* ---- fsck.rampool and dump.rampool --------------------------------------------------------------------------------------- */

static _Noreturn void program_exec(char *const words[], int output)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_DFL);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	execv(words[0], words);
	_exit(126);
}

/* Is there more to read? Not when a program that may be silent for long has been so. */
static bool more_comes(int from, bool patient)
{
	struct pollfd wait = { .fd = from, .events = POLLIN };

	return poll(&wait, 1, patient ? -1 : TAR_SECONDS * 1000) > 0;
}

/* patient: it must end by itself. libarchive takes minutes for a hole of 2^62 bytes, so that of an archive is not asked. */
static void program_run(char *const words[], bool patient)
{
	static char said[65536], tail[4096];
	size_t total = 0, kept = 0;
	int status, ends[2];
	ssize_t n;
	pid_t pid;

	EXPECT(pipe2(ends, O_CLOEXEC) == 0);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0)
		program_exec(words, ends[1]);
	close(ends[1]);
	n = 0;
	/* A hostile image may ask for any number of bytes to be put out: whoever has enough closes the pipe. */
	while (total < DUMP_MAX && more_comes(ends[0], patient) && (n = read(ends[0], said, sizeof(said))) > 0) {
		total += (size_t)n;
		kept = (size_t)n < sizeof(tail) ? (size_t)n : sizeof(tail);
		memcpy(tail, said + n - kept, kept);
	}
	if (!patient && !more_comes(ends[0], false))
		kill(pid, SIGUSR1);
	close(ends[0]);
	EXPECT(waitpid(pid, &status, 0) == pid);
	atomic_fetch_add(&shared->programs, 1);
	if ((WIFEXITED(status) && WEXITSTATUS(status) < SANITIZER_STATUS) ||
	    (WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE && (total >= DUMP_MAX || !patient)) ||
	    (WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1 && !patient))
		return;
	printf("FAIL: %s %s: status %#x; it said at the end:\n%.*s\n", words[0], words[1], (unsigned)status, (int)kept, tail);
	exit(1);
}

static void programs_use(const void *bytes, size_t size, uint64_t seed)
{
	static const char *const dumps[] = { "info", "tar", "ls", "cat" };
	char *fsck[] = { programs[0], seed % 3 ? "-n" : "-y", file, NULL };
	char *dump[] = { programs[1], file, (char *)dumps[seed / 8 % 4], seed / 8 % 4 == 3 ? "/dir/file" : NULL, NULL };
	char *list[] = { programs[1], "-lR", file, "ls", NULL };
	int to = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	EXPECT(to >= 0 && write(to, bytes, size) == (ssize_t)size && close(to) == 0);
	if (seed / 8 % 4 == 2)
		program_run(list, true);
	else
		program_run(dump, seed / 8 % 4 != 1);
	program_run(fsck, true);
	unlink(file);
}

/* ---- Cases --------------------------------------------------------------------------------------------------------------- */

/* One case of so many is about nodes that are named many times. */
static bool is_fan(uint64_t seed) { return seed % 50 == 3; }

static void image_try(uint64_t seed)
{
	if (is_fan(seed))
		image_use_fan(shared->bytes, shared->size, seed);
	if (seed % 8 == 0 || is_fan(seed))
		programs_use(shared->bytes, shared->size, seed);
	image_use(shared->bytes, shared->size, seed);
}

static void case_run(uint64_t seed)
{
	static const uint8_t mostly[] = { SAMPLE_MIXED, SAMPLE_MIXED, SAMPLE_MIXED, SAMPLE_ZSTD, SAMPLE_LZ4, SAMPLE_NAMES };
	uint64_t random = seed;
	unsigned which = random_below(&random, 40) ? mostly[random_below(&random, sizeof(mostly))] : SAMPLE_DEEP;

	shared->number = seed;
	shared->size = 0;
	shared->size = sample_change(&samples[which], &samples[random_below(&random, SAMPLE_COUNT)], is_fan(seed), &random,
	                             shared->bytes);
	image_try(seed);
}

static void image_keep(void)
{
	const char *build = getenv("RP_BUILD");
	char path[4200];
	FILE *to;

	snprintf(path, sizeof(path), "%s/hostile-%llu.image", build ? build : ".", (unsigned long long)shared->number);
	to = fopen(path, "w");
	if (to && fwrite(shared->bytes, 1, shared->size, to) == shared->size)
		printf("the image is in %s; again: --seed %llu --file %s\n", path, (unsigned long long)shared->number, path);
	if (to)
		fclose(to);
}

static uint64_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec;
}

/* Wait for a child whose cases must each end in time. Its wait status; -1: killed. */
static int child_wait(pid_t pid, struct rusage *usage)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	uint64_t number = 0, since = seconds_now();
	int status;

	while (wait4(pid, &status, WNOHANG, usage) == 0) {
		if (shared->number != number) {
			number = shared->number;
			since = seconds_now();
		} else if (seconds_now() - since > CASE_SECONDS) {
			kill(pid, SIGABRT); /* a sanitizer or a debugger may say where it was */
			nanosleep(&(struct timespec){ .tv_sec = 2 }, NULL);
			kill(pid, SIGKILL);
			wait4(pid, &status, 0, usage);
			return -1;
		}
		nanosleep(&pause, NULL);
	}
	return status;
}

static void child_run(uint64_t first, uint64_t until)
{
	struct rusage usage;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (uint64_t n = first; n < first + CASES_A_CHILD && (n == first || seconds_now() < until); n++)
			case_run(n);
		for (unsigned i = 0; i < SAMPLE_COUNT; i++)
			sample_free(&samples[i]);
		exit(0);
	}
	status = child_wait(pid, &usage);
	if (status == 0 && usage.ru_maxrss < memory_max_kib)
		return;
	if (status == 0)
		printf("FAIL: %ld KiB of memory in the cases up to %llu\n", usage.ru_maxrss, (unsigned long long)shared->number);
	else
		printf("FAIL: case %llu: %s %#x\n", (unsigned long long)shared->number, status < 0 ? "does not end" : "status",
		       (unsigned)status);
	image_keep();
	exit(1);
}

static void file_run(const char *path, uint64_t seed)
{
	FILE *from = fopen(path, "r");

	EXPECT(from != NULL);
	shared->size = fread(shared->bytes, 1, HOSTILE_SIZE_MAX, from);
	fclose(from);
	image_try(seed);
}

/* The programs stand in the build's folder, two above this one's. */
static void places_find(void)
{
	const char *temporary = getenv("TMPDIR");
	char own[3000];
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);

	EXPECT(n > 0);
	own[n] = 0;
	for (unsigned i = 0; i < 3; i++)
		*strrchr(own, '/') = 0;
	snprintf(programs[0], sizeof(programs[0]), "%s/fsck.rampool", own);
	snprintf(programs[1], sizeof(programs[1]), "%s/dump.rampool", own);
	EXPECT(access(programs[0], X_OK) == 0 && access(programs[1], X_OK) == 0);
	snprintf(file, sizeof(file), "%s/hostile-%d", temporary ? temporary : "/tmp", (int)getpid());
	/* So that what a sanitizer found in the programs is no exit status of theirs. */
	setenv("ASAN_OPTIONS", "exitcode=99:detect_leaks=1", 1);
	setenv("UBSAN_OPTIONS", "exitcode=99:print_stacktrace=1", 1);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", 1, NULL, 's' }, { "case", 1, NULL, 'c' }, { "seconds", 1, NULL, 't' },
		                                 { "file", 1, NULL, 'f' }, { NULL, 0, NULL, 0 } };
	uint64_t first = number_from_environment("RP_FUZZ_SEED", 1), seconds = number_from_environment("RP_FUZZ_SECONDS", 0);
	uint64_t number = first, one = 0, until, last;
	const char *kept = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 's': number = first = strtoull(optarg, NULL, 0); break;
		case 'c': one = strtoull(optarg, NULL, 0); break;
		case 't': seconds = strtoull(optarg, NULL, 0); break;
		case 'f': kept = optarg; break;
		default: return 2;
		}
	setvbuf(stdout, NULL, _IOLBF, 0);
	places_find();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(shared != MAP_FAILED);
	if (kept) {
		file_run(kept, first);
		return 0;
	}
	for (unsigned i = 0; i < SAMPLE_COUNT; i++)
		sample_make(i, &samples[i]);
	last = seconds ? UINT64_MAX : first + 1500;
	until = seconds_now() + (seconds ? seconds : 60);
	if (one)
		case_run(one);
	for (; !one && number < last && seconds_now() < until; number = shared->number + 1)
		child_run(number, until);
	printf("seeds %llu to %llu: %llu cases, %llu runs of fsck.rampool and dump.rampool\n", (unsigned long long)first,
	       (unsigned long long)(one ? one : number - 1), (unsigned long long)(one ? 1 : number - first),
	       (unsigned long long)shared->programs);
	for (unsigned i = 0; i < SAMPLE_COUNT; i++)
		sample_free(&samples[i]);
	return 0;
}
