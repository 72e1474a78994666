/* fault_pool.c: the Nth allocation of memory fails, once or from then on, for each N there is; and each step finds one
 * frame, two, three, until it has enough. Whatever step meets it fails whole: the tree, the names and the references are
 * those from before, and the step works when there is enough again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/internal.h"
#include "tests/lib/reference.h"

#if defined(__SANITIZE_THREAD__)
#define STRIDE 5u /* one thread: it has little to find here */
#else
#define STRIDE 1u
#endif

struct fault {
	uint64_t count, at; /* allocations so far; the one that fails, 0: none */
	bool for_ever, fired;
};

struct world {
	struct fault fault;
	struct rp_pool *pool;
	struct ref_tree live;
	rp_object meta, data;
	uint64_t tag;
	struct rp_snapshot *held;
	struct ref_tree held_tree;
	unsigned named;
};

static void *allocate(void *context, size_t size)
{
	struct fault *fault = context;

	fault->count++;
	if (fault->at && (fault->for_ever ? fault->count >= fault->at : fault->count == fault->at)) {
		fault->fired = true;
		return NULL;
	}
	return calloc(1, size);
}

static struct ref_object *object_of(struct ref_tree *tree, rp_object number)
{
	bool found;
	size_t i = ref_find(tree, number, &found);

	return found ? ref_change(tree, i) : NULL;
}

/* ---- Steps. Each returns what the pool said, and changes the reference when that was 0. ---- */

static int make(struct world *w, bool meta, rp_object *number)
{
	uint64_t generation;
	int error = REF_OP(w->pool, 0, rp_object_create(&op, meta, number, &generation));

	if (!error)
		ref_add(&w->live, *number, generation, meta);
	return error;
}

static int make_meta(struct world *w) { return make(w, true, &w->meta); }
static int make_data(struct world *w) { return make(w, false, &w->data); }

static int write_data(struct world *w)
{
	static uint8_t bytes[20 * RP_PAGE_SIZE];
	uint64_t tag = w->tag += 4096, offset = tag % 3 << 30;
	size_t done;

	for (size_t i = 0; i < sizeof(bytes); i += REF_BLOCK)
		ref_fill(bytes + i, tag + i / REF_BLOCK);
	int error = REF_OP(w->pool, 0, rp_bytes_write(&op, w->data, offset, bytes, sizeof(bytes), &done));

	ref_write(object_of(&w->live, w->data), offset, done, tag); /* bytes are not taken back */
	return error;
}

static int punch_data(struct world *w)
{
	rp_page next;
	int error = REF_OP(w->pool, RP_OP_RESERVE, rp_pages_punch(&op, w->data, 5, 1 << 20, &next));

	ref_pages_drop(object_of(&w->live, w->data), 5, next);
	return error;
}

static int allocate_data(struct world *w)
{
	rp_page next;
	int error = REF_OP(w->pool, 0, rp_pages_allocate(&op, w->data, 1000, 40, &next));

	for (rp_page page = 1000; page < next; page++)
		ref_page_make(object_of(&w->live, w->data), page);
	return error;
}

/* So many records of undo, and so many bytes in them, that both are grown several times. */
static int change(struct rp_op *op, struct world *w, struct ref_tree *tree)
{
	struct ref_object *object = object_of(tree, w->meta);
	struct rp_record *record;
	uint64_t tag = w->tag;
	void *bytes;
	int error = rp_header_add(op, offsetof(struct rp_header, user), 5);

	tree->counters[0] += 5;
	for (rp_page page = 0; !error && page < 60; page++) {
		rp_page at = page < 40 ? page : page << 20;

		error = rp_page_edit(op, w->meta, at, 512, 1024, &bytes);
		for (unsigned i = 0; !error && i < 4; i++)
			ref_fill((uint8_t *)bytes + 512 + i * REF_BLOCK, tag + i);
		ref_write(object, (at << RP_PAGE_SHIFT) + 512, 1024, tag);
		if (!error)
			error = rp_record_edit(op, w->meta, offsetof(struct rp_record, size_bytes), 8, &record);
		if (!error)
			record->size_bytes = object->size = page;
	}
	for (rp_page page = 3; !error && page < 30; page += 4) {
		error = rp_page_drop(op, w->meta, page);
		ref_pages_drop(object, page, page + 1);
	}
	return error;
}

