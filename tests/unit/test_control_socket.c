/* test_control_socket.c: the control socket against clients that are slow, silent, too many, too long, wrong, gone or someone
 * else's: each costs its own connection and nothing more, and a good request is answered afterwards.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <ramfs/control/internal.h>
#include <tests/lib/expect.h>
#include <tests/lib/random.h>

static char directory[] = "/tmp/rampool-control-XXXXXX";
static char path[300];
static char message[512];

static int connect_to(const char *where)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	EXPECT(fd >= 0 && strlen(where) < sizeof(address.sun_path));
	strcpy(address.sun_path, where);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

/* Everything the server says until it closes. */
static size_t receive_all(int fd, char *to, size_t size)
{
	size_t used = 0;
	ssize_t got;

	while (used < size - 1 && (got = recv(fd, to + used, size - 1 - used, 0)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break;
		used += (size_t)got;
	}
	to[used] = 0;
	return used;
}

/* Send bytes as they are; the answer. */
static char answer[200000];
static const char *raw(const char *bytes, size_t length)
{
	int fd = connect_to(path);
	size_t sent = 0;
	ssize_t got;

	EXPECT(fd >= 0);
	while (sent < length) {
		got = send(fd, bytes + sent, length - sent, MSG_NOSIGNAL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break;
		sent += (size_t)got;
	}
	receive_all(fd, answer, sizeof(answer));
	close(fd);
	return answer;
}

static int call(const char *verb, const char *argument, char **text)
{
	const char *words[2] = { verb, argument };
	size_t size;
	char *printed = NULL;
	FILE *out = open_memstream(&printed, &size);
	int error;

	EXPECT(out);
	error = rp_control_call(path, words, argument ? 2 : 1, out, false, message);
	EXPECT(!fclose(out));
	if (text)
		*text = printed;
	else
		free(printed);
	return error;
}

static void expect_well(void)
{
	char *text;

	EXPECT_OK(call("status", NULL, &text), message);
	EXPECT(strstr(text, "frames: "));
	free(text);
}

static void wrong_requests(uint64_t *seed)
{
	static const struct { const char *bytes; int error; } wrong[] = {
		{ "\n", EINVAL }, { "   \n", EINVAL }, { "unknown\n", EINVAL }, { "status x\n", EINVAL }, { "snapshot\n", EINVAL },
		{ "snapshot %\n", EINVAL }, { "snapshot %00\n", EINVAL }, { "delete nothing\n", ENOENT },
		{ "%73tatus x\n", EINVAL },
		{ "a b c d e f g h i j k l m n o p q r s t\n", E2BIG }, { "status\r\n", EINVAL }, { "save\n", EINVAL },
	};
	char bytes[3000], line[64];
	size_t i, length;
	int round;

	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		raw(wrong[i].bytes, strlen(wrong[i].bytes));
		snprintf(line, sizeof(line), "! %d ", wrong[i].error);
		if (strncmp(answer, line, strlen(line))) {
			printf("FAIL \"%s\" is answered \"%s\"\n", wrong[i].bytes, answer);
			exit(1);
		}
	}
	EXPECT(!strncmp(raw("stat\0us\n", 8), "! 22 ", 5));
	for (round = 0; round < 300; round++) {
		length = random_below(seed, sizeof(bytes) - 1);
		for (i = 0; i < length; i++)
			bytes[i] = (char)random_next(seed);
		bytes[length++] = '\n';
		raw(bytes, length);
		/* One last line, unless the client sent on after its line and so was cut off. */
		EXPECT(!answer[0] || answer[0] == '!' || answer[0] == '.');
	}
	EXPECT_EQUAL(call("snapshot", "", NULL), -EINVAL);
}

static void long_requests(void)
{
	static char line[2 * RP_REQUEST_MAX];

	memset(line, 'a', sizeof(line));
	EXPECT(!strncmp(raw(line, sizeof(line)), "! 7 ", 4));
	line[RP_REQUEST_MAX - 1] = '\n'; /* as long as may be */
	EXPECT(!strncmp(raw(line, RP_REQUEST_MAX), "! 22 ", 5));
	line[sizeof(line) - 1] = 0;
	line[RP_REQUEST_MAX - 1] = 'a';
	EXPECT_EQUAL(call("snapshot", line, NULL), -E2BIG);
	line[300] = 0;
	EXPECT_EQUAL(call("snapshot", line, NULL), -EINVAL);
	expect_well();
}

/* In the middle of a request, before the answer, with the answer unread. */
static void vanishing_clients(void)
{
	static const char *const said[] = { "", "stat", "status\n" };
	int i, fd;

	for (i = 0; i < 300; i++) {
		fd = connect_to(path);
		EXPECT(fd >= 0);
		if (send(fd, said[i % 3], strlen(said[i % 3]), MSG_NOSIGNAL) < 0)
			EXPECT(errno == EPIPE || errno == ECONNRESET); /* too many: refused already */
		close(fd);
	}
}

/* More than there are places for: the last are told so, and when the first go there is room. */
static void silent_clients(void)
{
	int fds[40], i;

	for (i = 0; i < 40; i++) {
		fds[i] = connect_to(path);
		EXPECT(fds[i] >= 0);
	}
	receive_all(fds[39], answer, sizeof(answer));
	EXPECT(!strncmp(answer, "! 11 ", 5));
	for (i = 0; i < 40; i++)
		close(fds[i]);
}

/* A place may still be taken by a thread that is ending. */
static void wait_until_free(void)
{
	int rounds;

	for (rounds = 0; call("status", NULL, NULL) == -EAGAIN; rounds++) {
		EXPECT(rounds < 3000);
		usleep(10000);
	}
	expect_well();
}

/* One byte at a time is slow, but it is a request. */
static void slow_client(void)
{
	static const char request[] = "status\n";
	int fd = connect_to(path);
	size_t i;

	EXPECT(fd >= 0);
	for (i = 0; i < sizeof(request) - 1; i++) {
		EXPECT(send(fd, request + i, 1, MSG_NOSIGNAL) == 1);
		usleep(5000);
	}
	EXPECT(receive_all(fd, answer, sizeof(answer)) > 100);
	EXPECT(!strcmp(answer + strlen(answer) - 3, "\n.\n"));
	close(fd);
}

/* Even where the directory and the socket let them in. */
static void other_users(void)
{
	struct stat st;
	int status;
	pid_t child;

	EXPECT_EQUAL(stat(path, &st), 0);
	EXPECT_EQUAL(st.st_mode & 07777, 0600);
	if (geteuid() != 0) {
		printf("not root: other users are not tried\n");
		return;
	}
	EXPECT_EQUAL(chmod(directory, 0755), 0);
	EXPECT_EQUAL(chmod(path, 0666), 0);
	fflush(stdout);
	child = fork();
	EXPECT(child >= 0);
	if (!child) {
		if (setgid(65534) || setuid(65534))
			_exit(2);
		_exit(strncmp(raw("status\n", 7), "! 13 ", 5) ? 1 : 0);
	}
	EXPECT_EQUAL(waitpid(child, &status, 0), child);
	EXPECT_EQUAL(status, 0);
	EXPECT_EQUAL(chmod(path, 0600), 0);
	EXPECT_EQUAL(chmod(directory, 0700), 0);
}

/* The socket's name: not over another's, not over a file, over what a killed server left. */
static void names_taken(struct rp_keep *keep)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct rp_control *control;
	char other[400];
	FILE *file;
	int fd;

	EXPECT_EQUAL(rp_control_open(keep, path, false, &control, message), -EADDRINUSE);
	snprintf(other, sizeof(other), "%s/file", directory);
	file = fopen(other, "w");
	EXPECT(file && !fclose(file));
	EXPECT_EQUAL(rp_control_open(keep, other, false, &control, message), -EEXIST);
	EXPECT(!access(other, F_OK));

	snprintf(other, sizeof(other), "%s/stale", directory);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(address.sun_path, other);
	EXPECT(fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof(address)));
	close(fd);
	EXPECT_OK(rp_control_open(keep, other, false, &control, message), message);
	rp_control_stop(control);
	EXPECT(access(other, F_OK) && errno == ENOENT);

	snprintf(other, sizeof(other), "%s/none/none/socket", directory);
	EXPECT_EQUAL(rp_control_open(keep, other, false, &control, message), -ENOENT);
	snprintf(other, sizeof(other), "%s/open", directory);
	EXPECT(!mkdir(other, 0700) && !chmod(other, 0777));
	strcat(other, "/socket");
	EXPECT_EQUAL(rp_control_open(keep, other, false, &control, message), -EPERM);
}

