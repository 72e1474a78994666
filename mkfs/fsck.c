/* fsck.c: fsck.rampool: prove an image, and go back to the newest commit that is whole.
 *
 * Three proofs: every block of every commit (checksum, kind, order of addresses); then, for commits from the newest on,
 * the pool (every frame and reference) and the namespace of the live tree and of each snapshot. Nothing is repaired in
 * place: a damaged image has whole commits or it has not. Going back writes superblocks only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "mkfs.h"

#define PROGRAM "fsck.rampool"
#define TRIES 20 /* to check what is saved all the time */

/* Of fsck(8). */
enum { EXIT_CLEAN = 0, EXIT_CORRECTED = 1, EXIT_UNCORRECTED = 4, EXIT_OPERATION = 8, EXIT_USAGE = 16 };

struct checking {
	const char *path;
	bool yes, no, quiet, any_owner;
	struct rp_meter meter;
	unsigned reported;
	char message[512];
};

static void usage(FILE *to)
{
	fputs("usage: fsck.rampool [-n | -y] [-q] [--any-owner] IMAGE\n"
	      "Verify every block, directory and reference of an image.\n"
	      "  -n           change nothing (so without a terminal; -a and -p mean the same)\n"
	      "  -y           if the newest commit is damaged, go back to the newest whole one\n"
	      "  -q           say nothing but what is wrong\n"
	      "  --any-owner  accept an image that belongs to another user\n"
	      "  -h, --help   this text\n"
	      "  -V, --version\n"
	      "Exit status: 0 whole, 1 was damaged and went back, 4 damaged, 8 cannot be checked, 16 wrong usage.\n",
	      to);
}

/* A damaged image can have millions of faults: the first ones tell enough. */
static void report(void *context, const char *line)
{
	struct checking *c = context;

	if (c->reported++ < 100) {
		rp_meter_end(&c->meter);
		printf("%s\n", line);
	} else if (c->reported == 101) {
		printf("(more faults are counted, not shown)\n");
	}
}

static void show(void *context, uint64_t done, uint64_t total)
{
	struct checking *c = context;

	rp_meter_show(&c->meter, done, total);
}

static struct rp_image_options image_options(struct checking *c)
{
	return (struct rp_image_options){ .read_only = true, .no_read_ahead = true, .any_owner = c->any_owner,
		                          .message = c->message };
}

/* ---- One commit ---- */

static unsigned snapshots_check(struct checking *c, struct rp_pool *pool)
{
	struct rp_snapshot_info *list = NULL;
	char printed[4 * RP_SNAPSHOT_NAME_MAX + 1];
	unsigned faults = 0, here;
	size_t count = 0, i;
	int error = rp_snapshot_list(pool, false, &list, &count);

	if (error) {
		printf("the catalog of snapshots: %s\n", rp_error_text(error));
		return 1;
	}
	for (i = 0; i < count; i++) {
		struct rp_snapshot *snapshot;
		struct rp_fs *fs;

		rp_name_print(list[i].name, strnlen(list[i].name, RP_SNAPSHOT_NAME_MAX), printed);
		error = rp_snapshot_open(pool, list[i].name, &snapshot);
		if (error) {
			printf("snapshot %s: %s\n", printed, rp_error_text(error));
			faults++;
			continue;
		}
		error = rp_fs_open_snapshot(pool, snapshot, &fs);
		if (error) {
			printf("snapshot %s: %s\n", printed, rp_error_text(error));
			faults++;
		} else {
			here = rp_fs_check(fs, report, c);
			if (here)
				printf("snapshot %s: %u faults\n", printed, here);
			faults += here;
			rp_fs_close(fs);
		}
		rp_snapshot_put(snapshot);
	}
	free(list);
	return faults;
}

static unsigned pool_check(struct checking *c, struct rp_pool *pool)
{
	unsigned faults = 0;
	struct rp_fs *fs;
	int error = rp_fs_open(pool, true, &fs);

	if (error) {
		printf("the filesystem cannot be opened: %s\n", rp_error_text(error));
		return 1;
	}
	faults += rp_fs_check(fs, report, c);
	rp_fs_close(fs);
	faults += snapshots_check(c, pool);
	return faults + rp_pool_check(pool, report, c);
}

