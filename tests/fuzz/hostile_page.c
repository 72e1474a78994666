/* hostile_page.c: one hostile change of a page, knowing what stands in pages of its kind. */
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include "hostile.h"
#include "ramfs/namespace/layout.h"

uint64_t number_hostile(uint64_t *random, uint64_t old)
{
	static const uint64_t edges[] = {
		0, 1, 2, 3, 15, 16, 17, 31, 32, 255, 256, 257, 4095, 4096, 4097, 65535, 65536, INT32_MAX, UINT32_MAX,
		UINT64_C(1) << 32, (UINT64_C(1) << 47) - 1, UINT64_C(1) << 47, UINT64_C(1) << 51, (UINT64_C(1) << 55) - 1,
		UINT64_C(1) << 62, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 4095, UINT64_MAX - 1, UINT64_MAX,
	};

	switch (random_below(random, 6)) {
	case 0: return edges[random_below(random, sizeof(edges) / sizeof(*edges))];
	case 1: return old ^ UINT64_C(1) << random_below(random, 64);
	case 2: return old + random_below(random, 9) - 4;
	case 3: return random_next(random);
	case 4: return random_below(random, 1000);
	default: return edges[random_below(random, 8)];
	}
}

uint64_t entry_hostile(const struct sample *sample, uint64_t *random, uint64_t old)
{
	rp_addr addr = sample->blocks[random_below(random, sample->block_count)] / RP_ADDR_UNIT;

	switch (random_below(random, 10)) {
	case 0: return 0;
	case 1: return rp_entry_from_addr(addr, 0);
	case 2: return rp_entry_from_addr(addr, (unsigned)random_below(random, 8));
	case 3: return rp_entry_from_addr(random_below(random, 4), 0);
	case 4: return rp_entry_from_frame((rp_frame)random_below(random, 600), 0);
	case 5: return old ^ UINT64_C(1) << random_below(random, 64);
	case 6: return old ? old - random_below(random, 100) : old;
	case 7: return (old & ~RP_ENTRY_HEIGHT_MASK) | random_below(random, 8) << RP_ENTRY_HEIGHT_SHIFT;
	case 8: return (old & ~RP_ENTRY_ADDR_MASK) | addr; /* another block of what may be the same kind */
	default: return number_hostile(random, old);
	}
}

/* A field of 1 to 8 bytes. */
static void field_change(void *at, size_t size, uint64_t *random)
{
	uint64_t value = 0;

	memcpy(&value, at, size);
	value = number_hostile(random, value);
	memcpy(at, &value, size);
}

/* ---- Index pages ----------------------------------------------------------------------------------------------------- */

static void head_change(struct rp_index_head *head, uint64_t *random)
{
	switch (random_below(random, 6)) {
	case 0: head->level = (uint8_t)random_below(random, 10); break;
	case 1: field_change(&head->count, 2, random); break;
	case 2: field_change(&head->low, 2, random); break;
	case 3: field_change(&head->used, 2, random); break;
	case 4: field_change(&head->object, 8, random); break;
	default: field_change((uint8_t *)head + random_below(random, 25), 4, random);
	}
}

static void link_change(uint8_t *page, unsigned count, uint64_t *random)
{
	struct rp_index_link links[2];
	uint8_t *a = page + sizeof(struct rp_index_head) + random_below(random, count) * sizeof(*links);
	uint8_t *b = page + sizeof(struct rp_index_head) + random_below(random, count) * sizeof(*links);

	memcpy(&links[0], a, sizeof(*links));
	memcpy(&links[1], b, sizeof(*links));
	switch (random_below(random, 5)) {
	case 0: links[0].page = links[1].page; break;
	case 1: links[0].page = number_hostile(random, links[0].page); break;
	case 2: links[0].key = number_hostile(random, links[0].key); break;
	case 3: links[0].key = links[1].key; break;
	default: memcpy(b, &links[0], sizeof(*links)); links[0] = links[1]; /* swapped */
	}
	memcpy(a, &links[0], sizeof(*links));
}

static void name_change(uint8_t *name, unsigned length, uint64_t *random)
{
	static const char *const names[] = { ".", "..", "/", "a/b", "\n", "\033[2J", "user.", "system.posix_acl_access" };
	const char *put = names[random_below(random, sizeof(names) / sizeof(*names))];

	if (length)
		memcpy(name, put, strlen(put) < length ? strlen(put) : length);
	if (length && random_below(random, 3) == 0)
		name[random_below(random, length)] = 0;
}

