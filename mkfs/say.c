/* say.c: messages, names made safe for a terminal, and a progress bar. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "mkfs.h"

#define METER_EVERY_MS 100

void rp_say(const char *program, const char *format, ...)
{
	va_list list;

	fprintf(stderr, "%s: ", program);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
}

const char *rp_error_text(int error) { return strerror(error < 0 ? -error : error); }

/* Bytes of the UTF-8 sequence at p that end within `left`, 0 when it is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	size_t n = p[0] < 0xc2 || p[0] >= 0xf5 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

	if (!n || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* C1 control characters are as able to confuse a terminal as the others. */
	return n == 2 && p[0] == 0xc2 && p[1] < 0xa0 ? 0 : n;
}

char *rp_name_print(const char *name, size_t length, char *to)
{
	const unsigned char *p = (const unsigned char *)name, *end = p + length;
	char *at = to;

	while (p < end) {
		size_t n = *p >= ' ' && *p < 0x7f && *p != '\\' ? 1 : utf8_length(p, (size_t)(end - p));

		if (n) {
			memcpy(at, p, n);
			at += n;
			p += n;
		} else {
			at += sprintf(at, "\\x%02x", *p++);
		}
	}
	*at = 0;
	return to;
}

/* ---- Progress ---- */

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void rp_meter_start(struct rp_meter *meter, const char *what, bool on)
{
	*meter = (struct rp_meter){ .what = what, .on = on && isatty(STDERR_FILENO), .started_ms = now_ms() };
}

static void bar_print(uint64_t done, uint64_t total, unsigned width)
{
	unsigned filled = (unsigned)((double)done * width / (double)total);

	fputc('[', stderr);
	for (unsigned i = 0; i < width; i++)
		fputc(i < filled ? '#' : ' ', stderr);
	fprintf(stderr, "] %3u%% ", (unsigned)((double)done * 100 / (double)total));
}

void rp_meter_show(struct rp_meter *meter, uint64_t done, uint64_t total)
{
	uint64_t now = now_ms(), spent = now - meter->started_ms;
	char done_text[32], total_text[32], rate_text[32], line[128];
	struct winsize size;
	unsigned columns;

	if (!meter->on || now - meter->shown_ms < METER_EVERY_MS)
		return;
	meter->shown_ms = now;
	columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
	rp_size_print(done, done_text);
	rp_size_print(spent ? (uint64_t)((double)done * 1000 / (double)spent) : 0, rate_text);
	if (total && done > total)
		total = done;
	if (total)
		snprintf(line, sizeof(line), "%s of %s, %s/s", done_text, rp_size_print(total, total_text), rate_text);
	else
		snprintf(line, sizeof(line), "%s, %s/s", done_text, rate_text);
	if (total && columns >= 76) {
		fprintf(stderr, "\r%-8s ", meter->what);
		bar_print(done, total, columns > 100 ? 40 : columns - 62);
		fprintf(stderr, "%s\033[K", line);
	} else {
		/* Never into the last column: a line that wraps is not drawn over the next time. */
		fprintf(stderr, "\r%.*s\033[K", (int)columns - 1, line);
	}
	fflush(stderr);
}

void rp_meter_end(struct rp_meter *meter)
{
	if (meter->on && meter->shown_ms)
		fputs("\r\033[K", stderr);
	meter->on = false;
}
