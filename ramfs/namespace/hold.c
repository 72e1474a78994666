/* hold.c: who outside still names an inode: counts in memory, in a striped hash table that grows as needed.
 *
 * Not part of any page: a count means something only to the process that serves. What it protects is in pages (the orphan
 * list), so that an image whose process died gives everything back at the next start.
 */
#include <stdlib.h>
#include "internal.h"

#define HOLD_BUCKETS_FIRST 8u

static uint64_t hold_mix(rp_object ino)
{
	return ino * UINT64_C(0x9e3779b97f4a7c15);
}

static struct rp_hold_stripe *hold_stripe(struct rp_fs *fs, rp_object ino)
{
	return &fs->holds[hold_mix(ino) >> 56];
}

static struct rp_hold **hold_bucket(const struct rp_hold_stripe *stripe, rp_object ino)
{
	return &stripe->buckets[(hold_mix(ino) >> 20) & (stripe->bucket_count - 1)];
}

static struct rp_hold **hold_find_locked(const struct rp_hold_stripe *stripe, rp_object ino)
{
	struct rp_hold **at = hold_bucket(stripe, ino);

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

/* Twice the buckets. Without memory the chains just grow longer. */
static void hold_grow_locked(struct rp_fs *fs, struct rp_hold_stripe *stripe)
{
	size_t old_count = stripe->bucket_count;
	struct rp_hold **old = stripe->buckets, **new;

	new = rp_fs_allocate(fs, old_count * 2 * sizeof(*new));
	if (!new)
		return;
	stripe->buckets = new;
	stripe->bucket_count = old_count * 2;
	for (size_t i = 0; i < old_count; i++) {
		struct rp_hold *hold = old[i];

		while (hold) {
			struct rp_hold *next = hold->next, **at = hold_bucket(stripe, hold->ino);

			hold->next = *at;
			*at = hold;
			hold = next;
		}
	}
	free(old);
}

int rp_holds_init(struct rp_fs *fs)
{
	static_assert(RP_HOLD_STRIPES == 256, "hold_stripe() takes eight bits");

	for (unsigned i = 0; i < RP_HOLD_STRIPES; i++) {
		struct rp_hold_stripe *stripe = &fs->holds[i];

		stripe->bucket_count = HOLD_BUCKETS_FIRST;
		stripe->buckets = rp_fs_allocate(fs, HOLD_BUCKETS_FIRST * sizeof(*stripe->buckets));
		if (!stripe->buckets) {
			while (i-- > 0) {
				free(fs->holds[i].buckets);
				pthread_mutex_destroy(&fs->holds[i].lock);
			}
			return -ENOMEM;
		}
		pthread_mutex_init(&stripe->lock, NULL);
	}
	return 0;
}

void rp_holds_free(struct rp_fs *fs)
{
	for (unsigned i = 0; i < RP_HOLD_STRIPES; i++) {
		struct rp_hold_stripe *stripe = &fs->holds[i];

		for (size_t b = 0; b < stripe->bucket_count; b++) {
			while (stripe->buckets[b]) {
				struct rp_hold *hold = stripe->buckets[b];

				stripe->buckets[b] = hold->next;
				free(hold);
			}
		}
		free(stripe->buckets);
		pthread_mutex_destroy(&stripe->lock);
	}
}

struct rp_hold *rp_hold_prepare(struct rp_fs *fs)
{
	return rp_fs_allocate(fs, sizeof(struct rp_hold));
}

void rp_hold_add(struct rp_fs *fs, rp_object ino, uint64_t generation, struct rp_hold *spare)
{
	struct rp_hold_stripe *stripe = hold_stripe(fs, ino);
	struct rp_hold **at, *hold;

	pthread_mutex_lock(&stripe->lock);
	at = hold_find_locked(stripe, ino);
	hold = *at;
	if (hold) {
		free(spare);
	} else {
		hold = spare;
		hold->ino = ino;
		hold->next = *at;
		*at = hold;
		if (++stripe->count > stripe->bucket_count)
			hold_grow_locked(fs, stripe);
	}
	if (hold->stale) {
		hold->stale = false;
		atomic_fetch_sub(&fs->stale_count, 1);
	}
	hold->generation = generation;
	hold->count++;
	pthread_mutex_unlock(&stripe->lock);
}

static bool hold_look(struct rp_fs *fs, rp_object ino, uint64_t generation, bool orphan)
{
	struct rp_hold_stripe *stripe = hold_stripe(fs, ino);
	struct rp_hold *hold;
	bool held;

	pthread_mutex_lock(&stripe->lock);
	hold = *hold_find_locked(stripe, ino);
	held = hold && hold->generation == generation;
	if (held)
		hold->orphan |= orphan;
	pthread_mutex_unlock(&stripe->lock);
	return held;
}

bool rp_hold_orphan(struct rp_fs *fs, rp_object ino, uint64_t generation)
{
	return hold_look(fs, ino, generation, true);
}

bool rp_hold_is_held(struct rp_fs *fs, rp_object ino, uint64_t generation)
{
	return hold_look(fs, ino, generation, false);
}

bool rp_hold_is_stale(struct rp_fs *fs, rp_object ino)
{
	struct rp_hold_stripe *stripe = hold_stripe(fs, ino);
	struct rp_hold *hold;
	bool stale;

	pthread_mutex_lock(&stripe->lock);
	hold = *hold_find_locked(stripe, ino);
	stale = hold && hold->stale;
	pthread_mutex_unlock(&stripe->lock);
	return stale;
}

/* ---- Holding and letting go --------------------------------------------------------------------------------------- */

static int hold_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation, uint64_t *is, bool *orphan)
{
	const struct rp_record *record;
	int error = rp_inode_get(op, fs, ino, generation, &record);

	if (error)
		return error;
	*is = record->generation;
	*orphan = rp_record_inode(record)->flags & RP_INODE_ORPHAN;
	return 0;
}

