/* serve.c: `rampool serve`: starts nbdkit with the plugin, and returns when it answers.
 *
 * nbdkit does the serving and goes into the background by itself; what it says before that is said here in one line.
 * From then on its messages go to the system's log.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "ramfs/command/command.h"
#include "ramfs/command/listen.h"
#include "ramfs/command/options.h"
#include "ramfs/command/run.h"

#define PSK_BYTES 32
#define PSK_USER "rampool"
#define START_SECONDS 120       /* an image may have much to look at */

struct serve {
	bool foreground;
	const char *name;               /* -n */
	const char *what;               /* image or size; null: the options say */
	const char *tcp;                /* --tcp; null: a Unix socket */
	char address[256], port[16];    /* of it */
	char psk[PATH_MAX];             /* absolute; empty: no TLS */
	char socket[4096], control[4096];
	struct rp_stage stage;          /* of the socket, in the background */
	struct rp_arguments options;    /* KEY=VALUE for the plugin */
	char uri[2 * 3 * PATH_MAX];
};

/* ---- The command line -------------------------------------------------------------------------------------------- */

/* nbdkit takes KEY=VALUE; a word alone is a switch. */
static int option_take(struct serve *serve, const char *word)
{
	size_t key = strspn(word, "abcdefghijklmnopqrstuvwxyz-_");

	if (!key || !isalpha((unsigned char)*word) || (word[key] && word[key] != '='))
		return rp_fail(RP_EXIT_USAGE, "serve: %.100s: not an option (KEY=VALUE)", word);
	if (!strncmp(word, "socket=", 7)) {
		if (snprintf(serve->control, sizeof(serve->control), "%s", word + 7) >= (int)sizeof(serve->control))
			return rp_fail(RP_EXIT_USAGE, "serve: socket=: the name is too long");
		return RP_EXIT_OK;
	}
	rp_arguments_add(&serve->options, "%s%s", word, word[key] ? "" : "=1");
	return RP_EXIT_OK;
}

static int options_take(struct serve *serve, const char *text)
{
	char *copy = strdup(text), *rest = copy, *word;
	int status = RP_EXIT_OK;

	if (!copy)
		return rp_fail(RP_EXIT_FAILED, "no memory");
	while (status == RP_EXIT_OK && (word = rp_option_next(&rest)))
		if (*word)
			status = option_take(serve, word);
	free(copy);
	return status;
}

/* [ADDRESS:]PORT; an address with colons stands in brackets. */
static int tcp_take(struct serve *serve, const char *text)
{
	const char *port = strrchr(text, ':'), *address = text;
	size_t length;
	char *end;
	long number;

	if (!port) {
		address = "127.0.0.1";
		length = strlen(address);
		port = text;
	} else {
		length = (size_t)(port++ - text);
		if (*address == '[' && length > 2 && address[length - 1] == ']') {
			address++;
			length -= 2;
		} else if (memchr(address, ':', length)) {
			return rp_fail(RP_EXIT_USAGE, "--tcp %s: an address with colons stands in brackets: [::1]:10809", text);
		}
	}
	number = strtol(port, &end, 10);
	if (!*port || *end || number < 1 || number > 65535 || !length || length >= sizeof(serve->address))
		return rp_fail(RP_EXIT_USAGE, "--tcp %s: not [ADDRESS:]PORT", text);
	memcpy(serve->address, address, length);
	serve->address[length] = 0;
	snprintf(serve->port, sizeof(serve->port), "%ld", number);
	serve->tcp = text;
	return RP_EXIT_OK;
}

/* ---- The key ----------------------------------------------------------------------------------------------------- */

static int psk_write(const char *path, int fd)
{
	unsigned char key[PSK_BYTES];
	char line[sizeof(PSK_USER) + 2 * PSK_BYTES + 2];
	size_t used = sizeof(PSK_USER);
	ssize_t length;

	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return -EIO;
	memcpy(line, PSK_USER ":", sizeof(PSK_USER));
	for (size_t i = 0; i < sizeof(key); i++)
		used += (size_t)sprintf(line + used, "%02x", key[i]);
	line[used++] = '\n';
	length = (ssize_t)used;
	explicit_bzero(key, sizeof(key));
	if (write(fd, line, used) != length || fsync(fd)) {
		int error = errno ? -errno : -EIO;

		unlink(path);
		return error;
	}
	return 0;
}

