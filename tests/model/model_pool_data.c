/* model_pool_data.c: steps that change and read the bytes of objects. */
#include <errno.h>
#include <string.h>
#include "tests/model/pool_model.h"

#define WRITE_MAX (16 * RP_PAGE_SIZE)

/* Full or done; anything else is a fault. */
static void settle(struct model *m, int error, const char *what)
{
	if (error && error != -ENOSPC)
		ref_fail("%s: %d", what, error);
	if (error)
		model_is_full(m);
}

void step_write(struct model *m)
{
	static uint8_t bytes[WRITE_MAX];
	uint64_t offset = (model_page(m) << RP_PAGE_SHIFT) + model_below(m, REF_TAGS) * REF_BLOCK, tag = model_tag(m);
	size_t i, length, done = 0;

	if (!model_object(m, &m->live, false, &i))
		return;
	switch (model_below(m, 4)) {
	case 0:
		length = REF_BLOCK;
		break;
	case 1:
		offset &= ~(uint64_t)(RP_PAGE_SIZE - 1);
		length = RP_PAGE_SIZE;
		break;
	default:
		length = (1 + model_below(m, m->filling ? WRITE_MAX / REF_BLOCK : 32)) * REF_BLOCK;
	}
	for (size_t b = 0; b < length; b += REF_BLOCK)
		ref_fill(bytes + b, tag + b / REF_BLOCK);
	struct ref_object *object = ref_change(&m->live, i);
	int error = REF_OP(m->pool, 0, rp_bytes_write(&op, object->number, offset, bytes, length, &done));

	if (!error && done != length)
		ref_fail("a write of %zu bytes said it wrote %zu", length, done);
	ref_write(object, offset, done, tag);
	settle(m, error, "write");
}

void step_zero(struct model *m)
{
	uint64_t offset = (model_page(m) << RP_PAGE_SHIFT) + model_below(m, REF_TAGS) * REF_BLOCK;
	size_t i, length = (1 + model_below(m, REF_TAGS)) * REF_BLOCK, room = RP_PAGE_SIZE - offset % RP_PAGE_SIZE;

	if (!model_object(m, &m->live, false, &i))
		return;
	struct ref_object *object = ref_change(&m->live, i);
	int error = REF_OP(m->pool, 0, rp_bytes_zero(&op, object->number, offset, length < room ? length : room));

	if (!error)
		ref_write(object, offset, length < room ? length : room, 0);
	settle(m, error, "zero");
}

/* How many pages: a few, nodes of some level, all. */
static rp_page range_length(struct model *m, rp_page first)
{
	rp_page length;

	switch (model_below(m, 6)) {
	case 0:
		length = RP_PAGE_COUNT_MAX;
		break;
	case 1:
		length = (rp_page)1 << (9 * model_below(m, 6));
		break;
	case 2:
		length = 500 + model_below(m, 1600);
		break;
	default:
		length = 1 + model_below(m, 24);
	}
	return length < RP_PAGE_COUNT_MAX - first ? length : RP_PAGE_COUNT_MAX - first;
}

void step_punch(struct model *m)
{
	rp_page first = model_page(m), last, next;
	size_t i;
	int error = 0;

	if (!model_object(m, &m->live, false, &i))
		return;
	if (model_below(m, 3) == 0)
		first &= ~(rp_page)511;
	last = first + range_length(m, first);
	struct ref_object *object = ref_change(&m->live, i);

	while (!error && first < last) {
		error = REF_OP(m->pool, RP_OP_RESERVE, rp_pages_punch(&op, object->number, first, last - first, &next));
		if (next < first || next > last || (!error && next == first))
			ref_fail("punching from %llu to %llu stopped at %llu", (unsigned long long)first,
			         (unsigned long long)last, (unsigned long long)next);
		ref_pages_drop(object, first, next);
		first = next;
	}
	if (error && error != -ENOSPC)
		ref_fail("punch: %d", error);
}

void step_allocate(struct model *m)
{
	rp_page first = model_page(m), last = first + 1 + model_below(m, m->filling ? 40 : 4), next;
	size_t i;
	int error = 0;

	if (!model_object(m, &m->live, false, &i))
		return;
	if (last > RP_PAGE_COUNT_MAX)
		last = RP_PAGE_COUNT_MAX;
	struct ref_object *object = ref_change(&m->live, i);

	while (!error && first < last) {
		error = REF_OP(m->pool, 0, rp_pages_allocate(&op, object->number, first, last - first, &next));
		for (; first < next; first++) {
			bool found;

			ref_page_find(object, first, &found);
			if (!found)
				ref_page_make(object, first);
		}
	}
	settle(m, error, "allocate");
}

/* Any bytes, at any alignment, of the live tree or of a snapshot. */
void step_read(struct model *m)
{
	static uint8_t is[20000], should[20000];
	unsigned h = (unsigned)model_below(m, MODEL_HELD * 3);
	bool held = h < MODEL_HELD && m->held[h].snapshot;
	struct rp_tree *tree = held ? rp_snapshot_tree(m->held[h].snapshot) : rp_pool_live(m->pool);
	const struct ref_tree *reference = held ? &m->held[h].tree : &m->live;
	uint64_t offset = (model_page(m) << RP_PAGE_SHIFT) + model_below(m, RP_PAGE_SIZE);
	size_t i, length = 1 + model_below(m, sizeof(is));

	if (!model_object(m, reference, false, &i))
		return;
	int error = REF_OP(m->pool, RP_OP_READ,
	                   rp_bytes_read(&op, tree, reference->objects[i]->number, offset, is, length));

	ref_bytes(reference->objects[i], offset, should, length);
	if (error || memcmp(is, should, length))
		ref_fail("object %llu: reading %zu bytes at %llu: %s (%d)", (unsigned long long)reference->objects[i]->number,
		         length, (unsigned long long)offset, error ? "failed" : "wrong bytes", error);
}

void step_share(struct model *m)
{
	rp_page from = model_page(m), to = model_page(m), count = range_length(m, from > to ? from : to), done;
	size_t a, b;

	if (!model_object(m, &m->live, false, &a) || !model_object(m, &m->live, false, &b))
		return;
	if (a == b && count > (from > to ? from - to : to - from))
		count = from > to ? from - to : to - from;
	struct ref_object *target = ref_change(&m->live, b), *source = m->live.objects[a];
	int error = rp_pages_share(m->pool, source->number, from, target->number, to, count, &done);

	if (done > count || (!error && done != count))
		ref_fail("%llu pages were to be shared, %llu were", (unsigned long long)count, (unsigned long long)done);
	/* Where nothing stood and nothing comes, nothing changes: only pages of either side are looked at. */
	bool found;
	size_t first = ref_page_find(source, from, &found), end = ref_page_find(source, from + done, &found);
	struct ref_page *moved = malloc((end - first + 1) * sizeof(*moved));

	if (!moved)
		ref_fail("no memory for the reference");
	if (end > first)
		memcpy(moved, source->pages + first, (end - first) * sizeof(*moved));
	ref_pages_drop(target, to, to + done);
	for (size_t i = 0; i < end - first; i++)
		memcpy(ref_page_make(target, to + (moved[i].page - from))->tag, moved[i].tag, sizeof(moved[i].tag));
	free(moved);
	settle(m, error, "share");
}
