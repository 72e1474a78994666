/* model_pool_operation.c: operations of several changes of metadata, kept or taken back whole. */
#include <errno.h>
#include <string.h>
#include "tests/model/pool_model.h"

#define ACTIONS_MAX 8u

/* One try of an operation: works on a copy of the reference that replaces it when the operation is kept. */
struct attempt {
	struct model *m;
	struct rp_op *op;
	struct ref_tree tree;
	rp_object edited[ACTIONS_MAX];  /* objects whose pages were changed */
	unsigned edited_count;
};

static int act_create(struct attempt *a)
{
	bool meta = model_below(a->m, 3) == 0;
	uint64_t generation;
	rp_object number;
	int error = rp_object_create(a->op, meta, &number, &generation);

	if (!error)
		ref_add(&a->tree, number, generation, meta);
	return error;
}

static int act_remove(struct attempt *a)
{
	if (!a->tree.count)
		return 0;
	size_t i = model_below(a->m, a->tree.count);
	int error = rp_object_remove(a->op, a->tree.objects[i]->number);

	if (!error)
		ref_remove(&a->tree, i);
	return error;
}

static int act_record(struct attempt *a)
{
	uint64_t value = random_next(&a->m->random) >> 1;
	struct rp_record *record;

	if (!a->tree.count)
		return 0;
	struct ref_object *object = ref_change(&a->tree, model_below(a->m, a->tree.count));
	bool size = value & 1;
	int error = rp_record_edit(a->op, object->number,
	                           size ? offsetof(struct rp_record, size_bytes) : offsetof(struct rp_record, user) + 8, 8,
	                           &record);

	if (error)
		return error;
	if (size)
		record->size_bytes = object->size = value;
	else
		memcpy(record->user + 8, &value, sizeof(value));
	if (!size)
		object->user = value;
	return 0;
}

static int act_header(struct attempt *a)
{
	unsigned i = (unsigned)model_below(a->m, REF_COUNTERS);
	uint64_t value = random_next(&a->m->random);
	size_t offset = offsetof(struct rp_header, user) + i * 8;
	struct rp_header *header;
	int error;

	if (i > 0) {
		error = rp_header_add(a->op, offset, (int64_t)value);
		if (!error)
			a->tree.counters[i] += value;
		return error;
	}
	error = rp_header_edit(a->op, offset, 8, &header);
	if (!error) {
		memcpy(header->user, &value, sizeof(value));
		a->tree.counters[0] = value;
	}
	return error;
}

static int act_page_edit(struct attempt *a)
{
	rp_page page = model_page(a->m);
	unsigned first = (unsigned)model_below(a->m, REF_TAGS), count = 1 + (unsigned)model_below(a->m, REF_TAGS - first);
	uint64_t tag = model_tag(a->m);
	bool found;
	size_t i;
	void *bytes;

	if (!model_object(a->m, &a->tree, true, &i))
		return 0;
	struct ref_object *object = ref_change(&a->tree, i);

	a->edited[a->edited_count++] = object->number;
	ref_page_find(object, page, &found);
	/* What a new page holds needs no record of what it held before. */
	size_t length = !found && tag & 4096 ? 0 : count * REF_BLOCK;
	int error = rp_page_edit(a->op, object->number, page, first * REF_BLOCK, length, &bytes);

	if (error)
		return error;
	for (unsigned b = 0; b < count; b++)
		ref_fill((uint8_t *)bytes + (first + b) * REF_BLOCK, tag + b);
	ref_write(object, (page << RP_PAGE_SHIFT) + first * REF_BLOCK, count * REF_BLOCK, tag);
	return 0;
}

static int act_page_drop(struct attempt *a)
{
	rp_page page = model_page(a->m);
	size_t i;

	if (!model_object(a->m, &a->tree, true, &i))
		return 0;
	struct ref_object *object = ref_change(&a->tree, i);

	a->edited[a->edited_count++] = object->number;
	if (object->count && model_below(a->m, 8))
		page = object->pages[model_below(a->m, object->count)].page;
	int error = rp_page_drop(a->op, object->number, page);

	if (!error)
		ref_pages_drop(object, page, page + 1);
	return error;
}

static int act(struct attempt *a)
{
	uint64_t creating = a->tree.count < MODEL_OBJECTS / (a->m->filling ? 1 : 4) ? 3 : 0;
	uint64_t removing = a->m->filling ? 1 : 3, die = model_below(a->m, creating + removing + 20);

	if (die < creating)
		return act_create(a);
	if (die < creating + removing)
		return model_below(a->m, 2) ? act_remove(a) : act_page_drop(a);
	die -= creating + removing;
	return die < 5 ? act_record(a) : die < 8 ? act_header(a) : die < 15 ? act_page_edit(a) : act_page_drop(a);
}

static int attempt(struct attempt *a, bool cancel)
{
	unsigned count = 1 + (unsigned)model_below(a->m, ACTIONS_MAX);
	int error = 0;

	for (unsigned i = 0; !error && i < count; i++)
		error = act(a);
	return error ? error : cancel ? -ECANCELED : 0;
}

/* Taken back: all is as it was, but pages may have been copied. */
static void note_copies(struct model *m, const struct attempt *a)
{
	for (unsigned i = 0; i < a->edited_count; i++) {
		bool found;
		size_t at = ref_find(&m->live, a->edited[i], &found);

		if (found) {
			struct ref_object *object = ref_change(&m->live, at);

			object->touch_aborted = object->touch;
		}
	}
}

void step_operation(struct model *m)
{
	bool cancel = model_below(m, 3) == 0;
	unsigned flags = model_below(m, 4) ? 0 : RP_OP_RESERVE;
	uint64_t random = m->random, tag = m->tag;
	struct attempt a = { .m = m };
	struct rp_op op;
	int error;

	do {
		/* Each try is the same. */
		m->random = random;
		m->tag = tag;
		note_copies(m, &a);
		ref_free(&a.tree);
		ref_copy(&a.tree, &m->live);
		a.edited_count = 0;
		rp_op_begin(&op, m->pool, flags);
		a.op = &op;
		error = attempt(&a, cancel);
	} while (rp_op_end(&op, &error));
	if (!error) {
		ref_free(&m->live);
		m->live = a.tree;
		return;
	}
	if (error != -ECANCELED && error != -ENOSPC)
		ref_fail("operation: %d", error);
	m->aborted++;
	ref_free(&a.tree);
	note_copies(m, &a);
}
