/* namespace.h: what tests of the namespace share: a pool with a filesystem, both checkers, and failing with a line. */
#ifndef RP_TESTS_NAMESPACE_H
#define RP_TESTS_NAMESPACE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <rampool/fs.h>
#include "random.h"

#define NEED(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

#define NEED_IS(call, expected) \
	do { \
		long long need_is_ = (long long)(call), need_want_ = (long long)(expected); \
		if (need_is_ != need_want_) { \
			fprintf(stderr, "%s:%d: %s gave %lld, not %lld\n", __FILE__, __LINE__, #call, need_is_, need_want_); \
			exit(1); \
		} \
	} while (0)

static inline void ns_report(void *context, const char *line)
{
	(void)context;
	fprintf(stderr, "checker: %s\n", line);
}

/* Both checkers have nothing to say. */
#define NS_CHECK(fs) \
	do { \
		NEED_IS(rp_fs_check((fs), ns_report, NULL), 0); \
		NEED_IS(rp_pool_check(rp_fs_pool(fs), ns_report, NULL), 0); \
	} while (0)

static inline struct rp_fs *ns_open(uint64_t size_bytes, uint64_t inode_limit, const struct rp_hooks *hooks)
{
	struct rp_pool_options pool_options = { .size_bytes = size_bytes, .small_pages = true, .hooks = hooks };
	struct rp_fs_options fs_options = { .mode = 0755, .inode_limit = inode_limit };
	struct rp_pool *pool;
	struct rp_fs *fs;

	NEED_IS(rp_pool_create(&pool_options, &pool), 0);
	NEED_IS(rp_fs_format(pool, &fs_options), 0);
	NEED_IS(rp_fs_open(pool, false, &fs), 0);
	return fs;
}

static inline void ns_close(struct rp_fs *fs)
{
	struct rp_pool *pool = rp_fs_pool(fs);

	rp_fs_close(fs);
	rp_pool_destroy(pool);
}

static inline const struct rp_cred *ns_root_cred(void)
{
	static const struct rp_cred cred = { .uid = 0, .gid = 0, .umask = 022, .fsetid = true };

	return &cred;
}

static inline int ns_make(struct rp_fs *fs, rp_object dir, const char *name, uint32_t mode, rp_object *ino)
{
	struct rp_attr attr;
	int error = rp_fs_make(fs, ns_root_cred(), dir, rp_name_from(name), mode, 0,
			       S_ISLNK(mode) ? "target" : NULL, false, &attr);

	if (!error && ino)
		*ino = attr.ino;
	return error;
}

static inline int ns_rename(struct rp_fs *fs, rp_object dir, const char *name, rp_object to_dir, const char *to_name,
			    unsigned flags)
{
	return rp_fs_rename(fs, ns_root_cred(), dir, rp_name_from(name), to_dir, rp_name_from(to_name), flags);
}

static inline int ns_lookup(struct rp_fs *fs, rp_object dir, const char *name, struct rp_attr *attr)
{
	return rp_fs_lookup(fs, dir, rp_name_from(name), false, attr);
}

static inline struct rp_attr ns_attr(struct rp_fs *fs, rp_object ino)
{
	struct rp_attr attr;

	NEED_IS(rp_fs_getattr(fs, ino, &attr), 0);
	return attr;
}

/* Frames in use once everything on its way back has come back: the reclaimer works behind the calls, so the number is taken
 * when it has stood still for a while. */
static inline uint64_t ns_frames(struct rp_fs *fs)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	struct rp_pool_status status = { .frame_used = 0 };
	uint64_t last = 0;

	for (unsigned still = 0, tries = 0; still < 5 && tries < 5000; tries++) {
		rp_pool_trim(rp_fs_pool(fs));
		rp_pool_status(rp_fs_pool(fs), &status);
		still = status.frame_used == last ? still + 1 : 0;
		last = status.frame_used;
		nanosleep(&pause, NULL);
	}
	return last;
}

#endif
