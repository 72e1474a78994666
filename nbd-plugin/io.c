/* io.c: the data path: nbdkit's buffer and the pool's frames, and one copy between them.
 *
 * No lock is held here. Each piece of at most RP_BYTES_PER_OP bytes is one operation of the pool; in it the file's
 * record is looked at, because a rollback may have replaced the tree: a disk that is no longer there, or is smaller
 * than the client was told, gives ESHUTDOWN. Zero with MAY_TRIM and trim give frames back before they answer; the
 * ends of a range that are no whole pages are zeroed in place. The time of modification is set by flush and at the
 * end of a connection, not by each write.
 */
#include "plugin.h"

/* Extents told in one answer; a client asks again behind them. Each costs a bounded search. */
#define EXTENTS_MAX 4096u

static const uint8_t zeroes[1u << 16];

static int failed(int error)
{
	if (error == -ESTALE || error == -ENOENT)
		error = -ESHUTDOWN;
	nbdkit_set_error(-error);
	return -1;
}

static int refused(struct rp_export *export)
{
	return !export->writable || rp_keep_refuses_changes(rp_plugin.keep) ? -EROFS : 0;
}

/* What follows a change that worked: counters, time, durability when it was asked for. */
static int changed(struct rp_export *export, uint64_t bytes, uint32_t flags)
{
	int error = 0;

	atomic_store_explicit(&export->touched, true, memory_order_relaxed);
	rp_keep_note_change(rp_plugin.keep, bytes);
	if (flags & NBDKIT_FLAG_FUA)
		error = rp_keep_sync(rp_plugin.keep);
	return error ? failed(error) : 0;
}

/* The file as the client knows it? */
static int file_check(struct rp_op *op, struct rp_export *export, uint64_t end)
{
	const struct rp_record *record;
	int error = rp_record_get(op, export->tree, export->ino, export->generation, &record);

	return error ? error : end > record->size_bytes ? -ESHUTDOWN : 0;
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------- */

static int read_piece(struct rp_export *export, uint64_t offset, void *to, size_t length)
{
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, rp_keep_pool(rp_plugin.keep), RP_OP_READ);
		error = file_check(&op, export, offset + length);
		if (!error)
			error = rp_bytes_read(&op, export->tree, export->ino, offset, to, length);
	} while (rp_op_end(&op, &error));
	return error;
}

int rp_io_read(void *handle, void *to, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct rp_export *export = handle;
	uint32_t done, length;
	int error;

	(void)flags;
	for (done = 0; done < count; done += length) {
		length = count - done < RP_BYTES_PER_OP ? count - done : RP_BYTES_PER_OP;
		error = read_piece(export, offset + done, (uint8_t *)to + done, length);
		if (error)
			return failed(error);
	}
	rp_count(&export->counters.requests[RP_REQUEST_READ], 1);
	rp_count(&export->counters.bytes_read, count);
	return 0;
}

/* from null: zeroes, in frames of their own. */
static int write_piece(struct rp_export *export, uint64_t offset, const uint8_t *from, uint32_t length)
{
	uint32_t at, part;
	struct rp_op op;
	size_t done;
	int error;

	do {
		rp_op_begin(&op, rp_keep_pool(rp_plugin.keep), 0);
		error = file_check(&op, export, offset + length);
		for (at = 0; !error && at < length; at += part) {
			part = from ? length : length - at < sizeof(zeroes) ? length - at : (uint32_t)sizeof(zeroes);
			error = rp_bytes_write(&op, export->ino, offset + at, from ? from : zeroes, part, &done);
		}
	} while (rp_op_end(&op, &error));
	return error;
}

static int write_range(struct rp_export *export, uint64_t offset, const uint8_t *from, uint32_t count)
{
	uint32_t done, length;
	int error = 0;

	for (done = 0; !error && done < count; done += length) {
		length = count - done < RP_BYTES_PER_OP ? count - done : RP_BYTES_PER_OP;
		error = write_piece(export, offset + done, from ? from + done : NULL, length);
	}
	return error;
}

int rp_io_write(void *handle, const void *from, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct rp_export *export = handle;
	int error = refused(export);

	if (!error)
		error = write_range(export, offset, from, count);
	if (error)
		return failed(error);
	rp_count(&export->counters.requests[RP_REQUEST_WRITE], 1);
	rp_count(&export->counters.bytes_written, count);
	return changed(export, count, flags);
}

/* ---- Giving frames back ------------------------------------------------------------------------------------------ */

/* Bytes within one page, which keeps its frame, or stays a hole. */
static int zero_part(struct rp_export *export, uint64_t offset, uint32_t length)
{
	struct rp_op op;
	int error;

	if (!length)
		return 0;
	do {
		rp_op_begin(&op, rp_keep_pool(rp_plugin.keep), RP_OP_RESERVE);
		error = file_check(&op, export, offset + length);
		if (!error)
			error = rp_bytes_zero(&op, export->ino, offset, length);
	} while (rp_op_end(&op, &error));
	return error;
}

