/* object.c: the object table: numbers, records, pages of metadata.
 *
 * A record is changed in place once its table page is ours. Numbers are given out from the bitmap (object 1) of table pages
 * with a free record, or from a page never used; a table page without a used record gives its frame back and its numbers
 * are not used again. Everything a removal will need is made ours when it is asked for, so that the end of an operation,
 * where the number really becomes free, cannot fail.
 *
 * Lock: numbers_lock guards the header's numbers, the heads' masks, the bitmap and the shape of the table (pages that come
 * and go). Taken inside operations; held for a few edits and at most four page copies; nothing is waited for under it.
 */
#include <stdlib.h>
#include "internal.h"

static struct rp_map table_map(struct rp_tree *tree)
{
	return (struct rp_map){ .root = &tree->root, .leaf = RP_KIND_TABLE };
}

static rp_page page_of(rp_object object) { return object / RP_RECORDS_PER_PAGE; }
static unsigned index_of(rp_object object) { return object % RP_RECORDS_PER_PAGE; }

static struct rp_map record_map(struct rp_record *record, rp_object object)
{
	return (struct rp_map){ .root = (_Atomic rp_entry *)&record->root,
		                .leaf = __atomic_load_n(&record->flags, __ATOMIC_RELAXED) & RP_RECORD_META ? RP_KIND_META
		                                                                                        : RP_KIND_DATA,
		                .page_count = &record->page_count,
		                .object = object };
}

int rp_table_page_own(struct rp_op *op, rp_page page, void **out)
{
	struct rp_map map = table_map(&op->pool->live);
	rp_frame f;
	int error = rp_map_edit(op, &map, page, false, &f);

	if (!error)
		*out = rp_bytes(op->pool, f);
	return error;
}

int rp_record_map(struct rp_op *op, struct rp_tree *tree, rp_object object, struct rp_record **record, struct rp_map *map)
{
	struct rp_map table = table_map(tree);
	rp_frame f;
	int error;

	if (index_of(object) == 0 || page_of(object) >= RP_PAGE_COUNT_MAX)
		return -ENOENT;
	error = rp_map_find(op, &table, page_of(object), &f);
	if (error)
		return error;
	if (!f)
		return -ENOENT;
	*record = (struct rp_record *)rp_bytes(op->pool, f) + index_of(object);
	if (!(__atomic_load_n(&(*record)->flags, __ATOMIC_ACQUIRE) & RP_RECORD_USED))
		return -ENOENT;
	*map = record_map(*record, object);
	return 0;
}

int rp_record_own(struct rp_op *op, rp_object object, struct rp_record **record, struct rp_map *map)
{
	int error = rp_record_map(op, &op->pool->live, object, record, map);
	void *page;

	if (error)
		return error;
	error = rp_table_page_own(op, page_of(object), &page);
	if (error)
		return error;
	*record = (struct rp_record *)page + index_of(object);
	*map = record_map(*record, object);
	return 0;
}

int rp_record_get(struct rp_op *op, struct rp_tree *tree, rp_object object, uint64_t generation, const struct rp_record **out)
{
	struct rp_record *record;
	struct rp_map map;
	int error = rp_record_map(op, tree, object, &record, &map);

	if (error)
		return error;
	if (generation && __atomic_load_n(&record->generation, __ATOMIC_RELAXED) != generation)
		return -ESTALE;
	*out = record;
	return 0;
}

int rp_record_edit(struct rp_op *op, rp_object object, size_t offset, size_t length, struct rp_record **out)
{
	struct rp_map map;
	int error = rp_record_own(op, object, out, &map);

	return error ? error : rp_undo_bytes(op, (uint8_t *)*out + offset, length);
}

/* ---- The header ----------------------------------------------------------------------------------------------- */

