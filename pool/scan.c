/* scan.c: root blocks found without the chain of commits: when a link of it is damaged or cut off, the commits before it still
 * stand in the file, and a root block says by itself that it belongs there.
 *
 * Reads the file once, in order; what its filesystem calls a hole is passed over. Only where a block of that kind seems to
 * begin is it looked at closely, so the time follows the bytes that are there, whatever they are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "image.h"
#include "store.h"

#define WINDOW (1u << 20)

static bool looks_like_root(const uint8_t *at, uint64_t offset)
{
	struct rp_block_header header;

	memcpy(&header, at, sizeof(header));
	return header.magic == RP_BLOCK_MAGIC && header.kind == RP_KIND_ROOT && header.address == offset >> RP_ADDR_SHIFT;
}

static int window_look(struct rp_store *store, const uint8_t *window, size_t size, uint64_t offset,
                       int (*each)(void *context, rp_addr addr, const struct rp_root *root, uint64_t end), void *context)
{
	for (size_t i = 0; i + sizeof(struct rp_block_header) <= size; i += RP_ADDR_UNIT) {
		rp_addr addr = (offset + i) >> RP_ADDR_SHIFT;
		struct rp_root root;
		const char *why;
		uint64_t end;
		int error;

		if (!looks_like_root(window + i, offset + i))
			continue;
		error = rp_store_read_root(store, addr, &root, &end, NULL, &why);
		if (!error)
			error = each(context, addr, &root, end);
		if (error && error != -EIO)
			return error;
	}
	return 0;
}

int rp_store_scan(struct rp_store *store,
                  int (*each)(void *context, rp_addr addr, const struct rp_root *root, uint64_t end), void *context)
{
	const struct rp_io *io = store->io;
	uint8_t *window = rp_image_allocate(store->hooks, WINDOW);
	uint64_t offset = RP_BLOCKS_START;
	int error = window ? 0 : -ENOMEM;

	while (!error && offset < rp_addr_offset(RP_ADDR_MAX)) {
		uint64_t data = io->next_data ? io->next_data(io->context, store->handle, offset) : offset;
		ssize_t n;

		if (data == UINT64_MAX)
			break;
		if (data > offset)
			offset = data & ~(uint64_t)(RP_COMMIT_ALIGN - 1);
		n = rp_store_bytes_read(io, store->handle, window, WINDOW, offset);
		if (n == 0)
			break;
		if (n < 0) /* a bad spot of the disk: what is behind it may be whole */
			n = RP_COMMIT_ALIGN;
		else
			error = window_look(store, window, (size_t)n, offset, each, context);
		offset += (uint64_t)n;
		if (offset % RP_COMMIT_ALIGN && n < (ssize_t)WINDOW)
			break; /* the end of the file */
	}
	free(window);
	return error;
}
