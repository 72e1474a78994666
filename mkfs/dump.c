/* dump.c: dump.rampool: what is in an image, without mounting it. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "mkfs.h"

#define PROGRAM "dump.rampool"

struct dumping {
	const char *image;
	uint64_t generation;
	const char *snapshot, *output;
	bool is_long, recursive, any_owner;
	char message[512];
};

static void usage(FILE *to)
{
	fputs("usage: dump.rampool [-g GENERATION] [-S SNAPSHOT] [OPTIONS] IMAGE [COMMAND [PATH]]\n"
	      "Look into an image without mounting it, also while it is mounted.\n"
	      "  info               superblocks, commits and snapshots (when no command is given)\n"
	      "  superblocks        what the superblocks say\n"
	      "  commits            the commits that can be reached\n"
	      "  snapshots          the snapshots of a commit\n"
	      "  ls [-l] [-R] PATH  names; with attributes; of everything below\n"
	      "  cat PATH           a file's contents\n"
	      "  tar PATH           a tree or a file as an archive\n"
	      "Options:\n"
	      "  -g GENERATION  look into this commit, not the newest\n"
	      "  -S SNAPSHOT    look into this snapshot\n"
	      "  -o FILE        write there, not to standard output (cat, tar)\n"
	      "  -l             with attributes (ls)\n"
	      "  -R             everything below (ls)\n"
	      "  --any-owner    accept an image that belongs to another user\n"
	      "  -h, --help     this text\n"
	      "  -V, --version\n",
	      to);
}

static void line_print(void *context, const char *text)
{
	(void)context;
	printf("%s\n", text);
}

static struct rp_image_options image_options(struct dumping *d)
{
	d->message[0] = 0;
	return (struct rp_image_options){ .read_only = true, .no_read_ahead = true, .any_owner = d->any_owner,
		                          .message = d->message };
}

static int failed(struct dumping *d, int error)
{
	rp_say(PROGRAM, "%s", d->message[0] ? d->message : rp_error_text(error));
	return error;
}

static const char *time_text(int64_t sec, uint32_t nsec, char to[64])
{
	time_t when = sec;
	struct tm tm;
	size_t n;

	if (!gmtime_r(&when, &tm))
		return strcpy(to, "?");
	n = strftime(to, 40, "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(to + n, 64 - n, ".%03u UTC", nsec / 1000000 % 1000);
	return to;
}

/* ---- Commands ---- */

static int dump_superblocks(struct dumping *d, const char *path)
{
	struct rp_image_options options = image_options(d);
	int error = rp_image_describe(d->image, &options, line_print, NULL);

	(void)path;
	return error ? failed(d, error) : 0;
}

static int dump_commits(struct dumping *d, const char *path)
{
	struct rp_image_options options = image_options(d);
	struct rp_commit_info *commits = NULL;
	size_t count = 0, i;
	char when[64], size[32];
	int error = rp_image_commits(d->image, &options, &commits, &count);

	(void)path;
	if (error)
		return failed(d, error);
	for (i = 0; i < count; i++)
		printf("commit %" PRIu64 "  %s  needs %s%s\n", commits[i].generation,
		       time_text(commits[i].sec, commits[i].nsec, when), rp_size_print(commits[i].file_end, size),
		       commits[i].clean ? "  clean end" : "");
	free(commits);
	return 0;
}

static int view_open(struct dumping *d, struct rp_view *view, const char *snapshot)
{
	return rp_view_open(view, PROGRAM, d->image, d->generation, snapshot, d->any_owner);
}

static int dump_snapshots(struct dumping *d, const char *path)
{
	struct rp_snapshot_info *list = NULL;
	struct rp_view view;
	size_t count = 0, i;
	char when[64], size[32], printed[4 * RP_SNAPSHOT_NAME_MAX + 1];
	int error = view_open(d, &view, NULL);

	(void)path;
	if (error)
		return error;
	error = rp_snapshot_list(view.pool, false, &list, &count);
	if (error)
		rp_say(PROGRAM, "%s: snapshots: %s", d->image, rp_error_text(error));
	for (i = 0; !error && i < count; i++)
		printf("snapshot %s  %s  %s\n", rp_name_print(list[i].name, strlen(list[i].name), printed),
		       time_text(list[i].sec, list[i].nsec, when),
		       rp_size_print(list[i].frame_count * RP_PAGE_SIZE, size));
	free(list);
	rp_view_close(&view);
	return error;
}