int rp_header_get(struct rp_op *op, struct rp_tree *tree, const struct rp_header **out)
{
	struct rp_map table = table_map(tree);
	rp_frame f;
	int error = rp_map_find(op, &table, 0, &f);

	if (error)
		return error;
	if (!f)
		return -EIO;
	*out = rp_bytes(op->pool, f);
	return (*out)->magic == RP_TABLE_MAGIC ? 0 : -EIO;
}

int rp_header_add(struct rp_op *op, size_t offset, int64_t delta)
{
	void *page;
	int error = rp_table_page_own(op, 0, &page);

	if (!error)
		error = rp_undo_add(op, offset, delta);
	if (error)
		return error;
	pthread_mutex_lock(&op->pool->numbers_lock);
	__atomic_fetch_add((uint64_t *)((uint8_t *)page + offset), (uint64_t)delta, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&op->pool->numbers_lock);
	return 0;
}

int rp_header_edit(struct rp_op *op, size_t offset, size_t length, struct rp_header **out)
{
	void *page;
	int error = rp_table_page_own(op, 0, &page);

	if (!error)
		error = rp_undo_bytes(op, (uint8_t *)page + offset, length);
	if (!error)
		*out = page;
	return error;
}

/* ---- Numbers --------------------------------------------------------------------------------------------------- */

/* The bitmap's word for a table page, ours. */
static int bitmap_word(struct rp_op *op, rp_page page, uint64_t **out)
{
	struct rp_record *record;
	struct rp_map map;
	rp_frame f;
	int error = rp_record_own(op, RP_OBJECT_BITMAP, &record, &map);

	if (!error)
		error = rp_map_edit(op, &map, page / RP_BITMAP_BITS, false, &f);
	if (!error)
		*out = (uint64_t *)rp_bytes(op->pool, f) + page % RP_BITMAP_BITS / 64;
	return error;
}

/* numbers_lock held. */
static void bitmap_set_locked(struct rp_pool *pool, struct rp_header *header, uint64_t *word, rp_page page, bool set)
{
	uint64_t bit = UINT64_C(1) << (page % 64);

	if (set == ((*word & bit) != 0))
		return;
	*word ^= bit;
	header->partial_count += set ? 1 : UINT64_MAX;
	if (set && page < pool->numbers_cursor)
		pool->numbers_cursor = page;
}

/* First table page with its bit set, from the cursor on, which moves along. */
static int bitmap_first_locked(struct rp_op *op, rp_page end, rp_page *out)
{
	struct rp_record *record;
	struct rp_map map;
	uint64_t *cursor = &op->pool->numbers_cursor;
	int error = rp_record_own(op, RP_OBJECT_BITMAP, &record, &map);

	while (!error && *cursor < end) {
		rp_frame f;

		error = rp_map_find(op, &map, *cursor / RP_BITMAP_BITS, &f);
		if (error)
			return error;
		const uint64_t *words = f ? rp_bytes(op->pool, f) : NULL;
		unsigned w = *cursor % RP_BITMAP_BITS / 64;
		rp_page base = *cursor / RP_BITMAP_BITS * RP_BITMAP_BITS;

		while (words && w < RP_BITMAP_BITS / 64 && !words[w])
			w++;
		if (words && w < RP_BITMAP_BITS / 64) {
			*out = *cursor = base + w * 64 + (unsigned)__builtin_ctzll(words[w]);
			return 0;
		}
		*cursor = base + RP_BITMAP_BITS;
	}
	return error ? error : -EIO;
}

/* Who holds a number of old may look at a record just now: he finds it free, or of another generation. */
static void record_clear(struct rp_record *record)
{
	__atomic_store_n(&record->flags, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&record->root, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&record->generation, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&record->page_count, 0, __ATOMIC_RELAXED);
	record->size_bytes = 0;
	memset(record->user, 0, sizeof(record->user));
}

