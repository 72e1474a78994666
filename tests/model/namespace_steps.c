/* namespace_steps.c: steps that change names. */
#include <linux/fs.h>
#include "namespace_model.h"

void nm_step_make(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO, S_IFCHR };
	uint32_t mode = types[nm_below(8)] | (uint32_t)nm_below(010000), rdev = (uint32_t)nm_below(1 << 20);
	int dir = nm_node_any(true), name = (int)nm_below(NAMES), node = nm_node_free();
	uint64_t target = 1 + nm_below(1000000);
	char bytes[256], to[4096];
	struct rp_attr attr;
	bool hold = nm_below(4) == 0;
	long long want, got;

	if (node < 0 || nm_entries_free() == 0)
		return;
	nm_target_of(target, to);
	want = nm.world.node[dir].nlink == 0 ? -ENOENT : nm_entry_find(&nm.world, dir, name) ? -EEXIST : 0;
	got = rp_fs_make(nm.fs, &nm_cred, nm.world.node[dir].ino, nm_name_of(name, bytes), mode, rdev,
			 S_ISLNK(mode) ? to : NULL, hold, &attr);
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, want);
	if (got)
		return;
	nm_node_fill(node, dir, mode, target, &attr);
	nm.world.node[node].rdev = S_ISCHR(mode) ? rdev : 0;
	nm.world.node[node].size_bytes = S_ISLNK(mode) ? strlen(to) : 0;
	nm.world.node[node].holds = hold;
	if (S_ISDIR(mode))
		nm.world.node[dir].nlink++;
	nm_entry_add(dir, name, node);
}

void nm_step_tmpfile(void)
{
	int dir = nm_node_any(true), node = nm_node_free();
	struct rp_attr attr;
	long long got;

	if (node < 0)
		return;
	got = rp_fs_tmpfile(nm.fs, &nm_cred, nm.world.node[dir].ino, 0600, &attr);
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, nm.world.node[dir].nlink ? 0 : -ENOENT);
	if (got)
		return;
	nm_node_fill(node, dir, S_IFREG | 0600, 0, &attr);
	nm.world.node[node].nlink = 0;
	nm.world.node[node].tmpfile = true;
	nm.world.node[node].holds = 1;
}

void nm_step_remove(void)
{
	int dir = nm_node_any(true), name = (int)nm_below(NAMES);
	struct entry *entry = nm_entry_find(&nm.world, dir, name);
	bool directory = entry ? nm_below(8) ? nm_is_dir(entry->node) : nm_below(2) : nm_below(2);
	long long want = 0, got;
	char bytes[256];
	rp_object removed = 0;

	if (!entry)
		want = -ENOENT;
	else if (directory != nm_is_dir(entry->node))
		want = directory ? -ENOTDIR : -EISDIR;
	else if (directory && !nm_dir_is_empty(entry->node))
		want = -ENOTEMPTY;
	got = (directory ? rp_fs_rmdir : rp_fs_unlink)(nm.fs, nm.world.node[dir].ino, nm_name_of(name, bytes), &removed);
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, want);
	if (got)
		return;
	MUST(removed == nm.world.node[entry->node].ino);
	entry->dir = -1;
	nm_node_unlink(entry->node);
}

void nm_step_link(void)
{
	int node = nm_node_any(false), dir = nm_node_any(true), name = (int)nm_below(NAMES);
	struct node *n = &nm.world.node[node];
	struct rp_attr attr;
	long long want, got;
	char bytes[256];

	if (nm_entries_free() == 0)
		return;
	if (nm.world.node[dir].nlink == 0)
		want = -ENOENT;
	else if (nm_entry_find(&nm.world, dir, name))
		want = -EEXIST;
	else if (nm_is_dir(node))
		want = -EPERM;
	else
		want = n->nlink == 0 && !n->tmpfile ? -ENOENT : 0;
	got = rp_fs_link(nm.fs, n->ino, nm.world.node[dir].ino, nm_name_of(name, bytes), false, &attr);
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, want);
	if (got)
		return;
	n->nlink++;
	n->tmpfile = false;
	nm_entry_add(dir, name, node);
}

