/* disk.c: see disk.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/disk.h"
#include "tests/lib/random.h"

#define SECTOR 512u
#define PHYSICAL 4096u

struct bytes {
	uint8_t *at;
	size_t size, room;
};

struct pending {
	struct pending *next;
	bool truncate;
	uint64_t offset;
	size_t size;       /* of a truncation: the new length is `offset` */
	uint8_t data[];
};

struct inode {
	struct inode *next;
	struct bytes now, durable;
	struct pending *first, **last;
	const void *locked_by;
	unsigned users;
};

struct name {
	struct name *next;
	char *path;
	struct inode *inode;
};

/* A change of a name: path names inode from now on (null: nothing), and `gone` (may be null) names nothing. */
struct rename_op {
	struct rename_op *next;
	char *path, *gone;
	struct inode *inode;
};

struct handle {
	struct inode *inode;
	bool writable;
};

struct disk {
	struct rp_io io;
	pthread_mutex_t lock;
	uint64_t random;
	struct inode *inodes;
	struct name *names, *durable_names;
	struct rename_op *ops, **ops_last;
	struct disk_fault fault;
	uint64_t counted, operations;
	bool fired, shorten;
	void (*watch)(void *context, enum disk_operation operation);
	void *watch_context;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------------ */

static void bytes_resize(struct bytes *b, size_t size)
{
	if (size > b->room) {
		b->room = size + size / 2 + 4096;
		b->at = must(realloc(b->at, b->room));
	}
	if (size > b->size)
		memset(b->at + b->size, 0, size - b->size);
	b->size = size;
}

static void bytes_put(struct bytes *b, uint64_t offset, const void *from, size_t size)
{
	if (offset + size > b->size)
		bytes_resize(b, offset + size);
	if (size)
		memcpy(b->at + offset, from, size);
}

static void bytes_copy(struct bytes *to, const struct bytes *from)
{
	bytes_resize(to, from->size);
	if (from->size)
		memcpy(to->at, from->at, from->size);
}

/* ---- Names and inodes -------------------------------------------------------------------------------------------------- */

static struct name **name_find(struct name **list, const char *path)
{
	while (*list && strcmp((*list)->path, path))
		list = &(*list)->next;
	return list;
}

static void name_set(struct name **list, const char *path, struct inode *inode)
{
	struct name **at = name_find(list, path);

	if (*at && !inode) {
		struct name *gone = *at;

		*at = gone->next;
		free(gone->path);
		free(gone);
		return;
	}
	if (!*at && inode) {
		*at = must(calloc(1, sizeof(**at)));
		(*at)->path = must(strdup(path));
	}
	if (*at)
		(*at)->inode = inode;
}

static struct inode *inode_new(struct disk *disk)
{
	struct inode *inode = must(calloc(1, sizeof(*inode)));