static int create_locked(struct rp_op *op, bool meta, rp_object *out, uint64_t *generation)
{
	struct rp_header *header;
	struct rp_table_head *head;
	uint64_t *word;
	rp_page page;
	void *bytes;
	int error = rp_table_page_own(op, 0, &bytes);

	if (error)
		return error;
	header = bytes;
	if (header->object_limit && header->object_count >= header->object_limit)
		return -ENOSPC;
	page = header->page_next;
	if (header->partial_count)
		error = bitmap_first_locked(op, header->page_next, &page);
	if (!error)
		error = bitmap_word(op, page, &word);
	if (!error)
		error = rp_table_page_own(op, page, &bytes);
	if (error)
		return error;
	head = bytes;
	unsigned index = head->magic ? (unsigned)__builtin_ctz(~(unsigned)head->used) : 1;

	if (index >= RP_RECORDS_PER_PAGE || (head->magic && head->magic != RP_TABLE_MAGIC))
		return -EIO;
	*out = page * RP_RECORDS_PER_PAGE + index;
	error = rp_undo_create(op, *out);
	if (error) {
		if (!head->magic)
			rp_page_drop_table(op, page);
		return error;
	}
	if (page == header->page_next)
		header->page_next++;
	if (!head->magic)
		head->magic = RP_TABLE_MAGIC; /* others read that of the header's page meanwhile */
	head->used |= (uint16_t)(1u | 1u << index);
	bitmap_set_locked(op->pool, header, word, page, head->used != 0xffff);
	__atomic_fetch_add(&header->object_count, 1, __ATOMIC_RELAXED);
	struct rp_record *record = (struct rp_record *)bytes + index;

	*generation = header->generation_next++;
	record_clear(record); /* it is clear already, unless an image says otherwise */
	__atomic_store_n(&record->generation, *generation, __ATOMIC_RELAXED);
	__atomic_store_n(&record->flags, RP_RECORD_USED | (meta ? RP_RECORD_META : 0), __ATOMIC_RELEASE);
	return 0;
}

int rp_object_create(struct rp_op *op, bool meta, rp_object *out, uint64_t *generation)
{
	pthread_mutex_lock(&op->pool->numbers_lock);
	int error = create_locked(op, meta, out, generation);

	pthread_mutex_unlock(&op->pool->numbers_lock);
	return error;
}

int rp_object_remove(struct rp_op *op, rp_object object)
{
	struct rp_record *record;
	struct rp_map map;
	uint64_t *word;
	void *page;
	int error = rp_record_own(op, object, &record, &map);

	/* What the end of the operation will change, made ours now. */
	if (!error)
		error = rp_table_page_own(op, 0, &page);
	if (error)
		return error;
	pthread_mutex_lock(&op->pool->numbers_lock);
	error = bitmap_word(op, page_of(object), &word);
	pthread_mutex_unlock(&op->pool->numbers_lock);
	return error ? error : rp_finish_remove(op, object);
}

/* A table page without a used record leaves the table. numbers_lock held; the path is ours. */
void rp_page_drop_table(struct rp_op *op, rp_page page)
{
	struct rp_map map = table_map(&op->pool->live);
	_Atomic rp_entry *at;

	if (rp_map_own(op, &map, page, 0, false, &at) != 0 || !at)
		return;
	rp_entry e = atomic_exchange(at, 0);

	if (rp_entry_is_frame(e))
		rp_frame_put(op, rp_entry_frame(e));
	rp_map_prune(op, &map, page);
}

void rp_object_free_now(struct rp_op *op, rp_object object)
{
	struct rp_record *record;
	struct rp_map map;
	uint64_t *word = NULL;
	void *header = NULL;

	pthread_mutex_lock(&op->pool->numbers_lock);
	/* Everything here is ours already: these calls find, they do not copy. */
	if (rp_record_own(op, object, &record, &map) == 0 && rp_table_page_own(op, 0, &header) == 0 &&
	    bitmap_word(op, page_of(object), &word) == 0) {
		struct rp_table_head *head = (struct rp_table_head *)(record - index_of(object));
		rp_entry root = atomic_exchange((_Atomic rp_entry *)&record->root, 0);

		if (rp_entry_is_frame(root))
			rp_frame_put(op, rp_entry_frame(root));
		record_clear(record);
		head->used &= (uint16_t)~(1u << index_of(object));
		__atomic_fetch_sub(&((struct rp_header *)header)->object_count, 1, __ATOMIC_RELAXED);
		bool empty = head->used == 1 && page_of(object) != 0;

		bitmap_set_locked(op->pool, header, word, page_of(object), !empty);
		if (empty)
			rp_page_drop_table(op, page_of(object));
	}
	pthread_mutex_unlock(&op->pool->numbers_lock);
}

