/* main.c: runs two workers and compares what they say. See difftest.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include "difftest.h"

struct run {
	const char *trees[2];
	uint64_t seed;
	uint64_t calls;
	uint64_t walk_every;
	bool trace;
	bool strict;
	bool stays_root;
	bool drop;              /* the kernel's cached names and inodes are dropped at some walks (needs root) */
	uint8_t *left_out;      /* calls that are not made */
};

struct failure {
	bool found;
	uint64_t call;
	char *records[2];
};

/* ---- A worker ---- */

static unsigned weigh(const struct call *calls)
{
	unsigned sum = 0;

	for (; calls->name; calls++)
		sum += calls->weight;
	return sum;
}

static const struct call *pick(struct world *w)
{
	static const struct call *const tables[] = { file_calls, name_calls, attribute_calls };
	unsigned at = below(w, weigh(file_calls) + weigh(name_calls) + weigh(attribute_calls)), table;
	const struct call *call;

	for (table = 0; table < 3; table++)
		for (call = tables[table]; call->name; call++) {
			if (at < call->weight)
				return call;
			at -= call->weight;
		}
	abort();
}

static void start_stream(struct world *w, uint64_t call)
{
	w->call = call;
	w->random = w->seed * UINT64_C(0xd1342543de82ef95) + call * UINT64_C(0x2545f4914f6cdd1d);
	any(w);
}

static void drop_caches(int fd)
{
	if (fd >= 0 && write(fd, "2\n", 2) < 0)
		return; /* the test is weaker, not wrong */
}

static void work(const struct run *run, struct world *w, int drop_fd)
{
	const struct call *call;
	uint64_t i;

	for (i = 0; i < run->calls; i++) {
		start_stream(w, i);
		if (!run->left_out[i]) {
			call = pick(w);
			w->timed = one_in(w, 40);
			say(w, "%llu %s(", (unsigned long long)i, call->name);
			call->run(w);
			record_end(w);
		}
		if ((i + 1) % run->walk_every == 0 || i + 1 == run->calls) {
			if ((i + 1) / run->walk_every % 4 == 0 || i + 1 == run->calls)
				drop_caches(drop_fd);
			walk(w);
		}
	}
}

/* The root directory as it is at the start of every run, whatever an earlier one left. */
static bool empty_tree(const struct world *w)
{
	static const struct timespec times[2] = { { .tv_sec = 3000 }, { .tv_sec = 4000 } };
	char names[65536], *name;
	ssize_t length;

	umask(022);
	remove_below("/");
	length = llistxattr("/", names, sizeof(names));
	for (name = names; name < names + length; name += strlen(name) + 1)
		if (lremovexattr("/", name))
			return false;
	return length >= 0 && !chown("/", 0, 0) && !chmod("/", any_sticky(w, 01777)) && !utimensat(AT_FDCWD, "/", times, 0);
}

static void worker(const struct run *run, unsigned which, int to)
{
	struct world w = { .seed = run->seed, .strict = run->strict, .stays_root = run->stays_root, .pipe = to,
		.reference = !which, .start_sec = time(NULL), .umask = 022 };
	int drop_fd = run->drop ? open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC) : -1;
	unsigned i;

	signal(SIGPIPE, SIG_DFL);
	w.data = malloc(CALL_DATA_MAX);
	w.record = malloc(RECORD_MAX);
	for (i = 0; i < SLOT_COUNT; i++)
		w.slots[i].fd = FD_CLOSED;
	if (!w.data || !w.record || chdir(run->trees[which]) || chroot(".")) {
		perror(run->trees[which]);
		_exit(2);
	}
	if (!empty_tree(&w)) {
		perror(run->trees[which]);
		_exit(2);
	}
	work(run, &w, drop_fd);
	_exit(0);
}

/* ---- Comparing ---- */