static int dump_info(struct dumping *d, const char *path)
{
	int error = dump_superblocks(d, path);

	if (!error)
		error = dump_commits(d, path);
	return error ? error : dump_snapshots(d, path);
}

static int dump_ls(struct dumping *d, const char *path)
{
	struct rp_view view;
	int error = view_open(d, &view, d->snapshot);

	if (error)
		return error;
	error = rp_dump_ls(&view, path, d->is_long, d->recursive);
	rp_view_close(&view);
	return error;
}

static int dump_cat(struct dumping *d, const char *path)
{
	struct rp_view view;
	int error = view_open(d, &view, d->snapshot);

	if (error)
		return error;
	error = rp_dump_cat(&view, path, d->output);
	rp_view_close(&view);
	return error;
}

static int dump_tar(struct dumping *d, const char *path)
{
	struct rp_view view;
	int error;

	if (!d->output && isatty(STDOUT_FILENO)) {
		rp_say(PROGRAM, "an archive is not written to a terminal; give -o FILE");
		return -EINVAL;
	}
	error = view_open(d, &view, d->snapshot);
	if (error)
		return error;
	error = rp_dump_tar(&view, path, d->output);
	rp_view_close(&view);
	return error;
}

static const struct command {
	const char *name;
	int (*run)(struct dumping *d, const char *path);
	const char *path;       /* where none is given; null: one must be; "": none can be */
} commands[] = {
	{ "info", dump_info, "" },
	{ "superblocks", dump_superblocks, "" },
	{ "commits", dump_commits, "" },
	{ "snapshots", dump_snapshots, "" },
	{ "ls", dump_ls, "/" },
	{ "cat", dump_cat, NULL },
	{ "tar", dump_tar, "/" },
};

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

/* ---- Options ---- */

static bool generation_parse(const char *text, uint64_t *to)
{
	char *end;

	errno = 0;
	*to = strtoull(text, &end, 10);
	if (text[0] >= '0' && text[0] <= '9' && !*end && !errno && *to)
		return true;
	rp_say(PROGRAM, "-g %s: the number of a commit is wanted; the command \"commits\" lists them", text);
	return false;
}

/* 0, or the exit status + 1. */
static int options_parse(struct dumping *d, int argc, char **argv)
{
	static const struct option options[] = { { "any-owner", 0, NULL, 'O' }, { "help", 0, NULL, 'h' },
		{ "version", 0, NULL, 'V' }, { NULL, 0, NULL, 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "g:S:o:lRhV", options, NULL)) != -1)
		switch (option) {
		case 'g':
			if (!generation_parse(optarg, &d->generation))
				return 3;
			break;
		case 'S': d->snapshot = optarg; break;
		case 'o': d->output = optarg; break;
		case 'l': d->is_long = true; break;
		case 'R': d->recursive = true; break;
		case 'O': d->any_owner = true; break;
		case 'h': usage(stdout); return 1;
		case 'V': printf(PROGRAM " " RP_VERSION "\n"); return 1;
		default: fprintf(stderr, "Try \"" PROGRAM " --help\".\n"); return 3;
		}
	if (optind >= argc) {
		rp_say(PROGRAM, "no IMAGE is named; see --help");
		return 3;
	}
	d->image = argv[optind];
	return 0;
}

int main(int argc, char **argv)
{
	struct dumping d = { 0 };
	const struct command *command;
	const char *path;
	int error = options_parse(&d, argc, argv), rest;

	if (error)
		return error - 1;
	setlocale(LC_CTYPE, "C.UTF-8"); /* names are bytes here and UTF-8 in archives */
	rest = argc - optind - 1;
	command = command_find(rest ? argv[optind + 1] : "info");
	if (!command) {
		rp_say(PROGRAM, "%s: no such command; see --help", argv[optind + 1]);
		return 2;
	}
	path = rest > 1 ? argv[optind + 2] : command->path;
	if (rest > 2 || (rest > 1 && command->path && !*command->path)) {
		rp_say(PROGRAM, "%s: too many words", command->name);
		return 2;
	}
	if (!path) {
		rp_say(PROGRAM, "%s: a PATH is wanted", command->name);
		return 2;
	}
	error = command->run(&d, path);
	if (fflush(stdout) || ferror(stdout)) {
		rp_say(PROGRAM, "standard output: %s", strerror(errno));
		return 1;
	}
	return error ? 1 : 0;
}