/* The file of the pre-shared key; made with a random one when there is none. */
static int psk_prepare(struct serve *serve, const char *path)
{
	struct stat st;
	int fd, error;

	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno != EEXIST)
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (fd >= 0) {
		error = psk_write(path, fd);
		close(fd);
		if (error)
			return rp_fail(RP_EXIT_FAILED, "%s: no key could be written: %s", path, strerror(-error));
		printf("A new key is in %s: whoever has this file can connect.\n", path);
	}
	if (stat(path, &st) || !realpath(path, serve->psk))
		return rp_fail(RP_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077))
		return rp_fail(RP_EXIT_FAILED, "%s: others may read or change this key (chmod 600)", path);
	return RP_EXIT_OK;
}

/* ---- Does it answer? --------------------------------------------------------------------------------------------- */

static int tcp_connect(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found, *at;
	int fd = -1, error = -EHOSTUNREACH;

	if (getaddrinfo(address, port, &hints, &found))
		return -EHOSTUNREACH;
	for (at = found; at; at = at->ai_next) {
		fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && !connect(fd, at->ai_addr, at->ai_addrlen))
			break;
		error = -errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd < 0 ? error : fd;
}

static int serve_connect(const struct serve *serve)
{
	return serve->tcp ? tcp_connect(serve->address, serve->port) : rp_listen_connect(serve->stage.path);
}

/* nbdkit listens before it is ready, and greets when it is; when it ends instead, the connection does. */
static int greeting_wait(const struct serve *serve)
{
	static const char leave[20] = "\0\0\0\3IHAVEOPT\0\0\0\2\0\0\0";
	int fd = serve_connect(serve), error = 0;
	char greeting[18];
	size_t used = 0;
	ssize_t got;

	if (fd < 0)
		return fd;
	while (!error && used < sizeof(greeting)) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int ready = poll(&p, 1, START_SECONDS * 1000);

		got = ready > 0 ? read(fd, greeting + used, sizeof(greeting) - used) : -1;
		if (got > 0)
			used += (size_t)got;
		else if (ready >= 0 || errno != EINTR)
			error = ready ? -EPIPE : -ETIMEDOUT;
	}
	/* Leave as a client that found nothing it wanted. */
	if (!error && send(fd, leave, sizeof(leave), MSG_NOSIGNAL) < 0)
		error = -errno;
	if (!error && memcmp(greeting, "NBDMAGIC", 8) != 0)
		error = -EPROTO;
	close(fd);
	return error;
}

/* ---- Starting ---------------------------------------------------------------------------------------------------- */

