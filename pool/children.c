/* children.c: which words of a page are entries, and whether they may be followed when the page came from a file.
 *
 * An image is not trusted: an entry that names a frame, an address that is not below the page's own, a height where none
 * belongs or a bit nobody knows makes the whole page damaged. So cycles cannot be built, and no number from a file is ever
 * used as a frame's.
 */
#include "image.h"

#define RECORD_WORDS (RP_RECORD_SIZE / 8)
#define CATALOG_WORDS (sizeof(struct rp_catalog_entry) / 8)

struct rp_children rp_children_of(unsigned kind)
{
	if (kind >= RP_KIND_NODE && kind <= RP_KIND_LAST)
		return (struct rp_children){ 0, 1, RP_NODE_ENTRIES };
	if (kind == RP_KIND_TABLE)
		return (struct rp_children){ RECORD_WORDS, RECORD_WORDS, RP_RECORDS_PER_PAGE - 1 };
	if (kind == RP_KIND_CATALOG)
		return (struct rp_children){ 0, CATALOG_WORDS, RP_CATALOG_PER_PAGE };
	return (struct rp_children){ 0, 0, 0 };
}

unsigned rp_children_kind(unsigned kind, unsigned leaf, const uint64_t *page, unsigned word, unsigned *child_leaf)
{
	unsigned height;

	if (kind == RP_KIND_TABLE) {
		const struct rp_record *record = (const struct rp_record *)(page + word);

		leaf = record->flags & RP_RECORD_META ? RP_KIND_META : RP_KIND_DATA;
	} else if (kind == RP_KIND_CATALOG) {
		leaf = RP_KIND_TABLE;
	}
	*child_leaf = leaf;
	if (kind > RP_KIND_NODE)
		return kind - 1;
	if (kind == RP_KIND_NODE)
		return leaf;
	/* In memory the entry may be brought in just now, which leaves its height as it is. */
	height = rp_entry_height(__atomic_load_n(&page[word], __ATOMIC_RELAXED));
	return height ? RP_KIND_NODE + height - 1 : leaf;
}

struct rp_spot rp_children_spot(const struct rp_spot *parent, const uint64_t *page, unsigned word)
{
	struct rp_spot child = { .object = parent->object };

	child.kind = rp_children_kind(parent->kind, parent->leaf, page, word, &child.leaf);
	if (parent->kind >= RP_KIND_NODE)
		child.page = parent->page + ((rp_page)word << RP_NODE_SHIFT * (parent->kind - RP_KIND_NODE));
	else if (parent->kind == RP_KIND_TABLE)
		child.object = parent->page * RP_RECORDS_PER_PAGE + word / RECORD_WORDS;
	return child;
}

struct rp_spot rp_root_spot(rp_entry root, unsigned leaf)
{
	unsigned height = rp_entry_height(root);

	return (struct rp_spot){ .kind = height ? RP_KIND_NODE + height - 1 : leaf, .leaf = leaf };
}

bool rp_entry_valid(rp_entry e, rp_addr below, bool may_have_height, const char **why)
{
	rp_entry known = RP_ENTRY_ADDR | RP_ENTRY_ADDR_MASK | (may_have_height ? RP_ENTRY_HEIGHT_MASK : 0);
	rp_addr addr = rp_entry_addr(e);

	if (e == 0)
		return true;
	*why = "an entry makes no sense";
	if (!rp_entry_is_addr(e) || (e & ~known) || rp_entry_height(e) > RP_HEIGHT_MAX)
		return false;
	if (rp_addr_is_zero_page(addr))
		return rp_entry_height(e) == 0;
	*why = "an entry names a block that is not below its own";
	return addr >= RP_BLOCKS_START / RP_ADDR_UNIT && addr < below;
}

bool rp_children_valid(unsigned kind, const uint64_t *page, rp_addr addr, const char **why)
{
	struct rp_children children = rp_children_of(kind);
	bool roots = kind == RP_KIND_TABLE || kind == RP_KIND_CATALOG;

	if (kind == RP_KIND_TABLE && ((const struct rp_table_head *)page)->magic != RP_TABLE_MAGIC) {
		*why = "a page of the object table has no head";
		return false;
	}
	for (unsigned i = 0; i < children.count; i++) {
		rp_entry e = page[children.first + i * children.step];

		if (!rp_entry_valid(e, addr, roots, why))
			return false;
		/* Zero pages are pages of objects, never nodes and never trees. */
		if (e && rp_addr_is_zero_page(rp_entry_addr(e)) && (kind > RP_KIND_NODE || kind == RP_KIND_CATALOG)) {
			*why = "an entry names a page of zeroes where a node belongs";
			return false;
		}
	}
	return true;
}
