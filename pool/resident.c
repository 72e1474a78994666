/* resident.c: image address -> frame, for blocks that were read in.
 *
 * A block that several trees name becomes one frame however it is reached. The index is weak: an entry holds no reference;
 * it is taken out, under its shard's lock, before its frame can be used for anything else. Blocks this life wrote itself are
 * not entered: everything that names them names their frames.
 *
 * Shards of open addressing, 12 bytes an entry, at most three quarters full. A shard's lock is held for a few probes, or
 * for moving the shard's entries when it grows; nobody sleeps under it but for memory.
 */
#include <stdlib.h>
#include "image_state.h"

#define SHARD_COUNT 64u
#define SHARD_ROOM_MIN 64u

struct resident_entry {
	uint32_t frame;     /* 0: this place is free */
	uint32_t addr_low;
	uint32_t addr_high; /* bits 0..7; 8..30 the place; ENTRY_WALKED */
};
#define ENTRY_WALKED (UINT32_C(1) << 31)
#define ADDR_HIGH_BITS 8u
static_assert(ADDR_HIGH_BITS + RP_PLACE_BITS == 31, "all of the word");

struct resident_shard {
	pthread_mutex_t lock;
	struct resident_entry *entries; /* guarded by lock, as all below */
	uint32_t room;                  /* a power of two, or 0 */
	uint32_t count;
} __attribute__((aligned(64)));

struct rp_resident {
	struct resident_shard shards[SHARD_COUNT];
};

static uint64_t mix(rp_addr addr)
{
	addr ^= addr >> 29;
	addr *= UINT64_C(0xbf58476d1ce4e5b9);
	return addr ^ addr >> 32;
}

static struct resident_shard *shard_of(struct rp_pool *pool, uint64_t hash)
{
	return &pool->resident->shards[hash >> 58];
}

static rp_addr entry_addr(const struct resident_entry *e)
{
	return (rp_addr)(e->addr_high & ((1u << ADDR_HIGH_BITS) - 1)) << 32 | e->addr_low;
}

static uint32_t entry_place(const struct resident_entry *e)
{
	return (e->addr_high & ~ENTRY_WALKED) >> ADDR_HIGH_BITS;
}

/* Where the address stands, or the free place where it would. The shard has a free place. */
static uint32_t place_find(const struct resident_entry *entries, uint32_t room, uint64_t hash, rp_addr addr)
{
	uint32_t i = (uint32_t)hash & (room - 1);

	while (entries[i].frame && entry_addr(&entries[i]) != addr)
		i = (i + 1) & (room - 1);
	return i;
}

static int shard_grow(struct rp_pool *pool, struct resident_shard *shard)
{
	uint32_t room = shard->room ? shard->room * 2 : SHARD_ROOM_MIN;
	struct resident_entry *entries = rp_image_allocate(&pool->hooks, (size_t)room * sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < shard->room; i++) {
		const struct resident_entry *e = &shard->entries[i];

		if (e->frame)
			entries[place_find(entries, room, mix(entry_addr(e)), entry_addr(e))] = *e;
	}
	free(shard->entries);
	shard->entries = entries;
	shard->room = room;
	return 0;
}

int rp_resident_init(struct rp_pool *pool)
{
	void *memory;

	if (posix_memalign(&memory, 64, sizeof(*pool->resident)))
		return -ENOMEM;
	memset(memory, 0, sizeof(*pool->resident));
	pool->resident = memory;
	for (unsigned i = 0; i < SHARD_COUNT; i++)
		pthread_mutex_init(&pool->resident->shards[i].lock, NULL);
	return 0;
}

void rp_resident_free(struct rp_pool *pool)
{
	if (!pool->resident)
		return;
	for (unsigned i = 0; i < SHARD_COUNT; i++) {
		pthread_mutex_destroy(&pool->resident->shards[i].lock);
		free(pool->resident->shards[i].entries);
	}
	free(pool->resident);
	pool->resident = NULL;
}

rp_frame rp_resident_get(struct rp_pool *pool, rp_addr addr, uint32_t *place)
{
	uint64_t hash = mix(addr);
	struct resident_shard *shard = shard_of(pool, hash);
	rp_frame f = 0;

	pthread_mutex_lock(&shard->lock);
	if (shard->room) {
		const struct resident_entry *e = &shard->entries[place_find(shard->entries, shard->room, hash, addr)];

		f = e->frame;
		*place = entry_place(e);
	}
	/* Its last reference may be gone already; then it cannot be had any more, but it is not yet anything else. */
	if (f && !rp_frame_get_live(pool, f))
		f = 0;
	pthread_mutex_unlock(&shard->lock);
	return f;
}

int rp_resident_add(struct rp_pool *pool, rp_addr addr, uint32_t place, rp_frame f, rp_frame *out)
{
	uint64_t hash = mix(addr);
	struct resident_shard *shard = shard_of(pool, hash);
	struct resident_entry *e;
	int error = 0;

	pthread_mutex_lock(&shard->lock);
	if (shard->count >= shard->room / 4 * 3)
		error = shard_grow(pool, shard);
	if (!error) {
		e = &shard->entries[place_find(shard->entries, shard->room, hash, addr)];
		if (e->frame && entry_place(e) == place && rp_frame_get_live(pool, e->frame)) {
			*out = e->frame;
		} else if (e->frame && entry_place(e) != place && atomic_load(&rp_info(pool, e->frame)->refs)) {
			error = -EIO;
		} else {
			/* A dead frame's place is taken over: its removal will find another frame there and leave it. */
			shard->count += e->frame == 0;
			*e = (struct resident_entry){ f, (uint32_t)addr, (uint32_t)(addr >> 32) | place << ADDR_HIGH_BITS };
			*out = f;
		}
	}
	pthread_mutex_unlock(&shard->lock);
	return error;
}

/* Free a place without leaving a gap in the runs that pass over it. */
static void place_free(struct resident_shard *shard, uint32_t i)
{
	uint32_t mask = shard->room - 1, next = i;

	for (;;) {
		next = (next + 1) & mask;
		const struct resident_entry *e = &shard->entries[next];

		if (!e->frame)
			break;
		uint32_t home = (uint32_t)mix(entry_addr(e)) & mask;

		/* It may move to i unless its home lies cyclically in (i, next]. */
		if (((next - home) & mask) >= ((next - i) & mask)) {
			shard->entries[i] = *e;
			i = next;
		}
	}
	shard->entries[i].frame = 0;
	shard->count--;
}

void rp_resident_remove(struct rp_pool *pool, rp_addr addr, rp_frame f)
{
	uint64_t hash = mix(addr);
	struct resident_shard *shard = shard_of(pool, hash);

	pthread_mutex_lock(&shard->lock);
	if (shard->room) {
		uint32_t i = place_find(shard->entries, shard->room, hash, addr);

		if (shard->entries[i].frame == f && f)
			place_free(shard, i);
	}
	pthread_mutex_unlock(&shard->lock);
}

bool rp_resident_walked(struct rp_pool *pool, rp_addr addr, rp_frame f, bool mark)
{
	uint64_t hash = mix(addr);
	struct resident_shard *shard = shard_of(pool, hash);
	bool walked = false;

	pthread_mutex_lock(&shard->lock);
	if (shard->room) {
		struct resident_entry *e = &shard->entries[place_find(shard->entries, shard->room, hash, addr)];

		if (e->frame == f && f) {
			walked = e->addr_high & ENTRY_WALKED;
			if (mark)
				e->addr_high |= ENTRY_WALKED;
		}
	}
	pthread_mutex_unlock(&shard->lock);
	return walked;
}
