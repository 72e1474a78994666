/* attach.c: `rampool attach` and `rampool detach`: a served disk becomes a block device of this kernel, through
 * nbd-client and the kernel's nbd module. What is missing of these is said before anything is tried.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/command/run.h"

#define NBD_MAJOR 43            /* of every kernel: Documentation/admin-guide/devices.txt */
#define CONNECTIONS_MAX 16
#define DETACH_SECONDS 30

/* ---- The device -------------------------------------------------------------------------------------------------- */

static bool kernel_has_nbd(void)
{
	char line[128], name[100];
	unsigned major_number;
	bool found = false;
	FILE *file = fopen("/proc/devices", "re");

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = sscanf(line, "%u %99s", &major_number, name) == 2 && major_number == NBD_MAJOR && !strcmp(name, "nbd");
	fclose(file);
	return found;
}

static int module_load(void)
{
	char *const load[] = { (char *)"modprobe", (char *)"nbd", NULL };
	char output[RP_OUTPUT_SIZE];

	if (kernel_has_nbd())
		return RP_EXIT_OK;
	if (!rp_program_run(load, output) && kernel_has_nbd())
		return RP_EXIT_OK;
	return rp_fail(RP_EXIT_FAILED, "this kernel has no nbd module, so it can attach no NBD device; without it, nbdfuse "
	               "and losetup make a block device, and qemu and nbdcopy need none");
}

/* "/dev/nbd3" or "nbd3"; the name without the directory goes to *name. */
static int device_check(const char *text, char path[256], const char **name)
{
	struct stat st;

	if (snprintf(path, 256, "%s%s", strchr(text, '/') ? "" : "/dev/", text) >= 256)
		return rp_fail(RP_EXIT_USAGE, "%.100s...: the name is too long", text);
	*name = strrchr(path, '/') + 1;
	if (stat(path, &st))
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (!S_ISBLK(st.st_mode) || major(st.st_rdev) != NBD_MAJOR || strchr(*name, 'p'))
		return rp_fail(RP_EXIT_FAILED, "%s: not an NBD device (/dev/nbd0 and so on)", path);
	return RP_EXIT_OK;
}

/* The process that attached it; 0: nobody. */
static int device_user(const char *name)
{
	char path[300];
	int pid = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/block/%s/pid", name);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%d", &pid) != 1)
		pid = -1;
	fclose(file);
	return pid;
}

static int prepare(const char *device, char path[256], const char **name)
{
	int status;

	if (geteuid() != 0)
		return rp_fail(RP_EXIT_FAILED, "only root can attach and detach block devices");
	status = module_load();
	return status == RP_EXIT_OK ? device_check(device, path, name) : status;
}

/* ---- What is attached -------------------------------------------------------------------------------------------- */

struct served {
	char *text;             /* owns what the others point into */
	const char *socket;     /* null: host and port */
	const char *host, *port;
	const char *export;     /* null: not said */
};

static void percent_decode(char *text)
{
	char *to = text;
	unsigned byte;

	for (; *text; text++) {
		if (*text == '%' && sscanf(text + 1, "%2x", &byte) == 1 && text[1] && text[2]) {
			*to++ = (char)byte;
			text += 2;
		} else {
			*to++ = *text;
		}
	}
	*to = 0;
}

/* nbd://HOST[:PORT]/[EXPORT] and nbd+unix:///[EXPORT]?socket=PATH */
static int uri_split(struct served *served, char *rest, bool local)
{
	char *query = strchr(rest, '?'), *path, *colon;

	if (query)
		*query++ = 0;
	path = strchr(rest, '/');
	if (path)
		*path++ = 0;
	if (path && *path)
		percent_decode(path);
	served->export = path && *path ? path : NULL;
	if (local) {
		if (!query || strncmp(query, "socket=", 7) != 0 || !query[7] || strchr(query, '&'))
			return -EINVAL;
		percent_decode(query + 7);
		served->socket = query + 7;
		return 0;
	}
	colon = strrchr(rest, ':');
	served->port = "10809";
	if (colon && !strchr(colon, ']')) {
		*colon = 0;
		served->port = colon + 1;
	}
	served->host = rest;
	if (*rest == '[' && rest[strlen(rest) - 1] == ']') {
		rest[strlen(rest) - 1] = 0;
		served->host++;
	}
	return *served->host && *served->port && !query ? 0 : -EINVAL;
}

/* A name that `serve` was given, a socket, or a URI. */
static int served_find(struct served *served, const char *target)
{
	char path[4096];
	struct stat st;
	int error = 0;

	if (!strncmp(target, "nbds", 4))
		return rp_fail(RP_EXIT_FAILED, "%s: the kernel's client knows no pre-shared keys; serve without --psk", target);
	served->text = strdup(target);
	if (!served->text)
		return rp_fail(RP_EXIT_FAILED, "no memory");
	if (!strncmp(target, "nbd+unix://", 11))
		error = uri_split(served, served->text + 11, true);
	else if (!strncmp(target, "nbd://", 6))
		error = uri_split(served, served->text + 6, false);
	else
		served->socket = served->text;
	if (error)
		return rp_fail(RP_EXIT_USAGE, "%s: not understood: nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH",
		               target);
	if (served->socket && !strchr(served->socket, '/') && stat(served->socket, &st) &&
	    !rp_runtime_path(target, "nbd", path)) {
		free(served->text);
		served->text = strdup(path);
		served->socket = served->text;
		if (!served->text)
			return rp_fail(RP_EXIT_FAILED, "no memory");
	}
	if (served->socket && stat(served->socket, &st))
		return rp_fail(RP_EXIT_FAILED, "%s: %s: nothing is served there", served->socket, strerror(errno));
	if (served->socket && !S_ISSOCK(st.st_mode))
		return rp_fail(RP_EXIT_FAILED, "%s: not a socket", served->socket);
	return RP_EXIT_OK;
}

