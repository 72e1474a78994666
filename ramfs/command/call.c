/* call.c: the commands that a running RAM disk answers through its control socket. */
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <unistd.h>
#include "ramfs/command/command.h"

static const struct {
	const char *name;
	int least, most;        /* arguments, the target included */
	bool progress;
} calls[] = {
	{ "status", 1, 1, false },   { "snapshot", 2, 2, false }, { "snapshots", 1, 1, false },
	{ "rollback", 2, 2, false }, { "delete", 2, 2, false },   { "rename", 3, 3, false },
	{ "diff", 2, 3, false },     { "save", 1, 1, true },      { "compact", 1, 1, true },
	{ "check", 1, 1, true },     { "resize", 2, 2, false },
};

/* -f and --as, which only some take. */
static int options_take(int count, char **arguments, bool *force, const char **as)
{
	static const struct option longs[] = {
		{ "force", no_argument, NULL, 'f' }, { "as", required_argument, NULL, 'a' }, { NULL, 0, NULL, 0 },
	};
	bool saves = !strcmp(arguments[0], "save");
	int letter;

	optind = 1;
	opterr = 0;
	while ((letter = getopt_long(count, arguments, "f", longs, NULL)) != -1) {
		if (letter == 'f' && (saves || !strcmp(arguments[0], "rollback")))
			*force = true;
		else if (letter == 'a' && saves)
			*as = optarg;
		else
			return rp_fail(RP_EXIT_USAGE, "%s: %s (rampool %s --help)", arguments[0],
			               letter == '?' && optopt == 'a' ? "--as needs a file's name" : "unknown option",
			               arguments[0]);
	}
	return RP_EXIT_OK;
}

int rp_command_call(int count, char **arguments)
{
	const char *words[8], *as = NULL;
	char message[512];
	bool force = false;
	size_t used = 0, i = 0;
	int status = options_take(count, arguments, &force, &as), given = count - optind, error;

	if (status != RP_EXIT_OK)
		return status;
	while (strcmp(calls[i].name, arguments[0]) != 0)
		i++;
	if (given < calls[i].least || given > calls[i].most)
		return rp_fail(RP_EXIT_USAGE, "%s: %s arguments (rampool %s --help)", arguments[0],
		               given < calls[i].least ? "too few" : "too many", arguments[0]);
	words[used++] = as ? "save-as" : arguments[0];
	if (as)
		words[used++] = as;
	for (int k = optind + 1; k < count; k++)
		words[used++] = arguments[k];
	if (force)
		words[used++] = "force";
	error = rp_control_call(arguments[optind], words, used, stdout, calls[i].progress, message);
	return error ? rp_fail(RP_EXIT_FAILED, "%s", message) : RP_EXIT_OK;
}
