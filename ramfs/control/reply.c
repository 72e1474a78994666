/* reply.c: answers on the control socket.
 *
 * A client that reads slowly makes its own verb wait, for at most the socket's send timeout; then it counts as gone.
 * Progress is sent from the committing thread and never waits: what does not fit is left out.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include "internal.h"

#define PROGRESS_EVERY_NS 100000000u

uint64_t rp_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void bytes_send(struct rp_reply *reply, const char *bytes, size_t length)
{
	ssize_t sent;

	while (length && !reply->broken) {
		sent = send(reply->fd, bytes, length, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0) {
			reply->broken = true;
			return;
		}
		bytes += sent;
		length -= (size_t)sent;
	}
}

static void reply_flush(struct rp_reply *reply)
{
	bytes_send(reply, reply->buffer, reply->used);
	reply->used = 0;
}

static void reply_bytes(struct rp_reply *reply, const char *bytes, size_t length)
{
	if (length > sizeof(reply->buffer) - reply->used)
		reply_flush(reply);
	if (length > sizeof(reply->buffer)) {
		bytes_send(reply, bytes, length);
		return;
	}
	memcpy(reply->buffer + reply->used, bytes, length);
	reply->used += length;
}

static void reply_line(struct rp_reply *reply, const char *text, size_t length)
{
	reply_bytes(reply, "= ", 2);
	reply_bytes(reply, text, length);
	reply_bytes(reply, "\n", 1);
}

void rp_reply_text(struct rp_reply *reply, const char *format, ...)
{
	va_list args;
	char *text;
	int length;

	va_start(args, format);
	length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0) { /* an answer with a line missing would be a wrong one */
		reply->broken = true;
		return;
	}
	reply_line(reply, text, (size_t)length);
	free(text);
}

void rp_reply_lines(struct rp_reply *reply, const char *text)
{
	size_t length;

	while (*text) {
		length = strcspn(text, "\n");
		reply_line(reply, text, length);
		text += length + (text[length] == '\n');
	}
}

void rp_reply_end(struct rp_reply *reply, int error, const char *message)
{
	char line[RP_MESSAGE_SIZE + 32];
	int length;

	if (error)
		length = snprintf(line, sizeof(line), "! %d %s\n", -error, message);
	else
		length = snprintf(line, sizeof(line), ".\n");
	reply_bytes(reply, line, (size_t)length);
	reply_flush(reply);
}

int rp_reply_progress(void *context, const struct rp_progress *progress)
{
	struct rp_reply *reply = context;
	struct pollfd poll_fd = { .fd = reply->fd };
	uint64_t now = rp_clock_ns();
	char line[80];
	int length;
	ssize_t sent;

	if (reply->broken)
		return 1;
	if (now - reply->progress_ns < PROGRESS_EVERY_NS)
		return 0;
	reply->progress_ns = now;
	if (poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR))) {
		reply->broken = true;
		return 1;
	}
	reply_flush(reply);
	length = snprintf(line, sizeof(line), "P %llu %llu\n", (unsigned long long)progress->done_bytes,
	                  (unsigned long long)progress->total_bytes);
	sent = send(reply->fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent > 0 && sent < length) /* the rest of a line must follow */
		bytes_send(reply, line + sent, (size_t)(length - sent));
	else if (sent < 0 && errno != EAGAIN && errno != EINTR)
		reply->broken = true;
	return reply->broken;
}