	inode->last = &inode->first;
	inode->next = disk->inodes;
	disk->inodes = inode;
	return inode;
}

static void pending_clear(struct inode *inode)
{
	struct pending *p;

	while ((p = inode->first)) {
		inode->first = p->next;
		free(p);
	}
	inode->last = &inode->first;
}

static void op_add(struct disk *disk, const char *path, struct inode *inode, const char *gone)
{
	struct rename_op *op = must(calloc(1, sizeof(*op)));

	op->path = must(strdup(path));
	op->gone = gone ? must(strdup(gone)) : NULL;
	op->inode = inode;
	*disk->ops_last = op;
	disk->ops_last = &op->next;
	if (gone)
		name_set(&disk->names, gone, NULL);
	name_set(&disk->names, path, inode);
}

static void ops_clear(struct disk *disk)
{
	struct rename_op *op;

	while ((op = disk->ops)) {
		disk->ops = op->next;
		free(op->path);
		free(op->gone);
		free(op);
	}
	disk->ops_last = &disk->ops;
}

static void op_apply(struct name **names, const struct rename_op *op)
{
	if (op->gone)
		name_set(names, op->gone, NULL);
	name_set(names, op->path, op->inode);
}

/* ---- What reaches the disk ------------------------------------------------------------------------------------------------ */

static void damage(struct bytes *to, const struct pending *p, uint64_t *random, bool zero)
{
	uint64_t unit = random_below(random, 2) ? SECTOR : PHYSICAL;
	uint64_t from = p->offset / unit * unit, until = (p->offset + p->size + unit - 1) / unit * unit;

	if (until > to->size)
		until = to->size > p->offset + p->size ? to->size : p->offset + p->size;
	if (until > to->size)
		bytes_resize(to, until);
	for (uint64_t i = from; i < until; i++)
		to->at[i] = zero ? 0 : (uint8_t)random_next(random);
}

static void write_settle(struct bytes *to, const struct pending *p, uint64_t *random)
{
	size_t cut;

	switch (random_below(random, 10)) {
	case 0: case 1: case 2: /* kept */
		bytes_put(to, p->offset, p->data, p->size);
		break;
	case 3: case 4: /* dropped, the length with it */
		break;
	case 5: /* dropped, but the length was kept */
		if (p->offset + p->size > to->size)
			bytes_resize(to, p->offset + p->size);
		break;
	case 6: /* torn: the begin arrived, up to a sector or anywhere */
		cut = random_below(random, p->size + 1);
		if (random_below(random, 2))
			cut -= cut % SECTOR;
		bytes_put(to, p->offset, p->data, cut);
		break;
	case 7: /* torn: some sectors arrived */
		for (size_t at = 0; at < p->size; at += SECTOR)
			if (random_below(random, 2))
				bytes_put(to, p->offset + at, p->data + at, p->size - at < SECTOR ? p->size - at : SECTOR);
		break;
	case 8:
		damage(to, p, random, true);
		break;
	default:
		damage(to, p, random, false);
		break;
	}
}

/* Whatever was pending for an inode reaches `to` as a power failure would have it. */
static void inode_settle(const struct inode *inode, struct bytes *to, uint64_t *random)
{
	const struct pending *list[512], *p;
	size_t count = 0;

	/* One in eight keeps everything: the newest commit whole must come up too. */
	bool all = random_below(random, 8) == 0;

	for (p = inode->first; p; p = p->next) {
		if (all && !p->truncate)
			bytes_put(to, p->offset, p->data, p->size);
		else if (p->truncate && (all || random_below(random, 2)))
			bytes_resize(to, p->offset);
		else if (!p->truncate && count < sizeof(list) / sizeof(list[0]))
			list[count++] = p;
	}
	while (count > 0) {
		size_t i = random_below(random, count);

		write_settle(to, list[i], random);
		list[i] = list[--count];
	}
}

struct disk *disk_crash(struct disk *disk, uint64_t seed)
{
	struct disk *after = disk_new(seed);
	uint64_t random = seed * 2 + 1;
	struct name *names = NULL;

