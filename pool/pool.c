/* pool.c: a pool's beginning and end, its hooks, its numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include "internal.h"

static void *default_allocate(void *context, size_t size)
{
	(void)context;
	return calloc(1, size);
}

static void default_now(void *context, int64_t *sec, uint32_t *nsec)
{
	struct timespec t;

	(void)context;
	clock_gettime(CLOCK_REALTIME_COARSE, &t); /* as file systems of the kernel: a tick is fine enough, and cheap */
	*sec = t.tv_sec;
	*nsec = (uint32_t)t.tv_nsec;
}

static void default_random(void *context, void *to, size_t size)
{
	(void)context;
	for (size_t done = 0; done < size;) {
		ssize_t n = getrandom((uint8_t *)to + done, size - done, 0);

		if (n > 0)
			done += (size_t)n;
	}
}

static void default_log(void *context, const char *line)
{
	(void)context;
	fprintf(stderr, "rampool: %s\n", line);
}

static void set_hooks(struct rp_pool *pool, const struct rp_hooks *hooks)
{
	if (hooks)
		pool->hooks = *hooks;
	if (!pool->hooks.allocate)
		pool->hooks.allocate = default_allocate;
	if (!pool->hooks.now)
		pool->hooks.now = default_now;
	if (!pool->hooks.random)
		pool->hooks.random = default_random;
	if (!pool->hooks.log)
		pool->hooks.log = default_log;
}

static int init_locks(struct rp_pool *pool)
{
	pthread_mutex_init(&pool->numbers_lock, NULL);
	pthread_mutex_init(&pool->catalog_lock, NULL);
	pthread_mutex_init(&pool->held_lock, NULL);
	pool->shapes = calloc(RP_SHAPE_LOCKS, sizeof(*pool->shapes));
	if (!pool->shapes)
		return -ENOMEM;
	for (unsigned i = 0; i < RP_SHAPE_LOCKS; i++)
		pthread_rwlock_init(&pool->shapes[i], NULL);
	return 0;
}

/* A pool without content: arena, gate, locks, reclaimer. */
static int pool_new(const struct rp_pool_options *options, struct rp_pool **out)
{
	struct rp_pool *pool = aligned_alloc(64, (sizeof(*pool) + 63) & ~(size_t)63);
	int error;

	if (!pool)
		return -ENOMEM;
	memset(pool, 0, sizeof(*pool));
	set_hooks(pool, options->hooks);
	pool->live.live = true;
	atomic_store(&pool->epoch, 1);
	pool->named_id_next = 1;
	error = rp_arena_init(&pool->arena, options);
	if (error) {
		free(pool);
		return error;
	}
	error = init_locks(pool);
	if (!error)
		error = rp_gate_init(pool);
	if (!error)
		error = rp_reclaimer_start(pool);
	if (error) {
		rp_pool_destroy(pool);
		return error;
	}
	*out = pool;
	return 0;
}

static int set_label(struct rp_pool *pool, const char *label)
{
	if (!label)
		return 0;
	if (strlen(label) > 32)
		return -EINVAL;
	strcpy(pool->label, label);
	return 0;
}

int rp_pool_create(const struct rp_pool_options *options, struct rp_pool **out)
{
	struct rp_pool *pool;
	int error;

	if (options->size_bytes < 1 << 20 || options->size_bytes > INT64_MAX || (options->label && strlen(options->label) > 32))
		return -EINVAL;
	error = pool_new(options, &pool);
	if (error)
		return error;
	set_label(pool, options->label);
	if (options->uuid) {
		memcpy(pool->uuid, options->uuid, sizeof(pool->uuid));
	} else {
		pool->hooks.random(pool->hooks.context, pool->uuid, sizeof(pool->uuid));
		pool->uuid[6] = (pool->uuid[6] & 0x0f) | 0x40; /* RFC 9562: version 4, variant 10 */
		pool->uuid[8] = (pool->uuid[8] & 0x3f) | 0x80;
	}
	error = rp_objects_format(pool, options);
	if (error) {
		rp_pool_destroy(pool);
		return error;
	}
	*out = pool;
	return 0;
}

int rp_pool_restore(const struct rp_pool_options *options, const struct rp_pool_restored *restored,
                    const struct rp_source *source, struct rp_pool **out)
{
	struct rp_pool_options with_size = *options;
	struct rp_pool *pool;
	int error;

	if (!with_size.size_bytes)
		with_size.size_bytes = restored->size_bytes;
	if (with_size.size_bytes < 1 << 20 || with_size.size_bytes > INT64_MAX)
		return -EINVAL;
	error = pool_new(&with_size, &pool);
	if (error)
		return error;
	memcpy(pool->uuid, restored->uuid, sizeof(pool->uuid));
	memcpy(pool->label, restored->label, sizeof(restored->label));
	atomic_store(&pool->live.root, restored->root);
	atomic_store(&pool->catalog, restored->catalog);
	atomic_store(&pool->epoch, restored->epoch);
	atomic_store(&pool->unread, restored->page_total);
	error = rp_resident_init(pool);
	if (error) {
		rp_pool_destroy(pool);
		return error;
	}
	pool->source = *source;
	*out = pool;
	return 0;
}