static void cell_change(uint8_t *page, unsigned count, uint64_t *random)
{
	uint8_t *offsets = page + sizeof(struct rp_index_head);
	uint8_t *a = offsets + random_below(random, count) * 2, *b = offsets + random_below(random, count) * 2;
	struct rp_index_cell cell;
	uint16_t at, other;

	memcpy(&at, a, 2);
	memcpy(&other, b, 2);
	if (random_below(random, 4) == 0 || at > RP_PAGE_SIZE - sizeof(cell)) {
		uint16_t changed = random_below(random, 2) ? other : (uint16_t)number_hostile(random, at);

		memcpy(a, &changed, 2);
		if (random_below(random, 2))
			memcpy(b, &at, 2);
		return;
	}
	memcpy(&cell, page + at, sizeof(cell));
	switch (random_below(random, 8)) {
	case 0: cell.key = number_hostile(random, cell.key); break;
	case 1: cell.ref = number_hostile(random, cell.ref); break;
	case 2: cell.ref = 1 + random_below(random, 100); break;
	case 3: cell.data_length = (uint16_t)number_hostile(random, cell.data_length); break;
	case 4: cell.kind = (uint8_t)random_below(random, 17); break;
	case 5: cell.name_length = (uint8_t)number_hostile(random, cell.name_length); break;
	case 6: /* "." or ".."; the rest of the name becomes data, so that the page's sum of bytes stays right */
		cell.data_length = (uint16_t)(cell.data_length + cell.name_length);
		cell.name_length = (uint8_t)(1 + random_below(random, 2));
		cell.data_length = (uint16_t)(cell.data_length - cell.name_length);
		memcpy(page + at + sizeof(cell), "..", at + sizeof(cell) + 2 <= RP_PAGE_SIZE ? 2 : 0);
		break;
	default:
		if (at + sizeof(cell) + cell.name_length <= RP_PAGE_SIZE)
			name_change(page + at + sizeof(cell), cell.name_length, random);
	}
	memcpy(page + at, &cell, sizeof(cell));
}

static void index_change(uint8_t *page, uint64_t *random)
{
	struct rp_index_head head;
	unsigned links, cells;

	memcpy(&head, page, sizeof(head));
	links = head.count < RP_INDEX_LINKS ? head.count : RP_INDEX_LINKS;
	cells = head.count < RP_INDEX_ROOM / 2 ? head.count : RP_INDEX_ROOM / 2;
	if (random_below(random, 4) == 0 || head.count == 0) {
		head_change(&head, random);
		memcpy(page, &head, sizeof(head));
	} else if (head.level) {
		link_change(page, links, random);
	} else {
		cell_change(page, cells, random);
	}
}

/* ---- The object table ------------------------------------------------------------------------------------------------ */

static void inode_change(struct rp_inode *inode, uint64_t *random)
{
	static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK, 0, S_IFMT };

	switch (random_below(random, 12)) {
	case 0: inode->mode = (inode->mode & 07777) | types[random_below(random, 9)]; break;
	case 1: field_change(&inode->nlink, 4, random); break;
	case 2: inode->flags ^= 1u << random_below(random, 9); break;
	case 3: field_change(&inode->parent, 8, random); break;
	case 4: field_change(&inode->xattrs, 8, random); break;
	case 5: inode->xattrs = 1 + random_below(random, 100); break;
	case 6: field_change(&inode->orphan_next, 8, random); break;
	case 7: field_change(&inode->orphan_prev, 8, random); break;
	case 8: field_change(&inode->entry_count, 8, random); break;
	case 9: field_change(&inode->tree, 8, random); break;
	case 10: inode->orphan_next = 1 + random_below(random, 100); break;
	default: field_change((uint8_t *)inode + random_below(random, sizeof(*inode) - 7), 8, random);
	}
}

