/* arena.c: memory for frames: one unlinked file, mapped once, handed out frame by frame and given back to the system in
 * extents of 2 MiB.
 *
 * As root the file lies on a private tmpfs with huge pages that is never attached to any directory; otherwise it is a
 * memfd. First touch of memory costs more than anything that is done with it later, so warm frames go out first: the
 * lowest extent that has memory and a free frame, before any that has none.
 *
 * Frames leave and come in batches under one lock; what is between (a slot's cache) belongs to the slots. Frame 0 is never
 * handed out: 0 means none.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "internal.h"

#define EXTENT_BYTES ((size_t)RP_EXTENT_FRAMES << RP_PAGE_SHIFT)
#define CAPACITY_LEAST (UINT64_C(1) << 28) /* frames: 1 TiB of address space to grow into */
#define CAPACITY_MOST (UINT64_C(0xffffffff) & ~(uint64_t)(RP_EXTENT_FRAMES - 1)) /* a frame number has 32 bits */

/* Warm free extents that are kept: what is freed is often wanted again at once, and first touch is dear. */
#define WARM_EXTENTS_LEAST 4u

/* A tmpfs of our own, huge=always, in no mount namespace's tree; gone with its last file. */
static int open_private_tmpfs(void)
{
	int context = (int)syscall(SYS_fsopen, "tmpfs", 1 /* FSOPEN_CLOEXEC */);
	int mount = -1, file = -1;

	if (context < 0)
		return -errno;
	if (syscall(SYS_fsconfig, context, 1 /* FSCONFIG_SET_STRING */, "huge", "always", 0) == 0 &&
	    syscall(SYS_fsconfig, context, 1, "size", "0", 0) == 0 && /* the pool keeps its own limit */
	    syscall(SYS_fsconfig, context, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) == 0)
		mount = (int)syscall(SYS_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
	if (mount >= 0)
		file = openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	int error = file < 0 ? -errno : 0;

	if (mount >= 0)
		close(mount);
	close(context);
	return file >= 0 ? file : error;
}

static int open_memory(struct rp_arena *arena, bool small_pages)
{
	if (!small_pages && geteuid() == 0) {
		arena->file = open_private_tmpfs();
		if (arena->file >= 0) {
			arena->huge = true;
			arena->kind = "tmpfs huge=always";
			return 0;
		}
	}
	arena->kind = "memfd";
	arena->file = memfd_create("rampool", MFD_CLOEXEC);
	return arena->file < 0 ? -errno : 0;
}

/* Map the file at an address that is a multiple of an extent, so that huge pages can stand behind it. */
static int map_file(struct rp_arena *arena, uint64_t frames)
{
	size_t bytes = (size_t)frames << RP_PAGE_SHIFT;
	uint8_t *space, *base;

	if (ftruncate(arena->file, (off_t)bytes) != 0)
		return -errno;
	space = mmap(NULL, bytes + EXTENT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED)
		return -ENOMEM;
	base = (uint8_t *)(((uintptr_t)space + EXTENT_BYTES - 1) & ~(uintptr_t)(EXTENT_BYTES - 1));
	if (base > space)
		munmap(space, (size_t)(base - space));
	if (base + bytes < space + bytes + EXTENT_BYTES)
		munmap(base + bytes, (size_t)(space + EXTENT_BYTES - base));
	if (mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, arena->file, 0) == MAP_FAILED) {
		munmap(base, bytes);
		return -ENOMEM;
	}
	madvise(base, bytes, MADV_DONTDUMP);
	arena->base = base;
	return 0;
}

