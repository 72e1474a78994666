/* write.c: a tree in memory, written to a store: children before parents, every frame once.
 *
 * Runs on frames a snapshot holds, so none of them changes, except that an absent entry may turn into a frame while it is
 * looked at; entries are therefore loaded once, atomically. A frame that has an image address already stands in the file
 * with all that is below it, and is skipped: a commit costs what changed. In the image of the pool the address goes to the
 * frame table at once, which is how a frame that several trees share is written once; a list remembers which frames these
 * were, so that a commit that fails takes the addresses back. For another file (saving under another name) the frame table
 * is left alone and a private map takes its place.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "image_state.h"

#define PROGRESS_PAGES 256 /* between two calls: a mebibyte */
#define MAP_FRAME (UINT64_C(1) << 63)

int rp_writer_init(struct rp_writer *writer)
{
	writer->pages = rp_image_allocate(writer->hooks, RP_WRITER_DEPTH * sizeof(*writer->pages));
	return writer->pages ? 0 : -ENOMEM;
}

void rp_writer_free(struct rp_writer *writer)
{
	struct rp_written *chunk;

	while ((chunk = writer->written)) {
		writer->written = chunk->next;
		free(chunk);
	}
	free(writer->pages);
	writer->pages = NULL;
}

void rp_writer_undo(struct rp_writer *writer)
{
	for (const struct rp_written *chunk = writer->written; chunk; chunk = chunk->next)
		for (uint32_t i = 0; i < chunk->count; i++)
			rp_frame_addr_set(writer->pool, chunk->frames[i], 0);
}

static int progress_tell(struct rp_writer *w)
{
	struct rp_progress progress = { w->page_count * RP_PAGE_SIZE, w->total_pages * RP_PAGE_SIZE };

	if (progress.done_bytes > progress.total_bytes)
		progress.total_bytes = progress.done_bytes;
	if (w->image) {
		pthread_mutex_lock(&w->image->lock);
		w->image->progress = progress;
		pthread_mutex_unlock(&w->image->lock);
	}
	return w->progress && w->progress(w->progress_context, &progress) ? -ECANCELED : 0;
}

/* Remember that the frame now stands at addr. */
static int written_note(struct rp_writer *w, rp_frame f, uint64_t key, rp_addr addr)
{
	if (w->map)
		return rp_addrmap_put(w->map, key, addr);
	if (!w->written || w->written->count == sizeof(w->written->frames) / sizeof(w->written->frames[0])) {
		struct rp_written *chunk = rp_image_allocate(w->hooks, sizeof(*chunk));

		if (!chunk)
			return -ENOMEM;
		chunk->next = w->written;
		w->written = chunk;
	}
	w->written->frames[w->written->count++] = f;
	rp_frame_addr_set(w->pool, f, addr);
	return 0;
}

static int entry_write(struct rp_writer *w, unsigned depth, rp_entry e, unsigned kind, unsigned leaf, rp_entry *out);

/* The page with addresses in place of frames. */
static int page_translate(struct rp_writer *w, unsigned depth, rp_frame f, unsigned kind, unsigned leaf)
{
	struct rp_children children = rp_children_of(kind);
	const _Atomic rp_entry *words = rp_node(w->pool, f);
	uint64_t *page = w->pages[depth];

	if (depth + 1 >= RP_WRITER_DEPTH)
		return -EIO;
	for (unsigned i = 0; i < RP_PAGE_SIZE / 8; i++)
		page[i] = atomic_load_explicit(&words[i], memory_order_acquire);
	for (unsigned i = 0; i < children.count; i++) {
		unsigned word = children.first + i * children.step, child_leaf, child_kind;
		int error;

		if (!page[word])
			continue;
		child_kind = rp_children_kind(kind, leaf, page, word, &child_leaf);
		error = entry_write(w, depth + 1, page[word], child_kind, child_leaf, &page[word]);
		if (error)
			return error;
	}
	return 0;
}

static int page_write(struct rp_writer *w, unsigned depth, rp_frame f, unsigned kind, unsigned leaf, uint64_t key,
                      rp_addr *addr)
{
	const void *page = rp_bytes(w->pool, f);
	uint32_t size;
	int error;

	if (kind == RP_KIND_DATA || kind == RP_KIND_META) {
		if (rp_page_is_zero(page)) {
			*addr = kind;
			return written_note(w, f, key, *addr);
		}
	} else {
		error = page_translate(w, depth, f, kind, leaf);
		if (error)
			return error;
		page = w->pages[depth];
	}
	error = rp_store_append(w->store, kind, rp_frame_birth(w->pool, f), page, addr, &size);
	if (error)
		return error;
	w->block_count++;
	w->byte_count += size;
	return written_note(w, f, key, *addr);
}

static int frame_write(struct rp_writer *w, unsigned depth, rp_frame f, unsigned kind, unsigned leaf, rp_addr *addr)
{
	rp_addr known = rp_frame_addr(w->pool, f);
	uint64_t key = known ? known : MAP_FRAME | f;
	int error;

	if (w->map ? rp_addrmap_get(w->map, key, addr) : (*addr = known) != 0)
		return 0;
	if (rp_frame_kind(w->pool, f) != kind) {
		rp_image_log(w->hooks, "frame %u is of kind %u where %u belongs: not saved", f, rp_frame_kind(w->pool, f), kind);
		return -EIO;
	}
	error = page_write(w, depth, f, kind, leaf, key, addr);
	if (!error && ++w->page_count % PROGRESS_PAGES == 0)
		error = progress_tell(w);
	return error;
}

static int entry_write(struct rp_writer *w, unsigned depth, rp_entry e, unsigned kind, unsigned leaf, rp_entry *out)
{
	unsigned height = rp_entry_height(e);
	rp_addr addr = 0;
	int error = 0;

	if (!e) {
		*out = 0;
		return 0;
	}
	if (rp_entry_is_frame(e)) {
		error = frame_write(w, depth, rp_entry_frame(e), kind, leaf, &addr);
	} else {
		addr = rp_entry_addr(e);
		if (w->copier && !rp_addr_is_zero_page(addr)) {
			rp_entry copied;

			error = rp_copier_entry(w->copier, 0, e, kind, leaf, &copied);
			addr = rp_entry_addr(copied);
		} else if (!w->absent_allowed && !rp_addr_is_zero_page(addr)) {
			error = -EIO;
		}
	}
	if (!error)
		*out = rp_entry_from_addr(addr, height);
	return error;
}

int rp_writer_tree(struct rp_writer *writer, rp_entry root, unsigned leaf, rp_entry *out)
{
	unsigned height = rp_entry_height(root);

	return entry_write(writer, 0, root, height ? RP_KIND_NODE + height - 1 : leaf, leaf, out);
}

int rp_writer_root(struct rp_writer *writer, struct rp_root *root, rp_addr *out, uint64_t *checksum)
{
	uint64_t page[RP_PAGE_SIZE / 8] = { 0 };
	uint32_t size;
	int error;

	memcpy(root->file_id, writer->store->file_id, sizeof(root->file_id));
	memcpy(page, root, sizeof(*root));
	error = rp_store_append(writer->store, RP_KIND_ROOT, root->epoch, page, out, &size);
	if (error)
		return error;
	memcpy(checksum, writer->store->buffer + writer->store->buffered - size, sizeof(*checksum));
	writer->byte_count += size;
	progress_tell(writer);
	return 0;
}
