/* snapshot.c: snapshots: one more reference on a root, and a new epoch.
 *
 * A snapshot that is held (struct rp_snapshot) owns a reference on its root; so does the entry of a named one in the
 * catalog. The catalog's pages are the truth; pool->named is an index of them.
 *
 * Locks: catalog_lock guards the index and the order of changes to the catalog's pages; taken outside operations and the
 * gate, may be held while a page is brought in. held_lock guards the list of held snapshots; innermost, nothing is called
 * under it.
 */
#include <stdlib.h>
#include "internal.h"

/* ---- Held snapshots --------------------------------------------------------------------------------------------- */

struct rp_snapshot *rp_snapshot_new(struct rp_pool *pool)
{
	struct rp_snapshot *s = pool->hooks.allocate(pool->hooks.context, sizeof(*s));

	if (s) {
		s->pool = pool;
		atomic_store(&s->refs, 1);
	}
	return s;
}

static void hold(struct rp_pool *pool, struct rp_snapshot *s)
{
	pthread_mutex_lock(&pool->held_lock);
	s->next = pool->snapshots;
	if (s->next)
		s->next->prev = s;
	pool->snapshots = s;
	pthread_mutex_unlock(&pool->held_lock);
}

static void unhold(struct rp_pool *pool, struct rp_snapshot *s)
{
	pthread_mutex_lock(&pool->held_lock);
	if (s->next)
		s->next->prev = s->prev;
	if (s->prev)
		s->prev->next = s->next;
	else
		pool->snapshots = s->next;
	pthread_mutex_unlock(&pool->held_lock);
}

static void entry_get(struct rp_pool *pool, rp_entry e)
{
	if (rp_entry_is_frame(e))
		rp_frame_get(pool, rp_entry_frame(e));
}

static void entry_put(struct rp_op *op, rp_entry e)
{
	if (rp_entry_is_frame(e))
		rp_frame_put(op, rp_entry_frame(e));
}

struct rp_tree *rp_snapshot_tree(struct rp_snapshot *snapshot) { return &snapshot->tree; }

void rp_snapshot_fill(struct rp_snapshot *s, rp_entry root)
{
	struct rp_pool *pool = s->pool;

	atomic_store(&s->tree.root, root);
	s->catalog = atomic_load(&pool->catalog);
	s->epoch = atomic_load(&pool->epoch);
	entry_get(pool, s->catalog);
	hold(pool, s);
}

int rp_snapshot_take(struct rp_pool *pool, struct rp_snapshot **out)
{
	struct rp_snapshot *s = rp_snapshot_new(pool);
	struct rp_op op;
	int error = 0;

	if (!s)
		return -ENOMEM;
	rp_gate_close(&op, pool, 0);
	entry_get(pool, atomic_load(&pool->live.root));
	rp_snapshot_fill(s, atomic_load(&pool->live.root));
	rp_gate_open(&op, true, &error);
	*out = s;
	return 0;
}

void rp_snapshot_get(struct rp_snapshot *snapshot) { atomic_fetch_add(&snapshot->refs, 1); }

void rp_snapshot_put(struct rp_snapshot *snapshot)
{
	struct rp_pool *pool;
	struct rp_op op;
	int error = 0;

	if (!snapshot || atomic_fetch_sub(&snapshot->refs, 1) != 1)
		return;
	pool = snapshot->pool;
	unhold(pool, snapshot);
	rp_op_begin(&op, pool, RP_OP_RESERVE);
	entry_put(&op, atomic_load(&snapshot->tree.root));
	entry_put(&op, snapshot->catalog);
	rp_op_end(&op, &error);
	free(snapshot);
}

/* ---- The catalog --------------------------------------------------------------------------------------------------- */

static struct rp_map catalog_map(struct rp_pool *pool)
{
	return (struct rp_map){ .root = &pool->catalog, .leaf = RP_KIND_CATALOG };
}

static int catalog_get(struct rp_op *op, uint64_t index, struct rp_catalog_entry **out)
{
	struct rp_map map = catalog_map(op->pool);
	rp_frame f;
	int error = rp_map_find(op, &map, index / RP_CATALOG_PER_PAGE, &f);

	if (!error)
		*out = f ? (struct rp_catalog_entry *)rp_bytes(op->pool, f) + index % RP_CATALOG_PER_PAGE : NULL;
	return error;
}

