/* namespace_world.c: the reference's state. */
#include "namespace_model.h"

struct nm nm;

const struct rp_cred nm_cred = { .uid = 7, .gid = 8, .fsetid = true };

uint64_t nm_below(uint64_t limit) { return random_below(&nm.random_state, limit); }

/* ---- Names, values, contents -------------------------------------------------------------------------------------- */

struct rp_name nm_name_of(int n, char to[256])
{
	size_t length = n < 20 ? 2 + (size_t)n % 7 : (size_t)n * 6 + 10;

	for (size_t i = 0; i < length; i++)
		to[i] = (char)(128 + (i * 7 + (size_t)n * 13) % 100);
	to[0] = (char)('A' + n);
	return (struct rp_name){ to, length };
}

const char *const nm_attribute_names[ATTRIBUTES] = {
	"user.a", "user.a-rather-long-name-of-an-attribute", "trusted.b", "security.capability", "user.c",
};

size_t nm_value_of(uint64_t seed, uint8_t to[65536])
{
	uint64_t state = seed;
	size_t length = random_below(&state, 4) ? random_below(&state, 600) : random_below(&state, 20000);

	for (size_t i = 0; i < length; i += 8) {
		uint64_t word = random_next(&state);

		memcpy(to + i, &word, 8);
	}
	return length;
}

void nm_target_of(uint64_t seed, char to[4096])
{
	uint64_t state = seed;
	size_t length = 1 + (random_below(&state, 3) ? random_below(&state, 120) : random_below(&state, 4095));

	memset(to, 'a' + (int)(seed % 26), length);
	to[length] = 0;
}

struct content *nm_content_own(struct node *node)
{
	struct content *old = node->content;

	if (old && old->refs == 1)
		return old;
	node->content = calloc(1, sizeof(*node->content));
	MUST(node->content);
	if (old) {
		memcpy(node->content->bytes, old->bytes, CAPACITY);
		old->refs--;
	}
	node->content->refs = 1;
	return node->content;
}

void nm_content_put(struct node *node)
{
	if (node->content && --node->content->refs == 0)
		free(node->content);
	node->content = NULL;
}

void nm_world_copy(struct world *to, const struct world *from)
{
	*to = *from;
	for (int i = 0; i < INODES; i++)
		if (to->node[i].content)
			to->node[i].content->refs++;
}

void nm_world_free(struct world *w)
{
	for (int i = 0; i < INODES; i++)
		nm_content_put(&w->node[i]);
	memset(w, 0, sizeof(*w));
}

/* ---- The reference's state ------------------------------------------------------------------------------------------- */

struct entry *nm_entry_find(struct world *w, int dir, int name)
{
	for (int i = 0; i < ENTRIES; i++)
		if (w->entry[i].dir == dir && w->entry[i].name == name)
			return &w->entry[i];
	return NULL;
}

void nm_entry_add(int dir, int name, int node)
{
	for (int i = 0; i < ENTRIES; i++)
		if (nm.world.entry[i].dir < 0) {
			nm.world.entry[i] = (struct entry){ dir, name, node };
			return;
		}
	MUST(!"room for a name");
}

unsigned nm_entries_free(void)
{
	unsigned count = 0;

	for (int i = 0; i < ENTRIES; i++)
		count += nm.world.entry[i].dir < 0;
	return count;
}

bool nm_dir_is_empty(int dir)
{
	for (int i = 0; i < ENTRIES; i++)
		if (nm.world.entry[i].dir == dir)
			return false;
	return true;
}

int nm_node_free(void)
{
	for (int i = 0; i < INODES; i++)
		if (!nm.world.node[i].used)
			return i;
	return -1;
}

int nm_node_any(bool directory)
{
	for (int tries = 0; tries < 400; tries++) {
		int i = (int)nm_below(INODES);

		if (nm.world.node[i].used && (!directory || S_ISDIR(nm.world.node[i].mode)))
			return i;
	}
	return 0;
}

bool nm_is_dir(int node) { return S_ISDIR(nm.world.node[node].mode); }

void nm_node_check_gone(int node)
{
	if (nm.world.node[node].nlink == 0 && nm.world.node[node].holds == 0) {
		nm_content_put(&nm.world.node[node]);
		memset(&nm.world.node[node], 0, sizeof(nm.world.node[node]));
	}
}

void nm_node_unlink(int node)
{
	struct node *n = &nm.world.node[node];

	if (S_ISDIR(n->mode)) {
		nm.world.node[n->parent].nlink--;
		n->nlink = 0;
	} else {
		n->nlink--;
	}
	nm_node_check_gone(node);
}

bool nm_is_below(int dir, int above)
{
	for (;;) {
		if (dir == above)
			return true;
		if (dir == 0)
			return false;
		dir = nm.world.node[dir].parent;
	}
}

/* Failures that leave everything as it was. */
bool nm_failed_whole(long long got)
{
	return got == -ENOSPC || (nm.failing && got == -ENOMEM);
}

void nm_node_kill_priv(struct node *n)
{
	if (S_ISDIR(n->mode))
		return;
	n->mode &= ~(uint32_t)S_ISUID;
	if (n->mode & S_IXGRP)
		n->mode &= ~(uint32_t)S_ISGID;
	n->attribute[3] = 0;
}

void nm_node_fill(int node, int dir, uint32_t mode, uint64_t target, const struct rp_attr *attr)
{
	struct node *n = &nm.world.node[node];

	memset(n, 0, sizeof(*n));
	n->used = true;
	n->ino = attr->ino;
	n->generation = attr->generation;
	n->mode = mode;
	n->uid = 7;
	n->gid = nm.world.node[dir].mode & S_ISGID ? nm.world.node[dir].gid : 8;
	if (S_ISDIR(mode))
		n->mode |= nm.world.node[dir].mode & S_ISGID;
	n->nlink = S_ISDIR(mode) ? 2 : 1;
	n->parent = S_ISDIR(mode) ? dir : 0;
	n->target = target;
}