static long long rename_want(int dir, int to_dir, struct entry *from, struct entry *to, unsigned flags)
{
	if (!from || nm.world.node[to_dir].nlink == 0)
		return -ENOENT;
	if (dir != to_dir && nm_is_dir(from->node) && nm_is_below(to_dir, from->node))
		return -EINVAL;
	if (dir != to_dir && flags & RENAME_EXCHANGE && to && nm_is_dir(to->node) && nm_is_below(dir, to->node))
		return -EINVAL;
	if (flags & RENAME_NOREPLACE && to)
		return -EEXIST;
	if (flags & RENAME_EXCHANGE)
		return to ? 0 : -ENOENT;
	if (!to || to->node == from->node)
		return 0;
	if (nm_is_dir(from->node) != nm_is_dir(to->node))
		return nm_is_dir(from->node) ? -ENOTDIR : -EISDIR;
	return nm_is_dir(to->node) && !nm_dir_is_empty(to->node) ? -ENOTEMPTY : 0;
}

static void node_move(int node, int to_dir)
{
	if (!nm_is_dir(node))
		return;
	nm.world.node[nm.world.node[node].parent].nlink--;
	nm.world.node[to_dir].nlink++;
	nm.world.node[node].parent = to_dir;
}

/* What a whiteout left under the old name. */
static void whiteout_add(int dir, int name)
{
	int node = nm_node_free();
	struct rp_attr attr;
	char bytes[256];

	MUST_BE(rp_fs_lookup(nm.fs, nm.world.node[dir].ino, nm_name_of(name, bytes), false, &attr), 0);
	nm_node_fill(node, dir, S_IFCHR, 0, &attr);
	nm_entry_add(dir, name, node);
}

void nm_step_rename(void)
{
	static const unsigned all[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	int dir = nm_node_any(true), to_dir = nm_below(3) ? nm_node_any(true) : dir;
	int name = (int)nm_below(NAMES), to_name = (int)nm_below(NAMES);
	struct entry *from = nm_entry_find(&nm.world, dir, name), *to = nm_entry_find(&nm.world, to_dir, to_name);
	char bytes[256], to_bytes[256];
	unsigned flags = all[nm_below(6)];
	long long got;

	if (nm_node_free() < 0 || nm_entries_free() == 0)
		return;
	got = rp_fs_rename(nm.fs, &nm_cred, nm.world.node[dir].ino, nm_name_of(name, bytes), nm.world.node[to_dir].ino,
			   nm_name_of(to_name, to_bytes), flags);
	if (nm_failed_whole(got))
		return;
	MUST_BE(got, rename_want(dir, to_dir, from, to, flags));
	if (got || (to && from->node == to->node))
		return;
	if (flags & RENAME_EXCHANGE) {
		int node = from->node;

		node_move(from->node, to_dir);
		node_move(to->node, dir);
		from->node = to->node;
		to->node = node;
		return;
	}
	if (to) {
		to->dir = -1;
		nm_node_unlink(to->node);
	}
	node_move(from->node, to_dir);
	from->dir = to_dir;
	from->name = to_name;
	if (flags & RENAME_WHITEOUT)
		whiteout_add(dir, name);
}

void nm_step_hold(void)
{
	int node = nm_node_any(false);
	struct node *n = &nm.world.node[node];
	bool was = nm.failing;

	nm.failing = false;
	if (n->holds && nm_below(2)) {
		uint64_t count = 1 + nm_below(n->holds);

		rp_fs_release(nm.fs, n->ino, count);
		n->holds -= count;
		if (node != 0)
			nm_node_check_gone(node);
	} else {
		MUST_BE(rp_fs_hold(nm.fs, n->ino, n->generation), 0);
		n->holds++;
	}
	nm.failing = was;
}
