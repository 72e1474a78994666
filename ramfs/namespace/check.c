/* check.c: proves the namespace: everything that is reached from the root and from the list of inodes without a name is
 * right, and nothing else is there.
 *
 * Directories are read breadth first; what was reached is remembered in a table of a few words an object. No operation is
 * longer than a page. Used by tests after every step and by fsck on whole images; an image may be hostile.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "internal.h"

void rp_check_fault(struct rp_check *check, const char *format, ...)
{
	char line[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	check->faults++;
	if (check->report)
		check->report(check->context, line);
}

/* ---- What was reached ------------------------------------------------------------------------------------------- */

static size_t table_place(const struct rp_checked *table, size_t size, rp_object object)
{
	size_t at = (object * UINT64_C(0x9e3779b97f4a7c15) >> 16) & (size - 1);

	while (table[at].object != 0 && table[at].object != object)
		at = (at + 1) & (size - 1);
	return at;
}

static bool table_grow(struct rp_check *check)
{
	size_t size = check->table_size ? check->table_size * 2 : 1024;
	struct rp_checked *table = rp_fs_allocate(check->fs, size * sizeof(*table));

	if (!table)
		return false;
	for (size_t i = 0; i < check->table_size; i++)
		if (check->table[i].object != 0)
			table[table_place(table, size, check->table[i].object)] = check->table[i];
	free(check->table);
	check->table = table;
	check->table_size = size;
	return true;
}

struct rp_checked *rp_check_reach(struct rp_check *check, rp_object object, bool *fresh)
{
	size_t at;

	if (2 * (check->table_count + 1) > check->table_size && !table_grow(check)) {
		if (!check->no_memory)
			rp_check_fault(check, "no memory to go on checking");
		check->no_memory = true;
		return NULL;
	}
	at = table_place(check->table, check->table_size, object);
	*fresh = check->table[at].object == 0;
	if (*fresh) {
		check->table[at].object = object;
		check->table_count++;
	}
	return &check->table[at];
}

static void queue_push(struct rp_check *check, rp_object dir)
{
	if (check->queue_count == check->queue_room) {
		size_t room = check->queue_room ? check->queue_room * 2 : 256;
		rp_object *queue = rp_fs_allocate(check->fs, room * sizeof(*queue));

		if (!queue) {
			rp_check_fault(check, "no memory to go on checking");
			check->no_memory = true;
			return;
		}
		if (check->queue_count)
			memcpy(queue, check->queue, check->queue_count * sizeof(*queue));
		free(check->queue);
		check->queue = queue;
		check->queue_room = room;
	}
	check->queue[check->queue_count++] = dir;
}

static int record_work(struct rp_op *op, struct rp_fs *fs, rp_object object, struct rp_record *out)
{
	const struct rp_record *record;
	int error = rp_record_get(op, fs->tree, object, 0, &record);

	if (!error)
		memcpy(out, record, sizeof(*out));
	return error;
}

bool rp_check_record(struct rp_check *check, rp_object object, struct rp_record *out)
{
	struct rp_op op;
	int error;

	RP_RUN(op, check->fs, RP_OP_READ, error, record_work(&op, check->fs, object, out));
	if (error)
		rp_check_fault(check, "object %llu: %s", (unsigned long long)object,
			       error == -ENOENT ? "is named but not there" : strerror(-error));
	return !error;
}

/* ---- Directories ------------------------------------------------------------------------------------------------- */

struct dir_check {
	rp_object dir;
	uint64_t subdirs;
};

