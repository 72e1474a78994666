/* world.h: a reference for a pool: flat arrays beside the real thing, changed by the same random steps and compared.
 *
 * A page's content is one number: 0 a hole, 1 a page of zeroes that is allocated, any other the seed its bytes are made
 * from. So the state of a whole pool with its snapshots is a small struct that is copied at each commit.
 */
#ifndef RP_TESTS_WORLD_H
#define RP_TESTS_WORLD_H

#include <rampool/pool.h>

#define WORLD_OBJECTS 10
#define WORLD_PAGES 14
#define WORLD_SNAPSHOTS 4

struct world_object {
	rp_object number;       /* 0: there is none in this place */
	uint64_t generation;
	uint64_t user;          /* first word of the record's user area */
	uint64_t size_bytes;
	bool meta;
	uint64_t pages[WORLD_PAGES];
};

struct world_tree {
	struct world_object objects[WORLD_OBJECTS];
};

struct world_state {
	struct world_tree live;
	struct {
		uint64_t name;  /* 0: none in this place; else the name is "s" and this number */
		struct world_tree tree;
	} snapshots[WORLD_SNAPSHOTS];
	uint64_t name_next;
};

struct world {
	struct rp_pool *pool;
	uint64_t random;
	struct world_state state;
};

/* An object beside the world's, which does not know it; meta: of metadata. Ends the test when there is none. */
rp_object world_object_make(struct rp_pool *pool, bool meta);
/* The page of an object that place i stands for: some near, some far. */
rp_page world_page(unsigned i);
void world_fill(uint64_t content, void *page);

/* One random change. 0; or the error of the call that failed, and then nothing has changed. */
int world_step(struct world *world);
/* Changes of pages only, as many as wanted. */
int world_write(struct world *world, unsigned pages);
/* 0: the pool is exactly this; else why[] says what differs. Reads every byte, of snapshots too. -EIO and other errors of
 * reading come back as they are. */
int world_compare(struct rp_pool *pool, const struct world_state *state, char why[256]);
/* As world_compare(), but pages that cannot be read are passed over: *unread counts them. What can be read must be right. */
int world_compare_readable(struct rp_pool *pool, const struct world_state *state, char why[256], unsigned *unread);

#endif