static int paths_make(struct serve *serve)
{
	int error = rp_runtime_path(serve->name, "nbd", serve->socket), status;
	char control[4096];

	if (!error)
		error = rp_runtime_path(serve->name, "control", control);
	if (!error && strlen(serve->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		error = -ENAMETOOLONG;
	if (error)
		return rp_fail(RP_EXIT_USAGE, "-n %s: %s", serve->name, error == -EINVAL ?
		               "not a name: 1 to 64 bytes without '/', not with a '.' first" : strerror(-error));
	if (!*serve->control)
		strcpy(serve->control, control);
	status = rp_listen_directory(serve->socket);
	if (status == RP_EXIT_OK && !serve->tcp)
		status = rp_listen_free(serve->socket);
	if (status == RP_EXIT_OK)
		status = rp_listen_free(serve->control);
	return status;
}

/* The plugin that was built with this program, else the one that nbdkit finds. */
static void plugin_find(char to[PATH_MAX])
{
	static const char file[] = "nbdkit-rampool-plugin.so";
	ssize_t length = readlink("/proc/self/exe", to, PATH_MAX - sizeof(file));
	char *slash;

	if (length > 0) {
		to[length] = 0;
		slash = strrchr(to, '/');
		strcpy(slash ? slash + 1 : to, file);
		if (!access(to, R_OK))
			return;
	}
	strcpy(to, "rampool");
}

/* An existing file, or a name with a slash, is an image; what reads as a size is one. */
static void what_add(const struct serve *serve, struct rp_arguments *arguments)
{
	uint64_t bytes;

	if (!serve->what)
		return;
	if (!strchr(serve->what, '/') && access(serve->what, F_OK) && !rp_size_parse(serve->what, true, &bytes))
		rp_arguments_add(arguments, "size=%s", serve->what);
	else
		rp_arguments_add(arguments, "image=%s", serve->what);
}

static void arguments_make(const struct serve *serve, struct rp_arguments *arguments)
{
	char plugin[PATH_MAX];

	rp_arguments_add(arguments, "nbdkit");
	if (serve->foreground)
		rp_arguments_add(arguments, "-f");
	if (serve->tcp) {
		rp_arguments_add(arguments, "-i");
		rp_arguments_add(arguments, "%s", serve->address);
		rp_arguments_add(arguments, "-p");
		rp_arguments_add(arguments, "%s", serve->port);
	} else if (!serve->foreground) {
		rp_arguments_add(arguments, "-U");
		rp_arguments_add(arguments, "%s", serve->stage.path);
	}
	if (*serve->psk) {
		rp_arguments_add(arguments, "--tls=require");
		rp_arguments_add(arguments, "--tls-psk=%s", serve->psk);
	}
	plugin_find(plugin);
	rp_arguments_add(arguments, "%s", plugin);
	what_add(serve, arguments);
	for (size_t i = 0; i < serve->options.count; i++)
		rp_arguments_add(arguments, "%s", serve->options.list[i]);
	rp_arguments_add(arguments, "socket=%s", serve->control);
	if (serve->options.error)
		arguments->error = serve->options.error;
}

/* A path as a value in a URI. */
static char *uri_encode(const char *path, char *to)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~";
	char *at = to;

	for (; *path; path++)
		at += sprintf(at, strchr(plain, *path) ? "%c" : "%%%02X", (unsigned char)*path);
	*at = 0;
	return to;
}

static void uri_make(struct serve *serve)
{
	const char *tls = *serve->psk ? "s" : "", *user = *serve->psk ? PSK_USER "@" : "";
	bool colons = strchr(serve->address, ':') != NULL;
	char text[3 * PATH_MAX];
	FILE *to = fmemopen(serve->uri, sizeof(serve->uri), "w");

	if (!to)
		return;
	if (serve->tcp)
		fprintf(to, "nbd%s://%s%s%s%s:%s/", tls, user, colons ? "[" : "", serve->address, colons ? "]" : "",
		        serve->port);
	else
		fprintf(to, "nbd%s+unix://%s/?socket=%s", tls, user, uri_encode(serve->socket, text));
	if (*serve->psk)
		fprintf(to, "%ctls-psk-file=%s", serve->tcp ? '?' : '&', uri_encode(serve->psk, text));
	fclose(to);
}

static void next_print(const struct serve *serve)
{
	printf("%s\n\n", serve->uri);
	if (!*serve->psk && serve->tcp)
		printf("  rampool attach '%s' /dev/nbd0\n", serve->uri);
	else if (!*serve->psk)
		printf("  rampool attach %s /dev/nbd0    # as root; detach takes it away\n", serve->name);
	printf("  nbdinfo '%s'\n  nbdcopy FILE '%s'\n", serve->uri, serve->uri);
	printf("  rampool status %s\n  rampool snapshot %s NAME\n", serve->control, serve->control);
	printf("  rampool stop %s\n", serve->control);
	fflush(stdout);
}

/* One line for what nbdkit said. */
static int start_fail(int result, char output[RP_OUTPUT_SIZE])
{
	if (result == -ENOENT)
		return rp_fail(RP_EXIT_FAILED, "nbdkit is not installed");
	if (result < 0)
		return rp_fail(RP_EXIT_FAILED, "nbdkit: %s", strerror(-result));
	if (strstr(output, "cannot open plugin"))
		return rp_fail(RP_EXIT_FAILED,
		               "nbdkit does not find nbdkit-rampool-plugin.so (make install puts it where it looks)");
	if (result >= 128)
		return rp_fail(RP_EXIT_FAILED, "nbdkit was killed by signal %d", result - 128);
	return rp_fail(RP_EXIT_FAILED, "%s", *output ? rp_program_line(output) : "nbdkit failed without a word");
}

/* The server answers, but its socket cannot have its name: it shall not stay without one. */
static void server_end(const struct serve *serve)
{
	const char *words[] = { "stop" };
	char message[512];
	FILE *nowhere = fopen("/dev/null", "we");

	if (!nowhere)
		return;
	rp_control_call(serve->control, words, 1, nowhere, false, message);
	fclose(nowhere);
}

static int foreground_start(struct serve *serve, char *const arguments[])
{
	int status = serve->tcp ? RP_EXIT_OK : rp_listen_inherit(serve->socket), error;
	char nothing[RP_OUTPUT_SIZE] = "";

	if (status != RP_EXIT_OK)
		return status;
	next_print(serve);
	error = rp_program_become(arguments);
	if (!serve->tcp)
		unlink(serve->socket);
	return start_fail(error, nothing);
}

static int background_start(struct serve *serve, char *const arguments[])
{
	char output[RP_OUTPUT_SIZE];
	int result = rp_program_run(arguments, output), status = RP_EXIT_OK;

	if (result)
		return start_fail(result, output);
	result = greeting_wait(serve);
	if (result)
		return rp_fail(RP_EXIT_FAILED, "nbdkit was started and does not answer: %s; the system's log has its reason",
		               result == -EPIPE ? "it ended" : strerror(-result));
	if (!serve->tcp)
		status = rp_stage_publish(&serve->stage, serve->socket);
	if (status == RP_EXIT_OK)
		next_print(serve);
	else
		server_end(serve);
	return status;
}

static int serve_run(struct serve *serve, const char *psk)
{
	struct rp_arguments arguments = { 0 };
	int status = paths_make(serve);

	if (status == RP_EXIT_OK && psk)
		status = psk_prepare(serve, psk);
	if (status == RP_EXIT_OK && !serve->foreground && !serve->tcp)
		status = rp_stage_open(&serve->stage, serve->socket);
	if (status == RP_EXIT_OK) {
		arguments_make(serve, &arguments);
		uri_make(serve);
		if (serve->tcp && !psk && strcmp(serve->address, "127.0.0.1") != 0 && strcmp(serve->address, "::1") != 0)
			fprintf(stderr, "rampool: whoever reaches %s can read and write this disk (--psk needs a key)\n",
			        serve->tcp);
		if (arguments.error)
			status = rp_fail(RP_EXIT_FAILED, "no memory");
		else
			status = (serve->foreground ? foreground_start : background_start)(serve, arguments.list);
	}
	rp_stage_close(&serve->stage);
	rp_arguments_free(&arguments);
	return status;
}

int rp_command_serve(int count, char **arguments)
{
	static const struct option longs[] = {
		{ "tcp", required_argument, NULL, 't' }, { "psk", required_argument, NULL, 'p' }, { NULL, 0, NULL, 0 },
	};
	struct serve *serve = calloc(1, sizeof(*serve));
	const char *psk = NULL;
	int letter, status = RP_EXIT_OK;

	if (!serve)
		return rp_fail(RP_EXIT_FAILED, "no memory");
	serve->name = "disk";
	optind = 1;
	opterr = 0;
	while (status == RP_EXIT_OK && (letter = getopt_long(count, arguments, "fo:n:", longs, NULL)) != -1) {
		if (letter == 'f')
			serve->foreground = true;
		else if (letter == 'o')
			status = options_take(serve, optarg);
		else if (letter == 'n')
			serve->name = optarg;
		else if (letter == 't')
			status = tcp_take(serve, optarg);
		else if (letter == 'p')
			psk = optarg;
		else
			status = rp_fail(RP_EXIT_USAGE, "serve: %s: unknown option, or its value is missing "
			                 "(rampool serve --help)", arguments[optind - 1]);
	}
	if (status == RP_EXIT_OK && optind + 1 < count)
		status = rp_fail(RP_EXIT_USAGE, "serve: one image or size, please");
	if (status == RP_EXIT_OK) {
		serve->what = optind < count ? arguments[optind] : NULL;
		status = serve_run(serve, psk);
	}
	rp_arguments_free(&serve->options);
	free(serve);
	return status;
}
