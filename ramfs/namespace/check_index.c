/* check_index.c: the checker's part for indexes: every page sound, within its parent's bounds, each exactly once.
 *
 * Bounds of siblings do not overlap and no page is empty, so a page that two links lead to fails for one of them; the count
 * then proves that all pages are reached.
 */
#include <limits.h>
#include "internal.h"

struct walk {
	struct rp_check *check;
	struct rp_index ix;
	uint64_t pages, cells, names_bytes;
	uint64_t last_key;
	void (*item)(struct rp_check *check, const struct rp_item *item, void *context);
	void *context;
};

static int page_work(struct rp_op *op, struct walk *walk, rp_page page, struct rp_index_page *out)
{
	const void *bytes;
	int error = rp_page_get(op, walk->check->fs->tree, walk->ix.object, page, &bytes);

	if (!error)
		memcpy(out->bytes, bytes, RP_PAGE_SIZE);
	return error;
}

static int find_work(struct rp_op *op, struct walk *walk, struct rp_name name, uint64_t *key)
{
	struct rp_index ix = walk->ix;
	struct rp_index_path path;
	struct rp_item item;
	int error;

	ix.op = op;
	error = rp_index_find(&ix, name, &path, &item, NULL);
	if (!error)
		*key = item.key;
	return error;
}

static void cell_check(struct walk *walk, const struct rp_item *item)
{
	struct rp_name name = { (const char *)item->name, item->name_length };
	struct rp_check *check = walk->check;

	walk->cells++;
	if (rp_fs_hash(check->fs, name) != (item->key & ~UINT64_C(0xff)))
		rp_check_fault(check, "object %llu: a name under another name's hash", (unsigned long long)walk->ix.object);
	/* Among names of one hash: is it found, and itself? */
	if (walk->cells > 1 && walk->last_key >> 8 == item->key >> 8) {
		uint64_t key = 0;
		struct rp_op op;
		int error;

		RP_RUN(op, check->fs, RP_OP_READ, error, find_work(&op, walk, name, &key));
		if (error || key != item->key)
			rp_check_fault(check, "object %llu: a name is there twice", (unsigned long long)walk->ix.object);
	}
	walk->last_key = item->key;
	walk->item(check, item, walk->context);
}

static void page_check(struct walk *walk, rp_page page, unsigned level, uint64_t low, uint64_t high)
{
	struct rp_check *check = walk->check;
	const struct rp_index_head *head;
	struct rp_index_page copy;
	struct rp_op op;
	int error;

	walk->pages++;
	RP_RUN(op, check->fs, RP_OP_READ, error, page_work(&op, walk, page, &copy));
	if (error) {
		rp_check_fault(check, "object %llu: page %llu of its index: %s", (unsigned long long)walk->ix.object,
			       (unsigned long long)page, strerror(-error));
		return;
	}
	if (!rp_index_page_is_sound(copy.bytes, walk->ix.object, level, low, high, walk->ix.pages)) {
		rp_check_fault(check, "object %llu: page %llu of its index is not sound", (unsigned long long)walk->ix.object,
			       (unsigned long long)page);
		return;
	}
	head = rp_index_head_const(copy.bytes);
	if (page == 0 && head->level > 0 && head->count < 2)
		rp_check_fault(check, "object %llu: its index is higher than it need be", (unsigned long long)walk->ix.object);
	for (unsigned slot = 0; slot < head->count && !check->no_memory; slot++) {
		if (head->level == 0) {
			struct rp_item item;

			rp_index_cell_get(copy.bytes, slot, &item);
			cell_check(walk, &item);
		} else {
			const struct rp_index_link *links = rp_index_links_const(copy.bytes);

			page_check(walk, links[slot].page, head->level - 1u, slot ? links[slot].key : low,
				   slot + 1u < head->count ? links[slot + 1].key : high);
		}
	}
}

void rp_check_index(struct rp_check *check, rp_object object, const struct rp_record *record,
		    void (*item)(struct rp_check *check, const struct rp_item *item, void *context), void *context)
{
	const struct rp_inode *inode = rp_record_inode(record);
	struct walk walk = {
		.check = check, .ix = { .fs = check->fs, .object = object, .pages = inode->tree },
		.item = item, .context = context,
	};

	if (inode->tree != record->page_count || inode->tree2 != 0)
		rp_check_fault(check, "object %llu: %llu pages, but its index has %llu", (unsigned long long)object,
			       (unsigned long long)record->page_count, (unsigned long long)inode->tree);
	if (inode->tree > 0 && inode->tree <= record->page_count)
		page_check(&walk, 0, UINT_MAX, 0, UINT64_MAX);
	if (walk.pages != inode->tree)
		rp_check_fault(check, "object %llu: %llu pages of its index are named, of %llu", (unsigned long long)object,
			       (unsigned long long)walk.pages, (unsigned long long)inode->tree);
	if (walk.cells != inode->entry_count)
		rp_check_fault(check, "object %llu: %llu names, but %llu were counted", (unsigned long long)object,
			       (unsigned long long)walk.cells, (unsigned long long)inode->entry_count);
}
