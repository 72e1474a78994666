/* model_pool_snapshot.c: steps with snapshots: held, named, rolled back to, compared. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/model/pool_model.h"

void step_hold(struct model *m)
{
	for (unsigned i = 0; i < MODEL_HELD; i++) {
		if (m->held[i].snapshot)
			continue;
		int error = rp_snapshot_take(m->pool, &m->held[i].snapshot);

		if (error)
			ref_fail("snapshot: %d", error);
		ref_copy(&m->held[i].tree, &m->live);
		return;
	}
}

void step_unhold(struct model *m)
{
	unsigned i = (unsigned)model_below(m, MODEL_HELD);

	if (!m->held[i].snapshot)
		return;
	ref_verify(m->pool, rp_snapshot_tree(m->held[i].snapshot), &m->held[i].tree);
	rp_snapshot_put(m->held[i].snapshot);
	m->held[i].snapshot = NULL;
	ref_free(&m->held[i].tree);
}

static void forget_name(struct model *m, unsigned i)
{
	ref_free(&m->named[i].tree);
	m->named_count--;
	memmove(&m->named[i], &m->named[i + 1], (m->named_count - i) * sizeof(m->named[0]));
}

static void new_name(struct model *m, char *to, size_t size)
{
	/* Not in the order of time. */
	snprintf(to, size, "%c%llu", "zqma"[m->name_next % 4], (unsigned long long)m->name_next);
	m->name_next++;
}

void step_name(struct model *m)
{
	struct model_named *n = &m->named[m->named_count];

	if (m->named_count == MODEL_NAMED)
		return;
	if (m->named_count && rp_snapshot_create(m->pool, m->named[0].name) != -EEXIST)
		ref_fail("a name was given twice");
	new_name(m, n->name, sizeof(n->name));
	int error = rp_snapshot_create(m->pool, n->name);

	if (error == -ENOSPC) {
		model_is_full(m);
		return;
	}
	if (error)
		ref_fail("naming a snapshot: %d", error);
	ref_copy(&n->tree, &m->live);
	m->named_count++;
}

void step_unname(struct model *m)
{
	struct rp_snapshot *open = NULL;
	char name[32];

	if (!m->named_count) {
		if (rp_snapshot_delete(m->pool, "none") != -ENOENT)
			ref_fail("what is not there was deleted");
		return;
	}
	unsigned i = (unsigned)model_below(m, m->named_count);

	strcpy(name, m->named[i].name);
	if (model_below(m, 2) && rp_snapshot_open(m->pool, name, &open) != 0)
		ref_fail("%s cannot be opened", name);
	int error = rp_snapshot_delete(m->pool, name);

	if (open) {
		ref_verify(m->pool, rp_snapshot_tree(open), &m->named[i].tree);
		rp_snapshot_put(open);
	}
	if (error && error != -ENOSPC)
		ref_fail("deleting %s: %d", name, error);
	if (!error)
		forget_name(m, i);
}

void step_rename(struct model *m)
{
	char name[32];

	if (!m->named_count)
		return;
	unsigned i = (unsigned)model_below(m, m->named_count);

	if (rp_snapshot_rename(m->pool, m->named[i].name, m->named[0].name) != -EEXIST)
		ref_fail("renamed to a name that is taken");
	if (rp_snapshot_rename(m->pool, m->named[i].name, "a/b") != -EINVAL)
		ref_fail("renamed to what is no name");
	new_name(m, name, sizeof(name));
	int error = rp_snapshot_rename(m->pool, m->named[i].name, name);

	if (error && error != -ENOSPC)
		ref_fail("renaming %s: %d", m->named[i].name, error);
	if (!error)
		strcpy(m->named[i].name, name);
}

void step_list(struct model *m)
{
	struct rp_snapshot_info *list;
	size_t count;
	int error = rp_snapshot_list(m->pool, model_below(m, 2), &list, &count);

	if (error || count != m->named_count)
		ref_fail("listing: %d, %zu names, not %u", error, count, m->named_count);
	for (unsigned i = 0; i < count; i++)
		if (strcmp(list[i].name, m->named[i].name))
			ref_fail("snapshot %u is %s, not %s", i, list[i].name, m->named[i].name);
	free(list);
}

