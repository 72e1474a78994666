/* reference.c: see reference.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "reference.h"

static _Thread_local uint64_t touch_last; /* threads that keep a reference keep it alone */

void ref_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stdout, format, arguments);
	va_end(arguments);
	fputc('\n', stdout);
	fflush(stdout);
	abort();
}

static void *grow(void *memory, size_t *room, size_t need, size_t unit)
{
	if (need <= *room)
		return memory;
	*room = need * 2;
	memory = realloc(memory, *room * unit);
	if (!memory)
		ref_fail("no memory for the reference");
	return memory;
}

/* ---- Trees ---- */

void ref_copy(struct ref_tree *to, const struct ref_tree *from)
{
	*to = *from;
	to->objects = NULL;
	to->room = 0;
	to->objects = grow(NULL, &to->room, from->count + 1, sizeof(*to->objects));
	for (size_t i = 0; i < from->count; i++) {
		to->objects[i] = from->objects[i];
		to->objects[i]->refs++;
	}
}

static void object_put(struct ref_object *object)
{
	if (--object->refs)
		return;
	free(object->pages);
	free(object);
}

void ref_free(struct ref_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++)
		object_put(tree->objects[i]);
	free(tree->objects);
	memset(tree, 0, sizeof(*tree));
}

size_t ref_find(const struct ref_tree *tree, rp_object number, bool *found)
{
	size_t low = 0, high = tree->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (tree->objects[middle]->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	*found = low < tree->count && tree->objects[low]->number == number;
	return low;
}

void ref_add(struct ref_tree *tree, rp_object number, uint64_t generation, bool meta)
{
	struct ref_object *object = calloc(1, sizeof(*object));
	bool found;
	size_t i = ref_find(tree, number, &found);

	if (found || !object)
		ref_fail("object %llu was given out twice", (unsigned long long)number);
	*object = (struct ref_object){ .refs = 1, .number = number, .generation = generation, .meta = meta,
		                       .touch = ++touch_last };
	tree->objects = grow(tree->objects, &tree->room, tree->count + 1, sizeof(*tree->objects));
	memmove(tree->objects + i + 1, tree->objects + i, (tree->count - i) * sizeof(*tree->objects));
	tree->objects[i] = object;
	tree->count++;
}

void ref_remove(struct ref_tree *tree, size_t i)
{
	object_put(tree->objects[i]);
	tree->count--;
	memmove(tree->objects + i, tree->objects + i + 1, (tree->count - i) * sizeof(*tree->objects));
}

struct ref_object *ref_change(struct ref_tree *tree, size_t i)
{
	struct ref_object *old = tree->objects[i], *object = old;

	if (old->refs > 1) {
		object = malloc(sizeof(*object));
		if (!object)
			ref_fail("no memory for the reference");
		*object = *old;
		object->refs = 1;
		object->pages = NULL;
		object->room = 0;
		object->pages = grow(NULL, &object->room, old->count + 1, sizeof(*object->pages));
		if (old->count)
			memcpy(object->pages, old->pages, old->count * sizeof(*object->pages));
		old->refs--;
		tree->objects[i] = object;
	}
	object->touch = ++touch_last;
	return object;
}

uint64_t ref_pages_total(const struct ref_tree *tree)
{
	uint64_t total = 0;

	for (size_t i = 0; i < tree->count; i++)
		total += tree->objects[i]->count;
	return total;
}

/* ---- Pages ---- */

size_t ref_page_find(const struct ref_object *object, rp_page page, bool *found)
{
	size_t low = 0, high = object->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (object->pages[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	*found = low < object->count && object->pages[low].page == page;
	return low;
}

struct ref_page *ref_page_make(struct ref_object *object, rp_page page)
{
	bool found;
	size_t i = ref_page_find(object, page, &found);

	if (!found) {
		object->pages = grow(object->pages, &object->room, object->count + 1, sizeof(*object->pages));
		memmove(object->pages + i + 1, object->pages + i, (object->count - i) * sizeof(*object->pages));
		object->count++;
		memset(&object->pages[i], 0, sizeof(object->pages[i]));
		object->pages[i].page = page;
	}
	object->pages[i].touch = ++touch_last;
	return &object->pages[i];
}

void ref_pages_drop(struct ref_object *object, rp_page first, rp_page last)
{
	bool found;
	size_t i = ref_page_find(object, first, &found), end = ref_page_find(object, last, &found);

	if (object->count > end)
		memmove(object->pages + i, object->pages + end, (object->count - end) * sizeof(*object->pages));
	object->count -= end - i;
}

void ref_write(struct ref_object *object, uint64_t offset, size_t length, uint64_t tag)
{
	for (size_t done = 0; done < length; done += REF_BLOCK) {
		uint64_t at = offset + done;
		bool found;

		ref_page_find(object, at >> RP_PAGE_SHIFT, &found);
		if (!tag && !found)
			continue;
		ref_page_make(object, at >> RP_PAGE_SHIFT)->tag[at % RP_PAGE_SIZE / REF_BLOCK] =
			tag ? tag + done / REF_BLOCK : 0;
	}
}

void ref_fill(void *to, uint64_t tag)
{
	uint64_t words[REF_BLOCK / 8];

	for (unsigned i = 0; i < REF_BLOCK / 8; i++)
		words[i] = tag ? (tag + i * UINT64_C(0x10001)) * UINT64_C(0x9e3779b97f4a7c15) | 1 : 0;
	memcpy(to, words, sizeof(words));
}

void ref_bytes(const struct ref_object *object, uint64_t offset, void *to, size_t length)
{
	for (size_t done = 0; done < length;) {
		uint64_t at = offset + done;
		size_t within = at % REF_BLOCK, n = REF_BLOCK - within;
		uint8_t block[REF_BLOCK];
		bool found;
		size_t i = ref_page_find(object, at >> RP_PAGE_SHIFT, &found);

		ref_fill(block, found ? object->pages[i].tag[at % RP_PAGE_SIZE / REF_BLOCK] : 0);
		if (n > length - done)
			n = length - done;
		memcpy((uint8_t *)to + done, block + within, n);
		done += n;
	}
}

/* ---- Comparing ---- */

static int get_page(struct rp_op *op, struct rp_tree *tree, const struct ref_object *object, rp_page page, void *to)
{
	const void *bytes;
	int error;

	if (!object->meta)
		return rp_bytes_read(op, tree, object->number, page << RP_PAGE_SHIFT, to, RP_PAGE_SIZE);
	error = rp_page_get(op, tree, object->number, page, &bytes);
	if (!error)
		memcpy(to, bytes, RP_PAGE_SIZE);
	return error;
}

static int compare_pages(struct rp_op *op, struct rp_tree *tree, const struct ref_object *object)
{
	for (size_t i = 0; i < object->count; i++) {
		uint8_t is[RP_PAGE_SIZE], should[RP_PAGE_SIZE];
		int error = get_page(op, tree, object, object->pages[i].page, is);

		if (error)
			return error;
		for (unsigned t = 0; t < REF_TAGS; t++)
			ref_fill(should + t * REF_BLOCK, object->pages[i].tag[t]);
		if (memcmp(is, should, RP_PAGE_SIZE))
			ref_fail("object %llu page %llu: wrong bytes", (unsigned long long)object->number,
			         (unsigned long long)object->pages[i].page);
	}
	return 0;
}

/* Runs of data and holes from 0 to the end of all pages. */
static int compare_extents(struct rp_op *op, struct rp_tree *tree, const struct ref_object *object)
{
	const uint64_t end = RP_PAGE_COUNT_MAX << RP_PAGE_SHIFT;
	size_t i = 0;

	for (uint64_t at = 0, stop; at < end; at = stop) {
		bool data;
		int error = rp_extent_get(op, tree, object->number, at, end, &data, &stop);

		if (error)
			return error;
		if (stop <= at || stop % RP_PAGE_SIZE)
			ref_fail("object %llu: an extent at %llu ends at %llu", (unsigned long long)object->number,
			         (unsigned long long)at, (unsigned long long)stop);
		for (rp_page p = at >> RP_PAGE_SHIFT; data && p < stop >> RP_PAGE_SHIFT; p++, i++)
			if (i >= object->count || object->pages[i].page != p)
				ref_fail("object %llu: page %llu should be a hole", (unsigned long long)object->number,
				         (unsigned long long)p);
		if (!data && i < object->count && object->pages[i].page < stop >> RP_PAGE_SHIFT)
			ref_fail("object %llu: page %llu should not be a hole", (unsigned long long)object->number,
			         (unsigned long long)object->pages[i].page);
	}
	return 0;
}

static int compare_record(struct rp_op *op, struct rp_tree *tree, const struct ref_object *object)
{
	const struct rp_record *record;
	uint64_t user;
	int error = rp_record_get(op, tree, object->number, 0, &record);

	if (error)
		ref_fail("object %llu: %d", (unsigned long long)object->number, error);
	memcpy(&user, record->user + 8, sizeof(user));
	if (record->generation != object->generation || record->size_bytes != object->size || user != object->user ||
	    record->page_count != object->count || !(record->flags & RP_RECORD_META) != !object->meta)
		ref_fail("object %llu: generation %llu size %llu user %llx pages %llu flags %x, not %llu %llu %llx %llu",
		         (unsigned long long)object->number, (unsigned long long)record->generation,
		         (unsigned long long)record->size_bytes, (unsigned long long)user,
		         (unsigned long long)record->page_count, record->flags, (unsigned long long)object->generation,
		         (unsigned long long)object->size, (unsigned long long)object->user,
		         (unsigned long long)object->count);
	return 0;
}

void ref_verify_object(struct rp_pool *pool, struct rp_tree *tree, const struct ref_object *object)
{
	int error = REF_OP(pool, RP_OP_READ, compare_record(&op, tree, object));

	if (!error)
		error = REF_OP(pool, RP_OP_READ, compare_pages(&op, tree, object));
	if (!error)
		error = REF_OP(pool, RP_OP_READ, compare_extents(&op, tree, object));
	if (error)
		ref_fail("object %llu: reading failed: %d", (unsigned long long)object->number, error);
}

static int compare_header(struct rp_op *op, struct rp_tree *tree, const struct ref_tree *reference)
{
	const struct rp_header *header;
	int error = rp_header_get(op, tree, &header);

	if (error)
		return error;
	if (memcmp(header->user, reference->counters, sizeof(reference->counters)))
		ref_fail("the header's numbers are wrong");
	if (header->object_count != reference->count)
		ref_fail("%llu objects, not %zu", (unsigned long long)header->object_count, reference->count);
	return 0;
}

void ref_verify_header(struct rp_pool *pool, struct rp_tree *tree, const struct ref_tree *reference)
{
	int error = REF_OP(pool, RP_OP_READ, compare_header(&op, tree, reference));

	if (error)
		ref_fail("the header cannot be read: %d", error);
}

void ref_verify(struct rp_pool *pool, struct rp_tree *tree, const struct ref_tree *reference)
{
	ref_verify_header(pool, tree, reference);
	for (size_t i = 0; i < reference->count; i++)
		ref_verify_object(pool, tree, reference->objects[i]);
}

static void report(void *context, const char *line)
{
	(void)context;
	printf("check: %s\n", line);
}

void ref_check(struct rp_pool *pool)
{
	unsigned faults = rp_pool_check(pool, report, NULL);

	if (faults)
		ref_fail("the checker found %u faults", faults);
}