int rp_fs_hold(struct rp_fs *fs, rp_object ino, uint64_t generation)
{
	struct rp_hold *spare = rp_hold_prepare(fs);
	struct rp_locks locks;
	struct rp_op op;
	bool orphan = false;
	uint64_t is = 0;
	int error;

	if (!spare)
		return -ENOMEM;
	rp_locks_take_one(fs, &locks, ino, false);
	RP_RUN(op, fs, RP_OP_READ, error, hold_work(&op, fs, ino, generation, &is, &orphan));
	if (error)
		free(spare);
	else
		rp_hold_add(fs, ino, is, spare);
	if (!error && orphan)
		rp_hold_orphan(fs, ino, is);
	rp_locks_drop(&locks);
	return error;
}

static int last_hold_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t generation)
{
	const struct rp_record *record;
	int error = rp_record_get(op, fs->tree, ino, generation, &record);

	/* Gone, or a rollback made it another one: nothing of ours is left. */
	if (error == -ENOENT || error == -ESTALE)
		return 0;
	if (error)
		return error;
	if (!(rp_record_inode(record)->flags & RP_INODE_ORPHAN) || rp_hold_is_held(fs, ino, generation))
		return 0;
	error = rp_orphan_remove(op, fs, ino);
	if (error)
		return error;
	return rp_inode_destroy(op, fs, ino, record);
}

static void hold_last(struct rp_fs *fs, rp_object ino, uint64_t generation)
{
	struct rp_lock_want want = { ino, true };
	struct rp_locks locks = { .orphans_wanted = true };
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return;
	rp_locks_take(fs, &locks, &want, 1);
	RP_RUN(op, fs, RP_OP_RESERVE, error, last_hold_work(&op, fs, ino, generation));
	rp_locks_drop(&locks);
	/* It stays in the list of inodes without a name: the next start tries again. */
	if (error)
		rp_fs_log(fs, "inode %llu without a name could not be removed: %s", (unsigned long long)ino, strerror(-error));
}

void rp_fs_release(struct rp_fs *fs, rp_object ino, uint64_t count)
{
	struct rp_hold_stripe *stripe = hold_stripe(fs, ino);
	struct rp_hold **at, *hold, *gone = NULL;

	pthread_mutex_lock(&stripe->lock);
	at = hold_find_locked(stripe, ino);
	hold = *at;
	if (hold) {
		hold->count -= count < hold->count ? count : hold->count;
		if (hold->count == 0) {
			gone = hold;
			*at = hold->next;
			stripe->count--;
			if (hold->stale)
				atomic_fetch_sub(&fs->stale_count, 1);
		}
	}
	pthread_mutex_unlock(&stripe->lock);
	if (gone && gone->orphan && !gone->stale)
		hold_last(fs, ino, gone->generation);
	free(gone);
}

/* ---- After a rollback ----------------------------------------------------------------------------------------------- */

static int stale_work(struct rp_op *op, struct rp_fs *fs, const struct rp_hold *hold, bool *stale, bool *orphan)
{
	const struct rp_record *record;
	int error = rp_record_get(op, fs->tree, hold->ino, hold->generation, &record);

	*stale = error == -ENOENT || error == -ESTALE;
	*orphan = !error && rp_record_inode(record)->flags & RP_INODE_ORPHAN;
	return *stale ? 0 : error;
}

/* One stripe: its holds are copied out, because operations are not begun under a lock that others take inside of them. */
static int stripe_check_stale(struct rp_fs *fs, struct rp_hold_stripe *stripe)
{
	struct rp_hold *copy;
	size_t count = 0, room;
	int error = 0;

	pthread_mutex_lock(&stripe->lock);
	room = stripe->count;
	copy = room ? rp_fs_allocate(fs, room * sizeof(*copy)) : NULL;
	for (size_t b = 0; copy && b < stripe->bucket_count; b++)
		for (const struct rp_hold *hold = stripe->buckets[b]; hold; hold = hold->next)
			copy[count++] = *hold;
	pthread_mutex_unlock(&stripe->lock);
	if (room && !copy)
		return -ENOMEM;
	for (size_t i = 0; i < count && !error; i++) {
		bool stale = false, orphan = false;
		struct rp_hold *hold;
		struct rp_op op;

		RP_RUN(op, fs, RP_OP_READ, error, stale_work(&op, fs, &copy[i], &stale, &orphan));
		if (error)
			break;
		pthread_mutex_lock(&stripe->lock);
		hold = *hold_find_locked(stripe, copy[i].ino);
		if (hold && hold->generation == copy[i].generation) {
			hold->orphan |= orphan;
			if (stale != hold->stale)
				atomic_fetch_add(&fs->stale_count, stale ? 1 : (uint64_t)-1);
			hold->stale = stale;
		}
		pthread_mutex_unlock(&stripe->lock);
	}
	free(copy);
	return error;
}

int rp_holds_check_stale(struct rp_fs *fs)
{
	int error = 0;

	for (unsigned i = 0; i < RP_HOLD_STRIPES && !error; i++)
		error = stripe_check_stale(fs, &fs->holds[i]);
	return error;
}
