/* namespace_contents.c: steps that change contents and attributes. */
#include <linux/falloc.h>
#include <sys/xattr.h>
#include "namespace_model.h"

static long long file_want(const struct node *n)
{
	return S_ISREG(n->mode) ? 0 : S_ISDIR(n->mode) ? -EISDIR : -EINVAL;
}

void nm_step_write(void)
{
	static uint8_t bytes[CAPACITY];
	struct node *n = &nm.world.node[nm_node_any(false)];
	uint64_t offset = nm_below(CAPACITY / 2), size = 1 + nm_below(nm_below(2) ? 300 : CAPACITY / 2 - 1);
	bool kill = nm_below(3) == 0;
	long long got;

	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = random_next(&nm.random_state);

		memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
	}
	got = rp_fs_write(nm.fs, n->ino, offset, bytes, size, kill ? RP_WRITE_KILLPRIV : 0);
	if (S_ISREG(n->mode) && kill && got != 0) {
		/* Privileges go in an operation before the bytes. */
		struct rp_attr attr;
		bool was = nm.failing;

		nm.failing = false;
		MUST_BE(rp_fs_getattr(nm.fs, n->ino, &attr), 0);
		nm.failing = was;
		if (attr.mode != n->mode || got > 0 || (n->attribute[3] && !(attr.flags & RP_INODE_CAPABILITY)))
			nm_node_kill_priv(n);
	}
	if (nm_failed_whole(got))
		return;
	if (file_want(n))
		MUST_BE(got, file_want(n));
	if (got < 0)
		return;
	MUST(got > 0 && got <= (long long)size);
	memcpy(nm_content_own(n)->bytes + offset, bytes, (size_t)got);
	if (n->size_bytes < offset + (uint64_t)got)
		n->size_bytes = offset + (uint64_t)got;
}

static void content_resize(struct node *n, uint64_t size_bytes)
{
	if (size_bytes < n->size_bytes)
		memset(nm_content_own(n)->bytes + size_bytes, 0, CAPACITY - size_bytes);
	n->size_bytes = size_bytes;
}

void nm_step_truncate(void)
{
	struct node *n = &nm.world.node[nm_node_any(false)];
	struct rp_attr attr = { .size_bytes = nm_below(4) ? nm_below(CAPACITY) : nm_below(3) * 4096 }, out;
	long long got = rp_fs_setattr(nm.fs, n->ino, RP_SET_SIZE, &attr, &out);

	if (nm_failed_whole(got))
		return;
	MUST_BE(got, file_want(n));
	if (!got)
		content_resize(n, attr.size_bytes);
}

void nm_step_fallocate(void)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	struct node *n = &nm.world.node[nm_node_any(false)];
	uint64_t offset = nm_below(CAPACITY / 2), end = offset + 1 + nm_below(CAPACITY / 2 - 1);
	int mode = modes[nm_below(5)];
	bool was = nm.failing;
	long long got;

	/* In several operations: what an allocation that fails leaves is a matter of other tests. */
	nm.failing = false;
	got = rp_fs_fallocate(nm.fs, n->ino, mode, offset, end - offset, false);
	nm.failing = was;
	if (!S_ISREG(n->mode)) {
		MUST_BE(got, -ENODEV);
		return;
	}
	if (got == -ENOSPC && mode & FALLOC_FL_ZERO_RANGE) {
		/* Perhaps a part was zeroed. */
		MUST_BE(rp_fs_read(nm.fs, n->ino, 0, nm_content_own(n)->bytes, n->size_bytes), n->size_bytes);
		return;
	}
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(nm_content_own(n)->bytes + offset, 0, end - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && n->size_bytes < end)
		n->size_bytes = end;
}

void nm_step_copy(void)
{
	struct node *from = &nm.world.node[nm_node_any(false)], *to = &nm.world.node[nm_node_any(false)];
	uint64_t offset = nm_below(2) ? nm_below(16) * 4096 : nm_below(CAPACITY);
	uint64_t to_offset = nm_below(2) ? 0 : nm_below(CAPACITY / 4);
	uint64_t size = 1 + nm_below(CAPACITY / 2), want = 0;
	bool was = nm.failing;
	long long got;

	if (offset < from->size_bytes)
		want = size < from->size_bytes - offset ? size : from->size_bytes - offset;
	nm.failing = false;
	got = rp_fs_copy(nm.fs, from->ino, offset, to->ino, to_offset, size);
	nm.failing = was;
	if (file_want(from) || file_want(to)) {
		MUST_BE(got, file_want(from) ? file_want(from) : file_want(to));
		return;
	}
	if (got == -ENOSPC)
		return;
	if (from == to && offset < to_offset + want && to_offset < offset + want) {
		MUST_BE(got, -EINVAL);
		return;
	}
	MUST(got >= 0 && got <= (long long)want && (got > 0 || want == 0));
	if (got == 0)
		return;
	memcpy(nm_content_own(to)->bytes + to_offset, from == to ? to->content->bytes + offset :
	       nm_content_own(from)->bytes + offset, (size_t)got);
	if (to->size_bytes < to_offset + (uint64_t)got)
		to->size_bytes = to_offset + (uint64_t)got;
}

void nm_step_setattr(void)
{
	struct node *n = &nm.world.node[nm_node_any(false)];
	unsigned set = (unsigned)nm_below(8);
	struct rp_attr attr = { .mode = (uint32_t)nm_below(010000), .uid = (uint32_t)nm_below(9) }, out;
	long long got;

	attr.gid = (uint32_t)nm_below(9);
	if (nm_below(5) == 0)
		set |= RP_SET_KILLPRIV;
	got = rp_fs_setattr(nm.fs, n->ino, set, &attr, &out);
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, 0);
	if (set & (RP_SET_UID | RP_SET_GID | RP_SET_KILLPRIV))
		nm_node_kill_priv(n);
	if (set & RP_SET_MODE)
		n->mode = (n->mode & S_IFMT) | attr.mode;
	if (set & RP_SET_UID)
		n->uid = attr.uid;
	if (set & RP_SET_GID)
		n->gid = attr.gid;
	MUST_BE(out.mode, n->mode);
}

void nm_step_xattr(void)
{
	static const int all[] = { 0, 0, 0, XATTR_CREATE, XATTR_REPLACE };
	static uint8_t value[65536];
	struct node *n = &nm.world.node[nm_node_any(false)];
	unsigned which = (unsigned)nm_below(ATTRIBUTES);
	uint64_t seed = 1 + nm_below(1 << 30);
	bool refused = strncmp(nm_attribute_names[which], "user.", 5) == 0 && !S_ISREG(n->mode) && !S_ISDIR(n->mode);
	int flags = all[nm_below(5)];
	long long got;

	if (nm_below(3) == 0) {
		got = rp_fs_xattr_remove(nm.fs, n->ino, nm_attribute_names[which]);
		if (nm_failed_whole(got))
			return;
		MUST_BE(got, refused ? -EPERM : n->attribute[which] ? 0 : -ENODATA);
		if (!got)
			n->attribute[which] = 0;
		return;
	}
	got = rp_fs_xattr_set(nm.fs, n->ino, nm_attribute_names[which], value, nm_value_of(seed, value), flags, false);
	if (nm_failed_whole(got))
		return;
	if (refused)
		MUST_BE(got, -EPERM);
	else if (flags == XATTR_CREATE && n->attribute[which])
		MUST_BE(got, -EEXIST);
	else if (flags == XATTR_REPLACE && !n->attribute[which])
		MUST_BE(got, -ENODATA);
	else
		MUST_BE(got, 0);
	if (!got)
		n->attribute[which] = seed;
}
