/* namespace_model.h: what the files of the model test of the namespace share: the reference and its steps.
 *
 * The reference is two flat arrays: inodes with their contents and attributes, and names. A snapshot of it is a copy.
 */
#ifndef RP_TESTS_NAMESPACE_MODEL_H
#define RP_TESTS_NAMESPACE_MODEL_H

#include "tests/lib/namespace.h"

#define INODES 160
#define ENTRIES 420
#define NAMES 40
#define ATTRIBUTES 5
#define CAPACITY 65536u
#define SNAPSHOTS 3

struct content {
	unsigned refs;
	uint8_t bytes[CAPACITY];        /* zero from the size on */
};

struct node {
	bool used, tmpfile;
	rp_object ino;
	uint64_t generation, size_bytes, target; /* target: seed of a symlink's */
	uint32_t mode, uid, gid, nlink, rdev;
	uint64_t holds;
	int parent;                     /* of a directory */
	uint64_t attribute[ATTRIBUTES]; /* seed of the value, 0: none */
	struct content *content;        /* null: zeroes */
};

struct entry {
	int dir, name, node;            /* dir -1: free */
};

struct world {
	struct node node[INODES];
	struct entry entry[ENTRIES];
};

struct saved {
	struct rp_snapshot *snapshot;   /* null: none */
	struct world world;
};

/* All of a run. */
struct nm {
	struct world world;
	struct saved saved[SNAPSHOTS];
	struct rp_fs *fs;
	struct rp_pool *pool;
	uint64_t random_state, step;
	bool failing;                   /* allocations fail now and then */
};
extern struct nm nm;
extern const char *const nm_attribute_names[ATTRIBUTES];
extern const struct rp_cred nm_cred;

#define MUST(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "step %llu: ", (unsigned long long)nm.step); \
			NEED(condition); \
		} \
	} while (0)
#define MUST_BE(call, expected) \
	do { \
		long long must_is_ = (long long)(call), must_want_ = (long long)(expected); \
		if (must_is_ != must_want_) { \
			fprintf(stderr, "step %llu, %s:%d: %s gave %lld, not %lld\n", (unsigned long long)nm.step, __FILE__, \
				__LINE__, #call, must_is_, must_want_); \
			exit(1); \
		} \
	} while (0)

/* namespace_world.c */
uint64_t nm_below(uint64_t limit);
struct rp_name nm_name_of(int n, char to[256]);
size_t nm_value_of(uint64_t seed, uint8_t to[65536]);
void nm_target_of(uint64_t seed, char to[4096]);
struct content *nm_content_own(struct node *node);
void nm_content_put(struct node *node);
void nm_world_copy(struct world *to, const struct world *from);
void nm_world_free(struct world *w);
struct entry *nm_entry_find(struct world *w, int dir, int name);
void nm_entry_add(int dir, int name, int node);
unsigned nm_entries_free(void);
bool nm_dir_is_empty(int dir);
int nm_node_free(void);
int nm_node_any(bool directory);
bool nm_is_dir(int node);
void nm_node_fill(int node, int dir, uint32_t mode, uint64_t target, const struct rp_attr *attr);
void nm_node_check_gone(int node);
void nm_node_unlink(int node);
bool nm_is_below(int dir, int above);
bool nm_failed_whole(long long got);
void nm_node_kill_priv(struct node *n);

/* namespace_compare.c: both checkers, and everything compared */
void nm_check_all(void);

/* namespace_steps.c, namespace_contents.c */
void nm_step_make(void);
void nm_step_tmpfile(void);
void nm_step_remove(void);
void nm_step_link(void);
void nm_step_rename(void);
void nm_step_hold(void);
void nm_step_write(void);
void nm_step_truncate(void);
void nm_step_fallocate(void);
void nm_step_copy(void);
void nm_step_setattr(void);
void nm_step_xattr(void);

#endif