static void entry_check(struct rp_check *check, const struct rp_item *item, void *context)
{
	struct rp_name name = { (const char *)item->name, item->name_length };
	struct dir_check *dir = context;
	struct rp_checked *known;
	struct rp_record record;
	const struct rp_inode *inode = rp_record_inode(&record);
	bool fresh;

	if (rp_name_check(name) || rp_name_is_dot(name) || rp_name_is_dotdot(name) || item->data_length != 0)
		rp_check_fault(check, "directory %llu: a name that cannot be", (unsigned long long)dir->dir);
	known = rp_check_reach(check, item->ref, &fresh);
	if (!known)
		return;
	known->names++;
	if (!fresh) {
		if (S_ISDIR(known->mode) || known->mode == 0)
			rp_check_fault(check, "inode %llu: named twice", (unsigned long long)item->ref);
		if (known->mode >> 12 != item->kind)
			rp_check_fault(check, "directory %llu: a name with the wrong type", (unsigned long long)dir->dir);
		return;
	}
	if (!rp_check_record(check, item->ref, &record))
		return;
	if (!rp_mode_is_valid(inode->mode) || inode->flags & RP_INODE_XATTR_HOLDER) {
		rp_check_fault(check, "inode %llu: named, but not an inode", (unsigned long long)item->ref);
		return;
	}
	known->mode = inode->mode;
	known->nlink = inode->nlink;
	check->inodes++;
	if (inode->mode >> 12 != item->kind)
		rp_check_fault(check, "directory %llu: a name with the wrong type", (unsigned long long)dir->dir);
	if (inode->flags & RP_INODE_ORPHAN || inode->nlink == 0)
		rp_check_fault(check, "inode %llu: named, but marked as without a name", (unsigned long long)item->ref);
	if (S_ISDIR(inode->mode)) {
		dir->subdirs++;
		if (inode->parent != dir->dir)
			rp_check_fault(check, "directory %llu: its parent is %llu, but it says %llu",
				       (unsigned long long)item->ref, (unsigned long long)dir->dir,
				       (unsigned long long)inode->parent);
		queue_push(check, item->ref);
	}
	rp_check_inode(check, item->ref, &record);
}

static void directory_check(struct rp_check *check, rp_object ino)
{
	struct dir_check dir = { .dir = ino };
	struct rp_record record;

	if (!rp_check_record(check, ino, &record))
		return;
	if (record.size_bytes != 0)
		rp_check_fault(check, "directory %llu: has a size", (unsigned long long)ino);
	rp_check_index(check, ino, &record, entry_check, &dir);
	if (rp_record_inode(&record)->nlink != 2 + dir.subdirs)
		rp_check_fault(check, "directory %llu: link count %u, should be %llu", (unsigned long long)ino,
			       rp_record_inode(&record)->nlink, (unsigned long long)(2 + dir.subdirs));
}

static void root_check(struct rp_check *check, rp_object root)
{
	struct rp_checked *known;
	struct rp_record record;
	const struct rp_inode *inode = rp_record_inode(&record);
	bool fresh;

	if (!rp_check_record(check, root, &record))
		return;
	known = rp_check_reach(check, root, &fresh);
	if (!known)
		return;
	known->mode = inode->mode;
	known->nlink = inode->nlink;
	check->inodes++;
	if (!S_ISDIR(inode->mode) || inode->flags & RP_INODE_XATTR_HOLDER) {
		rp_check_fault(check, "the root %llu is not a directory", (unsigned long long)root);
		return;
	}
	if (inode->parent != root)
		rp_check_fault(check, "the root's parent is %llu", (unsigned long long)inode->parent);
	rp_check_inode(check, root, &record);
	queue_push(check, root);
}

/* ---- Inodes without a name ------------------------------------------------------------------------------------------ */

