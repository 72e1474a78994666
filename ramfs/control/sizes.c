/* sizes.c: sizes as people write them, and how much memory there is to take a part of.
 *
 * All arithmetic is in whole numbers: "1.5G" is exact, and what does not fit in 63 bits is refused, not wrapped.
 */
#include <ctype.h>
#include <stdlib.h>
#include <unistd.h>
#include "internal.h"

typedef unsigned __int128 u128;

/* Digits, perhaps with a fraction, as value / scale. */
static int number_parse(const char **at, u128 *value, u128 *scale)
{
	const char *p = *at;
	bool fraction = false;
	unsigned digits = 0;

	*value = 0;
	*scale = 1;
	for (; isdigit((unsigned char)*p) || (*p == '.' && !fraction); p++) {
		if (*p == '.') {
			fraction = true;
			continue;
		}
		if (++digits > 19)
			return -EINVAL;
		*value = *value * 10 + (unsigned)(*p - '0');
		if (fraction)
			*scale *= 10;
	}
	if (!digits || p[-1] == '.')
		return -EINVAL;
	*at = p;
	return 0;
}

/* K, M, G, T, P, E; KB and KiB mean the same: powers of 1024. */
static int suffix_parse(const char *p, unsigned *shift)
{
	static const char letters[] = "KMGTPE";
	const char *letter;

	*shift = 0;
	if (*p && *p != 'b' && *p != 'B') {
		letter = strchr(letters, toupper((unsigned char)*p));
		if (!letter)
			return -EINVAL;
		*shift = 10 * (unsigned)(letter - letters + 1);
		p++;
		if (*p == 'i' && (p[1] == 'B' || p[1] == 'b'))
			p++;
	}
	if (*p == 'B' || *p == 'b')
		p++;
	return *p ? -EINVAL : 0;
}

int rp_size_parse(const char *text, bool percent, uint64_t *bytes)
{
	u128 value, scale;
	unsigned shift;
	int error;

	error = number_parse(&text, &value, &scale);
	if (error)
		return error;
	if (percent && !strcmp(text, "%")) {
		if (value > 100 * scale)
			return -EINVAL;
		*bytes = (uint64_t)(rp_memory_total() * value / (100 * scale));
		return 0;
	}
	error = suffix_parse(text, &shift);
	if (error)
		return error;
	value = (value << shift) / scale;
	if (value > INT64_MAX)
		return -EINVAL;
	*bytes = (uint64_t)value;
	return 0;
}

const char *rp_size_print(uint64_t bytes, char to[32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned unit = 0;
	uint64_t tenths;

	while (unit < 6 && bytes >> (10 * (unit + 1)))
		unit++;
	tenths = (uint64_t)(((u128)bytes * 10) >> (10 * unit));
	if (tenths % 10)
		snprintf(to, 32, "%llu.%llu %s", (unsigned long long)(tenths / 10), (unsigned long long)(tenths % 10),
		         units[unit]);
	else
		snprintf(to, 32, "%llu %s", (unsigned long long)(tenths / 10), units[unit]);
	return to;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* A control group's limit, or UINT64_MAX. */
static uint64_t limit_read(const char *path)
{
	unsigned long long bytes = 0;
	FILE *file;
	int got;

	file = fopen(path, "re");
	if (!file)
		return UINT64_MAX;
	got = fscanf(file, "%llu", &bytes);
	fclose(file);
	return got == 1 && bytes ? bytes : UINT64_MAX;
}

/* The smallest limit of this process's control group (version 2) and those above it. */
static uint64_t group_limit(void)
{
	char line[4200], path[4400];
	uint64_t least = UINT64_MAX, limit;
	char *group = NULL, *cut;
	FILE *file;

	file = fopen("/proc/self/cgroup", "re");
	if (!file)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "0::/", 4)) {
			line[strcspn(line, "\n")] = 0;
			group = line + 3;
			break;
		}
	fclose(file);
	while (group) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group);
		limit = limit_read(path);
		if (limit < least)
			least = limit;
		cut = strrchr(group, '/');
		if (!cut)
			break;
		*cut = 0;
	}
	return least;
}

uint64_t rp_memory_total(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	uint64_t bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : UINT64_C(1) << 30;
	uint64_t limit = group_limit();

	return limit < bytes ? limit : bytes;
}
