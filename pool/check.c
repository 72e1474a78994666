/* check.c: the checker: proves the numbered invariants of DESIGN.md over every frame. No operation may run. */
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "internal.h"

struct check {
	struct rp_pool *pool;
	void (*report)(void *context, const char *line);
	void *context;
	unsigned faults;
	uint64_t frames;      /* [0, frames) were handed out at least once */
	uint32_t *refs;       /* found, by frame */
	uint64_t *below;      /* pages under a node, once seen; by frame */
};

__attribute__((format(printf, 2, 3))) static void fault(struct check *c, const char *format, ...)
{
	char line[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	c->faults++;
	if (c->report)
		c->report(c->context, line);
}

static uint64_t visit(struct check *c, rp_entry e, unsigned kind, rp_frame parent);

/* I4, I6: a child is no younger than its parent, and has an address where its parent has one. */
static void check_edge(struct check *c, rp_frame f, rp_frame parent)
{
	struct rp_pool *pool = c->pool;

	if (!parent)
		return;
	if (rp_frame_birth(pool, f) > rp_frame_birth(pool, parent))
		fault(c, "I4: frame %u is younger than frame %u, which names it", f, parent);
	if (rp_frame_addr(pool, parent) && !rp_frame_addr(pool, f))
		fault(c, "I6: frame %u has an image address, frame %u below it has none", parent, f);
}

/* I5: what a record says of its pages. */
static void check_record(struct check *c, const struct rp_record *record, rp_frame page, unsigned index)
{
	unsigned height = rp_entry_height(record->root);
	unsigned leaf = record->flags & RP_RECORD_META ? RP_KIND_META : RP_KIND_DATA;
	uint64_t pages;

	if (!(record->flags & RP_RECORD_USED)) {
		if (record->root)
			fault(c, "I5: record %u of frame %u is free and names pages", index, page);
		return;
	}
	pages = visit(c, record->root, height ? RP_KIND_NODE + height - 1 : leaf, page);
	if (pages != UINT64_MAX && pages != record->page_count)
		fault(c, "I5: record %u of frame %u counts %llu pages, its map holds %llu", index, page,
		      (unsigned long long)record->page_count, (unsigned long long)pages);
}

/* I7: the head's mask and the records' flags. */
static void visit_table(struct check *c, rp_frame f)
{
	const struct rp_record *record = rp_bytes(c->pool, f);
	const struct rp_table_head *head = (const struct rp_table_head *)record;

	if (head->magic != RP_TABLE_MAGIC)
		fault(c, "I7: table page in frame %u has no magic", f);
	for (unsigned i = 1; i < RP_RECORDS_PER_PAGE; i++) {
		if ((head->used >> i & 1) != (record[i].flags & RP_RECORD_USED))
			fault(c, "I7: record %u of frame %u: mask and flag differ", i, f);
		check_record(c, &record[i], f, i);
	}
}

static void visit_catalog(struct check *c, rp_frame f)
{
	const struct rp_catalog_entry *entry = rp_bytes(c->pool, f);

	for (unsigned i = 0; i < RP_CATALOG_PER_PAGE; i++) {
		unsigned height = rp_entry_height(entry[i].root);

		if ((entry[i].id == 0) != (entry[i].root == 0))
			fault(c, "I10: catalog entry %u of frame %u is half there", i, f);
		visit(c, entry[i].root, height ? RP_KIND_NODE + height - 1 : RP_KIND_TABLE, f);
	}
}

/* Pages below; UINT64_MAX when some are not in memory. */
static uint64_t visit_node(struct check *c, rp_frame f, unsigned kind, unsigned leaf)
{
	uint64_t pages = 0;
	bool unknown = false;

	for (unsigned i = 0; i < RP_NODE_ENTRIES; i++) {
		rp_entry e = atomic_load(&rp_node(c->pool, f)[i]);
		uint64_t n = visit(c, e, kind == RP_KIND_NODE ? leaf : kind - 1, f);

		if (rp_entry_height(e))
			fault(c, "I3: entry %u of node frame %u carries a height", i, f);
		unknown |= n == UINT64_MAX;
		pages += n;
	}
	return unknown ? UINT64_MAX : pages;
}

/* What the pages of a map are is known only at its leaves: nodes pass on what their parent's kind allows. */
static bool leaf_kind(unsigned kind)
{
	return kind >= RP_KIND_DATA && kind <= RP_KIND_CATALOG;
}

static uint64_t visit(struct check *c, rp_entry e, unsigned kind, rp_frame parent)
{
	struct rp_pool *pool = c->pool;
	rp_frame f = rp_entry_frame(e);
	unsigned real;

	if (!e)
		return 0;
	if (rp_entry_is_addr(e))
		return kind == RP_KIND_DATA || kind == RP_KIND_META || kind == 0 ? 1 : UINT64_MAX;
	if (f == 0 || f >= c->frames) {
		fault(c, "I1: an entry of frame %u names frame %u, which does not exist", parent, f);
		return 0;
	}
	real = rp_frame_kind(pool, f);
	if (kind ? real != kind : !leaf_kind(real))
		fault(c, "I3: frame %u is of kind %u, named as %u", f, real, kind);
	check_edge(c, f, parent);
	if (c->refs[f]++ > 0)
		return c->below[f];
	if (rp_frame_birth(pool, f) > atomic_load(&pool->epoch))
		fault(c, "I4: frame %u was born in a later epoch", f);
	if (rp_frame_addr(pool, f) && rp_frame_birth(pool, f) >= atomic_load(&pool->epoch))
		fault(c, "I6: frame %u has an image address and is of this epoch", f);
	c->below[f] = 1;
	if (rp_kind_is_node(real))
		c->below[f] = visit_node(c, f, real, 0);
	else if (real == RP_KIND_TABLE)
		visit_table(c, f);
	else if (real == RP_KIND_CATALOG)
		visit_catalog(c, f);
	return c->below[f];
}

static void visit_root(struct check *c, rp_entry root, unsigned leaf)
{
	visit(c, root, rp_entry_height(root) ? RP_KIND_NODE + rp_entry_height(root) - 1 : leaf, 0);
}

/* I1, I9: references, and what is free. */
static void check_frames(struct check *c)
{
	struct rp_arena *arena = &c->pool->arena;
	uint64_t used = 0;

	for (uint64_t f = 1; f < c->frames; f++) {
		uint32_t refs = atomic_load(&rp_info(c->pool, (rp_frame)f)->refs);
		bool out = arena->extents[f / RP_EXTENT_FRAMES].used[f % RP_EXTENT_FRAMES / 64] >> (f % 64) & 1;

		used += out;
		if (refs != c->refs[f])
			fault(c, "I1: frame %llu has %u references, %u entries name it", (unsigned long long)f, refs, c->refs[f]);
		if (out != (refs > 0))
			fault(c, "I9: frame %llu is %s the arena with %u references", (unsigned long long)f, out ? "out of" : "in",
			      refs);
		if (!refs && rp_frame_kind(c->pool, (rp_frame)f) != RP_KIND_FREE)
			fault(c, "I9: frame %llu is free and has a kind", (unsigned long long)f);
	}
	if (used != arena->taken)
		fault(c, "I2: %llu frames are out, the budget says %llu", (unsigned long long)used,
		      (unsigned long long)arena->taken);
}

static const struct rp_header *live_header(struct check *c)
{
	rp_entry e = atomic_load(&c->pool->live.root);

	for (unsigned h = rp_entry_height(e); h > 0 && rp_entry_is_frame(e); h--)
		e = atomic_load(rp_node(c->pool, rp_entry_frame(e)));
	return rp_entry_is_frame(e) ? rp_bytes(c->pool, rp_entry_frame(e)) : NULL;
}

/* I8: the header's counts, and the bitmap, against the live table. */
struct numbers {
	uint64_t objects, partial, bits;
};

static int check_table_page(struct check *c, struct rp_op *op, rp_page page, struct numbers *n)
{
	struct rp_map table = { .root = &c->pool->live.root, .leaf = RP_KIND_TABLE };
	struct rp_record *bitmap;
	struct rp_map map;
	rp_frame f, word;
	bool set = false;
	int error = rp_map_find(op, &table, page, &f);

	if (!error)
		error = rp_record_map(op, &c->pool->live, RP_OBJECT_BITMAP, &bitmap, &map);
	if (!error)
		error = rp_map_find(op, &map, page / RP_BITMAP_BITS, &word);
	if (error)
		return error;
	if (word)
		set = ((uint64_t *)rp_bytes(c->pool, word))[page % RP_BITMAP_BITS / 64] >> (page % 64) & 1;
	n->bits += set;
	if (!f) {
		if (set)
			fault(c, "I8: the bitmap names table page %llu, which is not there", (unsigned long long)page);
		return 0;
	}
	const struct rp_table_head *head = rp_bytes(c->pool, f);

	n->objects += (unsigned)__builtin_popcount(head->used) - 1;
	n->partial += head->used != 0xffff;
	if (set != (head->used != 0xffff))
		fault(c, "I8: the bitmap is wrong about table page %llu", (unsigned long long)page);
	if (head->used == 1 && page)
		fault(c, "I8: table page %llu is empty and still there", (unsigned long long)page);
	return 0;
}

/* The next table page from `page` on that is there; end: none. */
static int next_table_page(struct check *c, struct rp_op *op, rp_page *page, rp_page end)
{
	struct rp_map table = { .root = &c->pool->live.root, .leaf = RP_KIND_TABLE };

	while (*page < end) {
		rp_frame node;
		rp_page stop;
		int error = rp_map_leaf(op, &table, *page, &node, &stop);

		if (error || node || stop == 1)
			return error;
		*page = stop;
	}
	return 0;
}

static void check_numbers(struct check *c)
{
	const struct rp_header *header = live_header(c);
	struct numbers n = { 0, 0, 0 };
	struct rp_op op;
	int error = 0;

	if (!header)
		return; /* not in memory */
	rp_page end = header->page_next;

	if (end > RP_PAGE_COUNT_MAX) {
		fault(c, "I8: the header's next page is no page");
		return;
	}
	rp_op_begin(&op, c->pool, RP_OP_READ);
	for (rp_page page = 0; !error && page < end; page++) {
		error = next_table_page(c, &op, &page, end);
		if (!error && page < end)
			error = check_table_page(c, &op, page, &n);
	}
	bool partly = error == RP_AGAIN;

	error = partly ? -ECANCELED : error; /* some of it is not in memory: nothing to compare */
	rp_op_end(&op, &error);
	if (partly)
		return;
	if (n.objects - 1 != header->object_count)
		fault(c, "I8: %llu objects, the header says %llu", (unsigned long long)n.objects - 1,
		      (unsigned long long)header->object_count);
	if (n.partial != header->partial_count || n.bits != header->partial_count)
		fault(c, "I8: %llu table pages with room, %llu bits, the header says %llu", (unsigned long long)n.partial,
		      (unsigned long long)n.bits, (unsigned long long)header->partial_count);
}

/* I11: nobody is inside. Each slot is held once, so that whatever was done in it is seen here. */
static void check_slots(struct check *c)
{
	for (unsigned i = 0; i < RP_SLOT_COUNT; i++) {
		struct rp_slot *slot = &c->pool->slots[i];
		uint32_t idle = 0;

		while (!atomic_compare_exchange_strong(&slot->busy, &idle, 1)) {
			sched_yield();
			idle = 0;
		}
		if (atomic_load(&slot->era) || atomic_load(&slot->waiting) || slot->undo_count || slot->cached)
			fault(c, "I11: slot %u is not at rest", i);
		rp_slot_release(slot);
	}
}

unsigned rp_pool_check(struct rp_pool *pool, void (*report)(void *context, const char *line), void *context)
{
	struct check c = { .pool = pool, .report = report, .context = context };

	rp_pool_reclaim(pool);
	check_numbers(&c);
	rp_pool_reclaim(pool);
	c.frames = pool->arena.extents_made * RP_EXTENT_FRAMES;
	c.refs = calloc(c.frames + 1, sizeof(*c.refs));
	c.below = calloc(c.frames + 1, sizeof(*c.below));
	if (!c.refs || !c.below) {
		fault(&c, "no memory for the check");
	} else {
		check_slots(&c);
		visit_root(&c, atomic_load(&pool->live.root), RP_KIND_TABLE);
		visit_root(&c, atomic_load(&pool->catalog), RP_KIND_CATALOG);
		for (struct rp_snapshot *s = pool->snapshots; s; s = s->next) {
			visit_root(&c, atomic_load(&s->tree.root), RP_KIND_TABLE);
			visit_root(&c, s->catalog, RP_KIND_CATALOG);
		}
		check_frames(&c);
	}
	free(c.refs);
	free(c.below);
	return c.faults;
}