static int catalog_edit(struct rp_op *op, uint64_t index, struct rp_catalog_entry **out)
{
	struct rp_map map = catalog_map(op->pool);
	rp_frame f;
	int error = rp_map_edit(op, &map, index / RP_CATALOG_PER_PAGE, false, &f);

	if (!error)
		*out = (struct rp_catalog_entry *)rp_bytes(op->pool, f) + index % RP_CATALOG_PER_PAGE;
	return error;
}

/* A catalog page without an entry leaves; catalog_lock held. The path is ours. */
static void catalog_drop_empty(struct rp_op *op, uint64_t index)
{
	struct rp_map map = catalog_map(op->pool);
	struct rp_catalog_entry *entry;
	_Atomic rp_entry *at;

	if (catalog_get(op, index - index % RP_CATALOG_PER_PAGE, &entry) != 0 || !entry)
		return;
	for (unsigned i = 0; i < RP_CATALOG_PER_PAGE; i++)
		if (entry[i].id)
			return;
	if (rp_map_own(op, &map, index / RP_CATALOG_PER_PAGE, 0, false, &at) != 0 || !at)
		return;
	entry_put(op, atomic_exchange(at, 0));
	rp_map_prune(op, &map, index / RP_CATALOG_PER_PAGE);
}

/* The index is sorted by name. Position of the name, or where it would stand. */
static size_t named_find(const struct rp_pool *pool, const char *name, bool *found)
{
	size_t low = 0, high = pool->named_count;

	*found = false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(pool->named[middle].name, name);

		if (order == 0)
			*found = true;
		if (order >= 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static int named_make_room(struct rp_pool *pool)
{
	size_t room = pool->named_room ? pool->named_room * 2 : 16;
	struct rp_named *larger;

	if (pool->named_count < pool->named_room)
		return 0;
	larger = pool->hooks.allocate(pool->hooks.context, room * sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	if (pool->named)
		memcpy(larger, pool->named, pool->named_count * sizeof(*larger));
	free(pool->named);
	pool->named = larger;
	pool->named_room = room;
	return 0;
}

static void named_insert(struct rp_pool *pool, size_t position, uint64_t id, uint64_t index, const char *name)
{
	memmove(&pool->named[position + 1], &pool->named[position], (pool->named_count - position) * sizeof(*pool->named));
	pool->named_count++;
	memset(&pool->named[position], 0, sizeof(*pool->named));
	pool->named[position].id = id;
	pool->named[position].index = index;
	strcpy(pool->named[position].name, name);
}

static void named_remove(struct rp_pool *pool, size_t position)
{
	pool->named_count--;
	memmove(&pool->named[position], &pool->named[position + 1], (pool->named_count - position) * sizeof(*pool->named));
}

/* The lowest index no entry has. As many steps as there are snapshots: one bit each would cost more than it saves. */
static int catalog_free_index(struct rp_pool *pool, uint64_t *out)
{
	size_t bytes = pool->named_count / 8 + 1;
	uint8_t *taken = pool->hooks.allocate(pool->hooks.context, bytes);

	if (!taken)
		return -ENOMEM;
	for (size_t i = 0; i < pool->named_count; i++)
		if (pool->named[i].index <= pool->named_count)
			taken[pool->named[i].index / 8] |= (uint8_t)(1u << pool->named[i].index % 8);
	for (*out = 0; *out < bytes * 8 && taken[*out / 8] >> *out % 8 & 1;)
		++*out;
	free(taken);
	return 0;
}

static bool name_is_good(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > RP_SNAPSHOT_NAME_MAX || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)name[i] < 32 || name[i] == 127 || name[i] == '/' || name[i] == '@')
			return false;
	return true;
}

static int create_entry(struct rp_op *op, uint64_t index, uint64_t id, const char *name)
{
	struct rp_pool *pool = op->pool;
	struct rp_catalog_entry *entry;
	int error = catalog_edit(op, index, &entry);

	if (error)
		return error;
	memset(entry, 0, sizeof(*entry));
	entry->root = atomic_load(&pool->live.root);
	entry_get(pool, entry->root);
	entry->id = id;
	pool->hooks.now(pool->hooks.context, &entry->sec, &entry->nsec);
	pthread_mutex_lock(&pool->arena.lock);
	entry->frame_count = pool->arena.taken;
	pthread_mutex_unlock(&pool->arena.lock);
	entry->name_len = (uint16_t)strlen(name);
	memcpy(entry->name, name, entry->name_len);
	return 0;
}

int rp_snapshot_create(struct rp_pool *pool, const char *name)
{
	struct rp_op op;
	uint64_t index = 0;
	bool found;
	int error;

	if (!name_is_good(name))
		return -EINVAL;
	pthread_mutex_lock(&pool->catalog_lock);
	size_t position = named_find(pool, name, &found);

	error = found ? -EEXIST : named_make_room(pool);
	if (!error)
		error = catalog_free_index(pool, &index);
	if (!error) {
		do {
			rp_gate_close(&op, pool, 0);
			error = create_entry(&op, index, pool->named_id_next, name);
		} while (rp_gate_open(&op, true, &error));
	}
	if (!error)
		named_insert(pool, position, pool->named_id_next++, index, name);
	pthread_mutex_unlock(&pool->catalog_lock);
	return error;
}

static int delete_entry(struct rp_op *op, uint64_t index)
{
	struct rp_catalog_entry *entry;
	int error = catalog_edit(op, index, &entry);

	if (error)
		return error;
	entry_put(op, atomic_exchange((_Atomic rp_entry *)&entry->root, 0));
	memset((uint8_t *)entry + 8, 0, sizeof(*entry) - 8);
	catalog_drop_empty(op, index);
	return 0;
}

int rp_snapshot_delete(struct rp_pool *pool, const char *name)
{
	struct rp_op op;
	bool found;
	int error = -ENOENT;

	pthread_mutex_lock(&pool->catalog_lock);
	size_t position = named_find(pool, name, &found);

	if (found) {
		do {
			rp_op_begin(&op, pool, RP_OP_RESERVE);
			error = delete_entry(&op, pool->named[position].index);
		} while (rp_op_end(&op, &error));
	}
	if (!error)
		named_remove(pool, position);
	pthread_mutex_unlock(&pool->catalog_lock);
	return error;
}

int rp_snapshot_rename(struct rp_pool *pool, const char *name, const char *to)
{
	struct rp_catalog_entry *entry;
	struct rp_op op;
	bool found, taken;
	int error = -ENOENT;

	if (!name_is_good(to))
		return -EINVAL;
	pthread_mutex_lock(&pool->catalog_lock);
	size_t position = named_find(pool, name, &found);

	named_find(pool, to, &taken);
	if (found && taken)
		error = -EEXIST;
	else if (found) {
		struct rp_named named = pool->named[position];

		do {
			rp_op_begin(&op, pool, RP_OP_RESERVE);
			error = catalog_edit(&op, named.index, &entry);
			if (!error) {
				memset(entry->name, 0, sizeof(entry->name));
				entry->name_len = (uint16_t)strlen(to);
				memcpy(entry->name, to, entry->name_len);
			}
		} while (rp_op_end(&op, &error));
		if (!error) {
			named_remove(pool, position);
			named_insert(pool, named_find(pool, to, &taken), named.id, named.index, to);
		}
	}
	pthread_mutex_unlock(&pool->catalog_lock);
	return error;
}

int rp_snapshot_open(struct rp_pool *pool, const char *name, struct rp_snapshot **out)
{
	struct rp_snapshot *s = rp_snapshot_new(pool);
	struct rp_catalog_entry *entry;
	struct rp_op op;
	bool found;
	int error = -ENOENT;

	if (!s)
		return -ENOMEM;
	pthread_mutex_lock(&pool->catalog_lock);
	size_t position = named_find(pool, name, &found);

	if (found) {
		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = catalog_get(&op, pool->named[position].index, &entry);
			if (!error && (!entry || !entry->id))
				error = -EIO;
			if (!error) {
				rp_entry root = atomic_load((_Atomic rp_entry *)&entry->root);

				/* A root that is not in memory: brought in, so that the snapshot holds a frame. */
				struct rp_map table = { .leaf = RP_KIND_TABLE };
				struct rp_spot spot = rp_map_spot(&table, 0, rp_entry_height(root));

				error = rp_entry_resolve(&op, (_Atomic rp_entry *)&entry->root, &root, &spot);
				if (!error) {
					atomic_store(&s->tree.root, root);
					entry_get(pool, root);
					s->id = entry->id;
				}
			}
		} while (rp_op_end(&op, &error));
	}
	pthread_mutex_unlock(&pool->catalog_lock);
	if (error) {
		free(s);
		return error;
	}
	s->epoch = atomic_load(&pool->epoch) - 1;
	hold(pool, s);
	*out = s;
	return 0;
}

