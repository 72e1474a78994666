/* index_remove.c: taking a cell away: pages that become empty or thin go, from the leaf upwards.
 *
 * The pages of an index are always 0 .. pages - 1 without a gap (N4): where one goes, the last one moves into its place, and
 * the link to that one is changed. So an index that empties gives every frame back, and its map stays as low as it can be.
 * A page thinner than a third merges with a neighbour under the same parent, if both together fill at most three quarters: so
 * neither insertions nor removals around the border make pages split and merge in turns.
 */
#include <stdlib.h>
#include "internal.h"

#define THIN (RP_INDEX_ROOM / 3)
#define MERGED (RP_INDEX_ROOM * 3 / 4)

struct doomed {
	rp_page page[2 * RP_INDEX_LEVELS];
	unsigned count;
};

static int edit_page(struct rp_index *ix, rp_page page, void **out)
{
	return rp_page_edit(ix->op, ix->object, page, 0, RP_PAGE_SIZE, out);
}

/* Merge the page behind link `slot + 1` of the parent into the one behind `slot`, when both together are small enough. */
static int pair_merge(struct rp_index *ix, const struct rp_index_step *above, unsigned level, unsigned slot,
		      struct doomed *doomed, bool *merged)
{
	const struct rp_index_link *links;
	const void *parent, *left_old, *right;
	uint64_t low, middle, high;
	rp_page left_page, right_page;
	void *left, *parent_new;
	int error;

	error = rp_page_get(ix->op, ix->fs->tree, ix->object, above->page, &parent);
	if (error)
		return error;
	links = rp_index_links_const(parent);
	low = slot ? links[slot].key : above->low;
	middle = links[slot + 1].key;
	high = slot + 2u < rp_index_head_const(parent)->count ? links[slot + 2].key : above->high;
	left_page = links[slot].page;
	right_page = links[slot + 1].page;
	if (left_page == 0 || right_page == 0)
		return rp_index_damaged(ix, above->page, "a link to the root");
	error = rp_index_enter(ix, left_page, level, low, middle, &left_old);
	if (!error)
		error = rp_index_enter(ix, right_page, level, middle, high, &right);
	if (error)
		return error;
	*merged = rp_index_fill(left_old) + rp_index_fill(right) <= MERGED;
	if (!*merged)
		return 0;
	if (!rp_index_page_is_sound(right, ix->object, level, middle, high, ix->pages) ||
	    !rp_index_page_is_sound(left_old, ix->object, level, low, middle, ix->pages))
		return rp_index_damaged(ix, right_page, "out of order");
	error = edit_page(ix, left_page, &left);
	if (error)
		return error;
	if (level == 0) {
		if (!rp_index_cells_copy(left, right, 0, rp_index_head_const(right)->count))
			return rp_index_damaged(ix, left_page, "its cells do not fit");
	} else {
		/* The first link's key did not matter; inside the page it must be the bound. */
		for (unsigned i = 0; i < rp_index_head_const(right)->count; i++)
			rp_index_link_add(left, rp_index_head_const(left)->count,
					  i ? rp_index_links_const(right)[i].key : middle,
					  rp_index_links_const(right)[i].page);
	}
	error = edit_page(ix, above->page, &parent_new);
	if (error)
		return error;
	rp_index_link_remove(parent_new, slot + 1);
	doomed->page[doomed->count++] = right_page;
	return 0;
}

/* A thin page tries its right neighbour, then its left one. */
static int thin_merge(struct rp_index *ix, const struct rp_index_path *path, unsigned depth, struct doomed *doomed,
		      bool *merged)
{
	const struct rp_index_step *above = &path->step[depth - 1];
	unsigned level = path->depth - 1 - depth;
	const void *parent;
	int error;

	*merged = false;
	error = rp_page_get(ix->op, ix->fs->tree, ix->object, above->page, &parent);
	if (error)
		return error;
	if (above->slot + 1u < rp_index_head_const(parent)->count) {
		error = pair_merge(ix, above, level, above->slot, doomed, merged);
		if (error || *merged)
			return error;
	}
	return above->slot > 0 ? pair_merge(ix, above, level, above->slot - 1, doomed, merged) : 0;
}