void rp_pool_source_set(struct rp_pool *pool, const struct rp_source *source)
{
	struct rp_op op;
	int error = 0;

	rp_gate_close(&op, pool, 0);
	if (source)
		pool->source = *source;
	else
		memset(&pool->source, 0, sizeof(pool->source));
	rp_gate_open(&op, false, &error);
}

void rp_pool_commit_begin(struct rp_pool *pool) { atomic_fetch_add(&pool->commits, 1); }

void rp_pool_commit_end(struct rp_pool *pool) { atomic_fetch_sub(&pool->commits, 1); }

void rp_pool_destroy(struct rp_pool *pool)
{
	if (!pool)
		return;
	rp_reclaimer_stop(pool);
	if (pool->resident)
		rp_resident_free(pool);
	rp_gate_free(pool);
	if (pool->shapes)
		for (unsigned i = 0; i < RP_SHAPE_LOCKS; i++)
			pthread_rwlock_destroy(&pool->shapes[i]);
	free(pool->shapes);
	free(pool->named);
	pthread_mutex_destroy(&pool->numbers_lock);
	pthread_mutex_destroy(&pool->catalog_lock);
	pthread_mutex_destroy(&pool->held_lock);
	rp_arena_free(&pool->arena);
	free(pool);
}

static void count_objects(struct rp_pool *pool, struct rp_pool_status *out)
{
	const struct rp_header *header;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_header_get(&op, &pool->live, &header);
		if (!error) {
			out->object_count = __atomic_load_n(&header->object_count, __ATOMIC_RELAXED);
			out->object_limit = header->object_limit;
		}
	} while (rp_op_end(&op, &error));
}

void rp_pool_status(struct rp_pool *pool, struct rp_pool_status *out)
{
	struct rp_arena *arena = &pool->arena;
	uint64_t cached = 0;

	memset(out, 0, sizeof(*out));
	count_objects(pool, out);
	rp_pool_reclaim(pool); /* what is deleted counts as free as soon as nobody can see it */
	pthread_mutex_lock(&arena->lock);
	out->size_bytes = arena->limit << RP_PAGE_SHIFT;
	out->frame_limit = arena->limit;
	out->frame_reserve = arena->reserve;
	out->frame_used = arena->taken;
	out->frame_high = arena->taken_high;
	pthread_mutex_unlock(&arena->lock);
	for (unsigned i = 0; i < RP_SLOT_COUNT; i++)
		cached += __atomic_load_n(&pool->slots[i].cached, __ATOMIC_RELAXED);
	out->frame_used -= cached < out->frame_used ? cached : out->frame_used;
	pthread_mutex_lock(&pool->catalog_lock);
	out->snapshot_count = pool->named_count;
	pthread_mutex_unlock(&pool->catalog_lock);
	out->epoch = atomic_load(&pool->epoch);
	out->arena_bytes = rp_arena_resident_bytes(arena);
	out->huge_pages = arena->huge;
	out->arena_kind = arena->kind;
	out->gate_closed_max_ns = atomic_load(&pool->gate_closed_max_ns);
	out->gate_closings = atomic_load(&pool->gate_closings);
	uint64_t addressed = atomic_load(&pool->addressed);

	out->dirty_frames = out->frame_used > addressed ? out->frame_used - addressed : 0;
	out->unread_pages = atomic_load(&pool->unread);
	memcpy(out->uuid, pool->uuid, sizeof(out->uuid));
	memcpy(out->label, pool->label, sizeof(out->label));
}

/* Arena and header, both or neither. The arena first: growing must be possible when not a frame is left. */
static int resize(struct rp_op *op, uint64_t limit)
{
	struct rp_arena *arena = &op->pool->arena;
	uint64_t before = arena->limit;
	struct rp_header *header;
	int error;

	/* What was not read in yet will come. */
	if (!rp_arena_resize(arena, limit, atomic_load(&op->pool->unread), false)) {
		op->starved = true; /* what is on its way back may be missing: alone, all of it is here */
		return -ENOSPC;
	}
	error = rp_header_edit(op, offsetof(struct rp_header, size_bytes), 8, &header);
	if (error)
		rp_arena_resize(arena, before, 0, true);
	else
		header->size_bytes = limit << RP_PAGE_SHIFT;
	return error;
}

int rp_pool_resize(struct rp_pool *pool, uint64_t size_bytes)
{
	uint64_t limit = size_bytes >> RP_PAGE_SHIFT;
	struct rp_op op;
	int error;

	if (limit < 256)
		return -EINVAL;
	if (limit + limit / 8 + 2 * RP_EXTENT_FRAMES > pool->arena.capacity)
		return -ENOMEM;
	do {
		rp_gate_close(&op, pool, RP_OP_RESERVE);
		error = resize(&op, limit);
	} while (rp_gate_open(&op, false, &error));
	return error;
}

void rp_pool_trim(struct rp_pool *pool)
{
	rp_pool_reclaim(pool);
	rp_arena_trim(&pool->arena, 0);
}

struct rp_tree *rp_pool_live(struct rp_pool *pool) { return &pool->live; }

const struct rp_hooks *rp_pool_hooks(struct rp_pool *pool) { return &pool->hooks; }

uint64_t rp_pool_tree_id(struct rp_pool *pool) { return atomic_load(&pool->tree_id); }
