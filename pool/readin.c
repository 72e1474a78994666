/* readin.c: bringing blocks back into memory: one when it is asked for, all of them in the background.
 *
 * A block is read, verified, put into a frame and entered in the resident index before anybody sees it; the loser of a race
 * gives his frame back. What is damaged stays absent and gives -EIO each time: an absent entry never turns into zeroes.
 *
 * Reading everything goes in rounds of a few dozen milliseconds. A round takes a snapshot, which keeps the pages it walks in
 * place, and resolves absent entries in it. Live pages that were copied meanwhile keep their absent entries until the next
 * round, which finds the blocks in memory already; pages below which all is present are marked in the resident index and
 * skipped. What is damaged is read once in a run of rounds, and pages below which only that is absent are passed over in it:
 * otherwise a round could spend its time on what the one before found damaged, for ever, and a file made to do harm could
 * have the same damage reached in 512^6 ways. Rounds are short because what a snapshot freezes costs frames. A round that meets no
 * absent entry in the live tree, the catalog and all held snapshots ends it: nothing absent can come back, because copies are made
 * of what is there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "image_state.h"

#define ROUND_MS 40
#define WINDOW_SIZE (256u << 10)
#define RETRY_MS 200
#define LOG_ALL 16 /* damaged blocks told one by one; then only each power of two */

/* ---- One block ------------------------------------------------------------------------------------------------------- */

void rp_image_damage_note(struct rp_image *image, rp_addr addr, const char *why)
{
	uint64_t count;
	bool known;

	pthread_mutex_lock(&image->damaged_lock);
	known = rp_addrmap_get(&image->damaged_set, addr, NULL);
	if (rp_addrmap_put(&image->damaged_set, addr, atomic_load(&image->reading_run)) == 0 && !known)
		atomic_fetch_add(&image->damaged, 1);
	pthread_mutex_unlock(&image->damaged_lock);
	count = atomic_load(&image->damaged);
	if (!known && (count <= LOG_ALL || (count & (count - 1)) == 0))
		rp_image_log(&image->hooks, "%s: damaged: the block at byte %" PRIu64 ": %s (%" PRIu64 " in all)",
		             image->store->path, rp_addr_offset(addr), why, count);
}

/* As what, and where, a block is named. */
struct named {
	unsigned kind;
	uint32_t place;
};

static int named_wrong(struct rp_image *image, rp_addr addr, const char *why)
{
	rp_image_damage_note(image, addr, why);
	return -EIO;
}

/* Take a frame, give it the page, enter it. */
static int frame_enter(struct rp_image *image, rp_addr addr, const struct named *named, uint64_t birth, const void *page,
                       rp_frame *out)
{
	struct rp_pool *pool = image->pool;
	rp_frame f, entered;
	int error = rp_frame_take_outside(pool, named->kind, birth, addr, &f);

	if (error)
		return error;
	if (page)
		rp_page_copy(rp_bytes(pool, f), page);
	else
		rp_page_zero(rp_bytes(pool, f));
	error = addr ? rp_resident_add(pool, addr, named->place, f, &entered) : 0;
	if (addr && !error && entered == f) {
		uint64_t unread = atomic_load(&pool->unread);

		/* The count is an estimate; only a round that finds nothing absent makes it 0. */
		while (unread > 1 && !rp_addr_is_zero_page(addr) &&
		       !atomic_compare_exchange_weak(&pool->unread, &unread, unread - 1))
			;
	} else if (addr) {
		rp_frame_addr_set(pool, f, 0);
		rp_frame_put_outside(pool, f);
		f = error ? 0 : entered;
	}
	*out = f;
	return error == -EIO ? named_wrong(image, addr, "named in two places") : error;
}