static int change_meta(struct world *w)
{
	struct ref_tree tree = { 0 };

	w->tag += 4096;
	int error = REF_OP(w->pool, 0, ({
		ref_free(&tree);
		ref_copy(&tree, &w->live);
		change(&op, w, &tree);
	}));

	if (error) {
		ref_free(&tree);
		return error;
	}
	ref_free(&w->live);
	w->live = tree;
	return 0;
}

static int make_and_remove(struct rp_op *op, rp_object kept, rp_object *number, uint64_t *generation)
{
	int error = rp_object_remove(op, kept);

	for (unsigned i = 0; !error && i < 40; i++)
		error = rp_object_create(op, i % 2, &number[i], &generation[i]);
	return error;
}

static int replace_objects(struct world *w)
{
	rp_object number[40];
	uint64_t generation[40];
	bool found;
	int error = REF_OP(w->pool, 0, make_and_remove(&op, w->data, number, generation));

	if (error)
		return error;
	ref_remove(&w->live, ref_find(&w->live, w->data, &found));
	for (unsigned i = 0; i < 40; i++)
		ref_add(&w->live, number[i], generation[i], i % 2);
	w->data = number[0];
	return 0;
}

static int hold(struct world *w)
{
	if (w->held)
		return 0;
	int error = rp_snapshot_take(w->pool, &w->held);

	if (!error)
		ref_copy(&w->held_tree, &w->live);
	return error;
}

static void name_of(char *to, unsigned i) { sprintf(to, "name%u", i); }

static int name(struct world *w)
{
	char text[32];

	name_of(text, w->named);
	int error = rp_snapshot_create(w->pool, text);

	if (!error)
		w->named++;
	return error;
}

static int rename_one(struct world *w)
{
	if (!w->named)
		return 0;
	int error = rp_snapshot_rename(w->pool, "name0", "other");

	return error ? error : rp_snapshot_rename(w->pool, "other", "name0");
}

static int list(struct world *w)
{
	struct rp_snapshot_info *all;
	size_t count;
	int error = rp_snapshot_list(w->pool, true, &all, &count);

	if (error)
		return error;
	if (count != w->named)
		ref_fail("%zu names, not %u", count, w->named);
	free(all);
	return 0;
}

static int unname(struct world *w)
{
	char text[32];

	if (!w->named)
		return 0;
	name_of(text, w->named - 1);
	int error = rp_snapshot_delete(w->pool, text);

	if (!error)
		w->named--;
	return error;
}

static int roll_back(struct world *w)
{
	if (!w->held)
		return 0;
	int error = rp_snapshot_rollback(w->pool, w->held);

	if (!error) {
		ref_free(&w->live);
		ref_copy(&w->live, &w->held_tree);
		w->data = w->live.objects[1]->number;
	}
	return error;
}

static int share(struct world *w)
{
	bool found;
	rp_page done;
	rp_object to;
	int error = make(w, false, &to);

	if (error)
		return error;
	error = rp_pages_share(w->pool, w->data, 0, to, 0, 20, &done); /* tells how far it came */
	struct ref_object *source = w->live.objects[ref_find(&w->live, w->data, &found)], *target = object_of(&w->live, to);

	for (size_t i = 0; i < source->count && source->pages[i].page < done; i++)
		memcpy(ref_page_make(target, source->pages[i].page)->tag, source->pages[i].tag, sizeof(target->pages[0].tag));
	return error;
}

static int ignore_object(void *context, rp_object object, const struct rp_record *a, const struct rp_record *b)
{
	(void)context;
	return object && (a || b) ? 0 : -EIO;
}

static int compare(struct world *w)
{
	struct rp_snapshot *now;
	int error = rp_snapshot_take(w->pool, &now);

	if (error)
		return error;
	if (w->held)
		error = rp_diff_objects(w->pool, w->held, now, ignore_object, NULL);
	rp_snapshot_put(now);
	return error;
}

static int (*const steps[])(struct world *w) = {
	make_meta, make_data, write_data, change_meta, hold,       write_data, change_meta, replace_objects, write_data,
	name,      name,      rename_one, list,        make_data,  write_data, share,       compare,         name,
	name,      name,      name,       name,        name,       name,       name,        name,            name,
	name,      name,      name,       name,        name,       name,       name,        name,            name,
	unname,    list,      roll_back,  change_meta, write_data, compare,    unname,      unname,
	write_data, write_data, punch_data, allocate_data, hold,   punch_data, change_meta,
};

