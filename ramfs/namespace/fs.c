/* fs.c: a filesystem's beginning and end, and its numbers.
 *
 * What lives in the heap is locks, holds and copies of numbers; the filesystem itself stands in the pool's pages.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "internal.h"

#define RP_HEADER_FIELD(field) (offsetof(struct rp_header, user) + offsetof(struct rp_fs_header, field))

static const struct rp_fs_header *fs_header(const struct rp_header *header)
{
	return (const struct rp_fs_header *)header->user;
}

void *rp_fs_allocate(struct rp_fs *fs, size_t size)
{
	const struct rp_hooks *hooks = rp_pool_hooks(fs->pool);

	return hooks && hooks->allocate ? hooks->allocate(hooks->context, size) : calloc(1, size);
}

/* The coarse clock, as the kernel stamps its own files with: a file written later never looks older than one that the
 * kernel stamped in between. */
struct rp_time rp_fs_now(struct rp_fs *fs)
{
	const struct rp_hooks *hooks = rp_pool_hooks(fs->pool);
	struct rp_time now = { 0, 0 };
	struct timespec ts = { 0, 0 };

	if (hooks && hooks->now) {
		int64_t sec;
		uint32_t nsec;

		hooks->now(hooks->context, &sec, &nsec);
		now.sec = sec;
		now.nsec = nsec;
		return now;
	}
	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	now.sec = ts.tv_sec;
	now.nsec = (uint32_t)ts.tv_nsec;
	return now;
}

