/* orphan.c: inodes without a name: a doubly linked list through their records, its head in the pool's header.
 *
 * An inode is in the list exactly while its nlink is 0 and it still exists (N7). It exists as long as someone outside holds
 * it; what is in the list when a filesystem is opened is held by nobody, and goes.
 */
#include "internal.h"

#define RP_HEADER_ORPHANS (offsetof(struct rp_header, user) + offsetof(struct rp_fs_header, orphans))
#define RP_INODE_OFFSET(field) (offsetof(struct rp_record, user) + offsetof(struct rp_inode, field))

static int orphan_head_get(struct rp_op *op, struct rp_fs *fs, uint64_t *head, uint64_t *object_count)
{
	const struct rp_header *header;
	int error = rp_header_get(op, fs->tree, &header);

	if (error)
		return error;
	*head = ((const struct rp_fs_header *)header->user)->orphans;
	if (object_count)
		*object_count = __atomic_load_n(&header->object_count, __ATOMIC_RELAXED);
	return 0;
}

static int orphan_head_set(struct rp_op *op, uint64_t head)
{
	struct rp_header *header;
	int error = rp_header_edit(op, RP_HEADER_ORPHANS, sizeof(uint64_t), &header);

	if (!error)
		((struct rp_fs_header *)header->user)->orphans = head;
	return error;
}

/* Set one of the two links of an inode in the list. */
static int orphan_link_set(struct rp_op *op, rp_object ino, size_t offset, uint64_t to)
{
	struct rp_record *record;
	int error = rp_record_edit(op, ino, offset, sizeof(uint64_t), &record);

	if (!error)
		memcpy((uint8_t *)record + offset, &to, sizeof(to));
	return error;
}

/* Does the neighbour's link lead back? Only the links are looked at: the orphan lock guards no more of that record. */
static int orphan_neighbour_check(struct rp_op *op, struct rp_fs *fs, rp_object ino, bool prev, uint64_t expected)
{
	const struct rp_record *record;
	int error = rp_record_get(op, fs->tree, ino, 0, &record);

	if (error && error != -ENOENT)
		return error;
	if (!error && (prev ? rp_record_inode(record)->orphan_prev : rp_record_inode(record)->orphan_next) == expected)
		return 0;
	return rp_fs_damaged(fs, ino, "wrong place in the list of inodes without a name");
}

int rp_orphan_add(struct rp_op *op, struct rp_fs *fs, rp_object ino)
{
	struct rp_inode *inode;
	uint64_t head;
	int error;

	error = orphan_head_get(op, fs, &head, NULL);
	if (!error && head != 0)
		error = orphan_neighbour_check(op, fs, head, true, 0);
	if (!error && head != 0)
		error = orphan_link_set(op, head, RP_INODE_OFFSET(orphan_prev), ino);
	if (!error)
		error = orphan_link_set(op, ino, RP_INODE_OFFSET(orphan_next), head);
	if (!error)
		error = orphan_link_set(op, ino, RP_INODE_OFFSET(orphan_prev), 0);
	if (!error)
		error = orphan_head_set(op, ino);
	if (!error)
		error = rp_inode_edit_front(op, ino, &inode);
	if (error)
		return error;
	inode->flags |= RP_INODE_ORPHAN;
	return 0;
}

int rp_orphan_remove(struct rp_op *op, struct rp_fs *fs, rp_object ino)
{
	const struct rp_record *record;
	struct rp_inode *inode;
	uint64_t next, prev, head;
	int error;

	error = rp_inode_get_named(op, fs, ino, &record);
	if (error)
		return error;
	next = rp_record_inode(record)->orphan_next;
	prev = rp_record_inode(record)->orphan_prev;
	error = orphan_head_get(op, fs, &head, NULL);
	if (error)
		return error;
	if ((prev == 0) != (head == ino) || next == ino || prev == ino)
		return rp_fs_damaged(fs, ino, "wrong place in the list of inodes without a name");
	if (next != 0)
		error = orphan_neighbour_check(op, fs, next, true, ino);
	if (!error && prev != 0)
		error = orphan_neighbour_check(op, fs, prev, false, ino);
	if (!error && next != 0)
		error = orphan_link_set(op, next, RP_INODE_OFFSET(orphan_prev), prev);
	if (!error)
		error = prev != 0 ? orphan_link_set(op, prev, RP_INODE_OFFSET(orphan_next), next) : orphan_head_set(op, next);
	if (!error)
		error = orphan_link_set(op, ino, RP_INODE_OFFSET(orphan_next), 0);
	if (!error)
		error = orphan_link_set(op, ino, RP_INODE_OFFSET(orphan_prev), 0);
	if (!error)
		error = rp_inode_edit_front(op, ino, &inode);
	if (error)
		return error;
	inode->flags &= ~(uint32_t)RP_INODE_ORPHAN;
	return 0;
}

int rp_orphan_drop(struct rp_op *op, struct rp_fs *fs, struct rp_locks *locks, rp_object ino)
{
	const struct rp_record *record;
	struct rp_inode *inode;
	int error;

	error = rp_inode_get_named(op, fs, ino, &record);
	if (error || rp_record_inode(record)->nlink != 0)
		return error;
	if (!rp_hold_orphan(fs, ino, record->generation))
		return rp_inode_destroy(op, fs, ino, record);
	error = rp_locks_try_orphans(locks);
	if (error)
		return error;
	if (S_ISDIR(rp_record_inode(record)->mode)) {
		error = rp_inode_edit_front(op, ino, &inode);
		if (error)
			return error;
		inode->parent = 0;
	}
	return rp_orphan_add(op, fs, ino);
}

/* ---- Cleaning ------------------------------------------------------------------------------------------------------------ */

/* Look at one orphan: *next is the one behind it. -EAGAIN: no longer in the list, begin again. */
static int clean_work(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint64_t *next)
{
	const struct rp_record *record;
	int error = rp_record_get(op, fs->tree, ino, 0, &record);

	if (error)
		return error == -ENOENT ? -EAGAIN : error;
	if (!(rp_record_inode(record)->flags & RP_INODE_ORPHAN))
		return -EAGAIN;
	*next = rp_record_inode(record)->orphan_next;
	if (rp_hold_orphan(fs, ino, record->generation))
		return 0;
	error = rp_orphan_remove(op, fs, ino);
	return error ? error : rp_inode_destroy(op, fs, ino, record);
}

int rp_orphans_clean(struct rp_fs *fs)
{
	uint64_t ino = 0, next = 0, objects = 0, steps = 0;
	struct rp_op op;
	int error;

	for (;;) {
		if (ino == 0) {
			pthread_mutex_lock(&fs->orphans);
			RP_RUN(op, fs, RP_OP_READ, error, orphan_head_get(&op, fs, &ino, &objects));
			pthread_mutex_unlock(&fs->orphans);
			if (error || ino == 0)
				return error;
		}
		do {
			struct rp_lock_want want = { ino, true };
			struct rp_locks locks = { .orphans_wanted = true };

			/* A list longer than there are objects, or that leads nowhere, is a circle or garbage. */
			if (steps++ > 2 * objects + 64)
				return rp_fs_damaged(fs, ino, "the list of inodes without a name has no end");
			rp_locks_take(fs, &locks, &want, 1);
			RP_RUN(op, fs, RP_OP_RESERVE, error, clean_work(&op, fs, ino, &next));
			rp_locks_drop(&locks);
			if (error && error != -EAGAIN)
				return error;
			ino = error ? 0 : next;
			if (!error && next == 0)
				return 0;
		} while (ino != 0);
	}
}