void step_roll_back(struct model *m)
{
	struct rp_snapshot *open = NULL, *to = NULL;
	const struct ref_tree *tree = NULL;
	unsigned i = (unsigned)model_below(m, MODEL_HELD + MODEL_NAMED);

	if (i < MODEL_HELD && m->held[i].snapshot) {
		to = m->held[i].snapshot;
		tree = &m->held[i].tree;
	} else if (i >= MODEL_HELD && i - MODEL_HELD < m->named_count) {
		tree = &m->named[i - MODEL_HELD].tree;
		if (rp_snapshot_open(m->pool, m->named[i - MODEL_HELD].name, &open))
			ref_fail("%s cannot be opened", m->named[i - MODEL_HELD].name);
		to = open;
	} else {
		return;
	}
	uint64_t id = rp_pool_tree_id(m->pool);
	int error = rp_snapshot_rollback(m->pool, to);

	rp_snapshot_put(open);
	if (error == -ENOSPC)
		return; /* the reserve is used up */
	if (error || rp_pool_tree_id(m->pool) == id)
		ref_fail("rolling back: %d", error);
	struct ref_tree old = m->live;

	ref_copy(&m->live, tree);
	ref_free(&old);
	m->rolled_back++;
}

/* ---- Comparing ---- */

struct differences {
	struct { rp_object object; bool in_a, in_b; } *objects;
	rp_page *pages;
	size_t count, room;
};

static int on_object(void *context, rp_object object, const struct rp_record *in_a, const struct rp_record *in_b)
{
	struct differences *d = context;

	if (d->count == d->room) {
		d->room = d->room * 2 + 64;
		d->objects = realloc(d->objects, d->room * sizeof(*d->objects));
		if (!d->objects)
			ref_fail("no memory for the differences");
	}
	if (d->count && d->objects[d->count - 1].object >= object)
		ref_fail("objects are not told in rising order");
	d->objects[d->count].object = object;
	d->objects[d->count].in_a = in_a;
	d->objects[d->count++].in_b = in_b;
	return 0;
}

static int on_page(void *context, rp_page page)
{
	struct differences *d = context;

	if (d->count == d->room) {
		d->room = d->room * 2 + 64;
		d->pages = realloc(d->pages, d->room * sizeof(*d->pages));
		if (!d->pages)
			ref_fail("no memory for the differences");
	}
	if (d->count && d->pages[d->count - 1] >= page)
		ref_fail("pages are not told in rising order");
	d->pages[d->count++] = page;
	return 0;
}

enum verdict { MUST, MAY, MUST_NOT };

static enum verdict page_verdict(const struct ref_object *a, size_t i, const struct ref_object *b, size_t j, bool in_a, bool in_b)
{
	if (in_a != in_b)
		return MUST;
	if (!in_a)
		return MUST_NOT;
	if (memcmp(a->pages[i].tag, b->pages[j].tag, sizeof(a->pages[i].tag)))
		return MUST;
	return a->pages[i].touch != b->pages[j].touch || a->touch_aborted != b->touch_aborted ? MAY : MUST_NOT;
}

static void judge(enum verdict verdict, bool told, const char *what, uint64_t number)
{
	if ((verdict == MUST && !told) || (verdict == MUST_NOT && told))
		ref_fail("%s %llu %s told as different", what, (unsigned long long)number, told ? "was" : "was not");
}

/* Each page of either, and each that was told. */
static void compare_pages(struct model *m, struct rp_snapshot *x, const struct ref_object *a, struct rp_snapshot *y,
                          const struct ref_object *b)
{
	static const struct ref_object nothing;
	struct differences d = { 0 };
	rp_object number = a ? a->number : b->number;
	size_t i = 0, j = 0, k = 0;
	int error = rp_diff_pages(m->pool, x, y, number, on_page, &d);

	if (error)
		ref_fail("comparing pages: %d", error);
	a = a ? a : &nothing;
	b = b ? b : &nothing;
	while (i < a->count || j < b->count || k < d.count) {
		rp_page page = RP_PAGE_COUNT_MAX;

		page = i < a->count && a->pages[i].page < page ? a->pages[i].page : page;
		page = j < b->count && b->pages[j].page < page ? b->pages[j].page : page;
		page = k < d.count && d.pages[k] < page ? d.pages[k] : page;
		bool in_a = i < a->count && a->pages[i].page == page, in_b = j < b->count && b->pages[j].page == page;
		bool told = k < d.count && d.pages[k] == page;

		judge(page_verdict(a, i, b, j, in_a, in_b), told, "page", page);
		i += in_a;
		j += in_b;
		k += told;
	}
	free(d.pages);
}

