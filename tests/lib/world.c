/* world.c: see world.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define DIFFERS 1

rp_object world_object_make(struct rp_pool *pool, bool meta)
{
	uint64_t generation;
	rp_object object = 0;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, 0);
		error = rp_object_create(&op, meta, &object, &generation);
	} while (rp_op_end(&op, &error));
	EXPECT_OK(error, "object");
	return object;
}

rp_page world_page(unsigned i)
{
	static const rp_page far[] = { 511, 512, 513, 262143, 262144, UINT64_C(1) << 30 };

	return i < WORLD_PAGES - 6 ? i : far[i - (WORLD_PAGES - 6)];
}

void world_fill(uint64_t content, void *page)
{
	uint64_t *word = page, random = content;

	if (content < 2) {
		memset(page, 0, RP_PAGE_SIZE);
		return;
	}
	for (unsigned i = 0; i < RP_PAGE_SIZE / 8; i++)
		word[i] = content % 3 == 0 ? random_next(&random) : content + i / 64;
}

static struct world_object *object_any(struct world *w)
{
	for (unsigned tries = 0; tries < 32; tries++) {
		struct world_object *o = &w->state.live.objects[random_below(&w->random, WORLD_OBJECTS)];

		if (o->number)
			return o;
	}
	return NULL;
}

/* ---- Steps --------------------------------------------------------------------------------------------------------------- */

static int step_create(struct world *w)
{
	struct world_object made = { 0 };
	struct rp_record *record;
	struct rp_op op;
	unsigned place = 0;
	int error;

	while (place < WORLD_OBJECTS && w->state.live.objects[place].number)
		place++;
	if (place == WORLD_OBJECTS)
		return 0;
	made.meta = random_below(&w->random, 4) == 0;
	made.user = random_next(&w->random);
	do {
		rp_op_begin(&op, w->pool, 0);
		error = rp_object_create(&op, made.meta, &made.number, &made.generation);
		if (!error)
			error = rp_record_edit(&op, made.number, offsetof(struct rp_record, user), 8, &record);
		if (!error)
			memcpy(record->user, &made.user, 8);
	} while (rp_op_end(&op, &error));
	if (!error)
		w->state.live.objects[place] = made;
	return error;
}

static int step_remove(struct world *w, struct world_object *o)
{
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, w->pool, RP_OP_RESERVE);
		error = rp_object_remove(&op, o->number);
	} while (rp_op_end(&op, &error));
	if (!error)
		memset(o, 0, sizeof(*o));
	return error;
}

static int step_resize(struct world *w, struct world_object *o)
{
	uint64_t size = random_next(&w->random) >> 2;
	struct rp_record *record;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, w->pool, 0);
		error = rp_record_edit(&op, o->number, offsetof(struct rp_record, size_bytes), 8, &record);
		if (!error)
			record->size_bytes = size;
	} while (rp_op_end(&op, &error));
	if (!error)
		o->size_bytes = size;
	return error;
}

static int page_write(struct world *w, struct world_object *o, unsigned i, uint64_t content)
{
	uint8_t page[RP_PAGE_SIZE];
	struct rp_op op;
	size_t done;
	void *to;
	int error;

	world_fill(content, page);
	do {
		rp_op_begin(&op, w->pool, 0);
		if (o->meta) {
			error = rp_page_edit(&op, o->number, world_page(i), 0, RP_PAGE_SIZE, &to);
			if (!error)
				memcpy(to, page, RP_PAGE_SIZE);
		} else {
			error = rp_bytes_write(&op, o->number, world_page(i) << RP_PAGE_SHIFT, page, RP_PAGE_SIZE, &done);
		}
	} while (rp_op_end(&op, &error));
	if (!error)
		o->pages[i] = content;
	return error;
}

static int page_drop(struct world *w, struct world_object *o, unsigned i)
{
	rp_page next = world_page(i);
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, w->pool, RP_OP_RESERVE);
		if (o->meta)
			error = rp_page_drop(&op, o->number, world_page(i));
		else
			error = rp_pages_punch(&op, o->number, world_page(i), 1, &next);
	} while (rp_op_end(&op, &error));
	if (!error)
		o->pages[i] = 0;
	return error;
}

static int step_page(struct world *w, struct world_object *o)
{
	unsigned i = (unsigned)random_below(&w->random, WORLD_PAGES);

	switch (random_below(&w->random, 8)) {
	case 0:
		return page_drop(w, o, i);
	case 1:
		return page_write(w, o, i, 1);
	default:
		return page_write(w, o, i, 2 + (random_next(&w->random) >> 1));
	}
}