/* ---- Loading, listing ------------------------------------------------------------------------------------------------- */

static int load_entry(struct rp_pool *pool, uint64_t index, struct rp_catalog_entry *copy, uint64_t *end)
{
	struct rp_map map = catalog_map(pool);
	struct rp_catalog_entry *entry;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		rp_frame node;

		error = rp_map_leaf(&op, &map, index / RP_CATALOG_PER_PAGE, &node, end);
		if (!error)
			error = catalog_get(&op, index, &entry);
		memset(copy, 0, sizeof(*copy));
		if (!error && entry) {
			/* The root may be brought in just now. */
			copy->root = atomic_load((_Atomic rp_entry *)&entry->root);
			memcpy(&copy->id, &entry->id, sizeof(*copy) - offsetof(struct rp_catalog_entry, id));
		}
		if (node || *end == 1)
			*end = index / RP_CATALOG_PER_PAGE + 1;
	} while (rp_op_end(&op, &error));
	return error;
}

int rp_catalog_load(struct rp_pool *pool)
{
	uint64_t index = 0;

	for (;;) {
		struct rp_catalog_entry entry;
		uint64_t end;
		bool found;
		int error = load_entry(pool, index, &entry, &end);

		if (error)
			return error;
		if (entry.id) {
			entry.name[RP_SNAPSHOT_NAME_MAX] = 0;
			if (!name_is_good(entry.name))
				return -EIO;
			size_t position = named_find(pool, entry.name, &found);

			error = found ? -EIO : named_make_room(pool);
			if (error)
				return error;
			named_insert(pool, position, entry.id, index, entry.name);
			if (entry.id >= pool->named_id_next)
				pool->named_id_next = entry.id + 1;
		}
		if (end >= RP_PAGE_COUNT_MAX)
			return 0;
		index = index + 1 < end * RP_CATALOG_PER_PAGE && end == index / RP_CATALOG_PER_PAGE + 1 ? index + 1
		                                                                                      : end * RP_CATALOG_PER_PAGE;
	}
}

