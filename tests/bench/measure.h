/* measure.h: what the programs of the benchmark share: the clock, and the one form in which they print.
 *
 * Each result is a line "NAME VALUE UNIT"; UNIT is "us" (time of one operation: less is better) or "MiB/s", "kIOPS" (more
 * is better). A program that cannot go on prints why to stderr and ends with 1: that row is then missing, no other.
 */
#ifndef RAMPOOL_TESTS_BENCH_MEASURE_H
#define RAMPOOL_TESTS_BENCH_MEASURE_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Time this thread was given a CPU: what other work on the machine takes does not count. */
static inline double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline void must(int good, const char *what)
{
	if (!good)
		die(what);
}

static inline void say(const char *name, double value, const char *unit)
{
	printf("%s %.6g %s\n", name, value, unit);
}

static inline void say_us(const char *name, double seconds, double count)
{
	say(name, seconds / count * 1e6, "us");
}

static inline void say_bytes(const char *name, double seconds, double bytes)
{
	say(name, bytes / seconds / (1 << 20), "MiB/s");
}

static inline void say_iops(const char *name, double seconds, double count)
{
	say(name, count / seconds * 1e-3, "kIOPS");
}

/* Numbers that are the same in each run and for each peer. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

#endif