static int step_share(struct world *w, struct world_object *from)
{
	struct world_object *to = object_any(w);
	rp_page done;
	int error;

	if (!to || to == from || to->meta || from->meta)
		return 0;
	error = rp_pages_share(w->pool, from->number, 0, to->number, 0, 4, &done);
	if (!error)
		memcpy(to->pages, from->pages, 4 * sizeof(to->pages[0]));
	return error;
}

static int step_snapshot(struct world *w)
{
	unsigned place = (unsigned)random_below(&w->random, WORLD_SNAPSHOTS);
	struct rp_snapshot *snapshot;
	char name[32];
	int error;

	if (!w->state.snapshots[place].name) {
		snprintf(name, sizeof(name), "s%llu", (unsigned long long)w->state.name_next + 1);
		error = rp_snapshot_create(w->pool, name);
		if (!error) {
			w->state.snapshots[place].name = ++w->state.name_next;
			w->state.snapshots[place].tree = w->state.live;
		}
		return error;
	}
	snprintf(name, sizeof(name), "s%llu", (unsigned long long)w->state.snapshots[place].name);
	if (random_below(&w->random, 3)) {
		error = rp_snapshot_delete(w->pool, name);
		if (!error)
			memset(&w->state.snapshots[place], 0, sizeof(w->state.snapshots[place]));
		return error;
	}
	error = rp_snapshot_open(w->pool, name, &snapshot);
	if (error)
		return error;
	error = rp_snapshot_rollback(w->pool, snapshot);
	rp_snapshot_put(snapshot);
	if (!error)
		w->state.live = w->state.snapshots[place].tree;
	return error;
}

int world_step(struct world *w)
{
	unsigned what = (unsigned)random_below(&w->random, 32);
	struct world_object *o = object_any(w);

	if (!o || what < 3)
		return step_create(w);
	if (what < 4)
		return step_remove(w, o);
	if (what < 6)
		return step_resize(w, o);
	if (what < 8)
		return step_share(w, o);
	if (what < 10)
		return step_snapshot(w);
	return step_page(w, o);
}

int world_write(struct world *w, unsigned pages)
{
	int error = 0;

	for (unsigned i = 0; i < pages && !error; i++) {
		struct world_object *o = object_any(w);

		error = o ? step_page(w, o) : step_create(w);
	}
	return error;
}

/* ---- Comparing ------------------------------------------------------------------------------------------------------------- */

struct comparison {
	struct rp_pool *pool;
	struct rp_tree *tree;
	const char *where;
	char *why;
	unsigned *unread; /* null: nothing may fail */
};

static int differs(const struct comparison *c, const struct world_object *o, const char *what, uint64_t n)
{
	snprintf(c->why, 256, "%s, object %llu: %s (%llu)", c->where, (unsigned long long)o->number, what,
	         (unsigned long long)n);
	return DIFFERS;
}

static int page_read(const struct comparison *c, const struct world_object *o, unsigned i, void *page, bool *is_data)
{
	uint64_t offset = world_page(i) << RP_PAGE_SHIFT, end;
	const void *at;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, c->pool, RP_OP_READ);
		error = rp_extent_get(&op, c->tree, o->number, offset, offset + RP_PAGE_SIZE, is_data, &end);
		if (!error && o->meta) {
			error = rp_page_get(&op, c->tree, o->number, world_page(i), &at);
			if (!error)
				memcpy(page, at, RP_PAGE_SIZE);
		} else if (!error) {
			error = rp_bytes_read(&op, c->tree, o->number, offset, page, RP_PAGE_SIZE);
		}
	} while (rp_op_end(&op, &error));
	return error;
}

static int page_compare(const struct comparison *c, const struct world_object *o, unsigned i)
{
	uint8_t page[RP_PAGE_SIZE], wanted[RP_PAGE_SIZE];
	bool is_data = false;
	int error = page_read(c, o, i, page, &is_data);

	if (error) {
		differs(c, o, "a page cannot be read", world_page(i));
		if (error == -EIO && c->unread) {
			++*c->unread;
			return 0;
		}
		return error;
	}
	world_fill(o->pages[i], wanted);
	if (memcmp(page, wanted, RP_PAGE_SIZE))
		return differs(c, o, "a page's bytes are wrong", world_page(i));
	if (is_data != (o->pages[i] != 0))
		return differs(c, o, is_data ? "a hole became data" : "data became a hole", world_page(i));
	return 0;
}