/* Move the last page into the place of one that goes. */
static int page_give_back(struct rp_index *ix, rp_page page)
{
	rp_page last = ix->pages - 1;
	const struct rp_index_step *above;
	struct rp_index_path path;
	const void *old;
	uint64_t key;
	unsigned level;
	void *bytes;
	int error;

	if (page != last) {
		struct rp_item first;

		error = rp_page_get(ix->op, ix->fs->tree, ix->object, last, &old);
		if (error)
			return error;
		if (!rp_index_page_is_plausible(old, ix->object, UINT32_MAX, 0, UINT64_MAX))
			return rp_index_damaged(ix, last, "not what belongs there");
		level = rp_index_head_const(old)->level;
		if (level)
			key = rp_index_links_const(old)[0].key;
		else if (rp_index_cell_get(old, 0, &first))
			key = first.key;
		else
			return rp_index_damaged(ix, last, "a cell outside the page");
		error = rp_index_descend(ix, key, level + 1, &path, &old);
		if (error)
			return error;
		above = &path.step[path.depth - 1];
		if (rp_index_links_const(old)[above->slot].page != last)
			return rp_index_damaged(ix, last, "no link leads to it");
		error = edit_page(ix, above->page, &bytes);
		if (error)
			return error;
		rp_index_links(bytes)[above->slot].page = page;
		error = rp_page_get(ix->op, ix->fs->tree, ix->object, last, &old);
		if (!error)
			error = edit_page(ix, page, &bytes);
		if (error)
			return error;
		memcpy(bytes, old, RP_PAGE_SIZE);
	}
	error = rp_page_drop(ix->op, ix->object, last);
	if (!error)
		ix->pages--;
	return error;
}

/* A root with one child takes the child's contents. */
static int root_lower(struct rp_index *ix)
{
	for (;;) {
		const void *root, *child;
		rp_page page;
		void *bytes;
		int error;

		error = rp_page_get(ix->op, ix->fs->tree, ix->object, 0, &root);
		if (error)
			return error;
		if (rp_index_head_const(root)->level == 0 || rp_index_head_const(root)->count > 1)
			return 0;
		page = rp_index_links_const(root)[0].page;
		if (page == 0)
			return rp_index_damaged(ix, 0, "a link to the root");
		error = rp_index_enter(ix, page, rp_index_head_const(root)->level - 1u, 0, UINT64_MAX, &child);
		if (!error)
			error = edit_page(ix, 0, &bytes);
		if (error)
			return error;
		memcpy(bytes, child, RP_PAGE_SIZE);
		error = page_give_back(ix, page);
		if (error)
			return error;
	}
}

static int rising(const void *a, const void *b)
{
	rp_page left = *(const rp_page *)a, right = *(const rp_page *)b;

	return (left > right) - (left < right);
}

int rp_index_shrink(struct rp_index *ix, struct rp_index_path *path)
{
	struct doomed doomed = { .count = 0 };
	int error = 0;

	for (unsigned depth = path->depth - 1; depth > 0; depth--) {
		const struct rp_index_step *above = &path->step[depth - 1];
		const void *bytes;
		bool merged;
		void *parent;

		error = rp_page_get(ix->op, ix->fs->tree, ix->object, path->step[depth].page, &bytes);
		if (error)
			return error;
		if (rp_index_head_const(bytes)->count == 0) {
			error = edit_page(ix, above->page, &parent);
			if (error)
				return error;
			rp_index_link_remove(parent, above->slot);
			doomed.page[doomed.count++] = path->step[depth].page;
			continue;
		}
		if (rp_index_fill(bytes) >= THIN)
			break;
		error = thin_merge(ix, path, depth, &doomed, &merged);
		if (error)
			return error;
		if (!merged)
			break;
	}
	/* From the highest number down, so that the last page is never one that waits here. */
	qsort(doomed.page, doomed.count, sizeof(doomed.page[0]), rising);
	while (doomed.count > 0 && !error)
		error = page_give_back(ix, doomed.page[--doomed.count]);
	return error ? error : root_lower(ix);
}

int rp_index_remove(struct rp_index *ix, struct rp_index_path *path)
{
	const struct rp_index_step *step = &path->step[path->depth - 1];
	void *page;
	int error;

	error = edit_page(ix, step->page, &page);
	if (error)
		return error;
	if (!rp_index_cell_remove(page, step->slot))
		return rp_index_damaged(ix, step->page, "a cell outside the page");
	if (path->depth > 1)
		return rp_index_shrink(ix, path);
	if (rp_index_head_const(page)->count > 0)
		return 0;
	if (ix->pages != 1)
		return rp_index_damaged(ix, 0, "pages behind an empty root");
	ix->pages = 0;
	return rp_page_drop(ix->op, ix->object, 0);
}