/* A name longer than an address has room for. */
static void long_name(struct rp_keep *keep)
{
	const char *words[] = { "status" };
	struct rp_control *control;
	char other[400];
	FILE *out = fopen("/dev/null", "w");

	EXPECT(out);
	snprintf(other, sizeof(other), "%s/%0150d", directory, 7);
	EXPECT_EQUAL(mkdir(other, 0700), 0);
	strcat(other, "/socket");
	EXPECT_OK(rp_control_open(keep, other, false, &control, message), message);
	EXPECT_OK(rp_control_serve(control, message), message);
	EXPECT_OK(rp_control_call(other, words, 1, out, false, message), message);
	rp_control_stop(control);
	EXPECT(access(other, F_OK) && errno == ENOENT);
	EXPECT_EQUAL(rp_control_call(other, words, 1, out, false, message), -ENOENT);
	EXPECT_EQUAL(rp_control_call(directory, words, 1, out, false, message), -ENOENT);
	EXPECT(strstr(message, "not on a rampool mount"));
	fclose(out);
}

/* Names of any bytes, through client, socket and list. */
static void odd_names(void)
{
	static const char *const names[] = { "plain", "with space", "%41%", "\xc3\xbc", "\xff\xfe", "=", "!", ".", "a b  c" };
	char *text;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int error = call("snapshot", names[i], NULL);

		EXPECT_EQUAL(error, strcmp(names[i], ".") ? 0 : -EINVAL);
		if (error)
			continue;
		EXPECT_EQUAL(call("snapshots", NULL, &text), 0);
		EXPECT(strstr(text, names[i]));
		free(text);
		EXPECT_EQUAL(call("delete", names[i], NULL), 0);
	}
	EXPECT_EQUAL(call("snapshot", "a/b", NULL), -EINVAL);
	EXPECT_EQUAL(call("snapshot", "a\nb", NULL), -EINVAL);
	EXPECT(!strchr(message, '\n'));
}

