/* index_insert.c: adding a cell: pages that are full are split, from the leaf upwards.
 *
 * The root stays page 0: when it is full its contents move into two new pages and it becomes the page above them.
 */
#include "internal.h"

static int page_new(struct rp_index *ix, unsigned level, rp_page *page, void **bytes)
{
	int error;

	*page = ix->pages;
	error = rp_page_edit(ix->op, ix->object, *page, 0, RP_PAGE_SIZE, bytes);
	if (error)
		return error;
	rp_index_page_init(*bytes, ix->object, level);
	ix->pages++;
	return 0;
}

/* The root was split in two: its old page becomes the level above them. */
static void root_raise(struct rp_index *ix, void *root, unsigned level, rp_page left, uint64_t right_key, rp_page right)
{
	rp_index_page_init(root, ix->object, level);
	rp_index_link_add(root, 0, 0, left);
	rp_index_link_add(root, 1, right_key, right);
}

/* Where the contents of a page being split go: left is the page itself, or for the root a new one. */
struct split {
	void *old;              /* the page being split, to be changed */
	void *left, *right;     /* empty pages of its level; left may be old */
	rp_page left_page, right_page;
	struct rp_index_page copy; /* what the page held */
};

static int split_begin(struct rp_index *ix, const struct rp_index_path *path, unsigned depth, struct split *split)
{
	const struct rp_index_step *step = &path->step[depth];
	unsigned level;
	int error;

	error = rp_page_edit(ix->op, ix->object, step->page, 0, RP_PAGE_SIZE, &split->old);
	if (error)
		return error;
	memcpy(split->copy.bytes, split->old, RP_PAGE_SIZE);
	if (!rp_index_page_is_sound(split->copy.bytes, ix->object, path->depth - 1 - depth, step->low, step->high, ix->pages))
		return rp_index_damaged(ix, step->page, "out of order");
	level = rp_index_head_const(split->old)->level;
	if (depth == 0 && level + 1 >= RP_INDEX_LEVELS)
		return -ENOSPC;
	split->left = split->old;
	split->left_page = step->page;
	if (depth == 0) {
		error = page_new(ix, level, &split->left_page, &split->left);
		if (error)
			return error;
	} else {
		rp_index_page_init(split->left, ix->object, level);
	}
	return page_new(ix, level, &split->right_page, &split->right);
}

/* Put the link to a new page beside the one that path->step[depth] followed; depth may be that of any page but a leaf. */
static int link_insert(struct rp_index *ix, const struct rp_index_path *path, unsigned depth, uint64_t key, rp_page child)
{
	const struct rp_index_step *step = &path->step[depth];
	struct rp_index_link *links;
	unsigned slot = step->slot + 1, count, half;
	struct split split;
	const void *old;
	void *page;
	int error;

	error = rp_page_get(ix->op, ix->fs->tree, ix->object, step->page, &old);
	if (error)
		return error;
	if (rp_index_head_const(old)->count < RP_INDEX_LINKS) {
		error = rp_page_edit(ix->op, ix->object, step->page, 0, RP_PAGE_SIZE, &page);
		if (error)
			return error;
		/* Children before the first may have gone, and the new one may begin before the first link's key. */
		rp_index_links(page)[0].key = step->low;
		rp_index_link_add(page, slot, key, child);
		return 0;
	}
	error = split_begin(ix, path, depth, &split);
	if (error)
		return error;
	links = rp_index_links(split.copy.bytes);
	links[0].key = step->low;
	count = rp_index_head_const(split.copy.bytes)->count;
	half = count / 2;
	for (unsigned i = 0; i < count; i++)
		rp_index_link_add(i < half ? split.left : split.right, i < half ? i : i - half, links[i].key, links[i].page);
	if (slot <= half)
		rp_index_link_add(split.left, slot, key, child);
	else
		rp_index_link_add(split.right, slot - half, key, child);
	key = rp_index_links_const(split.right)[0].key;
	if (depth > 0)
		return link_insert(ix, path, depth - 1, key, split.right_page);
	root_raise(ix, split.old, rp_index_head_const(split.right)->level + 1u, split.left_page, key, split.right_page);
	return 0;
}

/* How many of the cells, the new one among them, go to the left: about half of the bytes. */
static unsigned split_point(const void *page, unsigned slot, const struct rp_item *item)
{
	unsigned count = rp_index_head_const(page)->count, total = rp_index_fill(page) + rp_item_size(item), sum = 0, left = 0;

	while (left < count && (sum < total / 2 || left == 0)) {
		struct rp_item other;

		if (left == slot)
			sum += rp_item_size(item);
		else if (rp_index_cell_get(page, left < slot ? left : left - 1, &other))
			sum += rp_item_size(&other);
		left++;
	}
	return left;
}

static int leaf_split(struct rp_index *ix, const struct rp_index_path *path, const struct rp_item *item)
{
	unsigned depth = path->depth - 1, slot = path->step[depth].slot, count, left;
	struct split split;
	struct rp_item first;
	bool fits;
	int error;

	error = split_begin(ix, path, depth, &split);
	if (error)
		return error;
	count = rp_index_head_const(split.copy.bytes)->count;
	left = split_point(split.copy.bytes, slot, item);
	if (slot < left)
		fits = rp_index_cells_copy(split.left, split.copy.bytes, 0, left - 1) &&
		       rp_index_cell_add(split.left, slot, item) &&
		       rp_index_cells_copy(split.right, split.copy.bytes, left - 1, count - (left - 1));
	else
		fits = rp_index_cells_copy(split.left, split.copy.bytes, 0, left) &&
		       rp_index_cells_copy(split.right, split.copy.bytes, left, count - left) &&
		       rp_index_cell_add(split.right, slot - left, item);
	if (!fits || !rp_index_cell_get(split.right, 0, &first))
		return rp_index_damaged(ix, split.left_page, "its cells do not fit");
	if (depth > 0)
		return link_insert(ix, path, depth - 1, first.key, split.right_page);
	root_raise(ix, split.old, 1, split.left_page, first.key, split.right_page);
	return 0;
}

int rp_index_insert(struct rp_index *ix, const struct rp_item *item)
{
	struct rp_index_path path;
	const struct rp_index_step *step;
	const void *leaf;
	rp_page page;
	void *bytes;
	int error;

	if (ix->pages == 0) {
		error = page_new(ix, 0, &page, &bytes);
		if (error)
			return error;
		return rp_index_cell_add(bytes, 0, item) ? 0 : -EINVAL;
	}
	error = rp_index_descend(ix, item->key, 0, &path, &leaf);
	if (error)
		return error;
	if (rp_index_fill(leaf) + rp_item_size(item) > RP_INDEX_ROOM)
		return leaf_split(ix, &path, item);
	step = &path.step[path.depth - 1];
	error = rp_page_edit(ix->op, ix->object, step->page, 0, RP_PAGE_SIZE, &bytes);
	if (error)
		return error;
	if (!rp_index_cell_add(bytes, step->slot, item))
		return rp_index_damaged(ix, step->page, "its cells do not fit");
	return 0;
}
