/* index_page.c: one page of an index: cells in a leaf, links above. Knows no pool and no other page.
 *
 * A page may come from a hostile image, so nothing here trusts an offset or a length: reading outside the page is refused,
 * and writing happens only where the space was computed within the page.
 */
#include <limits.h>
#include "internal.h"

#define HEAD ((unsigned)sizeof(struct rp_index_head))
#define CELL ((unsigned)sizeof(struct rp_index_cell))

static unsigned offset_get(const void *page, unsigned slot)
{
	uint16_t offset;

	memcpy(&offset, (const uint8_t *)page + HEAD + 2 * slot, sizeof(offset));
	return offset;
}

bool rp_index_cell_get(const void *page, unsigned slot, struct rp_item *out)
{
	unsigned offset = offset_get(page, slot);
	const uint8_t *at = (const uint8_t *)page + offset;
	struct rp_index_cell cell;

	if (offset < HEAD || offset > RP_PAGE_SIZE - CELL)
		return false;
	memcpy(&cell, at, CELL);
	if (cell.name_length == 0 || (unsigned)cell.name_length + cell.data_length > RP_PAGE_SIZE - CELL - offset)
		return false;
	out->key = cell.key;
	out->ref = cell.ref;
	out->kind = cell.kind;
	out->name = at + CELL;
	out->name_length = cell.name_length;
	out->data = at + CELL + cell.name_length;
	out->data_length = cell.data_length;
	return true;
}

/* Keys alone, for the search: 0 for an offset outside the page, which whoever reads the cell finds out. */
static uint64_t cell_key(const void *page, unsigned slot)
{
	unsigned offset = offset_get(page, slot);
	uint64_t key;

	if (offset > RP_PAGE_SIZE - CELL)
		return 0;
	memcpy(&key, (const uint8_t *)page + offset, sizeof(key));
	return key;
}