static bool read_all(int fd, void *to, size_t length)
{
	size_t got = 0;
	ssize_t n;

	while (got < length) {
		n = read(fd, (char *)to + got, length - got);
		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return true;
}

static bool read_record(int fd, char *record)
{
	uint32_t length;

	if (!read_all(fd, &length, sizeof(length)) || length >= RECORD_MAX || !read_all(fd, record, length))
		return false;
	record[length] = 0;
	return true;
}

static void compare(const struct run *run, const int pipes[2], struct failure *failure)
{
	char *records[2] = { malloc(RECORD_MAX), malloc(RECORD_MAX) };
	bool more[2];
	unsigned i;

	for (;;) {
		for (i = 0; i < 2; i++)
			more[i] = read_record(pipes[i], records[i]);
		if (!more[0] && !more[1])
			break;
		if (run->trace && more[1] && strncmp(records[1], "walk", 4))
			printf("%s\n", records[1]);
		for (i = 0; i < 2; i++)
			if (!more[i])
				strcpy(records[i], "(this worker has ended)");
		if (strncmp(records[0], "walk", 4))
			failure->call = strtoull(records[0], NULL, 10);
		if (strcmp(records[0], records[1]) && (run->strict || !is_allowed(records[0], records[1]))) {
			failure->found = true;
			failure->records[0] = records[0];
			failure->records[1] = records[1];
			return;
		}
	}
	free(records[0]);
	free(records[1]);
}

static void run_once(const struct run *run, struct failure *failure)
{
	int ends[2][2], pipes[2], status;
	bool ended_well = true;
	pid_t pids[2];
	unsigned i;

	fflush(NULL);
	for (i = 0; i < 2; i++) {
		if (pipe2(ends[i], O_CLOEXEC) || (pids[i] = fork()) < 0) {
			perror("difftest");
			exit(2);
		}
		if (!pids[i]) {
			close(ends[i][0]);
			if (i)
				close(pipes[0]);
			worker(run, i, ends[i][1]);
		}
		close(ends[i][1]);
		pipes[i] = ends[i][0];
	}
	compare(run, pipes, failure);
	for (i = 0; i < 2; i++) {
		if (failure->found)
			kill(pids[i], SIGKILL);
		close(pipes[i]);
		if (waitpid(pids[i], &status, 0) < 0 || status)
			ended_well = false;
	}
	if (!failure->found && !ended_well) {
		fprintf(stderr, "difftest: a worker died (seed %llu)\n", (unsigned long long)run->seed);
		exit(2);
	}
}

static void failure_free(struct failure *failure)
{
	free(failure->records[0]);
	free(failure->records[1]);
	*failure = (struct failure){ 0 };
}

/* Leave out ever smaller pieces of the run, as long as what is left still finds a difference. */
static void shrink(struct run *run, struct failure *failure)
{
	uint8_t *before = malloc(run->calls);
	uint64_t piece, at, left = 0;

	run->trace = false;
	for (piece = run->calls / 2; piece; piece = piece > 1 ? (piece + 1) / 2 : 0) {
		for (at = 0; at < run->calls; at += piece) {
			uint64_t length = at + piece > run->calls ? run->calls - at : piece;
			struct failure again = { 0 };

			if (!memchr(run->left_out + at, 0, length))
				continue;
			memcpy(before, run->left_out, run->calls);
			memset(run->left_out + at, 1, length);
			run_once(run, &again);
			if (again.found) {
				run->calls = again.call + 1 < run->calls ? again.call + 1 : run->calls;
				failure_free(failure);
				*failure = again;
			} else {
				memcpy(run->left_out, before, run->calls);
			}
		}
	}
	for (at = 0; at < run->calls; at++)
		left += !run->left_out[at];
	free(before);
	printf("shrunk to %llu calls:\n", (unsigned long long)left);
	run->trace = true;
	failure_free(failure);
	run_once(run, failure);
}

static void usage(FILE *to)
{
	fprintf(to, "usage: difftest [--seed N] [--calls N] [--until N] [--walk N] [--trace] [--strict] [--shrink]\n"
	        "                [--root] [--drop] [--list] REFERENCE SUBJECT\n"
	        "Runs the same random system calls in two directories (everything in them is deleted) and compares.\n"
	        "  --until N   stop after call N     --walk N   compare the whole trees every N calls (500)\n"
	        "  --trace     print every call      --strict   allow no difference at all\n"
	        "  --shrink    after a difference, leave out calls that it does not need\n"
	        "  --root      never as another user: for a subject that only root may enter\n"
	        "  --drop      drop the kernel's cached names and inodes now and then\n"
	        "  --list      print the kinds of calls, and the allowed differences\n");
}

static void list(void)
{
	static const struct call *const tables[] = { file_calls, name_calls, attribute_calls };
	const struct allowed *a;
	const struct call *call;
	unsigned i, count = 0;

	for (i = 0; i < 3; i++)
		for (call = tables[i]; call->name; call++, count++)
			printf("%s ", call->name);
	printf("\n%u kinds\n", count);
	for (a = allowed_differences; a->reason; a++)
		if (a->call)
			printf("allowed: %s %s / %s: %s\n", a->call, a->reference, a->subject, a->reason);
		else
			printf("allowed: %s\n", a->reason);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' }, { "calls", 1, NULL, 'c' }, { "until", 1, NULL, 'u' },
		{ "walk", 1, NULL, 'w' }, { "trace", 0, NULL, 't' }, { "strict", 0, NULL, 'x' },
		{ "shrink", 0, NULL, 'k' }, { "drop", 0, NULL, 'd' }, { "list", 0, NULL, 'l' },
		{ "root", 0, NULL, 'r' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	struct run run = { .seed = 1, .calls = 10000, .walk_every = 500 };
	struct failure failure = { 0 };
	bool shrinks = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 's': run.seed = strtoull(optarg, NULL, 0); break;
		case 'c': run.calls = strtoull(optarg, NULL, 0); break;
		case 'u': run.calls = strtoull(optarg, NULL, 0) + 1; break;
		case 'w': run.walk_every = strtoull(optarg, NULL, 0); break;
		case 't': run.trace = true; break;
		case 'x': run.strict = true; break;
		case 'k': shrinks = true; break;
		case 'd': run.drop = true; break;
		case 'r': run.stays_root = true; break;
		case 'l': list(); return 0;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	if (argc - optind != 2 || !run.calls || !run.walk_every) {
		usage(stderr);
		return 2;
	}
	run.trees[0] = argv[optind];
	run.trees[1] = argv[optind + 1];
	run.left_out = calloc(run.calls, 1);
	run_once(&run, &failure);
	if (!failure.found) {
		printf("seed %llu: %llu calls, no difference\n", (unsigned long long)run.seed,
		       (unsigned long long)run.calls);
		return 0;
	}
	if (shrinks)
		shrink(&run, &failure);
	printf("DIFFERENCE: seed %llu, at call %llu\n  reference: %s\n  subject:   %s\n"
	       "again with: --seed %llu --until %llu\n", (unsigned long long)run.seed, (unsigned long long)failure.call,
	       failure.found ? failure.records[0] : "(gone)", failure.found ? failure.records[1] : "(gone)",
	       (unsigned long long)run.seed, (unsigned long long)failure.call);
	return 1;
}