static int block_read(struct rp_image *image, struct rp_reader *reader, rp_addr addr, const struct named *named, rp_frame *out)
{
	uint64_t page[RP_PAGE_SIZE / 8] __attribute__((aligned(64)));
	struct rp_block_info info;
	const char *why;
	int error = rp_store_read(image->store, reader, addr, named->kind, page, &info, &why);

	if (!error && info.birth >= image->epoch_limit) {
		why = "born after the commit that names it";
		error = -EIO;
	}
	if (!error)
		return frame_enter(image, addr, named, info.birth, page, out);
	if (error == -EIO)
		rp_image_damage_note(image, addr, why);
	return error;
}

static int fetch_with(struct rp_image *image, struct rp_reader *reader, rp_addr addr, const struct named *named, rp_frame *out)
{
	uint32_t place = 0;
	rp_frame f = rp_resident_get(image->pool, addr, &place);

	if (f) {
		bool kind_right = rp_frame_kind(image->pool, f) == named->kind;

		*out = f;
		if (kind_right && place == named->place)
			return 0;
		rp_frame_put_outside(image->pool, f);
		return named_wrong(image, addr, kind_right ? "named in two places" : "named as what it is not");
	}
	if (rp_addr_is_zero_page(addr)) {
		if (addr == named->kind)
			return frame_enter(image, addr, named, 0, NULL, out);
		return named_wrong(image, addr, "a page of zeroes is named where something else belongs");
	}
	/* Nothing is absent any more: whoever asks saw the entry before it was resolved, and looks again with any answer. */
	if (atomic_load(&image->complete))
		return frame_enter(image, 0, &(struct named){ RP_KIND_META, 0 }, 0, NULL, out);
	return block_read(image, reader, addr, named, out);
}

int rp_image_fetch(void *context, rp_addr addr, unsigned kind, uint32_t place, rp_frame *out)
{
	const struct named named = { kind, place };
	struct rp_image *image = context;
	struct rp_reader *reader;
	int error = -ENOMEM;

	pthread_rwlock_rdlock(&image->store_lock);
	reader = rp_reader_claim(image->store, 0);
	if (reader) {
		error = fetch_with(image, reader, addr, &named, out);
		rp_reader_release(image->store, reader);
	}
	pthread_rwlock_unlock(&image->store_lock);
	return error;
}

/* ---- All of them ----------------------------------------------------------------------------------------------------- */

