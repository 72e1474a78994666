/* progress.c: how far a save has come: a bar on a terminal, at most one line a second elsewhere. On stderr. */
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "internal.h"

#define TERMINAL_EVERY_NS 100000000u
#define LINE_EVERY_NS 1000000000u
#define BAR_WIDTH_MAX 40

void rp_bar_start(struct rp_bar *bar)
{
	uint64_t now = rp_clock_ns();

	*bar = (struct rp_bar){ .terminal = isatty(STDERR_FILENO), .start_ns = now };
	bar->last_ns = bar->terminal ? 0 : now; /* elsewhere nothing is said of what takes less than a second */
}

static unsigned terminal_width(void)
{
	struct winsize size;

	return !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80;
}

static void time_print(uint64_t seconds, char *to, size_t size)
{
	if (seconds >= 3600)
		snprintf(to, size, "%llu:%02u:%02u", (unsigned long long)(seconds / 3600),
		         (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
	else
		snprintf(to, size, "%u:%02u", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
}

static void bar_draw(unsigned percent, const char *numbers)
{
	unsigned width = terminal_width(), used = (unsigned)strlen(numbers) + 10, bar, i;

	bar = width > used ? width - used : 0;
	if (bar > BAR_WIDTH_MAX)
		bar = BAR_WIDTH_MAX;
	fputc('\r', stderr);
	if (bar >= 8) {
		fputc('[', stderr);
		for (i = 0; i < bar; i++)
			fputc(i * 100 < percent * bar ? '#' : ' ', stderr);
		fputs("] ", stderr);
	}
	/* Never into the last column: a line that wraps is not drawn over the next time. */
	fprintf(stderr, "%3u%%%.*s\033[K", percent, width > 5 ? (int)(width - 5) : 0, numbers);
	fflush(stderr);
}

void rp_bar_show(struct rp_bar *bar, uint64_t done_bytes, uint64_t total_bytes)
{
	uint64_t now = rp_clock_ns(), spent_ms = (now - bar->start_ns) / 1000000u, rate;
	char done[32], total[32], speed[32], left[32], numbers[160];
	unsigned percent;

	if (now - bar->last_ns < (bar->terminal ? TERMINAL_EVERY_NS : LINE_EVERY_NS))
		return;
	bar->last_ns = now;
	if (done_bytes > total_bytes)
		done_bytes = total_bytes;
	rate = spent_ms ? (uint64_t)((double)done_bytes * 1000.0 / (double)spent_ms) : 0;
	percent = total_bytes ? (unsigned)((double)done_bytes * 100.0 / (double)total_bytes) : 100;
	if (rate)
		time_print((total_bytes - done_bytes) / rate, left, sizeof(left));
	else
		strcpy(left, "-:--");
	snprintf(numbers, sizeof(numbers), " %s of %s, %s/s, %s left", rp_size_print(done_bytes, done),
	         rp_size_print(total_bytes, total), rp_size_print(rate, speed), left);
	if (bar->terminal)
		bar_draw(percent, numbers);
	else
		fprintf(stderr, "%u%%:%s\n", percent, numbers);
	bar->drawn = true;
}

void rp_bar_end(struct rp_bar *bar)
{
	if (bar->terminal && bar->drawn)
		fputs("\r\033[K", stderr);
}
