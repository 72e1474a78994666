/* copy.c: trees copied from one image file to another, block by block, sharing preserved.
 *
 * Every block is verified as it is read. Pages of objects go over as they are stored, only their header is made anew;
 * pages with entries are decoded, translated and encoded again. The map from old to new addresses makes a shared block one
 * block again, and bounds the work by the number of blocks, whatever a hostile file shares.
 */
#include <errno.h>
#include <stdlib.h>
#include "image_state.h"

int rp_copier_init(struct rp_copier *copier, const struct rp_hooks *hooks)
{
	/* Whoever walks in the order of writing reads ahead with profit. */
	copier->reader = rp_reader_claim(copier->from, 256u << 10);
	if (!copier->reader)
		return -ENOMEM;
	copier->pages = rp_image_allocate(hooks, RP_WRITER_DEPTH * sizeof(*copier->pages));
	if (!copier->pages) {
		rp_reader_release(copier->from, copier->reader);
		copier->reader = NULL;
		return -ENOMEM;
	}
	return 0;
}

void rp_copier_free(struct rp_copier *copier)
{
	if (copier->reader)
		rp_reader_release(copier->from, copier->reader);
	copier->reader = NULL;
	free(copier->pages);
	copier->pages = NULL;
}

static int leaf_copy(struct rp_copier *c, rp_addr addr, unsigned kind, rp_addr *out, uint32_t *size)
{
	const struct rp_block_header *header;
	const void *payload;
	int error = rp_store_read_encoded(c->from, c->reader, addr, kind, &header, &payload, &c->why);

	return error ? error : rp_store_append_encoded(c->to, header, payload, out, size);
}

static int parent_copy(struct rp_copier *c, unsigned depth, rp_addr addr, unsigned kind, unsigned leaf, rp_addr *out,
                       uint32_t *size)
{
	struct rp_children children = rp_children_of(kind);
	uint64_t *page = c->pages[depth];
	struct rp_block_info info;
	int error;

	c->why = "nested too deep";
	if (depth + 1 >= RP_WRITER_DEPTH)
		return -EIO;
	error = rp_store_read(c->from, c->reader, addr, kind, page, &info, &c->why);
	if (error)
		return error;
	for (unsigned i = 0; i < children.count; i++) {
		unsigned word = children.first + i * children.step, child_leaf, child_kind;

		if (!page[word])
			continue;
		child_kind = rp_children_kind(kind, leaf, page, word, &child_leaf);
		error = rp_copier_entry(c, depth + 1, page[word], child_kind, child_leaf, &page[word]);
		if (error)
			return error;
	}
	return rp_store_append(c->to, kind, info.birth, page, out, size);
}

int rp_copier_entry(struct rp_copier *c, unsigned depth, rp_entry e, unsigned kind, unsigned leaf, rp_entry *out)
{
	rp_addr addr = rp_entry_addr(e);
	uint64_t made = 0;
	uint32_t size;
	int error;

	*out = e;
	if (!e)
		return 0;
	if (rp_addr_is_zero_page(addr)) {
		c->why = "an entry names a page of zeroes where something else belongs";
		c->where = addr;
		return addr == kind ? 0 : -EIO;
	}
	if (!rp_addrmap_get(c->map, addr, &made)) {
		if (kind == RP_KIND_DATA || kind == RP_KIND_META)
			error = leaf_copy(c, addr, kind, &made, &size);
		else
			error = parent_copy(c, depth, addr, kind, leaf, &made, &size);
		if (error == -EIO && !c->where)
			c->where = addr;
		if (!error)
			error = rp_addrmap_put(c->map, addr, made);
		if (error)
			return error;
		c->block_count++;
		c->byte_count += size;
		if (c->progress && c->block_count % 256 == 0 && c->progress(c->progress_context, c->byte_count))
			return -ECANCELED;
	}
	*out = rp_entry_from_addr(made, rp_entry_height(e));
	return 0;
}

int rp_copier_tree(struct rp_copier *copier, rp_entry root, unsigned leaf, rp_entry *out)
{
	unsigned height = rp_entry_height(root);

	return rp_copier_entry(copier, 0, root, height ? RP_KIND_NODE + height - 1 : leaf, leaf, out);
}