static unsigned descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	EXPECT(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
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
	uint64_t seed = number_from_environment("RP_SEED", 20240603);
	struct rp_keep_options options = { .size_bytes = 8 << 20 };
	struct rp_control *control;
	struct rp_keep *keep;
	unsigned before;
	int silent;

	printf("seed %llu\n", (unsigned long long)seed);
	EXPECT(mkdtemp(directory));
	atexit(remove_all);
	snprintf(path, sizeof(path), "%s/socket", directory);
	EXPECT_OK(rp_keep_start(&options, NULL, &keep, message), message);
	before = descriptors();
	EXPECT_OK(rp_control_open(keep, path, false, &control, message), message);
	EXPECT_OK(rp_control_serve(control, message), message);

	expect_well();
	wrong_requests(&seed);
	long_requests();
	slow_client();
	vanishing_clients();
	wait_until_free();
	silent_clients();
	wait_until_free();
	odd_names();
	other_users();
	names_taken(keep);
	long_name(keep);

	silent = connect_to(path); /* it does not keep the server from stopping */
	EXPECT(silent >= 0);
	rp_control_stop(control);
	close(silent);
	EXPECT(access(path, F_OK) && errno == ENOENT);
	EXPECT_EQUAL(call("status", NULL, NULL), -ENOENT);
	EXPECT_EQUAL(descriptors(), before);
	EXPECT_OK(rp_keep_stop(keep, message), message);
	return 0;
}
