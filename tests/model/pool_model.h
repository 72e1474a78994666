/* pool_model.h: a pool and its reference, and the steps that change both: shared by the files of model_pool. */
#ifndef RP_TESTS_POOL_MODEL_H
#define RP_TESTS_POOL_MODEL_H

#include "tests/lib/random.h"
#include "tests/lib/reference.h"

#define MODEL_HELD 3u
#define MODEL_NAMED 6u
#define MODEL_OBJECTS 40u

struct model_named {
	char name[32];
	struct ref_tree tree;
};

struct model {
	struct rp_pool *pool;
	uint64_t seed, random, step;
	uint64_t tag;                   /* of bytes, the last given */
	uint64_t object_limit;
	bool filling;                   /* or draining */
	struct ref_tree live;
	struct {
		struct rp_snapshot *snapshot;   /* null: this place is free */
		struct ref_tree tree;
	} held[MODEL_HELD];
	struct model_named named[MODEL_NAMED]; /* oldest first */
	unsigned named_count;
	uint64_t name_next;
	uint64_t full, aborted, rolled_back, compared; /* how often: a run that never gets there proves nothing */
};

static inline uint64_t model_below(struct model *m, uint64_t limit) { return random_below(&m->random, limit); }
static inline uint64_t model_tag(struct model *m) { return m->tag += 4096; }

/* A page: near where nodes of some level begin, so that maps of all heights come up. */
rp_page model_page(struct model *m);
/* A live object of the sort; false: there is none. */
bool model_object(struct model *m, const struct ref_tree *tree, bool meta, size_t *i);
/* A normal allocation failed: were the frames really used up? */
void model_is_full(struct model *m);

/* model_pool_data.c */
void step_write(struct model *m);
void step_zero(struct model *m);
void step_punch(struct model *m);
void step_allocate(struct model *m);
void step_read(struct model *m);
void step_share(struct model *m);
/* model_pool_operation.c */
void step_operation(struct model *m);
/* model_pool_snapshot.c */
void step_hold(struct model *m);
void step_unhold(struct model *m);
void step_name(struct model *m);
void step_unname(struct model *m);
void step_rename(struct model *m);
void step_list(struct model *m);
void step_roll_back(struct model *m);
void step_compare(struct model *m);
void model_snapshots_free(struct model *m);

#endif
