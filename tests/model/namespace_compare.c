/* namespace_compare.c: the filesystem and its snapshots against the reference. */
#include "namespace_model.h"

static void compare_attributes(struct rp_fs *which, const struct node *n)
{
	static uint8_t want[65536], got[65536];
	ssize_t list = 0;

	for (unsigned i = 0; i < ATTRIBUTES; i++) {
		size_t length;

		if (!n->attribute[i]) {
			MUST_BE(rp_fs_xattr_get(which, n->ino, nm_attribute_names[i], got, sizeof(got)), -ENODATA);
			continue;
		}
		length = nm_value_of(n->attribute[i], want);
		list += (ssize_t)strlen(nm_attribute_names[i]) + 1;
		MUST_BE(rp_fs_xattr_get(which, n->ino, nm_attribute_names[i], got, sizeof(got)), length);
		MUST(memcmp(want, got, length) == 0);
	}
	MUST_BE(rp_fs_xattr_list(which, n->ino, NULL, 0), list);
}

static void compare_node(struct rp_fs *which, const struct node *n)
{
	static uint8_t bytes[CAPACITY];
	char to[4096], want[4096];
	struct rp_attr attr;

	MUST_BE(rp_fs_getattr(which, n->ino, &attr), 0);
	MUST_BE(attr.generation, n->generation);
	MUST_BE(attr.mode, n->mode);
	MUST_BE(attr.nlink, n->nlink);
	MUST_BE(attr.uid, n->uid);
	MUST_BE(attr.gid, n->gid);
	MUST_BE(attr.rdev, n->rdev);
	compare_attributes(which, n);
	if (S_ISDIR(n->mode))
		return;
	MUST_BE(attr.size_bytes, n->size_bytes);
	if (S_ISLNK(n->mode)) {
		nm_target_of(n->target, want);
		MUST_BE(rp_fs_readlink(which, n->ino, to), 0);
		MUST(strcmp(to, want) == 0);
	}
	if (!S_ISREG(n->mode))
		return;
	MUST_BE(rp_fs_read(which, n->ino, 0, bytes, CAPACITY), n->size_bytes);
	if (n->content)
		MUST(memcmp(bytes, n->content->bytes, n->size_bytes) == 0);
	for (size_t i = 0; !n->content && i < n->size_bytes; i++)
		MUST(bytes[i] == 0);
}

struct listing {
	struct world *world;
	int dir;
	unsigned count;
};

static int compare_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct listing *listing = context;
	char bytes[256];

	(void)next_cookie;
	if (name.bytes[0] == '.')
		return 0;
	for (int i = 0; i < ENTRIES; i++) {
		const struct entry *entry = &listing->world->entry[i];
		struct rp_name want;

		if (entry->dir != listing->dir)
			continue;
		want = nm_name_of(entry->name, bytes);
		if (want.length != name.length || memcmp(want.bytes, name.bytes, name.length) != 0)
			continue;
		MUST(listing->world->node[entry->node].ino == attr->ino);
		MUST((listing->world->node[entry->node].mode & S_IFMT) == (attr->mode & S_IFMT));
		listing->count++;
		return 0;
	}
	MUST(!"a name that should be there");
	return 0;
}

static void nm_compare(struct rp_fs *which, struct world *w)
{
	for (int i = 0; i < INODES; i++) {
		struct listing listing = { .world = w, .dir = i };
		unsigned count = 0;

		if (!w->node[i].used)
			continue;
		compare_node(which, &w->node[i]);
		if (!S_ISDIR(w->node[i].mode))
			continue;
		for (int e = 0; e < ENTRIES; e++) {
			struct rp_attr attr;
			char bytes[256];

			if (w->entry[e].dir != i)
				continue;
			count++;
			MUST_BE(rp_fs_lookup(which, w->node[i].ino, nm_name_of(w->entry[e].name, bytes), false, &attr), 0);
			MUST(attr.ino == w->node[w->entry[e].node].ino);
		}
		MUST_BE(rp_fs_readdir(which, w->node[i].ino, 0, nm.step & 1, false, compare_entry, &listing), 0);
		MUST_BE(listing.count, count);
	}
}

void nm_check_all(void)
{
	bool was = nm.failing;

	nm.failing = false;
	nm_compare(nm.fs, &nm.world);
	MUST_BE(rp_fs_check(nm.fs, ns_report, NULL), 0);
	MUST_BE(rp_pool_check(nm.pool, ns_report, NULL), 0);
	for (int i = 0; i < SNAPSHOTS; i++) {
		struct rp_fs *old;

		if (!nm.saved[i].snapshot)
			continue;
		MUST_BE(rp_fs_open_snapshot(nm.pool, nm.saved[i].snapshot, &old), 0);
		nm_compare(old, &nm.saved[i].world);
		MUST_BE(rp_fs_check(old, ns_report, NULL), 0);
		rp_fs_close(old);
	}
	nm.failing = was;
}
