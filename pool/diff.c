/* diff.c: what two trees do not share: their entries tell, so the cost follows the difference.
 *
 * Both trees are snapshots that the caller holds: their frames stay and do not change, so the walk runs outside operations
 * and enters one only to bring a page in.
 */
#include "internal.h"

/* An entry of one of the two trees, and the level of what it names (0: a page). */
struct place {
	_Atomic rp_entry *at;   /* null: a hole */
	unsigned level;
};

struct walk {
	struct rp_pool *pool;
	unsigned leaf;
	rp_object of; /* whose map it is; 0: the object table's */
	/* a and b: the page's bytes, null for a hole */
	int (*page)(struct walk *walk, rp_page page, struct place a, struct place b);
	int (*on_object)(void *context, rp_object object, const struct rp_record *in_a, const struct rp_record *in_b);
	int (*on_page)(void *context, rp_page page);
	void *context;
};

static rp_entry load(struct place p)
{
	return p.at ? atomic_load_explicit(p.at, memory_order_acquire) : 0;
}

/* The frame of what an entry names, brought in. 0: a hole. */
static int bring(struct walk *walk, struct place p, unsigned level, rp_page page, rp_frame *out)
{
	const struct rp_map map = { .leaf = walk->leaf, .object = walk->of };
	struct rp_spot spot = rp_map_spot(&map, page, level);
	rp_entry e = load(p);
	int error = 0;

	if (rp_entry_is_addr(e)) {
		struct rp_op op;

		do {
			rp_op_begin(&op, walk->pool, RP_OP_READ);
			error = rp_entry_resolve(&op, p.at, &e, &spot);
		} while (rp_op_end(&op, &error));
	}
	*out = error ? 0 : rp_entry_frame(e);
	return error;
}

/* Do two entries name the same content for certain? */
static bool same(struct rp_pool *pool, rp_entry a, rp_entry b)
{
	rp_addr x, y;

	if (rp_entry_height(a) != rp_entry_height(b))
		return false;
	if (a == b)
		return true;
	if (!a || !b)
		return false;
	x = rp_entry_is_frame(a) ? rp_frame_addr(pool, rp_entry_frame(a)) : rp_entry_addr(a);
	y = rp_entry_is_frame(b) ? rp_frame_addr(pool, rp_entry_frame(b)) : rp_entry_addr(b);
	return x && x == y;
}

/* Entry i of the node of level `level` that the place names; a lower map stands at the first entry of a higher one. */
static struct place child(struct rp_pool *pool, struct place p, rp_frame node, unsigned level, unsigned i)
{
	if (p.at && p.level < level)
		return i == 0 ? p : (struct place){ NULL, 0 };
	if (!node)
		return (struct place){ NULL, 0 };
	return (struct place){ &rp_node(pool, node)[i], level - 1 };
}

static int compare(struct walk *walk, unsigned level, struct place a, struct place b, rp_page base)
{
	rp_entry ea = load(a), eb = load(b);
	rp_frame x = 0, y = 0;
	int error = 0;

	if ((!ea && !eb) || (a.level == b.level && same(walk->pool, ea & ~RP_ENTRY_HEIGHT_MASK, eb & ~RP_ENTRY_HEIGHT_MASK)))
		return 0;
	if (level == 0)
		return walk->page(walk, base, a, b);
	if (ea && a.level == level)
		error = bring(walk, a, level, base, &x);
	if (!error && eb && b.level == level)
		error = bring(walk, b, level, base, &y);
	for (unsigned i = 0; !error && i < RP_NODE_ENTRIES; i++)
		error = compare(walk, level - 1, child(walk->pool, a, x, level, i), child(walk->pool, b, y, level, i),
		                base + (rp_page)i * rp_height_pages(level - 1));
	return error;
}

static int compare_roots(struct walk *walk, _Atomic rp_entry *a, _Atomic rp_entry *b)
{
	struct place x = { a, a ? rp_entry_height(atomic_load(a)) : 0 };
	struct place y = { b, b ? rp_entry_height(atomic_load(b)) : 0 };

	if (!load(x))
		x = (struct place){ NULL, 0 };
	if (!load(y))
		y = (struct place){ NULL, 0 };
	return compare(walk, x.level > y.level ? x.level : y.level, x, y, 0);
}

static bool record_same(struct rp_pool *pool, const struct rp_record *a, const struct rp_record *b)
{
	rp_entry x = atomic_load((const _Atomic rp_entry *)&a->root), y = atomic_load((const _Atomic rp_entry *)&b->root);

	return memcmp((const uint8_t *)a + 8, (const uint8_t *)b + 8, sizeof(*a) - 8) == 0 && same(pool, x, y);
}