static bool same_content(const struct ref_object *a, const struct ref_object *b)
{
	if (a->generation != b->generation || a->size != b->size || a->user != b->user || a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (a->pages[i].page != b->pages[i].page || memcmp(a->pages[i].tag, b->pages[i].tag, sizeof(a->pages[i].tag)))
			return false;
	return true;
}

static enum verdict object_verdict(const struct ref_object *a, const struct ref_object *b)
{
	if (!a || !b || !same_content(a, b))
		return MUST;
	return a == b || a->touch == b->touch ? MUST_NOT : MAY;
}

static void compare_trees(struct model *m, struct rp_snapshot *x, const struct ref_tree *a, struct rp_snapshot *y,
                          const struct ref_tree *b)
{
	struct differences d = { 0 };
	size_t i = 0, j = 0, k = 0;
	int error = rp_diff_objects(m->pool, x, y, on_object, &d);

	if (error)
		ref_fail("comparing objects: %d", error);
	while (i < a->count || j < b->count || k < d.count) {
		rp_object number = UINT64_MAX;

		number = i < a->count && a->objects[i]->number < number ? a->objects[i]->number : number;
		number = j < b->count && b->objects[j]->number < number ? b->objects[j]->number : number;
		number = k < d.count && d.objects[k].object < number ? d.objects[k].object : number;
		const struct ref_object *in_a = i < a->count && a->objects[i]->number == number ? a->objects[i] : NULL;
		const struct ref_object *in_b = j < b->count && b->objects[j]->number == number ? b->objects[j] : NULL;
		bool told = k < d.count && d.objects[k].object == number;

		if (!in_a && !in_b)
			ref_fail("object %llu is told as different and in neither", (unsigned long long)number);
		judge(object_verdict(in_a, in_b), told, "object", number);
		if (told && (d.objects[k].in_a != (in_a != NULL) || d.objects[k].in_b != (in_b != NULL)))
			ref_fail("object %llu is told to be where it is not", (unsigned long long)number);
		if (told)
			compare_pages(m, x, in_a, y, in_b);
		i += in_a != NULL;
		j += in_b != NULL;
		k += told;
	}
	free(d.objects);
}

void step_compare(struct model *m)
{
	unsigned i = (unsigned)model_below(m, MODEL_HELD), j = (unsigned)model_below(m, MODEL_HELD);
	struct rp_snapshot *now;

	if (!m->held[i].snapshot)
		return;
	if (i != j && m->held[j].snapshot) {
		compare_trees(m, m->held[i].snapshot, &m->held[i].tree, m->held[j].snapshot, &m->held[j].tree);
	} else {
		if (rp_snapshot_take(m->pool, &now))
			ref_fail("snapshot to compare with");
		compare_trees(m, m->held[i].snapshot, &m->held[i].tree, now, &m->live);
		rp_snapshot_put(now);
	}
	m->compared++;
}

void model_snapshots_free(struct model *m)
{
	for (unsigned i = 0; i < MODEL_HELD; i++) {
		if (!m->held[i].snapshot)
			continue;
		ref_verify(m->pool, rp_snapshot_tree(m->held[i].snapshot), &m->held[i].tree);
		rp_snapshot_put(m->held[i].snapshot);
		m->held[i].snapshot = NULL;
		ref_free(&m->held[i].tree);
	}
	while (m->named_count) {
		int error = rp_snapshot_delete(m->pool, m->named[0].name);

		if (error)
			ref_fail("deleting %s at the end: %d", m->named[0].name, error);
		forget_name(m, 0);
	}
}
