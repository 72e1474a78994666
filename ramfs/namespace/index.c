/* index.c: finding in an index: a B+tree in the pages of one object, keyed by hashes of names.
 *
 * Names of the same hash have neighbouring keys (hash << 8 | 0, 1, 2, ...), so looking one up walks the few cells of that
 * hash, and removing one of them hides no other. Every page is looked over when it is entered: magic, owner, level one below
 * its parent's, keys within the bounds its parent gives. Levels fall strictly, so a descent ends whatever an image says.
 */
#include <limits.h>
#include "internal.h"

int rp_index_damaged(struct rp_index *ix, rp_page page, const char *what)
{
	rp_fs_log(ix->fs, "object %llu, page %llu of its index is damaged: %s", (unsigned long long)ix->object,
		  (unsigned long long)page, what);
	return -EIO;
}

int rp_index_enter(struct rp_index *ix, rp_page page, unsigned level, uint64_t low, uint64_t high, const void **out)
{
	int error;

	if (ix->fs->visits)
		atomic_fetch_add_explicit(ix->fs->visits, 1, memory_order_relaxed);
	if (page >= ix->pages)
		return rp_index_damaged(ix, page, "a page past the last one");
	error = rp_page_get(ix->op, ix->fs->tree, ix->object, page, out);
	if (error)
		return error;
	if (!rp_index_page_is_plausible(*out, ix->object, level, low, high))
		return rp_index_damaged(ix, page, "not what belongs there");
	return 0;
}

/* Go down to the page of level stop_level that covers key. The last step's slot is the link or cell for key. */
int rp_index_descend(struct rp_index *ix, uint64_t key, unsigned stop_level, struct rp_index_path *path, const void **leaf)
{
	uint64_t low = 0, high = UINT64_MAX;
	unsigned level = UINT_MAX;
	rp_page page = 0;

	path->depth = 0;
	for (;;) {
		struct rp_index_step *step = &path->step[path->depth++];
		const struct rp_index_link *links;
		const void *bytes;
		int error;

		error = rp_index_enter(ix, page, level, low, high, &bytes);
		if (error)
			return error;
		level = rp_index_head_const(bytes)->level;
		if (level < stop_level)
			return rp_index_damaged(ix, page, "the tree is lower than it was");
		step->page = page;
		step->low = low;
		step->high = high;
		step->slot = level ? rp_index_link_seek(bytes, key) : rp_index_cell_seek(bytes, key);
		if (level == stop_level) {
			*leaf = bytes;
			return 0;
		}
		links = rp_index_links_const(bytes);
		if (step->slot > 0)
			low = links[step->slot].key;
		if (step->slot + 1u < rp_index_head_const(bytes)->count)
			high = links[step->slot + 1].key;
		page = links[step->slot].page;
		/* Page 0 is the root, and no link leads there. Bounds must narrow, else they are not in order. */
		if (page == 0 || low >= high || key < low || key >= high)
			return rp_index_damaged(ix, path->step[path->depth - 1].page, "a link out of order");
		level--;
	}
}

/* The first cell with a key >= key: path and leaf. -ENOENT: none. */
static int index_seek(struct rp_index *ix, uint64_t key, struct rp_index_path *path, const void **leaf)
{
	if (ix->pages == 0)
		return -ENOENT;
	for (;;) {
		const struct rp_index_step *step;
		int error = rp_index_descend(ix, key, 0, path, leaf);

		if (error)
			return error;
		step = &path->step[path->depth - 1];
		if (step->slot < rp_index_head_const(*leaf)->count)
			return 0;
		if (step->high == UINT64_MAX)
			return -ENOENT;
		/* The next leaf begins there; leaves are never empty, so the second descent finds a cell. */
		key = step->high;
	}
}

int rp_index_find(struct rp_index *ix, struct rp_name name, struct rp_index_path *path, struct rp_item *out,
		  uint64_t *free_key)
{
	uint64_t first = rp_fs_hash(ix->fs, name), key = first, unused = first;
	const void *leaf;
	int error;

	if (name.length > RP_NAME_MAX)
		return -ENAMETOOLONG;
	for (;;) {
		struct rp_index_step *step;

		error = index_seek(ix, key, path, &leaf);
		if (error)
			break;
		step = &path->step[path->depth - 1];
		for (; step->slot < rp_index_head_const(leaf)->count; step->slot++) {
			if (!rp_index_cell_get(leaf, step->slot, out) || out->key < key)
				return rp_index_damaged(ix, step->page, "a cell out of order");
			if (out->key >> 8 != first >> 8) {
				error = -ENOENT;
				goto missing;
			}
			if (out->name_length == name.length && memcmp(out->name, name.bytes, name.length) == 0)
				return 0;
			if (out->key == unused)
				unused++;
			key = out->key + 1;
		}
	}
missing:
	if (error == -ENOENT && free_key)
		*free_key = unused >> 8 == first >> 8 ? unused : 0;
	return error;
}

int rp_index_leaf(struct rp_index *ix, uint64_t key, struct rp_index_page *leaf, unsigned *slot)
{
	const struct rp_index_step *step;
	struct rp_index_path path;
	const void *bytes;
	int error;

	error = index_seek(ix, key, &path, &bytes);
	if (error)
		return error;
	step = &path.step[path.depth - 1];
	memcpy(leaf->bytes, bytes, RP_PAGE_SIZE);
	if (!rp_index_page_is_sound(leaf->bytes, ix->object, 0, step->low, step->high, 0))
		return rp_index_damaged(ix, step->page, "its cells overlap or are out of order");
	*slot = step->slot;
	return 0;
}

int rp_index_set(struct rp_index *ix, const struct rp_index_path *path, uint64_t ref, unsigned kind)
{
	const struct rp_index_step *step = &path->step[path->depth - 1];
	struct rp_item item;
	size_t offset;
	void *page;
	int error;

	error = rp_page_edit(ix->op, ix->object, step->page, 0, RP_PAGE_SIZE, &page);
	if (error)
		return error;
	if (!rp_index_cell_get(page, step->slot, &item))
		return rp_index_damaged(ix, step->page, "a cell outside the page");
	offset = (size_t)(item.name - (uint8_t *)page) - sizeof(struct rp_index_cell);
	memcpy((uint8_t *)page + offset + offsetof(struct rp_index_cell, ref), &ref, sizeof(ref));
	((uint8_t *)page)[offset + offsetof(struct rp_index_cell, kind)] = (uint8_t)kind;
	return 0;
}