/* ---- The commands ------------------------------------------------------------------------------------------------ */

static int client_run(const struct rp_arguments *arguments, const char *device)
{
	char output[RP_OUTPUT_SIZE], *line;
	int result = arguments->error ? arguments->error : rp_program_run(arguments->list, output);

	if (!result)
		return RP_EXIT_OK;
	if (result == -ENOENT)
		return rp_fail(RP_EXIT_FAILED, "nbd-client is not installed");
	if (result < 0)
		return rp_fail(RP_EXIT_FAILED, "nbd-client: %s", strerror(-result));
	/* What went wrong is said last. */
	while (*output && output[strlen(output) - 1] == '\n')
		output[strlen(output) - 1] = 0;
	line = strrchr(output, '\n');
	line = line ? line + 1 : output;
	if (!strncasecmp(line, "Error: ", 7))
		line += 7;
	return rp_fail(RP_EXIT_FAILED, "%s: nbd-client: %s", device, *line ? line : "failed without a word");
}

static int attach(const char *target, const char *device, const char *connections, const char *export)
{
	struct rp_arguments arguments = { 0 };
	struct served served = { 0 };
	const char *name;
	char path[256];
	int status = prepare(device, path, &name), user;

	if (status != RP_EXIT_OK)
		return status;
	user = device_user(name);
	if (user)
		return rp_fail(RP_EXIT_FAILED, "%s: attached already, by process %d", path, user);
	status = served_find(&served, target);
	if (status != RP_EXIT_OK)
		goto out;
	rp_arguments_add(&arguments, "nbd-client");
	if (served.socket) {
		rp_arguments_add(&arguments, "-unix");
		rp_arguments_add(&arguments, "%s", served.socket);
	} else {
		rp_arguments_add(&arguments, "%s", served.host);
		rp_arguments_add(&arguments, "%s", served.port);
	}
	rp_arguments_add(&arguments, "%s", path);
	rp_arguments_add(&arguments, "-N");
	rp_arguments_add(&arguments, "%s", export ? export : served.export ? served.export : "");
	rp_arguments_add(&arguments, "-C");
	rp_arguments_add(&arguments, "%s", connections);
	status = client_run(&arguments, path);
out:
	rp_arguments_free(&arguments);
	free(served.text);
	return status;
}

static int detach(const char *device)
{
	struct rp_arguments arguments = { 0 };
	const char *name;
	char path[256];
	int status = prepare(device, path, &name), fd;

	if (status != RP_EXIT_OK)
		return status;
	if (!device_user(name))
		return rp_fail(RP_EXIT_FAILED, "%s: not attached", path);
	/* Exclusive: refused while it is mounted, swapped to, or part of another device. */
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, errno == EBUSY ?
		               "in use; unmount it first" : strerror(errno));
	if (fsync(fd))
		status = rp_fail(RP_EXIT_FAILED, "%s: what was written could not be brought to it: %s; it stays attached",
		                 path, strerror(errno));
	close(fd);
	if (status != RP_EXIT_OK)
		return status;
	rp_arguments_add(&arguments, "nbd-client");
	rp_arguments_add(&arguments, "-d");
	rp_arguments_add(&arguments, "%s", path);
	status = client_run(&arguments, path);
	rp_arguments_free(&arguments);
	for (int i = 0; status == RP_EXIT_OK && device_user(name); i++) {
		if (i == DETACH_SECONDS * 100)
			return rp_fail(RP_EXIT_FAILED, "%s: still attached after %d seconds", path, DETACH_SECONDS);
		usleep(10000);
	}
	return status;
}

int rp_command_attach(int count, char **arguments)
{
	const char *connections = "1", *export = NULL;
	int letter;
	long number;
	char *end;

	optind = 1;
	opterr = 0;
	while ((letter = getopt(count, arguments, "C:N:")) != -1) {
		if (letter == 'C')
			connections = optarg;
		else if (letter == 'N')
			export = optarg;
		else
			return rp_fail(RP_EXIT_USAGE, "attach: -%c: unknown option, or its value is missing "
			               "(rampool attach --help)", optopt);
	}
	number = strtol(connections, &end, 10);
	if (!*connections || *end || number < 1 || number > CONNECTIONS_MAX)
		return rp_fail(RP_EXIT_USAGE, "attach: -C %s: not a number of connections (1 to %d)", connections,
		               CONNECTIONS_MAX);
	if (optind + 2 != count)
		return rp_fail(RP_EXIT_USAGE, "attach: what is served and a device, please: rampool attach disk /dev/nbd0");
	return attach(arguments[optind], arguments[optind + 1], connections, export);
}

int rp_command_detach(int count, char **arguments)
{
	if (count != 2)
		return rp_fail(RP_EXIT_USAGE, "detach: one device, please: rampool detach /dev/nbd0");
	return detach(arguments[1]);
}