/* ---- Running ---- */

static void verify(struct world *w)
{
	ref_verify(w->pool, rp_pool_live(w->pool), &w->live);
	if (w->held)
		ref_verify(w->pool, rp_snapshot_tree(w->held), &w->held_tree);
	list(w);
	ref_check(w->pool);
}

/* So many frames more than are used, the reserve counted in or not. Returns how often the step failed. */
static unsigned run_step_tight(struct world *w, unsigned i)
{
	struct rp_arena *arena = &w->pool->arena;
	uint64_t limit = arena->limit;

	for (unsigned tries = 0;; tries++) {
		rp_pool_reclaim(w->pool);
		pthread_mutex_lock(&arena->lock);
		arena->limit = arena->taken + (tries < 5 ? tries : arena->reserve + tries - 5);
		pthread_mutex_unlock(&arena->lock);
		int error = steps[i](w);

		pthread_mutex_lock(&arena->lock);
		arena->limit = limit;
		pthread_mutex_unlock(&arena->lock);
		if (!error)
			return tries;
		if (error != -ENOSPC || tries > 500)
			ref_fail("step %u with %u frames: %d", i, tries, error);
		verify(w);
	}
}

static void run_step(struct world *w, unsigned i)
{
	int error = steps[i](w);

	if (!error)
		return;
	if (error != -ENOMEM || !w->fault.fired)
		ref_fail("step %u: %d", i, error);
	/* With memory again: all is as before, and the step works. */
	uint64_t at = w->fault.at;

	w->fault.at = 0;
	verify(w);
	error = steps[i](w);
	if (error)
		ref_fail("step %u, again: %d", i, error);
	w->fault.at = at;
}

static void end(struct world *w)
{
	struct rp_pool_status status;

	w->fault.at = 0;
	ref_verify(w->pool, rp_pool_live(w->pool), &w->live);
	ref_check(w->pool);
	rp_snapshot_put(w->held);
	while (w->named)
		if (unname(w))
			ref_fail("a name cannot be deleted");
	for (; w->live.count; ref_remove(&w->live, 0))
		if (REF_OP(w->pool, 0, rp_object_remove(&op, w->live.objects[0]->number)))
			ref_fail("an object cannot be removed");
	ref_check(w->pool);
	rp_pool_status(w->pool, &status);
	if (status.frame_used != 2 + rp_entry_height(atomic_load(&w->pool->live.root)))
		ref_fail("%llu frames are used by nothing", (unsigned long long)status.frame_used);
	rp_pool_destroy(w->pool);
	ref_free(&w->live);
	ref_free(&w->held_tree);
}

/* Returns whether an allocation failed. */
static bool run(uint64_t at, bool for_ever)
{
	struct world w = { .fault = { .at = at, .for_ever = for_ever } };
	struct rp_hooks hooks = { .allocate = allocate, .context = &w.fault };
	struct rp_pool_options options = { .size_bytes = 32 << 20, .hooks = &hooks };
	int error = rp_pool_create(&options, &w.pool);

	if (error == -ENOMEM && w.fault.fired)
		return true;
	if (error)
		ref_fail("creating: %d", error);
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		run_step(&w, i);
	end(&w);
	return w.fault.fired;
}

static void run_tight(void)
{
	struct world w = { .fault = { .at = 0 } };
	struct rp_hooks hooks = { .allocate = allocate, .context = &w.fault };
	struct rp_pool_options options = { .size_bytes = 32 << 20, .hooks = &hooks };
	unsigned failed = 0;

	if (rp_pool_create(&options, &w.pool))
		ref_fail("no pool");
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		failed += run_step_tight(&w, i);
	end(&w);
	printf("%u times too few frames\n", failed);
	if (failed < 100)
		ref_fail("too few: the limit is not reached");
}

int main(void)
{
	for (int for_ever = 0; for_ever < 2; for_ever++) {
		uint64_t n = 1;

		while (run(n, for_ever))
			n += STRIDE;
		printf("%llu allocations failed %s\n", (unsigned long long)n - 1, for_ever ? "and all after them" : "once");
		if (n < 30)
			ref_fail("too few: the hook is not reached");
	}
	run_tight();
	return 0;
}