static int record_compare(const struct comparison *c, const struct world_object *o)
{
	struct rp_record copy = { 0 };
	const struct rp_record *record;
	struct rp_op op;
	uint64_t user, pages = 0;
	int error;

	do {
		rp_op_begin(&op, c->pool, RP_OP_READ);
		error = rp_record_get(&op, c->tree, o->number, o->generation, &record);
		if (!error)
			copy = *record;
	} while (rp_op_end(&op, &error));
	if (error) {
		differs(c, o, "its record cannot be had", (uint64_t)-error);
		return error;
	}
	memcpy(&user, copy.user, sizeof(user));
	for (unsigned i = 0; i < WORLD_PAGES; i++)
		pages += o->pages[i] != 0;
	if (user != o->user)
		return differs(c, o, "its user area is wrong", user);
	if (copy.size_bytes != o->size_bytes)
		return differs(c, o, "its size is wrong", copy.size_bytes);
	if (copy.page_count != pages)
		return differs(c, o, "its count of pages is wrong", copy.page_count);
	return 0;
}

static int tree_compare(struct comparison *c, const struct world_tree *wanted)
{
	for (unsigned n = 0; n < WORLD_OBJECTS; n++) {
		const struct world_object *o = &wanted->objects[n];
		int error;

		if (!o->number)
			continue;
		error = record_compare(c, o);
		if (error == -EIO && c->unread) {
			++*c->unread;
			continue;
		}
		for (unsigned i = 0; i < WORLD_PAGES && !error; i++)
			error = page_compare(c, o, i);
		if (error)
			return error;
	}
	return 0;
}

static int objects_count(struct comparison *c, const struct world_tree *wanted)
{
	const struct rp_header *header;
	uint64_t have = 0, want = 0;
	struct rp_op op;
	int error;

	for (unsigned n = 0; n < WORLD_OBJECTS; n++)
		want += wanted->objects[n].number != 0;
	do {
		rp_op_begin(&op, c->pool, RP_OP_READ);
		error = rp_header_get(&op, c->tree, &header);
		if (!error)
			have = header->object_count;
	} while (rp_op_end(&op, &error));
	if (error == -EIO && c->unread) {
		++*c->unread;
		return 0;
	}
	if (!error && have != want) {
		snprintf(c->why, 256, "%s: %llu objects, not %llu", c->where, (unsigned long long)have, (unsigned long long)want);
		return DIFFERS;
	}
	return error;
}

static int snapshot_compare(struct comparison *c, uint64_t number, const struct world_tree *wanted)
{
	struct rp_snapshot *snapshot;
	char name[32];
	int error;

	snprintf(name, sizeof(name), "s%llu", (unsigned long long)number);
	error = rp_snapshot_open(c->pool, name, &snapshot);
	if (error == -EIO && c->unread) {
		++*c->unread;
		return 0;
	}
	if (error) {
		snprintf(c->why, 256, "snapshot %s cannot be opened", name);
		return error;
	}
	c->tree = rp_snapshot_tree(snapshot);
	c->where = name;
	error = tree_compare(c, wanted);
	rp_snapshot_put(snapshot);
	return error;
}

static int compare(struct rp_pool *pool, const struct world_state *state, char why[256], unsigned *unread)
{
	struct comparison c = { .pool = pool, .tree = rp_pool_live(pool), .where = "live", .why = why, .unread = unread };
	struct rp_snapshot_info *list;
	size_t count, wanted = 0;
	int error = tree_compare(&c, &state->live);

	if (!error)
		error = objects_count(&c, &state->live);
	for (unsigned i = 0; i < WORLD_SNAPSHOTS; i++)
		wanted += state->snapshots[i].name != 0;
	if (!error)
		error = rp_snapshot_list(pool, false, &list, &count);
	if (error)
		return error == -EIO && unread ? 0 : error;
	free(list);
	if (count != wanted) {
		snprintf(why, 256, "%zu snapshots, not %zu", count, wanted);
		return DIFFERS;
	}
	for (unsigned i = 0; i < WORLD_SNAPSHOTS && !error; i++)
		if (state->snapshots[i].name)
			error = snapshot_compare(&c, state->snapshots[i].name, &state->snapshots[i].tree);
	return error;
}

int world_compare(struct rp_pool *pool, const struct world_state *state, char why[256])
{
	return compare(pool, state, why, NULL);
}

int world_compare_readable(struct rp_pool *pool, const struct world_state *state, char why[256], unsigned *unread)
{
	*unread = 0;
	return compare(pool, state, why, unread);
}