static int by_time(const void *a, const void *b)
{
	const struct rp_snapshot_info *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

int rp_snapshot_list(struct rp_pool *pool, bool measure, struct rp_snapshot_info **out, size_t *count)
{
	struct rp_snapshot_info *list;
	int error = 0;

	pthread_mutex_lock(&pool->catalog_lock);
	list = calloc(pool->named_count + 1, sizeof(*list));
	for (size_t i = 0; list && !error && i < pool->named_count; i++) {
		struct rp_catalog_entry entry;
		uint64_t end;

		error = load_entry(pool, pool->named[i].index, &entry, &end);
		list[i].id = entry.id;
		list[i].sec = entry.sec;
		list[i].nsec = entry.nsec;
		list[i].frame_count = entry.frame_count;
		list[i].alone_frames = UINT64_MAX;
		strcpy(list[i].name, pool->named[i].name);
	}
	*count = pool->named_count;
	pthread_mutex_unlock(&pool->catalog_lock);
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; !error && measure && i < *count; i++) {
		error = rp_snapshot_measure(pool, list[i].name, &list[i].alone_frames);
		if (error == -ENOENT)
			error = 0; /* deleted meanwhile; the others are not */
	}
	if (error) {
		free(list);
		return error;
	}
	qsort(list, *count, sizeof(*list), by_time);
	*out = list;
	return 0;
}