static void orphans_check(struct rp_check *check, rp_object head)
{
	rp_object prev = 0, ino = head;

	while (ino != 0) {
		struct rp_checked *known;
		struct rp_record record;
		const struct rp_inode *inode = rp_record_inode(&record);
		bool fresh;

		known = rp_check_reach(check, ino, &fresh);
		if (!known || !rp_check_record(check, ino, &record))
			return;
		if (!fresh) {
			rp_check_fault(check, "inode %llu: has a name, or is twice in the list of those without",
				       (unsigned long long)ino);
			return;
		}
		known->mode = inode->mode;
		known->nlink = inode->nlink;
		check->inodes++;
		if (!(inode->flags & RP_INODE_ORPHAN) || inode->nlink != 0 || !rp_mode_is_valid(inode->mode) ||
		    inode->flags & RP_INODE_XATTR_HOLDER)
			rp_check_fault(check, "inode %llu: wrongly in the list of those without a name", (unsigned long long)ino);
		if (inode->orphan_prev != prev)
			rp_check_fault(check, "inode %llu: the list of those without a name is broken", (unsigned long long)ino);
		if (S_ISDIR(inode->mode) && (inode->entry_count != 0 || inode->tree != 0 || inode->parent != 0))
			rp_check_fault(check, "directory %llu: without a name, but not empty", (unsigned long long)ino);
		rp_check_inode(check, ino, &record);
		prev = ino;
		ino = inode->orphan_next;
	}
}

/* ---- All of it -------------------------------------------------------------------------------------------------------- */

static void names_check(struct rp_check *check)
{
	for (size_t i = 0; i < check->table_size; i++) {
		const struct rp_checked *known = &check->table[i];

		if (known->object != 0 && known->mode != 0 && !S_ISDIR(known->mode) && known->names != known->nlink)
			rp_check_fault(check, "inode %llu: link count %u, but %llu names", (unsigned long long)known->object,
				       known->nlink, (unsigned long long)known->names);
	}
}

static int exists_work(struct rp_op *op, struct rp_fs *fs, rp_object object)
{
	const struct rp_record *record;

	return rp_record_get(op, fs->tree, object, 0, &record);
}

/* Counts do not agree: say which objects nobody names. */
static void lost_report(struct rp_check *check, uint64_t page_next)
{
	unsigned told = 0;

	for (rp_object object = RP_OBJECT_BITMAP + 1; object < page_next * RP_RECORDS_PER_PAGE && told < 16; object++) {
		struct rp_op op;
		int error;

		if (object % RP_RECORDS_PER_PAGE == 0 ||
		    check->table[table_place(check->table, check->table_size, object)].object == object)
			continue;
		RP_RUN(op, check->fs, RP_OP_READ, error, exists_work(&op, check->fs, object));
		if (error == -ENOENT)
			continue;
		rp_check_fault(check, "object %llu: nothing names it", (unsigned long long)object);
		told++;
	}
}

static int header_work(struct rp_op *op, struct rp_fs *fs, struct rp_header *out)
{
	const struct rp_header *header;
	int error = rp_header_get(op, fs->tree, &header);

	if (!error)
		memcpy(out, header, sizeof(*out));
	return error;
}

unsigned rp_fs_check(struct rp_fs *fs, void (*report)(void *context, const char *line), void *context)
{
	struct rp_check check = { .fs = fs, .report = report, .context = context };
	struct rp_header header;
	const struct rp_fs_header *fields = (const struct rp_fs_header *)header.user;
	struct rp_op op;
	int error;

	RP_RUN(op, fs, RP_OP_READ, error, header_work(&op, fs, &header));
	if (error) {
		rp_check_fault(&check, "the header cannot be read: %s", strerror(-error));
		return check.faults;
	}
	root_check(&check, fields->root);
	for (size_t i = 0; i < check.queue_count && !check.no_memory; i++)
		directory_check(&check, check.queue[i]);
	orphans_check(&check, fields->orphans);
	names_check(&check);
	if (!check.no_memory) {
		if (check.inodes != fields->inode_count)
			rp_check_fault(&check, "%llu inodes are there, but %llu were counted", (unsigned long long)check.inodes,
				       (unsigned long long)fields->inode_count);
		if (check.table_count != header.object_count) {
			rp_check_fault(&check, "%llu objects are named, but %llu are there",
				       (unsigned long long)check.table_count, (unsigned long long)header.object_count);
			if (check.table_size)
				lost_report(&check, header.page_next);
		}
	}
	free(check.table);
	free(check.queue);
	return check.faults;
}
