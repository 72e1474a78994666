/* addrmap.c: a hash from 64-bit keys to 64-bit values, and the few things all image code asks the hooks for.
 *
 * Open addressing with linear probing, at most three quarters full. Used where memory may follow the number of blocks:
 * compaction, verifying, saving under another name. Not thread-safe.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "image.h"

static size_t slot_of(uint64_t key, size_t room)
{
	key ^= key >> 32;
	key *= UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)(key >> 20) & (room - 1);
}

void rp_addrmap_free(struct rp_addrmap *map)
{
	free(map->slots);
	map->slots = NULL;
	map->room = map->count = 0;
}

static uint64_t *slot_find(uint64_t *slots, size_t room, uint64_t key)
{
	size_t i = slot_of(key, room);

	while (slots[2 * i] && slots[2 * i] != key)
		i = (i + 1) & (room - 1);
	return &slots[2 * i];
}

static int map_grow(struct rp_addrmap *map)
{
	size_t room = map->room ? map->room * 2 : 1024;
	uint64_t *slots;

	if (room > SIZE_MAX / 16)
		return -ENOMEM;
	slots = rp_image_allocate(map->hooks, room * 16);
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < map->room; i++) {
		uint64_t *to;

		if (!map->slots[2 * i])
			continue;
		to = slot_find(slots, room, map->slots[2 * i]);
		to[0] = map->slots[2 * i];
		to[1] = map->slots[2 * i + 1];
	}
	free(map->slots);
	map->slots = slots;
	map->room = room;
	return 0;
}

int rp_addrmap_put(struct rp_addrmap *map, uint64_t key, uint64_t value)
{
	uint64_t *slot;

	if (map->count >= map->room / 4 * 3) {
		int error = map_grow(map);

		if (error)
			return error;
	}
	slot = slot_find(map->slots, map->room, key);
	map->count += slot[0] == 0;
	slot[0] = key;
	slot[1] = value;
	return 0;
}

bool rp_addrmap_get(const struct rp_addrmap *map, uint64_t key, uint64_t *value)
{
	const uint64_t *slot;

	if (!map->room)
		return false;
	slot = slot_find(map->slots, map->room, key);
	if (slot[0] != key)
		return false;
	if (value)
		*value = slot[1];
	return true;
}

void *rp_image_allocate(const struct rp_hooks *hooks, size_t size)
{
	return hooks && hooks->allocate ? hooks->allocate(hooks->context, size) : calloc(1, size);
}

void rp_image_now(const struct rp_hooks *hooks, int64_t *sec, uint32_t *nsec)
{
	struct timespec now;

	if (hooks && hooks->now) {
		hooks->now(hooks->context, sec, nsec);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	*sec = now.tv_sec;
	*nsec = (uint32_t)now.tv_nsec;
}

int rp_image_random(const struct rp_hooks *hooks, void *to, size_t size)
{
	if (hooks && hooks->random) {
		hooks->random(hooks->context, to, size);
		return 0;
	}
	return getrandom(to, size, 0) == (ssize_t)size ? 0 : -EIO;
}

void rp_image_log(const struct rp_hooks *hooks, const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (hooks && hooks->log)
		hooks->log(hooks->context, line);
	else
		fprintf(stderr, "rampool: %s\n", line);
}

int rp_image_say(const struct rp_image_options *options, int error, const char *format, ...)
{
	va_list args;

	if (options && options->message) {
		va_start(args, format);
		vsnprintf(options->message, 512, format, args);
		va_end(args);
	}
	return error;
}