unsigned rp_index_cell_seek(const void *page, uint64_t key)
{
	unsigned low = 0, high = rp_index_head_const(page)->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (cell_key(page, middle) < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

unsigned rp_index_link_seek(const void *page, uint64_t key)
{
	const struct rp_index_link *links = rp_index_links_const(page);
	unsigned low = 1, high = rp_index_head_const(page)->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (links[middle].key <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

unsigned rp_index_fill(const void *page)
{
	const struct rp_index_head *head = rp_index_head_const(page);

	return head->level ? head->count * (unsigned)sizeof(struct rp_index_link) : head->used + 2u * head->count;
}

bool rp_index_page_is_plausible(const void *page, rp_object object, unsigned level, uint64_t low, uint64_t high)
{
	const struct rp_index_head *head = rp_index_head_const(page);
	uint64_t first, last;

	if (head->magic != RP_INDEX_MAGIC || head->object != object || head->count == 0 || head->level >= RP_INDEX_LEVELS)
		return false;
	if (level != UINT_MAX && head->level != level)
		return false;
	if (head->level == 0) {
		if (head->count > RP_INDEX_ROOM / (CELL + 3) || head->low > RP_PAGE_SIZE || head->low < HEAD + 2u * head->count ||
		    head->used > RP_PAGE_SIZE - head->low)
			return false;
		first = cell_key(page, 0);
		last = cell_key(page, head->count - 1u);
	} else {
		if (head->count > RP_INDEX_LINKS)
			return false;
		first = rp_index_links_const(page)[0].key;
		last = rp_index_links_const(page)[head->count - 1].key;
	}
	return first >= low && first <= last && last < high;
}

bool rp_index_page_is_sound(const void *page, rp_object object, unsigned level, uint64_t low, uint64_t high,
			    uint64_t links_below)
{
	const struct rp_index_head *head = rp_index_head_const(page);
	uint64_t key, last = 0;
	unsigned used = 0;

	if (!rp_index_page_is_plausible(page, object, level, low, high))
		return false;
	for (unsigned slot = 0; slot < head->count; slot++) {
		if (head->level) {
			key = rp_index_links_const(page)[slot].key;
			if (rp_index_links_const(page)[slot].page == 0 || rp_index_links_const(page)[slot].page >= links_below)
				return false;
		} else {
			struct rp_item item;

			if (!rp_index_cell_get(page, slot, &item) || offset_get(page, slot) < head->low)
				return false;
			used += rp_item_size(&item) - 2;
			key = item.key;
		}
		if ((slot > 0 && key <= last) || key < low || key >= high)
			return false;
		last = key;
	}
	return head->level || used == head->used;
}

void rp_index_page_init(void *page, rp_object object, unsigned level)
{
	struct rp_index_head *head = page;

	memset(page, 0, RP_PAGE_SIZE);
	head->magic = RP_INDEX_MAGIC;
	head->level = (uint8_t)level;
	head->low = level ? 0 : RP_PAGE_SIZE;
	head->object = object;
}

/* Close the gaps that removed cells left. */
static bool page_compact(void *page)
{
	uint8_t fresh[RP_PAGE_SIZE] __attribute__((aligned(8)));
	const struct rp_index_head *head = rp_index_head_const(page);

	rp_index_page_init(fresh, head->object, 0);
	if (!rp_index_cells_copy(fresh, page, 0, head->count))
		return false;
	memcpy(page, fresh, RP_PAGE_SIZE);
	return true;
}

bool rp_index_cell_add(void *page, unsigned slot, const struct rp_item *item)
{
	struct rp_index_head *head = rp_index_head(page);
	unsigned size = rp_item_size(item), offsets_end = HEAD + 2u * head->count;
	struct rp_index_cell cell = {
		.key = item->key, .ref = item->ref, .data_length = (uint16_t)item->data_length,
		.kind = (uint8_t)item->kind, .name_length = (uint8_t)item->name_length,
	};
	uint8_t *at;

	if (head->low < offsets_end || head->low - offsets_end < size) {
		if (rp_index_fill(page) + size > RP_INDEX_ROOM || !page_compact(page))
			return false;
		offsets_end = HEAD + 2u * head->count;
		if (head->low < offsets_end || head->low - offsets_end < size)
			return false;
	}
	head->low = (uint16_t)(head->low - (size - 2));
	head->used = (uint16_t)(head->used + (size - 2));
	at = (uint8_t *)page + head->low;
	memcpy(at, &cell, CELL);
	memcpy(at + CELL, item->name, item->name_length);
	if (item->data_length)
		memcpy(at + CELL + item->name_length, item->data, item->data_length);
	at = (uint8_t *)page + HEAD + 2 * slot;
	memmove(at + 2, at, 2 * (head->count - slot));
	memcpy(at, &head->low, 2);
	head->count++;
	return true;
}

bool rp_index_cell_remove(void *page, unsigned slot)
{
	struct rp_index_head *head = rp_index_head(page);
	uint8_t *at = (uint8_t *)page + HEAD + 2 * slot;
	struct rp_item item;
	unsigned size, offset = offset_get(page, slot);

	if (!rp_index_cell_get(page, slot, &item))
		return false;
	size = rp_item_size(&item) - 2;
	if (size > head->used || offset < head->low)
		return false;
	/* No bytes of a removed name stay in the page. */
	memset((uint8_t *)page + offset, 0, size);
	if (offset == head->low)
		head->low = (uint16_t)(head->low + size);
	head->used = (uint16_t)(head->used - size);
	memmove(at, at + 2, 2 * (head->count - slot - 1));
	head->count--;
	memset((uint8_t *)page + HEAD + 2 * head->count, 0, 2);
	if (head->count == 0)
		head->low = RP_PAGE_SIZE;
	return true;
}

bool rp_index_cells_copy(void *to, const void *from, unsigned first, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct rp_index_head *head = rp_index_head(to);
		struct rp_item item;

		if (!rp_index_cell_get(from, first + i, &item))
			return false;
		/* A compacted page has no gaps, so that adding never compacts again. */
		if (rp_index_fill(to) + rp_item_size(&item) > RP_INDEX_ROOM || !rp_index_cell_add(to, head->count, &item))
			return false;
	}
	return true;
}

void rp_index_link_add(void *page, unsigned slot, uint64_t key, rp_page child)
{
	struct rp_index_head *head = rp_index_head(page);
	struct rp_index_link *links = rp_index_links(page);

	memmove(&links[slot + 1], &links[slot], (head->count - slot) * sizeof(*links));
	links[slot].key = key;
	links[slot].page = child;
	head->count++;
}

void rp_index_link_remove(void *page, unsigned slot)
{
	struct rp_index_head *head = rp_index_head(page);
	struct rp_index_link *links = rp_index_links(page);

	head->count--;
	memmove(&links[slot], &links[slot + 1], (head->count - slot) * sizeof(*links));
	memset(&links[head->count], 0, sizeof(*links));
}