/* Everything of one commit: 0 faults means whole. -errno: cannot be checked at all. */
static int commit_check(struct checking *c, uint64_t generation, unsigned *faults)
{
	struct rp_image_options options = image_options(c);
	struct rp_image *image;
	struct rp_pool *pool;
	int error;

	options.generation = generation;
	c->message[0] = 0;
	error = rp_image_open(c->path, &options, &pool, &image);
	if (error == -EIO || error == -ESRCH) {
		printf("%s\n", c->message[0] ? c->message : rp_error_text(error));
		*faults = 1;
		return 0;
	}
	if (error) {
		rp_say(PROGRAM, "%s", c->message[0] ? c->message : rp_error_text(error));
		return error;
	}
	*faults = 0;
	/* Everything into memory: the proofs of pool and namespace then see all of it. */
	error = rp_image_read_all(image);
	if (error == -EIO) {
		printf("commit %" PRIu64 ": not every block can be read\n", generation);
		*faults = 1;
		error = 0;
	} else if (error) {
		rp_say(PROGRAM, "%s: %s", c->path, rp_error_text(error));
	}
	if (!error)
		*faults += pool_check(c, pool);
	rp_image_close(image);
	rp_pool_destroy(pool);
	return error;
}

/* ---- The image ---- */

static int blocks_check(struct checking *c, struct rp_image_check *check)
{
	struct rp_image_options options = image_options(c);
	int error;

	*check = (struct rp_image_check){ .report = report, .progress = show, .context = c };
	rp_meter_start(&c->meter, "blocks", !c->quiet);
	c->message[0] = 0;
	error = rp_image_verify(c->path, &options, check);
	rp_meter_end(&c->meter);
	if (error)
		rp_say(PROGRAM, "%s", c->message[0] ? c->message : rp_error_text(error));
	return error;
}

/* The newest commit that is whole in every way; 0: none. */
static int whole_find(struct checking *c, const struct rp_image_check *check, uint64_t *newest, uint64_t *whole)
{
	struct rp_image_options options = image_options(c);
	struct rp_commit_info *commits = NULL;
	unsigned faults;
	size_t count = 0, i;
	int error = rp_image_commits(c->path, &options, &commits, &count);

	*newest = *whole = 0;
	if (error) {
		rp_say(PROGRAM, "%s", c->message[0] ? c->message : rp_error_text(error));
		return error;
	}
	*newest = count ? commits[0].generation : 0;
	for (i = 0; i < count && !*whole && !error; i++) {
		/* Blocks that failed above need no second look. */
		if (commits[i].generation > check->newest_whole)
			continue;
		error = commit_check(c, commits[i].generation, &faults);
		if (!error && !faults)
			*whole = commits[i].generation;
		else if (!error)
			printf("commit %" PRIu64 ": damaged\n", commits[i].generation);
	}
	free(commits);
	return error;
}