static int punch_pages(struct rp_export *export, rp_page first, rp_page end)
{
	rp_page next = first;
	struct rp_op op;
	int error;

	while (first < end) {
		do {
			rp_op_begin(&op, rp_keep_pool(rp_plugin.keep), RP_OP_RESERVE);
			error = file_check(&op, export, 0);
			if (!error)
				error = rp_pages_punch(&op, export->ino, first, end - first, &next);
		} while (rp_op_end(&op, &error));
		if (error)
			return error;
		first = next;
	}
	return 0;
}

/* The file's last page counts as whole up to the file's end. */
static int punch_range(struct rp_export *export, uint64_t offset, uint32_t count)
{
	uint64_t end = offset + count;
	uint64_t first = (offset + RP_PAGE_SIZE - 1) >> RP_PAGE_SHIFT;
	uint64_t last = (end == export->size_bytes ? end + RP_PAGE_SIZE - 1 : end) >> RP_PAGE_SHIFT;
	int error;

	if (first > last || first << RP_PAGE_SHIFT > end) /* within one page */
		return zero_part(export, offset, count);
	error = zero_part(export, offset, (uint32_t)((first << RP_PAGE_SHIFT) - offset));
	if (!error)
		error = punch_pages(export, first, last);
	if (!error && end > last << RP_PAGE_SHIFT)
		error = zero_part(export, last << RP_PAGE_SHIFT, (uint32_t)(end - (last << RP_PAGE_SHIFT)));
	return error;
}

/* Without MAY_TRIM the client wants space it can count on afterwards: zeroes are written into frames, which is no
 * faster than other writing inside here, so a fast zero of that kind is refused. */
int rp_io_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct rp_export *export = handle;
	int error = refused(export);

	if (!error && (flags & NBDKIT_FLAG_FAST_ZERO) && !(flags & NBDKIT_FLAG_MAY_TRIM))
		error = -EOPNOTSUPP;
	if (!error && count)
		error = flags & NBDKIT_FLAG_MAY_TRIM ? punch_range(export, offset, count) :
		        write_range(export, offset, NULL, count);
	if (error)
		return failed(error);
	rp_count(&export->counters.requests[RP_REQUEST_ZERO], 1);
	return changed(export, flags & NBDKIT_FLAG_MAY_TRIM ? 1 : count, flags);
}

int rp_io_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct rp_export *export = handle;
	int error = refused(export);

	if (!error && count)
		error = punch_range(export, offset, count);
	if (error)
		return failed(error);
	rp_count(&export->counters.requests[RP_REQUEST_TRIM], 1);
	return changed(export, 1, flags);
}

/* ---- Flush, extents, cache --------------------------------------------------------------------------------------- */

void rp_io_touch(struct rp_export *export)
{
	struct rp_attr attr = { 0 };

	/* A time that could not be set is no reason to refuse the data. */
	if (atomic_exchange_explicit(&export->touched, false, memory_order_relaxed))
		rp_fs_setattr(export->fs, export->ino, RP_SET_MTIME_NOW, &attr, &attr);
}

int rp_io_flush(void *handle, uint32_t flags)
{
	struct rp_export *export = handle;
	int error;

	(void)flags;
	if (rp_keep_syncs(rp_plugin.keep))
		rp_io_touch(export);
	error = rp_keep_sync(rp_plugin.keep);
	if (error)
		return failed(error);
	rp_count(&export->counters.requests[RP_REQUEST_FLUSH], 1);
	return 0;
}

static int extent_get(struct rp_export *export, uint64_t offset, uint64_t end, bool *is_data, uint64_t *extent_end)
{
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, rp_keep_pool(rp_plugin.keep), RP_OP_READ);
		error = file_check(&op, export, end);
		if (!error)
			error = rp_extent_get(&op, export->tree, export->ino, offset, end, is_data, extent_end);
	} while (rp_op_end(&op, &error));
	return error;
}

/* nbdkit joins neighbours of one kind. With REQ_ONE the answer may end where the kind changes. */
int rp_io_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
	struct rp_export *export = handle;
	uint64_t end = offset + count, next;
	bool is_data = false, first_is_data = false;
	unsigned told;
	int error;

	for (told = 0; offset < end && told < EXTENTS_MAX; told++) {
		error = extent_get(export, offset, end, &is_data, &next);
		if (error)
			return failed(error);
		if (!told)
			first_is_data = is_data;
		else if ((flags & NBDKIT_FLAG_REQ_ONE) && is_data != first_is_data)
			break;
		if (nbdkit_add_extent(extents, offset, next - offset,
		                      is_data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO))
			return -1;
		offset = next;
	}
	rp_count(&export->counters.requests[RP_REQUEST_EXTENTS], 1);
	return 0;
}

int rp_io_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct rp_export *export = handle;
	int error;

	(void)flags;
	error = rp_fs_prefetch(export->fs, export->ino, offset, count);
	if (error < 0)
		return failed(error);
	rp_count(&export->counters.requests[RP_REQUEST_CACHE], 1);
	return 0;
}