static void record_change(const struct sample *sample, struct rp_record *record, uint64_t *random)
{
	struct rp_inode inode;

	switch (random_below(random, 8)) {
	case 0:
	case 1: record->root = entry_hostile(sample, random, record->root); break;
	case 2: record->page_count = number_hostile(random, record->page_count); break;
	case 3: record->size_bytes = number_hostile(random, record->size_bytes); break;
	case 4: record->generation = number_hostile(random, record->generation); break;
	case 5: record->flags ^= 1u << random_below(random, random_below(random, 2) ? 2 : 32); break;
	default:
		memcpy(&inode, record->user, sizeof(inode));
		inode_change(&inode, random);
		memcpy(record->user, &inode, sizeof(inode));
	}
}

static void header_change(struct rp_header *header, uint64_t *random)
{
	switch (random_below(random, 9)) {
	case 0: field_change(&header->partial_count, 8, random); break;
	case 1: field_change(&header->page_next, 8, random); break;
	case 2: field_change(&header->generation_next, 8, random); break;
	case 3: field_change(&header->object_count, 8, random); break;
	case 4: field_change(&header->object_limit, 8, random); break;
	case 5: field_change(&header->size_bytes, 8, random); break;
	case 6: header->used = (uint16_t)random_next(random); break;
	default: field_change(header->user + random_below(random, 5) * 8, 8, random); /* the filesystem's numbers */
	}
}

static void table_change(const struct sample *sample, uint64_t *page, uint64_t *random)
{
	struct rp_record *records = (struct rp_record *)page;
	unsigned i = (unsigned)random_below(random, RP_RECORDS_PER_PAGE);

	if (i == 0 || random_below(random, 12) == 0)
		header_change((struct rp_header *)records, random);
	else if (random_below(random, 10) == 0)
		records[i] = records[1 + random_below(random, RP_RECORDS_PER_PAGE - 1)];
	else
		record_change(sample, &records[i], random);
}

/* ---- The other kinds -------------------------------------------------------------------------------------------------- */

static void catalog_change(const struct sample *sample, uint64_t *page, uint64_t *random)
{
	struct rp_catalog_entry *entries = (struct rp_catalog_entry *)page;
	struct rp_catalog_entry *entry = &entries[random_below(random, random_below(random, 3) ? 3 : RP_CATALOG_PER_PAGE)];

	switch (random_below(random, 8)) {
	case 0: entry->root = entry_hostile(sample, random, entry->root); break;
	case 1: entry->id = number_hostile(random, entry->id); break;
	case 2: field_change(&entry->name_len, 2, random); break;
	case 3: name_change((uint8_t *)entry->name, entry->name_len & 255, random); break;
	case 4: *entry = entries[random_below(random, 3)]; break;
	case 5: entry->frame_count = number_hostile(random, entry->frame_count); break;
	case 6: memset(entry->name, 'x', sizeof(entry->name)); break;
	default: field_change((uint8_t *)entry + random_below(random, sizeof(*entry) - 7), 8, random);
	}
}

static void root_change(const struct sample *sample, uint64_t *page, uint64_t *random)
{
	unsigned word = (unsigned)random_below(random, sizeof(struct rp_root) / 8);

	page[word] = word < 2 || word == 6 ? entry_hostile(sample, random, page[word]) : number_hostile(random, page[word]);
}

static void node_change(const struct sample *sample, uint64_t *page, uint64_t *random)
{
	unsigned word = (unsigned)random_below(random, random_below(random, 2) ? 8 : RP_NODE_ENTRIES);

	if (random_below(random, 4))
		page[word] = entry_hostile(sample, random, page[word]);
	else
		page[word] = page[random_below(random, 8)];
}

static void bytes_change(uint64_t *page, uint64_t *random)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned word = (unsigned)random_below(random, RP_PAGE_SIZE / 8);

		page[word] = number_hostile(random, page[word]);
	}
}

void page_change(const struct sample *sample, unsigned kind, uint64_t *page, uint64_t *random)
{
	uint32_t magic = (uint32_t)page[0];

	if (random_below(random, 30) == 0)
		bytes_change(page, random);
	else if (kind >= RP_KIND_NODE && kind <= RP_KIND_LAST)
		node_change(sample, page, random);
	else if (kind == RP_KIND_TABLE)
		table_change(sample, page, random);
	else if (kind == RP_KIND_CATALOG)
		catalog_change(sample, page, random);
	else if (kind == RP_KIND_ROOT)
		root_change(sample, page, random);
	else if (magic == RP_INDEX_MAGIC)
		index_change((uint8_t *)page, random);
	else
		bytes_change(page, random);
}
