/* offline.c: images looked at without a pool: which commits they hold, whether every block is whole, going back.
 *
 * Commits are found along the chain of root blocks, from both superblocks: when the newest root is damaged, the other slot
 * still leads to the commit before. Where the chain breaks off, the file is searched for those before.
 * Verifying reads each block once, whatever shares it, so its time and memory follow the number of blocks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "image.h"
#include "store.h"

#define DEPTH_MAX 32

/* ---- Commits --------------------------------------------------------------------------------------------------------------- */

struct found {
	struct rp_commit_info *list;
	size_t count, room;
	rp_addr broken;       /* where a link of the chain is damaged; 0: nowhere */
	uint64_t below, newest; /* when scanning: generations below one and up to the other are wanted */
};

static int found_add(struct found *found, const struct rp_commit_info *one)
{
	if (found->count == found->room) {
		size_t room = found->room ? found->room * 2 : 16;
		struct rp_commit_info *larger = realloc(found->list, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		found->list = larger;
		found->room = room;
	}
	found->list[found->count++] = *one;
	return 0;
}

static uint64_t generation_lowest(const struct found *found)
{
	return found->count ? found->list[found->count - 1].generation : UINT64_MAX;
}

static int root_add(struct found *found, rp_addr addr, const struct rp_root *root, uint64_t end)
{
	const struct rp_commit_info one = {
		.generation = root->generation, .sec = root->sec, .nsec = root->nsec, .clean = root->flags & RP_ROOT_CLEAN,
		.whole = true, .file_end = end, .root = addr,
	};

	return found_add(found, &one);
}

/* Follow the chain from a root; commits not older than what is listed are known already. */
static int chain_follow(struct rp_store *store, rp_addr addr, struct found *found)
{
	while (addr) {
		struct rp_root root;
		const char *why;
		uint64_t block_end;
		int error = rp_store_read_root(store, addr, &root, &block_end, NULL, &why);

		if (error == -EIO) {
			found->broken = addr;
			return 0;
		}
		if (error)
			return error;
		if (root.generation < generation_lowest(found)) {
			error = root_add(found, addr, &root, block_end);
			if (error)
				return error;
			found->broken = 0;
		}
		addr = root.previous;
	}
	return 0;
}

static int scanned_add(void *context, rp_addr addr, const struct rp_root *root, uint64_t end)
{
	struct found *found = context;

	if (root->generation >= found->below || root->generation > found->newest)
		return 0;
	return root_add(found, addr, root, end);
}

/* Newest first; of two that bear the same number the one that was written later, because the other did not succeed. */
static int by_generation(const void *a, const void *b)
{
	const struct rp_commit_info *x = a, *y = b;

	if (x->generation != y->generation)
		return x->generation < y->generation ? 1 : -1;
	return x->root < y->root ? 1 : x->root > y->root ? -1 : 0;
}

/* What stands before the break in the chain. */
static int chain_search(struct rp_store *store, uint64_t newest, struct found *found)
{
	size_t known = found->count, kept = found->count;
	int error;

	found->below = generation_lowest(found);
	found->newest = newest;
	error = rp_store_scan(store, scanned_add, found);
	if (error || found->count == known)
		return error;
	qsort(found->list + known, found->count - known, sizeof(*found->list), by_generation);
	for (size_t i = known; i < found->count; i++)
		if (i == known || found->list[i].generation != found->list[i - 1].generation)
			found->list[kept++] = found->list[i];
	found->count = kept;
	return 0;
}

static int commits_find(struct rp_store *store, struct found *found, const struct rp_image_options *says)
{
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	unsigned newest;
	int error = rp_store_supers_read(store->io, store->hooks, store->handle, super, good, &newest);

	if (!error)
		error = chain_follow(store, super[newest].root, found);
	if (!error && good[!newest])
		error = chain_follow(store, super[!newest].root, found);
	if (!error && (found->broken || !found->count))
		error = chain_search(store, super[newest].generation, found);
	if (!error && !found->count)
		error = -EIO;
	if (error)
		rp_image_say(says, error, "%s: %s", store->path,
		             error == -EIO ? "damaged: no commit can be read" : strerror(-error));
	return error;
}

static int store_open(const char *path, const struct rp_image_options *options, bool read_only, struct rp_store **out)
{
	struct rp_store_options store_options = {
		.io = options && options->io ? options->io : &rp_io_files, .hooks = options ? options->hooks : NULL,
		.read_only = read_only, .any_owner = options && options->any_owner, .says = options,
	};

	return rp_store_open(path, &store_options, out);
}

int rp_image_commits(const char *path, const struct rp_image_options *options, struct rp_commit_info **out, size_t *count)
{
	struct found found = { 0 };
	struct rp_store *store;
	int error = store_open(path, options, true, &store);

	if (error)
		return error;
	error = commits_find(store, &found, options);
	rp_store_close(store);
	if (error) {
		free(found.list);
		return error;
	}
	*out = found.list;
	*count = found.count;
	return 0;
}

/* ---- Verifying --------------------------------------------------------------------------------------------------------------- */

enum { SEEN_GOOD = 1, SEEN_BAD = 2 };

struct verifying {
	struct rp_store *store;
	struct rp_reader *reader;
	struct rp_image_check *check;
	struct rp_addrmap seen;   /* address -> SEEN_*, kind, leaf and place */
	uint64_t epoch_limit;
	uint64_t generation;
	uint64_t (*pages)[RP_PAGE_SIZE / 8];
};

static uint64_t seen_value(unsigned state, const struct rp_spot *spot)
{
	return (uint64_t)rp_spot_place(spot) << 32 | (uint64_t)spot->leaf << 16 | (uint64_t)spot->kind << 8 | state;
}

static void bad_tell(struct verifying *v, rp_addr addr, const char *why)
{
	char line[256];

	v->check->bad_count++;
	if (!v->check->report)
		return;
	snprintf(line, sizeof(line), "commit %" PRIu64 ": block at byte %" PRIu64 ": %s", v->generation, rp_addr_offset(addr), why);
	v->check->report(v->check->context, line);
}

static int entry_verify(struct verifying *v, unsigned depth, rp_entry e, const struct rp_spot *spot, bool *whole);

static int block_verify(struct verifying *v, unsigned depth, rp_addr addr, const struct rp_spot *spot, bool *whole)
{
	struct rp_children children = rp_children_of(spot->kind);
	uint64_t *page = v->pages[depth];
	struct rp_block_info info;
	const char *why = "nested too deep";
	int error = depth + 1 < DEPTH_MAX ? rp_store_read(v->store, v->reader, addr, spot->kind, page, &info, &why) : -EIO;

	if (!error && info.birth >= v->epoch_limit) {
		why = "born after the commit that names it";
		error = -EIO;
	}
	if (error == -EIO) {
		bad_tell(v, addr, why);
		*whole = false;
		return 0;
	}
	if (error)
		return error;
	v->check->block_count++;
	v->check->byte_count += info.stored_bytes;
	if (v->check->progress && v->check->block_count % 256 == 0)
		v->check->progress(v->check->context, v->check->byte_count, v->store->super.file_end);
	for (unsigned i = 0; i < children.count && !error; i++) {
		unsigned word = children.first + i * children.step;
		struct rp_spot child;

		if (!page[word])
			continue;
		child = rp_children_spot(spot, page, word);
		error = entry_verify(v, depth + 1, page[word], &child, whole);
	}
	return error;
}

static int entry_verify(struct verifying *v, unsigned depth, rp_entry e, const struct rp_spot *spot, bool *whole)
{
	rp_addr addr = rp_entry_addr(e);
	uint64_t seen;
	bool mine = true;
	int error;

	if (!e)
		return 0;
	if (rp_addr_is_zero_page(addr)) {
		if (addr != spot->kind) {
			bad_tell(v, addr, "a page of zeroes is named where something else belongs");
			*whole = false;
		}
		return 0;
	}
	if (rp_addrmap_get(&v->seen, addr, &seen)) {
		uint64_t other = seen ^ seen_value(0, spot);

		if (other & ~(uint64_t)0xff) {
			bad_tell(v, addr, other & 0xffff00 ? "named as what it is not" : "named in two places");
			*whole = false;
		} else if ((seen & 0xff) == SEEN_BAD) {
			*whole = false;
		}
		return 0;
	}
	error = block_verify(v, depth, addr, spot, &mine);
	if (!error)
		error = rp_addrmap_put(&v->seen, addr, seen_value(mine ? SEEN_GOOD : SEEN_BAD, spot));
	if (!mine)
		*whole = false;
	return error;
}

static int root_verify(struct verifying *v, rp_entry root, unsigned leaf, bool *whole)
{
	struct rp_spot spot = rp_root_spot(root, leaf);

	return entry_verify(v, 0, root, &spot, whole);
}

static int commit_verify(struct verifying *v, const struct rp_commit_info *commit, bool *whole)
{
	struct rp_root root;
	const char *why;
	int error = rp_store_read_root(v->store, commit->root, &root, NULL, NULL, &why);

	*whole = true;
	v->generation = commit->generation;
	if (error == -EIO) {
		bad_tell(v, commit->root, why);
		*whole = false;
		return 0;
	}
	if (!error)
		error = root_verify(v, root.table, RP_KIND_TABLE, whole);
	if (!error)
		error = root_verify(v, root.catalog, RP_KIND_CATALOG, whole);
	return error;
}

/* Both slots, each copy: one that is neither whole nor empty is told. */
static int supers_verify(struct verifying *v)
{
	uint8_t *bytes = calloc(1, RP_BLOCKS_START);
	ssize_t n;

	if (!bytes)
		return -ENOMEM;
	n = rp_store_bytes_read(v->store->io, v->store->handle, bytes, RP_BLOCKS_START, 0);
	for (unsigned slot = 0; slot < RP_SUPER_SLOTS && n >= 0; slot++) {
		unsigned good = 0;

		for (unsigned copy = 0; copy < RP_SUPER_COPIES; copy++) {
			char line[128];

			if (rp_super_copy_check(bytes, slot, copy)) {
				good++;
				continue;
			}
			v->check->bad_count++;
			v->check->superblock_copies_bad++;
			snprintf(line, sizeof(line), "superblock %u, copy %u: damaged", slot, copy);
			if (v->check->report)
				v->check->report(v->check->context, line);
		}
		v->check->superblocks_good += good > 0;
	}
	free(bytes);
	return n < 0 ? (int)n : 0;
}

/* Does the chain end, or break off? */
static int chain_end_verify(struct verifying *v, rp_addr broken, const struct rp_commit_info *oldest)
{
	struct rp_root root;
	const char *why;
	int error;

	if (broken) {
		if (broken != v->store->super.root) /* that was told */
			bad_tell(v, broken, "the root of the commit before is damaged");
		return 0;
	}
	error = rp_store_read_root(v->store, oldest->root, &root, NULL, NULL, &why);
	if (!error && root.previous)
		bad_tell(v, root.previous, "the root of the commit before is damaged");
	return error == -EIO ? 0 : error;
}

static int commits_verify(struct verifying *v, const struct found *found)
{
	struct rp_super *super = &v->store->super;
	struct rp_root newest;
	const char *why;
	uint64_t checksum;
	int error = rp_store_read_root(v->store, found->list[0].root, &newest, NULL, &checksum, &why);
	/* As one who opens the image asks. */
	bool named = found->list[0].generation == super->generation && found->list[0].root == super->root &&
	             checksum == super->root_checksum;

	if (error)
		return error;
	v->epoch_limit = newest.epoch + 1;
	if (!named) {
		v->generation = super->generation;
		bad_tell(v, super->root, "the newest commit's root is damaged, or not the one the superblock means");
	}
	for (size_t i = 0; i < found->count && !error; i++) {
		bool whole;

		error = commit_verify(v, &found->list[i], &whole);
		if (!error && whole && !v->check->newest_whole)
			v->check->newest_whole = found->list[i].generation;
	}
	if (!error)
		error = chain_end_verify(v, found->broken, &found->list[found->count - 1]);
	v->check->newest_is_whole = !error && named && v->check->newest_whole == super->generation;
	return error;
}

int rp_image_verify(const char *path, const struct rp_image_options *options, struct rp_image_check *check)
{
	struct verifying v = { .check = check };
	struct found found = { 0 };
	int error = store_open(path, options, true, &v.store);

	check->block_count = check->byte_count = check->bad_count = check->newest_whole = 0;
	check->newest_is_whole = false;
	check->superblocks_good = 0;
	check->superblock_copies_bad = 0;
	if (error)
		return error;
	v.seen.hooks = options ? options->hooks : NULL;
	v.reader = rp_reader_claim(v.store, 256u << 10);
	v.pages = rp_image_allocate(v.seen.hooks, DEPTH_MAX * sizeof(*v.pages));
	error = v.reader && v.pages ? supers_verify(&v) : -ENOMEM;
	if (!error)
		error = commits_find(v.store, &found, options);
	if (!error)
		error = commits_verify(&v, &found);
	if (!error && check->progress)
		check->progress(check->context, v.store->super.file_end, v.store->super.file_end);
	free(found.list);
	free(v.pages);
	if (v.reader)
		rp_reader_release(v.store, v.reader);
	rp_addrmap_free(&v.seen);
	rp_store_close(v.store);
	return error;
}

/* ---- Going back -------------------------------------------------------------------------------------------------------------- */

static int root_publish(struct rp_store *store, rp_addr addr)
{
	struct rp_super super = store->super;
	struct rp_root root;
	uint64_t checksum;
	const char *why;
	int error = rp_store_read_root(store, addr, &root, NULL, &checksum, &why);

	if (error)
		return error;
	super.generation = root.generation;
	if (super.generation_last < store->super.generation)
		super.generation_last = store->super.generation;
	super.root = addr;
	super.root_checksum = checksum;
	super.sec = root.sec;
	super.nsec = root.nsec;
	if (root.generation != store->super.generation)
		super.flags = root.flags;
	super.size_bytes = root.size_bytes;
	error = rp_store_begin(store);
	/* Into both slots: none must lead back to what was left. */
	for (unsigned i = 0; i < RP_SUPER_SLOTS && !error; i++)
		error = rp_store_publish(store, &super);
	return error;
}

int rp_image_roll_back(const char *path, uint64_t generation, const struct rp_image_options *options)
{
	struct found found = { 0 };
	struct rp_store *store;
	int error = store_open(path, options, false, &store);

	if (error)
		return error;
	error = commits_find(store, &found, options);
	if (!error) {
		size_t i = 0;

		while (i < found.count && found.list[i].generation != generation)
			i++;
		if (i == found.count)
			error = rp_image_say(options, -ESRCH, "%s: has no commit %" PRIu64, path, generation);
		else
			error = root_publish(store, found.list[i].root);
		if (error && error != -ESRCH)
			rp_image_say(options, error, "%s: %s", path, strerror(-error));
	}
	free(found.list);
	rp_store_close(store);
	return error;
}

/* ---- For dump ---------------------------------------------------------------------------------------------------------------- */

static void hex(const uint8_t *bytes, size_t size, char *to)
{
	for (size_t i = 0; i < size; i++)
		sprintf(to + 2 * i, "%02x", bytes[i]);
}

static void super_describe(const struct rp_super *s, unsigned slot, bool newest,
                           void (*line)(void *context, const char *text), void *context)
{
	char text[256], id[33], uuid[33];

	hex(s->file_id, 16, id);
	hex(s->uuid, 16, uuid);
	snprintf(text, sizeof(text), "superblock %u: sequence %" PRIu64 "%s, commit %" PRIu64 "%s, root at byte %" PRIu64
	         ", file needs %" PRIu64 " bytes", slot, s->sequence, newest ? " (newest)" : "", s->generation,
	         s->flags & RP_ROOT_CLEAN ? " (clean end)" : "", rp_addr_offset(s->root), s->file_end);
	line(context, text);
	snprintf(text, sizeof(text), "  file %s, pool %s, label \"%.32s\", pool of %" PRIu64 " bytes", id, uuid, s->label,
	         s->size_bytes);
	line(context, text);
	snprintf(text, sizeof(text),
	         "  features: compat %" PRIx64 ", ro_compat %" PRIx64 ", incompat %" PRIx64 "; codec %s; keep %u"
	         "; written by %.40s", s->compat, s->ro_compat, s->incompat, rp_codec_name((enum rp_codec)s->codec), s->keep,
	         s->writer);
	line(context, text);
	for (unsigned i = 0; i < RP_FEATURE_NAMES; i++) {
		if (!s->names[i].word)
			continue;
		snprintf(text, sizeof(text), "  feature word %u bit %u: %.30s", s->names[i].word, s->names[i].bit,
		         s->names[i].name);
		line(context, text);
	}
}

int rp_image_describe(const char *path, const struct rp_image_options *options, void (*line)(void *context, const char *text),
                      void *context)
{
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	struct rp_store *store;
	unsigned newest;
	int error = store_open(path, options, true, &store);

	if (error)
		return error;
	error = rp_store_supers_read(store->io, store->hooks, store->handle, super, good, &newest);
	for (unsigned slot = 0; slot < RP_SUPER_SLOTS && !error; slot++) {
		char text[64];

		if (good[slot]) {
			super_describe(&super[slot], slot, slot == newest, line, context);
			continue;
		}
		snprintf(text, sizeof(text), "superblock %u: none", slot);
		line(context, text);
	}
	rp_store_close(store);
	return error;
}