	for (const struct name *n = disk->durable_names; n; n = n->next)
		name_set(&names, n->path, n->inode);
	for (const struct rename_op *op = disk->ops; op; op = op->next)
		if (random_below(&random, 2))
			op_apply(&names, op);
	while (names) {
		struct inode *made = inode_new(after);
		char *path = must(strdup(names->path));

		bytes_copy(&made->durable, &names->inode->durable);
		inode_settle(names->inode, &made->durable, &random);
		bytes_copy(&made->now, &made->durable);
		name_set(&after->names, path, made);
		name_set(&after->durable_names, path, made);
		name_set(&names, path, NULL);
		free(path);
	}
	return after;
}

static void sync_apply(struct inode *inode)
{
	for (const struct pending *p = inode->first; p; p = p->next) {
		if (p->truncate)
			bytes_resize(&inode->durable, p->offset);
		else
			bytes_put(&inode->durable, p->offset, p->data, p->size);
	}
	pending_clear(inode);
}

/* The sync failed: what arrived arrived, the rest never will; pages dropped from the cache show which. */
static void sync_fail(struct disk *disk, struct inode *inode)
{
	inode_settle(inode, &inode->durable, &disk->random);
	for (const struct pending *p = inode->first; p; p = p->next) {
		if (p->truncate || random_below(&disk->random, 2))
			continue;
		if (p->offset + p->size <= inode->durable.size && p->offset + p->size <= inode->now.size)
			memcpy(inode->now.at + p->offset, inode->durable.at + p->offset, p->size);
	}
	pending_clear(inode);
}

/* ---- The table of functions ------------------------------------------------------------------------------------------------ */

/* Counts, tells the watcher, and says whether this operation fails. The lock is taken when it returns. */
static int enter(struct disk *disk, enum disk_operation operation)
{
	int error = 0;

	if (disk->watch && operation != DISK_OPEN && operation != DISK_READ)
		disk->watch(disk->watch_context, operation);
	pthread_mutex_lock(&disk->lock);
	disk->operations++;
	if (disk->fault.kinds & (1u << operation)) {
		bool due = disk->counted >= disk->fault.after;

		if (due && (disk->fault.for_ever || disk->counted == disk->fault.after)) {
			error = disk->fault.error;
			disk->fired = true;
		}
		disk->counted++;
	}
	return error;
}

static int leave(struct disk *disk, int result)
{
	pthread_mutex_unlock(&disk->lock);
	return result;
}

static int io_open(void *context, const char *path, int flags, void **handle)
{
	struct disk *disk = context;
	int error = enter(disk, DISK_OPEN);
	struct name *name = *name_find(&disk->names, path);
	struct handle *made;

	if (!error && name && (flags & O_CREAT) && (flags & O_EXCL))
		error = -EEXIST;
	if (!error && !name && !(flags & O_CREAT))
		error = -ENOENT;
	if (error)
		return leave(disk, error);
	made = must(calloc(1, sizeof(*made)));
	made->inode = name ? name->inode : inode_new(disk);
	made->inode->users++;
	made->writable = (flags & O_ACCMODE) != O_RDONLY;
	if (!name)
		op_add(disk, path, made->inode, NULL);
	*handle = made;
	return leave(disk, 0);
}

static void io_close(void *context, void *handle)
{
	struct disk *disk = context;
	struct handle *h = handle;

	pthread_mutex_lock(&disk->lock);
	if (h->inode->locked_by == h)
		h->inode->locked_by = NULL;
	h->inode->users--;
	pthread_mutex_unlock(&disk->lock);
	free(h);
}

static size_t shortened(struct disk *disk, size_t size)
{
	if (disk->shorten && size > 1 && random_below(&disk->random, 3) == 0)
		return 1 + random_below(&disk->random, size - 1);
	return size;
}

static ssize_t io_read(void *context, void *handle, void *to, size_t size, uint64_t offset)
{
	struct disk *disk = context;
	const struct handle *h = handle;
	int error = enter(disk, DISK_READ);

	if (error) {
		leave(disk, 0);
		return error;
	}
	if (offset >= h->inode->now.size)
		size = 0;
	else if (size > h->inode->now.size - offset)
		size = h->inode->now.size - offset;
	size = shortened(disk, size);
	if (size)
		memcpy(to, h->inode->now.at + offset, size);
	leave(disk, 0);
	return (ssize_t)size;
}

/* Files are kept whole in memory: a hostile image that says it ends far out meets a file system with a limit. */
#define FILE_MAX (UINT64_C(256) << 20)

static ssize_t io_write(void *context, void *handle, const void *from, size_t size, uint64_t offset)
{
	struct disk *disk = context;
	const struct handle *h = handle;
	int error = enter(disk, DISK_WRITE);
	struct pending *p;

	assert(h->writable);
	/* A write that fails may have written something all the same. */
	if (error == -EIO || error == -ENOSPC)
		size = random_below(&disk->random, size + 1);
	else if (error)
		size = 0;
	else if (offset > FILE_MAX - size)
		error = -EFBIG, size = 0;
	else
		size = shortened(disk, size);
	if (size) {
		p = must(malloc(sizeof(*p) + size));
		*p = (struct pending){ .offset = offset, .size = size };
		memcpy(p->data, from, size);
		*h->inode->last = p;
		h->inode->last = &p->next;
		bytes_put(&h->inode->now, offset, from, size);
	}
	leave(disk, 0);
	return error ? error : (ssize_t)size;
}

static int io_sync(void *context, void *handle)
{
	struct disk *disk = context;
	const struct handle *h = handle;
	int error = enter(disk, DISK_SYNC);

	if (error)
		sync_fail(disk, h->inode);
	else
		sync_apply(h->inode);
	return leave(disk, error);
}

static int io_size(void *context, void *handle, uint64_t *size_bytes)
{
	struct disk *disk = context;
	const struct handle *h = handle;

	pthread_mutex_lock(&disk->lock);
	*size_bytes = h->inode->now.size;
	return leave(disk, 0);
}

static int io_truncate(void *context, void *handle, uint64_t size_bytes)
{
	struct disk *disk = context;
	const struct handle *h = handle;
	int error = enter(disk, DISK_TRUNCATE);
	struct pending *p;

	if (error)
		return leave(disk, error);
	p = must(calloc(1, sizeof(*p)));
	p->truncate = true;
	p->offset = size_bytes;
	*h->inode->last = p;
	h->inode->last = &p->next;
	bytes_resize(&h->inode->now, size_bytes);
	return leave(disk, 0);
}

static int io_rename(void *context, const char *from, const char *to)
{
	struct disk *disk = context;
	int error = enter(disk, DISK_RENAME);
	struct name *name = *name_find(&disk->names, from);

	if (!error && !name)
		error = -ENOENT;
	if (!error)
		op_add(disk, to, name->inode, from);
	return leave(disk, error);
}

static int io_unlink(void *context, const char *path)
{
	struct disk *disk = context;
	int error = enter(disk, DISK_UNLINK);

	if (!error && !*name_find(&disk->names, path))
		error = -ENOENT;
	if (!error)
		op_add(disk, path, NULL, NULL);
	return leave(disk, error);
}

static int io_sync_directory(void *context, const char *path_of_file)
{
	struct disk *disk = context;
	int error = enter(disk, DISK_SYNC_DIRECTORY);

	(void)path_of_file;
	for (const struct rename_op *op = disk->ops; op; op = op->next)
		if (!error || random_below(&disk->random, 2))
			op_apply(&disk->durable_names, op);
	ops_clear(disk);
	return leave(disk, error);
}

static int io_lock(void *context, void *handle, char holder[256])
{
	struct disk *disk = context;
	const struct handle *h = handle;
	int error = 0;

	pthread_mutex_lock(&disk->lock);
	if (h->inode->locked_by && h->inode->locked_by != h) {
		strcpy(holder, "somebody else");
		error = -EBUSY;
	} else {
		h->inode->locked_by = h;
	}
	return leave(disk, error);
}

/* ---- Made, ended, asked ------------------------------------------------------------------------------------------------------ */

struct disk *disk_new(uint64_t seed)
{
	struct disk *disk = must(calloc(1, sizeof(*disk)));

