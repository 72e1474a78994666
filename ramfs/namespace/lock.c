/* lock.c: the striped locks of inodes, several at a time. See internal.h for what they guard and their order. */
#include <stdlib.h>
#include "internal.h"

static unsigned stripe_of(rp_object ino)
{
	return (unsigned)((ino * UINT64_C(0x9e3779b97f4a7c15)) >> 54) % RP_LOCK_STRIPES;
}

static void locks_free(struct rp_fs *fs, unsigned inodes, unsigned times)
{
	while (times > 0)
		pthread_mutex_destroy(&fs->times[--times]);
	while (inodes > 0)
		pthread_rwlock_destroy(&fs->inodes[--inodes].lock);
	pthread_mutex_destroy(&fs->orphans);
	pthread_mutex_destroy(&fs->limit);
	pthread_mutex_destroy(&fs->renames);
}

/* Readers must not keep a writer out for ever, so the stripes prefer writers: no thread takes one twice. */
int rp_fs_locks_init(struct rp_fs *fs)
{
	pthread_rwlockattr_t attributes;
	unsigned inodes, times = 0;
	int error = 0;

	if (pthread_rwlockattr_init(&attributes))
		return -ENOMEM;
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_mutex_init(&fs->renames, NULL);
	pthread_mutex_init(&fs->limit, NULL);
	pthread_mutex_init(&fs->orphans, NULL);
	for (inodes = 0; inodes < RP_LOCK_STRIPES && !error; inodes++)
		error = pthread_rwlock_init(&fs->inodes[inodes].lock, &attributes);
	for (; times < RP_TIMES_STRIPES && !error; times++)
		error = pthread_mutex_init(&fs->times[times], NULL);
	pthread_rwlockattr_destroy(&attributes);
	if (!error)
		return 0;
	/* The last one tried was not made. */
	locks_free(fs, times ? inodes : inodes - 1, times ? times - 1 : 0);
	return -error;
}

void rp_fs_locks_free(struct rp_fs *fs)
{
	locks_free(fs, RP_LOCK_STRIPES, RP_TIMES_STRIPES);
}

static void stripe_lock(struct rp_fs *fs, unsigned stripe, bool exclusive)
{
	if (exclusive)
		pthread_rwlock_wrlock(&fs->inodes[stripe].lock);
	else
		pthread_rwlock_rdlock(&fs->inodes[stripe].lock);
}

static void locks_note(struct rp_locks *locks, unsigned at, unsigned stripe, bool exclusive)
{
	memmove(&locks->held[at + 1], &locks->held[at], (locks->count - at) * sizeof(locks->held[0]));
	locks->held[at].stripe = stripe;
	locks->held[at].exclusive = exclusive;
	locks->count++;
}

void rp_locks_take(struct rp_fs *fs, struct rp_locks *locks, const struct rp_lock_want *wants, unsigned count)
{
	locks->fs = fs;
	locks->count = 0;
	for (unsigned i = 0; i < count; i++) {
		unsigned stripe, at = 0;

		if (wants[i].ino == 0)
			continue;
		stripe = stripe_of(wants[i].ino);
		while (at < locks->count && locks->held[at].stripe < stripe)
			at++;
		if (at < locks->count && locks->held[at].stripe == stripe)
			locks->held[at].exclusive |= wants[i].exclusive;
		else
			locks_note(locks, at, stripe, wants[i].exclusive);
	}
	for (unsigned i = 0; i < locks->count; i++)
		stripe_lock(fs, locks->held[i].stripe, locks->held[i].exclusive);
	locks->orphans = locks->orphans_wanted;
	if (locks->orphans)
		pthread_mutex_lock(&fs->orphans);
}

void rp_locks_take_one(struct rp_fs *fs, struct rp_locks *locks, rp_object ino, bool exclusive)
{
	locks->fs = fs;
	locks->count = 1;
	locks->held[0].stripe = stripe_of(ino);
	locks->held[0].exclusive = exclusive;
	locks->orphans = false;
	locks->orphans_wanted = false;
	stripe_lock(fs, locks->held[0].stripe, exclusive);
}

int rp_locks_try(struct rp_locks *locks, rp_object ino, bool exclusive)
{
	unsigned stripe = stripe_of(ino);
	pthread_rwlock_t *lock = &locks->fs->inodes[stripe].lock;

	for (unsigned i = 0; i < locks->count; i++)
		if (locks->held[i].stripe == stripe)
			return locks->held[i].exclusive || !exclusive ? 0 : -ERESTART;
	if (locks->count == sizeof(locks->held) / sizeof(locks->held[0]))
		return -ERESTART;
	if (exclusive ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock))
		return -ERESTART;
	locks_note(locks, locks->count, stripe, exclusive);
	return 0;
}

int rp_locks_try_orphans(struct rp_locks *locks)
{
	if (locks->orphans)
		return 0;
	if (pthread_mutex_trylock(&locks->fs->orphans)) {
		locks->orphans_wanted = true;
		return -ERESTART;
	}
	locks->orphans = true;
	return 0;
}

void rp_locks_drop(struct rp_locks *locks)
{
	if (locks->orphans)
		pthread_mutex_unlock(&locks->fs->orphans);
	locks->orphans = false;
	while (locks->count > 0)
		pthread_rwlock_unlock(&locks->fs->inodes[locks->held[--locks->count].stripe].lock);
}
