/* store.h: what store.c, store_open.c and store_read.c share. */
#ifndef RP_POOL_STORE_H
#define RP_POOL_STORE_H

#include "image.h"

uint8_t *rp_store_buffer_allocate(const struct rp_hooks *hooks);
int rp_store_write_all(struct rp_store *store, const void *from, size_t size, uint64_t offset);

/* ---- behind.c: for the committing thread ------------------------------------------------------------------------- */

/* Write `size` bytes of the store's buffer, which is another one, free to be filled, on return. The error may be that of the
 * buffer before. */
int rp_behind_write(struct rp_store *store, size_t size, uint64_t offset);
/* Until nothing is under way: 0 or its error. */
int rp_behind_wait(struct rp_store *store);
void rp_behind_end(struct rp_store *store);

/* Read until `size` bytes or the end of the file: the count, or -errno. */
ssize_t rp_store_bytes_read(const struct rp_io *io, void *handle, void *to, size_t size, uint64_t offset);
/* Both slots, as rp_super_decode(). */
int rp_store_supers_read(const struct rp_io *io, const struct rp_hooks *hooks, void *handle,
                         struct rp_super best[RP_SUPER_SLOTS], bool good[RP_SUPER_SLOTS], unsigned *newest);

/* Every whole root block in the file, in the order of the file; `each` returns an error to stop. */
int rp_store_scan(struct rp_store *store,
                  int (*each)(void *context, rp_addr addr, const struct rp_root *root, uint64_t end), void *context);
/* What the error of opening a file means. */
const char *rp_store_open_text(int error);

#endif
