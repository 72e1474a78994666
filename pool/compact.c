/* compact.c: the image without its dead blocks: a new file beside it, then a rename.
 *
 * Works from file to file: the kept commits are walked in the old one and copied, the oldest first, so that what they share
 * stays shared. Memory is read only at the end, when every frame's address is replaced by its block's new one; until that
 * moment a failure leaves everything as it was. It needs everything to be in memory: an absent entry's address would mean
 * another block in the new file.
 *
 * When the rename cannot be made durable, nobody knows which of the two files a crash would leave under the name. Both hold
 * the newest commit, but the next one would only be in one of them. So no commit is acknowledged until a file has been
 * made, renamed and its directory synced again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "image_state.h"

struct compaction {
	struct rp_image *image;
	struct rp_store *fresh;
	struct rp_addrmap map;
	struct rp_copier copier;
	rp_addr *roots;      /* in the old file, newest first */
	unsigned root_count;
	rp_addr last;        /* newest root in the new file */
	uint64_t last_checksum;
};

/* The roots of the commits to keep. A chain that breaks off is as long as it is. */
static int roots_gather(struct compaction *c)
{
	struct rp_store *from = c->image->store;
	rp_addr addr = c->image->root;
	const char *why;

	while (addr && c->root_count < c->image->keep) {
		struct rp_root root;
		int error = rp_store_read_root(from, addr, &root, NULL, NULL, &why);
		rp_addr *larger;

		if (error == -ENOMEM)
			return error;
		if (error && c->root_count == 0) {
			rp_image_damage_note(c->image, addr, why);
			return error;
		}
		if (error)
			break;
		if ((c->root_count & (c->root_count - 1)) == 0) {
			size_t room = c->root_count ? 2 * (size_t)c->root_count : 1;

			larger = rp_image_allocate(&c->image->hooks, room * sizeof(*larger));
			if (!larger)
				return -ENOMEM;
			if (c->root_count)
				memcpy(larger, c->roots, c->root_count * sizeof(*larger));
			free(c->roots);
			c->roots = larger;
		}
		c->roots[c->root_count++] = addr;
		addr = root.previous;
	}
	return 0;
}

static int commit_copy(struct compaction *c, rp_addr addr)
{
	uint64_t page[RP_PAGE_SIZE / 8] = { 0 };
	struct rp_root root;
	const char *why;
	uint32_t size;
	int error = rp_store_read_root(c->image->store, addr, &root, NULL, NULL, &why);

	if (!error)
		error = rp_copier_tree(&c->copier, root.table, RP_KIND_TABLE, &root.table);
	if (!error)
		error = rp_copier_tree(&c->copier, root.catalog, RP_KIND_CATALOG, &root.catalog);
	if (error) {
		if (error == -EIO)
			rp_image_damage_note(c->image, c->copier.where, c->copier.why ? c->copier.why : why);
		return error;
	}
	root.previous = c->last;
	root.start = RP_BLOCKS_START;
	memcpy(root.file_id, c->fresh->file_id, sizeof(root.file_id));
	memcpy(page, &root, sizeof(root));
	error = rp_store_append(c->fresh, RP_KIND_ROOT, root.epoch, page, &c->last, &size);
	if (!error)
		memcpy(&c->last_checksum, c->fresh->buffer + c->fresh->buffered - size, sizeof(c->last_checksum));
	return error;
}

static int file_make(struct compaction *c)
{
	struct rp_super super = c->image->store->super;
	int error = rp_copier_init(&c->copier, &c->image->hooks);

	if (!error)
		error = roots_gather(c);
	if (!error)
		error = rp_store_begin(c->fresh);
	for (unsigned i = c->root_count; i > 0 && !error; i--)
		error = commit_copy(c, c->roots[i - 1]);
	if (!error)
		error = rp_store_barrier(c->fresh);
	if (error)
		return error;
	super.root = c->last;
	super.root_checksum = c->last_checksum;
	return rp_store_publish(c->fresh, &super);
}

/* The new file is the image's from now on. Cannot fail. */
static void take_over(struct compaction *c)
{
	struct rp_image *image = c->image;
	struct rp_store *old = image->store;
	uint64_t table = 0, catalog = 0, addressed;

	pthread_rwlock_wrlock(&image->store_lock);
	rp_addrmap_get(&c->map, atomic_load(&image->committed_table), &table);
	rp_addrmap_get(&c->map, atomic_load(&image->committed_catalog), &catalog);
	rp_image_readdress(image->pool, &c->map);
	atomic_store(&image->committed_table, table);
	atomic_store(&image->committed_catalog, catalog);
	image->store = c->fresh;
	image->root = c->last;
	addressed = atomic_load(&image->pool->addressed);
	pthread_rwlock_unlock(&image->store_lock);
	c->fresh->written_bytes += old->written_bytes;
	pthread_mutex_lock(&image->lock);
	image->file_bytes = c->fresh->end;
	image->saved_bytes = c->copier.byte_count;
	image->saved_pages = c->copier.block_count > addressed ? c->copier.block_count : addressed;
	image->written_bytes = c->fresh->written_bytes;
	pthread_mutex_unlock(&image->lock);
	image->compacted_bytes = c->fresh->end;
	rp_copier_free(&c->copier);
	rp_store_close(old);
	c->fresh = NULL;
}

static int file_name(struct compaction *c)
{
	struct rp_image *image = c->image;
	int error = rp_store_name_check(image->store);

	if (!error)
		error = rp_store_rename(c->fresh, image->store->path);
	if (error)
		return error;
	error = image->io->sync_directory(image->io->context, image->store->path);
	image->directory_doubtful = error != 0;
	take_over(c);
	return error;
}

int rp_image_compact_run(struct rp_image *image)
{
	struct rp_store_options options = { .io = image->io, .hooks = &image->hooks };
	struct compaction c = { .image = image };
	char *path = NULL;
	int error;

	if (image->read_only)
		return -EROFS;
	if (!atomic_load(&image->complete) || !image->root)
		return -EAGAIN;
	if (asprintf(&path, "%s.new", image->store->path) < 0)
		return -ENOMEM;
	error = rp_store_create(path, &options, image->store->codec, &c.fresh);
	if (!error) {
		c.map.hooks = &image->hooks;
		c.copier = (struct rp_copier){ .from = image->store, .to = c.fresh, .map = &c.map };
		c.fresh->sequence_last = image->store->sequence_last;
		error = file_make(&c);
		if (!error)
			error = file_name(&c);
	}
	rp_copier_free(&c.copier);
	if (c.fresh) {
		/* Not tried again before the file has doubled. */
		image->compacted_bytes = image->store->end;
		image->io->unlink(image->io->context, path);
		rp_store_close(c.fresh);
	}
	rp_addrmap_free(&c.map);
	free(c.roots);
	free(path);
	return error;
}

int rp_image_compact(struct rp_image *image)
{
	int error;

	rp_image_role_take(image);
	error = rp_image_compact_run(image);
	rp_image_role_give(image);
	return error;
}