static int table_page(struct walk *walk, rp_page page, struct place a, struct place b)
{
	rp_frame x, y;
	int error = bring(walk, a, 0, page, &x);

	if (!error)
		error = bring(walk, b, 0, page, &y);
	for (unsigned i = 1; !error && i < RP_RECORDS_PER_PAGE; i++) {
		const struct rp_record *in_a = x ? (const struct rp_record *)rp_bytes(walk->pool, x) + i : NULL;
		const struct rp_record *in_b = y ? (const struct rp_record *)rp_bytes(walk->pool, y) + i : NULL;

		if (in_a && !(in_a->flags & RP_RECORD_USED))
			in_a = NULL;
		if (in_b && !(in_b->flags & RP_RECORD_USED))
			in_b = NULL;
		if ((!in_a && !in_b) || page * RP_RECORDS_PER_PAGE + i == RP_OBJECT_BITMAP)
			continue;
		if (!in_a || !in_b || !record_same(walk->pool, in_a, in_b))
			error = walk->on_object(walk->context, page * RP_RECORDS_PER_PAGE + i, in_a, in_b);
	}
	return error;
}

static int data_page(struct walk *walk, rp_page page, struct place a, struct place b)
{
	(void)a;
	(void)b;
	return walk->on_page(walk->context, page);
}

int rp_diff_objects(struct rp_pool *pool, struct rp_snapshot *a, struct rp_snapshot *b,
                    int (*object)(void *context, rp_object object, const struct rp_record *in_a, const struct rp_record *in_b),
                    void *context)
{
	struct walk walk = { .pool = pool, .leaf = RP_KIND_TABLE, .page = table_page, .on_object = object, .context = context };

	return compare_roots(&walk, &a->tree.root, &b->tree.root);
}

static int record_of(struct rp_pool *pool, struct rp_snapshot *s, rp_object object, struct rp_record **out)
{
	struct rp_map map;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_record_map(&op, &s->tree, object, out, &map);
	} while (rp_op_end(&op, &error));
	if (error == -ENOENT) {
		*out = NULL;
		error = 0;
	}
	return error;
}

int rp_diff_pages(struct rp_pool *pool, struct rp_snapshot *a, struct rp_snapshot *b, rp_object object,
                  int (*page)(void *context, rp_page page), void *context)
{
	struct walk walk = { .pool = pool, .leaf = RP_KIND_DATA, .of = object, .page = data_page, .on_page = page,
	                     .context = context };
	struct rp_record *x, *y;
	int error = record_of(pool, a, object, &x);

	if (!error)
		error = record_of(pool, b, object, &y);
	if (error)
		return error;
	if ((x ? x : y) && (x ? x : y)->flags & RP_RECORD_META)
		walk.leaf = RP_KIND_META;
	return compare_roots(&walk, x ? (_Atomic rp_entry *)&x->root : NULL, y ? (_Atomic rp_entry *)&y->root : NULL);
}

/* ---- What a snapshot alone holds ------------------------------------------------------------------------------------- */

/* Frames under an entry that only this tree names: those with one reference, and what is below them. */
static uint64_t count_alone(struct rp_pool *pool, rp_entry e, bool root)
{
	unsigned first, step, count;
	uint64_t frames = 1;
	rp_frame f;

	if (!rp_entry_is_frame(e))
		return 0;
	f = rp_entry_frame(e);
	if (!root && atomic_load(&rp_info(pool, f)->refs) > 1)
		return 0;
	count = rp_kind_children(rp_frame_kind(pool, f), &first, &step);
	for (unsigned i = 0; i < count; i++)
		frames += count_alone(pool, atomic_load(&rp_node(pool, f)[first + i * step]), false);
	return frames;
}

int rp_snapshot_measure(struct rp_pool *pool, const char *name, uint64_t *frames)
{
	struct rp_snapshot *s;
	uint32_t held = 1; /* the catalog's */
	int error = rp_snapshot_open(pool, name, &s);

	if (error)
		return error;
	rp_entry root = atomic_load(&s->tree.root);

	pthread_mutex_lock(&pool->held_lock);
	for (struct rp_snapshot *i = pool->snapshots; i; i = i->next)
		held += atomic_load(&i->tree.root) == root;
	pthread_mutex_unlock(&pool->held_lock);
	*frames = 0;
	if (atomic_load(&rp_info(pool, rp_entry_frame(root))->refs) <= held)
		*frames = count_alone(pool, root, true);
	rp_snapshot_put(s);
	return 0;
}
