/* main.c: the `rampool` program: finds the command and runs it. rampool(8) is its manual. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "ramfs/command/command.h"

int rp_fail(int status, const char *format, ...)
{
	va_list arguments;

	fputs("rampool: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return status;
}

static int command_help(int count, char **arguments);

static int command_version(int count, char **arguments)
{
	(void)count;
	(void)arguments;
	puts("rampool " RP_VERSION);
	return RP_EXIT_OK;
}

static const struct {
	const char *name;
	int (*run)(int count, char **arguments);
	const char *usage, *what;    /* null: not for people */
} commands[] = {
	{ "mount", rp_command_mount, "[-f] [-o OPTIONS] [-d DIRECTORY] MOUNTPOINT", "mount a RAM disk" },
	{ "umount", rp_command_umount, "[-l] MOUNTPOINT", "unmount it; returns when its last save is durable" },
	{ "serve", rp_command_serve, "[-f] [-o OPTIONS] [-n NAME] [--tcp [ADDRESS:]PORT] [--psk FILE] [IMAGE|SIZE]",
	  "serve a block device over NBD" },
	{ "stop", rp_command_stop, "SOCKET", "end what serve started; returns when its last save is durable or has failed" },
	{ "attach", rp_command_attach, "[-C CONNECTIONS] [-N EXPORT] SERVED DEVICE",
	  "make what is SERVED (a name, a socket, a URI) a block device of this kernel" },
	{ "detach", rp_command_detach, "DEVICE", "take it away" },
	{ "status", rp_command_call, "TARGET", "what it holds, uses and would lose now" },
	{ "snapshot", rp_command_call, "TARGET NAME", "take a snapshot" },
	{ "snapshots", rp_command_call, "TARGET", "list the snapshots" },
	{ "rollback", rp_command_call, "[-f] TARGET NAME", "go back to a snapshot" },
	{ "delete", rp_command_call, "TARGET NAME", "delete a snapshot" },
	{ "rename", rp_command_call, "TARGET NAME NEW-NAME", "give a snapshot another name" },
	{ "diff", rp_command_call, "TARGET A [B]", "what changed from snapshot A to B, or to now" },
	{ "save", rp_command_call, "[-f] TARGET [--as FILE]", "save to the image, or to another file" },
	{ "compact", rp_command_call, "TARGET", "rewrite the image without what is no longer used" },
	{ "check", rp_command_call, "TARGET", "prove that pool and filesystem are consistent" },
	{ "resize", rp_command_call, "TARGET SIZE", "change the size" },
	{ "help", command_help, "", "this text" },
	{ "version", command_version, "", "print the version" },
	{ "flush", rp_command_flush, NULL, NULL },
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *to)
{
	fputs("usage:\n", to);
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (commands[i].usage)
			fprintf(to, "  rampool %s %s\n        %s\n", commands[i].name, commands[i].usage,
			        commands[i].what);
	}
	fputs("TARGET is a mount point or the control socket of an NBD export.\n", to);
}

static int command_help(int count, char **arguments)
{
	(void)count;
	(void)arguments;
	usage(stdout);
	fputs("\nOptions of mount (-o, divided by commas):\n", stdout);
	rp_mount_help(stdout);
	return RP_EXIT_OK;
}

static const char *alias(const char *name)
{
	if (!strcmp(name, "-h") || !strcmp(name, "--help"))
		return "help";
	if (!strcmp(name, "-V") || !strcmp(name, "--version"))
		return "version";
	return strcmp(name, "unmount") ? name : "umount";
}

int main(int count, char **arguments)
{
	const char *self = strrchr(arguments[0], '/');
	const char *name;

	self = self ? self + 1 : arguments[0];
	if (!strncmp(self, "mount.", 6))
		return rp_command_mount_helper(count, arguments);
	if (count < 2) {
		usage(stderr);
		return RP_EXIT_USAGE;
	}
	name = alias(arguments[1]);
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		if (count > 2 && commands[i].usage &&
		    (!strcmp(arguments[2], "--help") || !strcmp(arguments[2], "-h"))) {
			printf("usage: rampool %s %s\n", name, commands[i].usage);
			return RP_EXIT_OK;
		}
		return commands[i].run(count - 1, arguments + 1);
	}
	return rp_fail(RP_EXIT_USAGE, "%s: no such command (rampool help lists them)", name);
}