static void *map_table(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int map_tables(struct rp_arena *arena)
{
	uint64_t extents = arena->capacity / RP_EXTENT_FRAMES;
	int error;

	arena->frames = map_table(arena->capacity * sizeof(*arena->frames));
	arena->extents = map_table(extents * sizeof(*arena->extents));
	if (!arena->frames || !arena->extents)
		return -ENOMEM;
	error = rp_bitset_init(&arena->partial, extents);
	if (!error)
		error = rp_bitset_init(&arena->empty, extents);
	if (!error)
		error = rp_bitset_init(&arena->released, extents);
	return error;
}

static uint64_t reserve_for(uint64_t limit)
{
	uint64_t reserve = limit / 64;

	return reserve < 32 ? 32 : reserve > 1024 ? 1024 : reserve;
}

int rp_arena_init(struct rp_arena *arena, const struct rp_pool_options *options)
{
	uint64_t limit = options->size_bytes >> RP_PAGE_SHIFT;
	uint64_t least = limit + limit / 8 + 2 * RP_EXTENT_FRAMES;
	uint64_t capacity = limit > CAPACITY_MOST / 16 ? CAPACITY_MOST : limit * 16;
	int error;

	memset(arena, 0, sizeof(*arena));
	arena->file = -1;
	if (limit < 256)
		return -EINVAL;
	if (least > CAPACITY_MOST)
		return -EINVAL;
	error = open_memory(arena, options->small_pages);
	if (error)
		return error;
	if (capacity < CAPACITY_LEAST)
		capacity = CAPACITY_LEAST;
	if (capacity < least)
		capacity = least;
	for (;;) {
		capacity = (capacity + RP_EXTENT_FRAMES - 1) & ~(uint64_t)(RP_EXTENT_FRAMES - 1);
		error = map_file(arena, capacity);
		if (!error || capacity <= least + RP_EXTENT_FRAMES)
			break;
		capacity = capacity / 2 > least ? capacity / 2 : least; /* a limit on address space */
	}
	arena->capacity = capacity;
	if (!error)
		error = map_tables(arena);
	if (!error && options->lock_memory && mlock2(arena->base, capacity << RP_PAGE_SHIFT, MLOCK_ONFAULT) != 0)
		error = -errno;
	arena->limit = limit;
	arena->reserve = reserve_for(limit);
	pthread_mutex_init(&arena->lock, NULL);
	if (error) {
		rp_arena_free(arena);
		return error;
	}
	arena->extents[0].used[0] = 1; /* frame 0 is no frame */
	arena->extents[0].used_count = 1;
	return 0;
}

void rp_arena_free(struct rp_arena *arena)
{
	uint64_t extents = arena->capacity / RP_EXTENT_FRAMES;

	rp_bitset_free(&arena->partial);
	rp_bitset_free(&arena->empty);
	rp_bitset_free(&arena->released);
	if (arena->frames)
		munmap(arena->frames, arena->capacity * sizeof(*arena->frames));
	if (arena->extents)
		munmap(arena->extents, extents * sizeof(*arena->extents));
	if (arena->base)
		munmap(arena->base, (size_t)arena->capacity << RP_PAGE_SHIFT);
	if (arena->file >= 0)
		close(arena->file);
	pthread_mutex_destroy(&arena->lock);
	arena->file = -1;
}

static uint64_t class_limit(const struct rp_arena *arena, enum rp_class class)
{
	uint64_t limit = arena->limit;

	if (class == RP_CLASS_NORMAL)
		return limit > arena->reserve ? limit - arena->reserve : 0;
	if (class == RP_CLASS_OVERDRAFT)
		limit += limit / 8 + RP_EXTENT_FRAMES;
	return limit < arena->capacity - RP_EXTENT_FRAMES ? limit : arena->capacity - RP_EXTENT_FRAMES;
}

static void set_tight(struct rp_arena *arena)
{
	bool tight = arena->taken + RP_CACHE_BATCH * 4 > class_limit(arena, RP_CLASS_NORMAL);

	if (tight != atomic_load_explicit(&arena->tight, memory_order_relaxed))
		atomic_store_explicit(&arena->tight, tight, memory_order_relaxed);
}

bool rp_arena_resize(struct rp_arena *arena, uint64_t limit, uint64_t more, bool force)
{
	pthread_mutex_lock(&arena->lock);
	bool fits = force || limit >= arena->limit || (more < limit && arena->taken + more + reserve_for(limit) <= limit);

	if (fits) {
		arena->limit = limit;
		arena->reserve = reserve_for(limit);
		set_tight(arena);
	}
	pthread_mutex_unlock(&arena->lock);
	return fits;
}

/* An extent with a free frame, made or taken back from the system when no warm one has any. UINT64_MAX: none. */
static uint64_t pick_extent(struct rp_arena *arena)
{
	uint64_t x = rp_bitset_first(&arena->partial);

	if (x != UINT64_MAX)
		return x;
	x = rp_bitset_first(&arena->released);
	if (x != UINT64_MAX)
		rp_bitset_remove(&arena->released, x);
	else if (arena->extents_made < arena->capacity / RP_EXTENT_FRAMES)
		x = arena->extents_made++;
	else
		return UINT64_MAX;
	arena->extents[x].backed = 1;
	rp_bitset_add(&arena->partial, x);
	return x;
}

/* Frames of extent x, lowest first. */
static unsigned take_from(struct rp_arena *arena, uint64_t x, rp_frame *to, unsigned count)
{
	struct rp_extent *extent = &arena->extents[x];
	unsigned done = 0;

	rp_bitset_remove(&arena->empty, x);
	for (unsigned w = 0; w < RP_EXTENT_FRAMES / 64 && done < count; w++) {
		while (done < count && ~extent->used[w]) {
			unsigned bit = (unsigned)__builtin_ctzll(~extent->used[w]);

			extent->used[w] |= UINT64_C(1) << bit;
			to[done++] = (rp_frame)(x * RP_EXTENT_FRAMES + w * 64 + bit);
		}
	}
	extent->used_count += done;
	if (extent->used_count == RP_EXTENT_FRAMES)
		rp_bitset_remove(&arena->partial, x);
	return done;
}

unsigned rp_arena_take(struct rp_arena *arena, enum rp_class class, rp_frame *to, unsigned count)
{
	unsigned done = 0;

	pthread_mutex_lock(&arena->lock);
	uint64_t limit = class_limit(arena, class);

	if (arena->taken >= limit)
		count = 0;
	else if (count > limit - arena->taken)
		count = (unsigned)(limit - arena->taken);
	while (done < count) {
		uint64_t x = pick_extent(arena);

		if (x == UINT64_MAX)
			break;
		done += take_from(arena, x, to + done, count - done);
	}
	arena->taken += done;
	if (arena->taken > arena->taken_high)
		arena->taken_high = arena->taken;
	set_tight(arena);
	pthread_mutex_unlock(&arena->lock);
	return done;
}

/* Take one empty extent out, to be given to the system by the caller; UINT64_MAX: no more than `keep` are there. */
static uint64_t pull_empty_locked(struct rp_arena *arena, uint64_t keep)
{
	uint64_t x;

	if (arena->empty.count <= keep)
		return UINT64_MAX;
	x = rp_bitset_first(&arena->empty);
	rp_bitset_remove(&arena->empty, x);
	rp_bitset_remove(&arena->partial, x);
	return x;
}

void rp_arena_trim(struct rp_arena *arena, uint64_t keep_extents)
{
	for (;;) {
		pthread_mutex_lock(&arena->lock);
		uint64_t x = pull_empty_locked(arena, keep_extents);

		pthread_mutex_unlock(&arena->lock);
		if (x == UINT64_MAX)
			return;
		/* Failure leaves the memory where it is, and the extent as good as before. */
		bool gone = fallocate(arena->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(x * EXTENT_BYTES),
		                      (off_t)EXTENT_BYTES) == 0;

		pthread_mutex_lock(&arena->lock);
		arena->extents[x].backed = !gone;
		rp_bitset_add(&arena->released, x);
		pthread_mutex_unlock(&arena->lock);
	}
}

void rp_arena_give(struct rp_arena *arena, const rp_frame *from, unsigned count)
{
	pthread_mutex_lock(&arena->lock);
	for (unsigned i = 0; i < count; i++) {
		uint64_t x = from[i] / RP_EXTENT_FRAMES;
		unsigned bit = from[i] % RP_EXTENT_FRAMES;
		struct rp_extent *extent = &arena->extents[x];

		extent->used[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
		if (extent->used_count-- == RP_EXTENT_FRAMES)
			rp_bitset_add(&arena->partial, x);
		if (extent->used_count == 0)
			rp_bitset_add(&arena->empty, x);
	}
	arena->taken -= count;
	set_tight(arena);
	uint64_t keep = WARM_EXTENTS_LEAST + (arena->extents_made - arena->released.count) / 8;
	bool surplus = arena->empty.count > 2 * keep;

	pthread_mutex_unlock(&arena->lock);
	if (surplus)
		rp_arena_trim(arena, keep);
}

uint64_t rp_arena_room(struct rp_arena *arena, enum rp_class class)
{
	pthread_mutex_lock(&arena->lock);
	uint64_t limit = class_limit(arena, class);
	uint64_t room = limit > arena->taken ? limit - arena->taken : 0;

	pthread_mutex_unlock(&arena->lock);
	return room;
}

uint64_t rp_arena_resident_bytes(struct rp_arena *arena)
{
	struct stat st;

	return fstat(arena->file, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}