struct round {
	struct rp_image *image;
	struct rp_reader *reader;
	uint64_t deadline_ns;
	unsigned ticks;
	uint64_t absent;   /* entries that were */
	uint64_t damaged;  /* entries that stay so */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int deadline_check(struct round *r)
{
	/* Always some progress: the clock is first looked at after 64 entries. */
	if (++r->ticks % 64 == 0 && now_ns() > r->deadline_ns)
		return -EAGAIN;
	return 0;
}

/* Was this found damaged in this run of rounds? */
static bool damage_is_known(struct rp_image *image, rp_addr addr)
{
	uint64_t run = 0;
	bool known;

	pthread_mutex_lock(&image->damaged_lock);
	known = rp_addrmap_get(&image->damaged_set, addr, &run) && run == atomic_load(&image->reading_run);
	pthread_mutex_unlock(&image->damaged_lock);
	return known;
}

/* The entry becomes a frame's. *e: as it is now; still absent when it is damaged. */
static int entry_bring(struct round *r, _Atomic rp_entry *where, const struct rp_spot *spot, rp_entry *e)
{
	const struct named named = { spot->kind, rp_spot_place(spot) };
	struct rp_pool *pool = r->image->pool;

	while (rp_entry_is_addr(*e)) {
		rp_entry made;
		rp_frame f;
		int error = fetch_with(r->image, r->reader, rp_entry_addr(*e), &named, &f);

		r->absent++;
		if (error == -EIO) {
			r->damaged++;
			return 0;
		}
		if (error)
			return error;
		made = rp_entry_from_frame(f, rp_entry_height(*e));
		if (atomic_compare_exchange_strong(where, e, made))
			*e = made;
		else
			rp_frame_put_outside(pool, f);
	}
	return 0;
}

static int entry_walk(struct round *r, _Atomic rp_entry *where, const struct rp_spot *spot);

static int page_walk(struct round *r, rp_frame f, const struct rp_spot *spot)
{
	struct rp_pool *pool = r->image->pool;
	struct rp_children children = rp_children_of(spot->kind);
	rp_addr addr = rp_frame_addr(pool, f);
	uint64_t damaged = r->damaged, absent = r->absent, run = 0;

	if (!children.count || (addr && rp_resident_walked(pool, addr, f, false)))
		return 0;
	if (addr && rp_addrmap_get(&r->image->spoilt_set, addr, &run) && run == atomic_load(&r->image->reading_run)) {
		r->absent++;
		r->damaged++;
		return 0;
	}
	for (unsigned i = 0; i < children.count; i++) {
		unsigned word = children.first + i * children.step;
		_Atomic rp_entry *where = &rp_node(pool, f)[word];
		struct rp_spot child;
		int error;

		if (!atomic_load_explicit(where, memory_order_relaxed))
			continue;
		child = rp_children_spot(spot, rp_bytes(pool, f), word);
		error = entry_walk(r, where, &child);
		if (error)
			return error;
	}
	if (addr && r->damaged == damaged)
		rp_resident_walked(pool, addr, f, true);
	else if (addr && r->absent - absent == r->damaged - damaged)
		return rp_addrmap_put(&r->image->spoilt_set, addr, atomic_load(&r->image->reading_run));
	return 0;
}

static int entry_walk(struct round *r, _Atomic rp_entry *where, const struct rp_spot *spot)
{
	rp_entry e = atomic_load_explicit(where, memory_order_acquire);
	int error = 0;

	if (rp_entry_is_addr(e) && damage_is_known(r->image, rp_entry_addr(e))) {
		r->absent++;
		r->damaged++;
	} else if (rp_entry_is_addr(e)) {
		error = deadline_check(r);
		if (!error)
			error = entry_bring(r, where, spot, &e);
	}
	if (error || !rp_entry_is_frame(e))
		return error;
	return page_walk(r, rp_entry_frame(e), spot);
}

static int root_walk(struct round *r, _Atomic rp_entry *root, unsigned leaf)
{
	struct rp_spot spot = rp_root_spot(atomic_load(root), leaf);

	return entry_walk(r, root, &spot);
}

/* The first snapshot from `at` on that is not just being dropped, referenced; held_lock held. */
static struct rp_snapshot *held_get(struct rp_snapshot *at)
{
	for (; at; at = at->next) {
		unsigned refs = atomic_load(&at->refs);

		while (refs)
			if (atomic_compare_exchange_weak(&at->refs, &refs, refs + 1))
				return at;
	}
	return NULL;
}

/* All snapshots anybody holds. One that is referenced stays in the list, so its neighbour can be found from it. The
 * catalogs of these need no walk: what they name that the live one does not was resolved before it could be dropped, or is
 * named by a snapshot that is held itself. */
static int held_walk(struct round *r)
{
	struct rp_pool *pool = r->image->pool;
	struct rp_snapshot *at;
	int error = 0;

	pthread_mutex_lock(&pool->held_lock);
	at = held_get(pool->snapshots);
	pthread_mutex_unlock(&pool->held_lock);
	while (at) {
		struct rp_snapshot *next;

		if (!error)
			error = root_walk(r, &at->tree.root, RP_KIND_TABLE);
		if (!error && rp_entry_is_frame(at->catalog)) {
			_Atomic rp_entry catalog = at->catalog;

			error = root_walk(r, &catalog, RP_KIND_CATALOG);
		}
		pthread_mutex_lock(&pool->held_lock);
		next = held_get(at->next);
		pthread_mutex_unlock(&pool->held_lock);
		rp_snapshot_put(at);
		at = next;
	}
	return error;
}

/* Have the roots of the live trees in memory, so that the snapshot of a round names frames. */
static int roots_bring(struct rp_pool *pool)
{
	const struct rp_header *header;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_header_get(&op, &pool->live, &header);
	} while (rp_op_end(&op, &error));
	return error;
}