static bool is_wanted(struct checking *c, const char *question)
{
	char answer[16];

	if (c->yes || c->no || !isatty(STDIN_FILENO))
		return c->yes;
	printf("%s [y/N] ", question);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Both superblocks name this commit. 0, or the exit status. */
static int rolled_back(struct checking *c, uint64_t generation)
{
	struct rp_image_options options = image_options(c);

	options.read_only = false;
	c->message[0] = 0;
	if (!rp_image_roll_back(c->path, generation, &options))
		return 0;
	rp_say(PROGRAM, "%s", c->message[0] ? c->message : rp_error_text(-EIO));
	return EXIT_UNCORRECTED | EXIT_OPERATION;
}

static int go_back(struct checking *c, uint64_t newest, uint64_t whole)
{
	char question[100];
	int error;

	if (!whole) {
		printf("%s: damaged, and no whole commit is left\n", c->path);
		return EXIT_UNCORRECTED;
	}
	if (whole == newest) /* of those whose root can be read */
		printf("%s: damaged; the newest whole commit is %" PRIu64 "\n", c->path, whole);
	else
		printf("%s: commit %" PRIu64 " is damaged; the newest whole one is %" PRIu64 "\n", c->path, newest, whole);
	snprintf(question, sizeof(question), "Go back to commit %" PRIu64 "? What was saved later is lost.", whole);
	if (!is_wanted(c, question)) {
		printf("%s: nothing was changed%s\n", c->path, c->yes ? "" : "; -y goes back");
		return EXIT_UNCORRECTED;
	}
	error = rolled_back(c, whole);
	if (error)
		return error;
	printf("%s: went back to commit %" PRIu64 "\n", c->path, whole);
	return EXIT_CORRECTED;
}

static int image_check(struct checking *c)
{
	struct rp_image_check check;
	uint64_t newest, whole;
	char size[32];
	int error;

	for (unsigned tries = 0; tries < TRIES; tries++) {
		error = blocks_check(c, &check);
		if (error == -EIO) /* nothing in it is whole */
			return EXIT_UNCORRECTED;
		if (error)
			return EXIT_OPERATION;
		error = whole_find(c, &check, &newest, &whole);
		if (error)
			return error == -EIO ? EXIT_UNCORRECTED : EXIT_OPERATION;
		if (!check.newest_is_whole || newest <= check.newest_whole)
			break;
		/* It is in use, and was saved meanwhile. */
	}
	if (!check.newest_is_whole || whole != newest)
		return go_back(c, newest, whole);
	if (check.superblocks_good < 2 && newest > 1 && !c->quiet)
		printf("%s: one of the two superblocks is not valid; the next save writes it again\n", c->path);
	if (check.superblock_copies_bad && is_wanted(c, "Write the superblocks again?")) {
		error = rolled_back(c, newest);
		if (error)
			return error;
		printf("%s: the superblocks were written again\n", c->path);
		check.bad_count -= check.superblock_copies_bad;
		if (!check.bad_count)
			return EXIT_CORRECTED;
	} else if (check.superblock_copies_bad == check.bad_count && check.bad_count) {
		printf("%s: damaged superblocks; commit %" PRIu64 " is whole, and the next saves write them again\n", c->path,
		       newest);
		return EXIT_UNCORRECTED;
	}
	if (check.bad_count) {
		/* Only in commits before the newest, which compaction drops. */
		printf("%s: %" PRIu64 " damaged blocks, in older commits only; the newest, %" PRIu64 ", is whole\n",
		       c->path, check.bad_count, newest);
		return EXIT_UNCORRECTED;
	}
	if (!c->quiet)
		printf("%s: whole: commit %" PRIu64 ", %" PRIu64 " blocks, %s\n", c->path, newest, check.block_count,
		       rp_size_print(check.byte_count, size));
	return EXIT_CLEAN;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "any-owner", 0, NULL, 'o' }, { "help", 0, NULL, 'h' },
		{ "version", 0, NULL, 'V' }, { NULL, 0, NULL, 0 } };
	struct checking c = { 0 };
	int option, status;

	while ((option = getopt_long(argc, argv, "nyapqfhV", options, NULL)) != -1)
		switch (option) {
		case 'n': case 'a': case 'p': c.no = true; break;
		case 'y': c.yes = true; break;
		case 'q': c.quiet = true; break;
		case 'f': break; /* every check is a full one */
		case 'o': c.any_owner = true; break;
		case 'h': usage(stdout); return EXIT_CLEAN;
		case 'V': printf(PROGRAM " " RP_VERSION "\n"); return EXIT_CLEAN;
		default: fprintf(stderr, "Try \"" PROGRAM " --help\".\n"); return EXIT_USAGE;
		}
	if (argc - optind != 1 || (c.yes && c.no)) {
		rp_say(PROGRAM, c.yes && c.no ? "-n and -y exclude each other" :
		       argc == optind ? "no IMAGE is named; see --help" : "more than one IMAGE is named");
		return EXIT_USAGE;
	}
	c.path = argv[optind];
	status = image_check(&c);
	if (fflush(stdout))
		return status | EXIT_OPERATION;
	return status;
}
