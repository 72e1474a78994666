/* notify.c: tell systemd, and write lines for people: the log, times, messages.
 *
 * The protocol of sd_notify(3) is one datagram to a socket named in the environment; no library is needed for that.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

void rp_keep_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length;
	ssize_t sent;
	int fd;

	if (!path || (*path != '/' && *path != '@'))
		return;
	length = strlen(path);
	if (length >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, length);
	if (*path == '@')
		address.sun_path[0] = 0; /* the abstract namespace */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	/* Nobody depends on the answer: a manager that is gone is no error of ours. */
	sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&address,
	              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
	(void)sent;
	close(fd);
}

const char *rp_time_print(int64_t sec, char to[32])
{
	time_t at = (time_t)sec;
	struct tm tm;

	if (!localtime_r(&at, &tm) || !strftime(to, 32, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(to, 32, "@%lld", (long long)sec);
	return to;
}

static void one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ')
			*text = '?';
}

int rp_message(char *message, int error, const char *format, ...)
{
	va_list args;

	if (!message)
		return error;
	va_start(args, format);
	vsnprintf(message, RP_MESSAGE_SIZE, format, args);
	va_end(args);
	one_line(message);
	return error;
}

void rp_keep_log(struct rp_keep *keep, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	one_line(line);
	keep->hooks.log(keep->hooks.context, line);
}