	pthread_mutex_init(&disk->lock, NULL);
	disk->random = seed;
	disk->ops_last = &disk->ops;
	disk->io = (struct rp_io){
		.open = io_open, .close = io_close, .read = io_read, .write = io_write, .sync = io_sync, .size = io_size,
		.truncate = io_truncate, .rename = io_rename, .unlink = io_unlink, .sync_directory = io_sync_directory,
		.lock = io_lock, .context = disk,
	};
	return disk;
}

void disk_free(struct disk *disk)
{
	struct inode *inode;

	if (!disk)
		return;
	ops_clear(disk);
	while (disk->names)
		name_set(&disk->names, disk->names->path, NULL);
	while (disk->durable_names)
		name_set(&disk->durable_names, disk->durable_names->path, NULL);
	while ((inode = disk->inodes)) {
		disk->inodes = inode->next;
		pending_clear(inode);
		free(inode->now.at);
		free(inode->durable.at);
		free(inode);
	}
	pthread_mutex_destroy(&disk->lock);
	free(disk);
}

const struct rp_io *disk_io(struct disk *disk) { return &disk->io; }

void disk_fault_set(struct disk *disk, const struct disk_fault *fault)
{
	pthread_mutex_lock(&disk->lock);
	disk->fault = fault ? *fault : (struct disk_fault){ 0 };
	disk->counted = 0;
	disk->fired = false;
	pthread_mutex_unlock(&disk->lock);
}

bool disk_fault_fired(const struct disk *disk) { return disk->fired; }

uint64_t disk_operation_count(const struct disk *disk) { return disk->operations; }

void disk_short_set(struct disk *disk, bool on) { disk->shorten = on; }

void disk_watch(struct disk *disk, void (*before)(void *context, enum disk_operation operation), void *context)
{
	disk->watch = before;
	disk->watch_context = context;
}

uint8_t *disk_bytes(struct disk *disk, const char *path, size_t *size)
{
	struct name *name = *name_find(&disk->names, path);

	if (!name)
		return NULL;
	*size = name->inode->now.size;
	return name->inode->now.at;
}

void disk_file_set(struct disk *disk, const char *path, const void *bytes, size_t size)
{
	struct inode *inode = inode_new(disk);

	bytes_put(&inode->now, 0, bytes, size);
	bytes_put(&inode->durable, 0, bytes, size);
	name_set(&disk->names, path, inode);
	name_set(&disk->durable_names, path, inode);
}

bool disk_exists(struct disk *disk, const char *path) { return *name_find(&disk->names, path) != NULL; }

unsigned disk_file_count(struct disk *disk)
{
	unsigned count = 0;

	for (const struct name *n = disk->names; n; n = n->next)
		count++;
	return count;
}