void rp_fs_log(struct rp_fs *fs, const char *format, ...)
{
	const struct rp_hooks *hooks = rp_pool_hooks(fs->pool);
	char line[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (hooks && hooks->log)
		hooks->log(hooks->context, line);
	else
		fprintf(stderr, "rampool: %s\n", line);
}

int rp_fs_damaged(struct rp_fs *fs, rp_object object, const char *what)
{
	rp_fs_log(fs, "inode %llu is damaged: %s", (unsigned long long)object, what);
	return -EIO;
}

/* 55 bits, so that 8 bits for names of the same hash still leave a positive 64-bit number; never all zeroes or all ones,
 * so that 0, 1 and 2 stay free for the start, "." and "..", and adding one to a key never overflows. */
uint64_t rp_fs_hash(struct rp_fs *fs, struct rp_name name)
{
	const uint64_t last = (UINT64_C(1) << 55) - 2;
	uint64_t hash = (XXH3_64bits_withSeed(name.bytes, name.length, fs->hash_seed) & fs->hash_mask) >> 9;

	if (hash == 0)
		hash = 1;
	if (hash > last)
		hash = last;
	return hash << 8;
}

struct rp_name rp_name_from(const char *string)
{
	return (struct rp_name){ string, strlen(string) };
}

bool rp_name_is_dot(struct rp_name name)
{
	return name.length == 1 && name.bytes[0] == '.';
}

bool rp_name_is_dotdot(struct rp_name name)
{
	return name.length == 2 && name.bytes[0] == '.' && name.bytes[1] == '.';
}

int rp_name_check(struct rp_name name)
{
	if (name.length == 0)
		return -EINVAL;
	if (name.length > RP_NAME_MAX)
		return -ENAMETOOLONG;
	return memchr(name.bytes, '/', name.length) || memchr(name.bytes, 0, name.length) ? -EINVAL : 0;
}

/* ---- Making one ------------------------------------------------------------------------------------------------- */

static int format_work(struct rp_op *op, struct rp_fs *fs, const struct rp_fs_options *options, uint64_t seed,
		       struct rp_time now)
{
	struct rp_new_inode root = {
		.mode = S_IFDIR | (options->mode ? options->mode & 07777 : 01777),
		.uid = options->uid, .gid = options->gid, .nlink = 2, .now = now,
	};
	struct rp_fs_header *fields;
	struct rp_header *header;
	const struct rp_header *old;
	struct rp_inode *inode;
	uint64_t generation;
	rp_object ino;
	int error;

	error = rp_header_get(op, fs->tree, &old);
	if (error)
		return error;
	if (fs_header(old)->root != 0 || old->object_count != 0)
		return -EEXIST;
	error = rp_inode_create(op, fs, &root, &ino, &generation);
	if (error)
		return error;
	error = rp_inode_edit_front(op, ino, &inode);
	if (error)
		return error;
	inode->parent = ino;
	error = rp_header_edit(op, offsetof(struct rp_header, user), offsetof(struct rp_fs_header, inode_count), &header);
	if (error)
		return error;
	fields = (struct rp_fs_header *)header->user;
	fields->root = ino;
	fields->orphans = 0;
	error = rp_header_edit(op, RP_HEADER_FIELD(inode_limit), 16, &header);
	if (error)
		return error;
	fields = (struct rp_fs_header *)header->user;
	fields->inode_limit = options->inode_limit;
	fields->hash_seed = seed;
	return 0;
}

static void fs_random(struct rp_pool *pool, void *to, size_t size)
{
	const struct rp_hooks *hooks = rp_pool_hooks(pool);
	struct timespec ts = { 0, 0 };

	if (hooks && hooks->random) {
		hooks->random(hooks->context, to, size);
		return;
	}
	/* The pool's uuid is random already; the clock adds what a given uuid lacks. */
	clock_gettime(CLOCK_REALTIME, &ts);
	memset(to, 0, size);
	memcpy(to, &ts.tv_nsec, size < sizeof(ts.tv_nsec) ? size : sizeof(ts.tv_nsec));
}

static uint64_t format_seed(struct rp_pool *pool)
{
	struct rp_pool_status status;
	uint64_t mixed[3];

	rp_pool_status(pool, &status);
	fs_random(pool, &mixed[0], sizeof(mixed[0]));
	memcpy(&mixed[1], status.uuid, sizeof(status.uuid));
	return XXH3_64bits(mixed, sizeof(mixed));
}

/* ---- Opening ------------------------------------------------------------------------------------------------------ */

static void fs_free(struct rp_fs *fs)
{
	rp_holds_free(fs);
	rp_fs_locks_free(fs);
	free(fs);
}

static int fs_new(struct rp_pool *pool, struct rp_tree *tree, struct rp_fs **out)
{
	const struct rp_hooks *hooks = rp_pool_hooks(pool);
	struct rp_fs *fs;
	int error;

	fs = hooks && hooks->allocate ? hooks->allocate(hooks->context, sizeof(*fs)) : calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	fs->pool = pool;
	fs->tree = tree;
	fs->hash_mask = UINT64_MAX;
	error = rp_fs_locks_init(fs);
	if (error) {
		free(fs);
		return error;
	}
	error = rp_holds_init(fs);
	if (error) {
		rp_fs_locks_free(fs);
		free(fs);
		return error;
	}
	*out = fs;
	return 0;
}

int rp_fs_format(struct rp_pool *pool, const struct rp_fs_options *options)
{
	uint64_t seed = format_seed(pool);
	struct rp_time now;
	struct rp_fs *fs;
	struct rp_op op;
	int error;

	error = fs_new(pool, rp_pool_live(pool), &fs);
	if (error)
		return error;
	now = rp_fs_now(fs);
	RP_RUN(op, fs, 0, error, format_work(&op, fs, options, seed, now));
	fs_free(fs);
	return error;
}

static int fs_load_work(struct rp_op *op, struct rp_fs *fs)
{
	const struct rp_header *header;
	const struct rp_record *record;
	int error;

	error = rp_header_get(op, fs->tree, &header);
	if (error)
		return error;
	fs->hash_seed = fs_header(header)->hash_seed;
	atomic_store(&fs->root, fs_header(header)->root);
	atomic_store(&fs->count_seen, fs_header(header)->inode_count);
	atomic_store(&fs->limit_seen, fs_header(header)->inode_limit);
	if (fs_header(header)->root == 0)
		return -EINVAL;
	return rp_inode_get_dir(op, fs, fs_header(header)->root, &record);
}

static int fs_load(struct rp_fs *fs)
{
	struct rp_op op;
	int error;

	RP_RUN(op, fs, RP_OP_READ, error, fs_load_work(&op, fs));
	return error == -ENOENT || error == -ENOTDIR ? rp_fs_damaged(fs, atomic_load(&fs->root), "no root directory") : error;
}

int rp_fs_open(struct rp_pool *pool, bool read_only, struct rp_fs **out)
{
	struct rp_fs *fs;
	int error;

	error = fs_new(pool, rp_pool_live(pool), &fs);
	if (error)
		return error;
	fs->read_only = read_only;
	error = fs_load(fs);
	if (error) {
		fs_free(fs);
		return error;
	}
	if (!read_only) {
		/* What cannot be removed now costs memory only, and is tried again at the next start. */
		error = rp_orphans_clean(fs);
		if (error)
			rp_fs_log(fs, "inodes without a name could not be removed: %s", strerror(-error));
	}
	*out = fs;
	return 0;
}

int rp_fs_open_snapshot(struct rp_pool *pool, struct rp_snapshot *snapshot, struct rp_fs **out)
{
	struct rp_fs *fs;
	int error;

	error = fs_new(pool, rp_snapshot_tree(snapshot), &fs);
	if (error)
		return error;
	fs->read_only = true;
	error = fs_load(fs);
	if (error) {
		fs_free(fs);
		return error;
	}
	fs->snapshot = snapshot;
	rp_snapshot_get(snapshot);
	*out = fs;
	return 0;
}

void rp_fs_close(struct rp_fs *fs)
{
	if (fs->snapshot)
		rp_snapshot_put(fs->snapshot);
	fs_free(fs);
}

struct rp_pool *rp_fs_pool(struct rp_fs *fs)
{
	return fs->pool;
}

rp_object rp_fs_root(struct rp_fs *fs)
{
	return atomic_load(&fs->root);
}

/* ---- Numbers ------------------------------------------------------------------------------------------------------ */

static int status_work(struct rp_op *op, struct rp_fs *fs, struct rp_fs_status *out)
{
	const struct rp_header *header;
	int error;

	error = rp_header_get(op, fs->tree, &header);
	if (error)
		return error;
	out->inode_count = __atomic_load_n(&fs_header(header)->inode_count, __ATOMIC_RELAXED);
	out->inode_limit = __atomic_load_n(&fs_header(header)->inode_limit, __ATOMIC_RELAXED);
	return 0;
}

int rp_fs_status(struct rp_fs *fs, struct rp_fs_status *out)
{
	struct rp_pool_status pool;
	struct rp_op op;
	int error;

	rp_pool_status(fs->pool, &pool);
	out->block_count = pool.frame_limit - pool.frame_reserve;
	out->block_free = pool.frame_used < out->block_count ? out->block_count - pool.frame_used : 0;
	RP_RUN(op, fs, RP_OP_READ, error, status_work(&op, fs, out));
	return error;
}

static int limit_work(struct rp_op *op, struct rp_fs *fs, uint64_t inode_limit)
{
	const struct rp_header *old;
	struct rp_header *header;
	int error;

	error = rp_header_get(op, fs->tree, &old);
	if (error)
		return error;
	if (inode_limit != 0 && __atomic_load_n(&fs_header(old)->inode_count, __ATOMIC_RELAXED) > inode_limit)
		return -ENOSPC;
	error = rp_header_edit(op, RP_HEADER_FIELD(inode_limit), sizeof(uint64_t), &header);
	if (error)
		return error;
	__atomic_store_n(&((struct rp_fs_header *)header->user)->inode_limit, inode_limit, __ATOMIC_RELAXED);
	return 0;
}

int rp_fs_inode_limit_set(struct rp_fs *fs, uint64_t inode_limit)
{
	struct rp_op op;
	int error;

	if (!rp_fs_is_changeable(fs))
		return -EROFS;
	pthread_mutex_lock(&fs->limit);
	RP_RUN(op, fs, 0, error, limit_work(&op, fs, inode_limit));
	if (!error)
		atomic_store(&fs->limit_seen, inode_limit);
	pthread_mutex_unlock(&fs->limit);
	return error;
}

/* ---- After a rollback ----------------------------------------------------------------------------------------------- */

struct diff {
	void (*changed)(void *context, rp_object ino, bool directory);
	void *context;
};

static int diff_object(void *context, rp_object object, const struct rp_record *a, const struct rp_record *b)
{
	const struct diff *diff = context;
	const struct rp_inode *in_a = a ? rp_record_inode(a) : NULL, *in_b = b ? rp_record_inode(b) : NULL;
	bool holder = (in_a ? in_a : in_b)->flags & RP_INODE_XATTR_HOLDER && (in_b ? in_b : in_a)->flags & RP_INODE_XATTR_HOLDER;

	/* A change of attributes changes their owner's ctime, so the owner is reported by itself. */
	if (!holder && diff->changed)
		diff->changed(diff->context, object, (in_a && S_ISDIR(in_a->mode)) || (in_b && S_ISDIR(in_b->mode)));
	return 0;
}

int rp_fs_rolled_back(struct rp_fs *fs, struct rp_snapshot *before,
		      void (*changed)(void *context, rp_object ino, bool directory), void *context)
{
	struct diff diff = { changed, context };
	struct rp_snapshot *now;
	int error;

	if (fs->snapshot)
		return -EINVAL;
	error = fs_load(fs);
	if (error)
		return error;
	error = rp_holds_check_stale(fs);
	if (error)
		return error;
	if (!fs->read_only) {
		error = rp_orphans_clean(fs);
		if (error)
			return error;
	}
	error = rp_snapshot_take(fs->pool, &now);
	if (error)
		return error;
	error = rp_diff_objects(fs->pool, before, now, diff_object, &diff);
	rp_snapshot_put(now);
	return error;
}