/* ---- Pages of metadata ---------------------------------------------------------------------------------------------- */

int rp_page_get(struct rp_op *op, struct rp_tree *tree, rp_object object, rp_page page, const void **out)
{
	struct rp_record *record;
	struct rp_map map;
	rp_frame f;
	int error = rp_record_map(op, tree, object, &record, &map);

	if (!error)
		error = rp_map_find(op, &map, page, &f);
	if (!error)
		*out = f ? rp_bytes(op->pool, f) : op->pool->zero_page;
	return error;
}

int rp_page_edit(struct rp_op *op, rp_object object, rp_page page, size_t offset, size_t length, void **out)
{
	struct rp_record *record;
	struct rp_map map;
	rp_frame f;
	int error = rp_record_own(op, object, &record, &map);

	if (!error)
		error = rp_map_edit(op, &map, page, true, &f);
	if (error)
		return error;
	*out = rp_bytes(op->pool, f);
	return length ? rp_undo_bytes(op, (uint8_t *)*out + offset, length) : 0;
}

int rp_page_drop(struct rp_op *op, rp_object object, rp_page page)
{
	struct rp_record *record;
	struct rp_map map;
	_Atomic rp_entry *at;
	rp_frame f;
	int error = rp_record_own(op, object, &record, &map);

	if (!error)
		error = rp_map_find(op, &map, page, &f);
	if (error || !f)
		return error;
	error = rp_map_own(op, &map, page, 0, false, &at);
	if (error || !at)
		return error;
	rp_entry e = atomic_load(at);

	error = rp_finish_prune(op, object, page);
	if (!error)
		error = rp_finish_put(op, rp_entry_frame(e));
	if (!error)
		error = rp_undo_entry(op, &map, at, e, 0, -1);
	if (error)
		return error;
	atomic_store(at, 0);
	__atomic_sub_fetch(map.page_count, 1, __ATOMIC_RELAXED);
	return 0;
}

/* ---- The first page -------------------------------------------------------------------------------------------------- */

static int format(struct rp_op *op, const struct rp_pool_options *options)
{
	struct rp_pool *pool = op->pool;
	struct rp_header *header;
	struct rp_record *bitmap;
	void *page;
	int error = rp_table_page_own(op, 0, &page);

	if (error)
		return error;
	header = page;
	header->magic = RP_TABLE_MAGIC;
	header->used = 3;
	header->page_next = 1;
	header->generation_next = 2;
	header->object_limit = options->object_limit;
	header->size_bytes = options->size_bytes & ~(uint64_t)(RP_PAGE_SIZE - 1);
	uint32_t nsec;

	pool->hooks.now(pool->hooks.context, &header->created_sec, &nsec);
	memcpy(header->uuid, pool->uuid, sizeof(header->uuid));
	memcpy(header->label, pool->label, sizeof(header->label));
	bitmap = (struct rp_record *)page + RP_OBJECT_BITMAP;
	bitmap->flags = RP_RECORD_USED | RP_RECORD_META;
	bitmap->generation = 1;
	/* Page 0 has records to give; its bit is the bitmap's first. */
	uint64_t *word;

	error = bitmap_word(op, 0, &word);
	if (!error) {
		*word |= 1;
		header->partial_count = 1;
	}
	return error;
}

int rp_objects_format(struct rp_pool *pool, const struct rp_pool_options *options)
{
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, 0);
		error = format(&op, options);
	} while (rp_op_end(&op, &error));
	return error;
}