static int round_run(struct round *r)
{
	struct rp_pool *pool = r->image->pool;
	struct rp_snapshot *snapshot;
	int error = rp_snapshot_take(pool, &snapshot);

	if (error)
		return error;
	/* The one just taken is among them. */
	error = held_walk(r);
	rp_snapshot_put(snapshot);
	return error;
}

int rp_image_read_round(struct rp_image *image, unsigned budget_ms)
{
	struct round r = { .image = image };
	int error;

	if (atomic_load(&image->complete))
		return 0;
	error = roots_bring(image->pool);
	if (error)
		return error;
	pthread_mutex_lock(&image->reading_lock);
	pthread_rwlock_rdlock(&image->store_lock);
	r.deadline_ns = now_ns() + (uint64_t)budget_ms * 1000000u;
	r.reader = rp_reader_claim(image->store, WINDOW_SIZE);
	error = -ENOMEM;
	if (r.reader) {
		rp_pool_commit_begin(image->pool);
		error = round_run(&r);
		rp_pool_commit_end(image->pool);
		rp_reader_release(image->store, r.reader);
	}
	if (!error && !r.absent) {
		atomic_store(&image->pool->unread, 0);
		atomic_store(&image->complete, true);
	} else if (!error) {
		error = r.absent > r.damaged ? -EAGAIN : -EIO;
	}
	pthread_rwlock_unlock(&image->store_lock);
	pthread_mutex_unlock(&image->reading_lock);
	return error;
}

int rp_image_read_all(struct rp_image *image)
{
	int error;

	atomic_fetch_add(&image->reading_run, 1);
	do {
		error = rp_image_read_round(image, ROUND_MS);
	} while (error == -EAGAIN);
	return error;
}

/* ---- The thread ------------------------------------------------------------------------------------------------------ */

static void compact_in_background(struct rp_image *image)
{
	int error;

	rp_image_role_take(image);
	error = rp_image_compact_run(image);
	rp_image_role_give(image);
	if (error && error != -EAGAIN)
		rp_image_log(&image->hooks, "%s: compaction failed: %s (nothing is lost)", image->path, strerror(-error));
}

static void worker_wait(struct rp_image *image, unsigned ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&image->wanted, &image->lock, &until);
}

static void *worker_main(void *context)
{
	struct rp_image *image = context;
	int reading = -EAGAIN;

	pthread_mutex_lock(&image->lock);
	while (!image->stop) {
		bool compact = image->compact_wanted && reading == 0;

		if (compact)
			image->compact_wanted = false;
		if (reading == -EAGAIN || compact) {
			pthread_mutex_unlock(&image->lock);
			if (compact)
				compact_in_background(image);
			else
				reading = rp_image_read_round(image, ROUND_MS);
			pthread_mutex_lock(&image->lock);
		} else if (reading == -ENOSPC || reading == -ENOMEM) {
			worker_wait(image, RETRY_MS);
			reading = -EAGAIN;
		} else {
			pthread_cond_wait(&image->wanted, &image->lock);
		}
	}
	pthread_mutex_unlock(&image->lock);
	return NULL;
}

int rp_image_worker_start(struct rp_image *image)
{
	int error = pthread_create(&image->worker, NULL, worker_main, image);

	image->worker_runs = error == 0;
	return -error;
}

void rp_image_worker_stop(struct rp_image *image)
{
	if (!image->worker_runs)
		return;
	pthread_mutex_lock(&image->lock);
	image->stop = true;
	pthread_cond_broadcast(&image->wanted);
	pthread_mutex_unlock(&image->lock);
	pthread_join(image->worker, NULL);
	image->worker_runs = false;
}
