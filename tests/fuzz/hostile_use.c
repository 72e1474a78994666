/* hostile_use.c: everything that programs do with an image, done with one that may be hostile.
 *
 * What comes back is not compared with anything; but each call returns, with 0 or an error of those that callers know, names
 * are names, cookies rise, and lengths stay within what was asked for. Work is bounded here only where a legal image could
 * ask for as much: huge files, crowded directories.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "hostile.h"
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/namespace.h"

enum { INODES = 4000, NAMES = 64, ROOM = 128 << 10, CHANGES = 40 };

struct seen {
	struct rp_fs *fs;
	uint64_t *random;
	rp_object inodes[INODES];   /* found so far, each perhaps several times; [0, next) were visited */
	unsigned count, next;
	struct { rp_object dir, ino; uint8_t length; char bytes[255]; } names[NAMES]; /* a sample of those seen */
	unsigned name_count;
	rp_object dir;
	uint64_t cookie;
	unsigned entries;
};

static char buffer[ROOM];

void hostile_expect(long result, const char *call)
{
	static const short known[] = {
		EIO, ENOENT, ESTALE, ENOTDIR, EISDIR, EINVAL, ENOSPC, ENOMEM, EEXIST, ENOTEMPTY, EBUSY, EROFS, EMLINK, EPERM,
		ENAMETOOLONG, ENODATA, ERANGE, E2BIG, EFBIG, EOPNOTSUPP, EAGAIN, ESRCH, ENXIO, EACCES, ELOOP, EOVERFLOW, ENODEV,
	};

	if (result >= 0)
		return;
	for (unsigned i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (result == -known[i])
			return;
	printf("FAIL: %s gave %ld\n", call, result);
	exit(1);
}

#define TRY(call) hostile_expect((long)(call), #call)

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------------- */

static int entry_take(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct seen *s = context;
	unsigned at = s->name_count < NAMES ? s->name_count : (unsigned)random_below(s->random, NAMES);

	EXPECT(name.length >= 1 && name.length <= 255);
	EXPECT(!memchr(name.bytes, '/', name.length) && !memchr(name.bytes, 0, name.length));
	EXPECT(next_cookie > s->cookie && next_cookie <= INT64_MAX);
	EXPECT(next_cookie <= 2 || memcmp(name.bytes, "..", name.length < 3 ? name.length : 3) != 0);
	s->cookie = next_cookie;
	if (s->count < INODES && attr && !(name.length <= 2 && name.bytes[0] == '.'))
		s->inodes[s->count++] = attr->ino;
	s->names[at].dir = s->dir;
	s->names[at].ino = attr ? attr->ino : 0;
	s->names[at].length = (uint8_t)name.length;
	memcpy(s->names[at].bytes, name.bytes, name.length);
	s->name_count += s->name_count < NAMES;
	return ++s->entries >= INODES;
}

static void directory_use(struct seen *s, rp_object dir)
{
	struct rp_attr attr;

	s->dir = dir;
	s->cookie = 0;
	s->entries = 0;
	TRY(rp_fs_readdir(s->fs, dir, 0, true, false, entry_take, s));
	s->cookie = random_next(s->random) >> 1;
	TRY(rp_fs_readdir(s->fs, dir, s->cookie, false, false, entry_take, s));
	TRY(rp_fs_lookup(s->fs, dir, rp_name_from(".."), false, &attr));
	TRY(rp_fs_lookup(s->fs, dir, rp_name_from("file"), false, &attr));
}

static void contents_use(struct seen *s, rp_object ino, uint64_t size)
{
	const uint64_t offsets[] = { 0, 5000, size / 2, size > 3000 ? size - 3000 : 0, UINT64_C(3) << 30, INT64_MAX - 100 };
	uint64_t at = 0, end;
	bool is_data;

	for (unsigned i = 0; i < 6; i++) {
		ssize_t n = rp_fs_read(s->fs, ino, offsets[i], buffer, i ? 5000 : ROOM);

		hostile_expect((long)n, "rp_fs_read");
		EXPECT(n <= (i ? 5000 : ROOM));
	}
	for (unsigned i = 0; i < 12; i++) {
		int error = rp_fs_seek(s->fs, ino, at, i % 2 ? SEEK_DATA : SEEK_HOLE, &end);

		hostile_expect(error, "rp_fs_seek");
		if (error)
			break;
		EXPECT(end >= at);
		at = end;
	}
	TRY(rp_fs_extent(s->fs, ino, 0, INT64_MAX, &is_data, &end));
	TRY(rp_fs_prefetch(s->fs, ino, 0, 100000));
}

static void xattrs_use(struct seen *s, rp_object ino)
{
	static char list[65536];
	ssize_t size = rp_fs_xattr_list(s->fs, ino, list, sizeof(list)), n;

	hostile_expect((long)size, "rp_fs_xattr_list");
	EXPECT(size <= (ssize_t)sizeof(list));
	EXPECT(size <= 0 || list[size - 1] == 0);
	for (ssize_t at = 0, names = 0; at < size && names < 40; at += (ssize_t)strlen(list + at) + 1, names++) {
		n = rp_fs_xattr_get(s->fs, ino, list + at, buffer, 65536);
		hostile_expect((long)n, "rp_fs_xattr_get");
		EXPECT(n <= 65536);
	}
	TRY(rp_fs_xattr_get(s->fs, ino, "system.posix_acl_access", buffer, 65536));
	TRY(rp_fs_xattr_get(s->fs, ino, "user.large", NULL, 0));
}

static void inode_use(struct seen *s, rp_object ino)
{
	char target[4096];
	struct rp_attr attr;
	int error = rp_fs_getattr(s->fs, ino, &attr);

	hostile_expect(error, "rp_fs_getattr");
	if (error)
		return;
	if (S_ISDIR(attr.mode))
		directory_use(s, ino);
	else if (S_ISLNK(attr.mode))
		TRY(rp_fs_readlink(s->fs, ino, target));
	else if (S_ISREG(attr.mode))
		contents_use(s, ino, attr.size_bytes);
	xattrs_use(s, ino);
}

/* Directories may form circles: the number of visits is bounded, not their depth. */
static void walk(struct seen *s)
{
	s->inodes[s->count++] = rp_fs_root(s->fs);
	for (; s->next < s->count; s->next++)
		inode_use(s, s->inodes[s->next]);
	for (rp_object ino = 0; ino < 40; ino++)
		inode_use(s, ino);
}

/* ---- Changing ---------------------------------------------------------------------------------------------------------- */

static rp_object inode_any(struct seen *s)
{
	return random_below(s->random, 8) ? s->inodes[random_below(s->random, s->count)] : random_below(s->random, 60);
}

static struct rp_name name_any(struct seen *s, rp_object *dir, rp_object *ino)
{
	unsigned i;

	if (!s->name_count) {
		*dir = *ino = rp_fs_root(s->fs);
		return rp_name_from("name");
	}
	i = (unsigned)random_below(s->random, s->name_count);
	*dir = s->names[i].dir;
	*ino = s->names[i].ino ? s->names[i].ino : inode_any(s);
	return (struct rp_name){ s->names[i].bytes, s->names[i].length };
}

static void contents_change(struct seen *s, rp_object ino)
{
	struct rp_attr attr = { .mode = 0640, .size_bytes = number_hostile(s->random, 9000), .uid = 5 };
	uint64_t offset = number_hostile(s->random, 4096), length = number_hostile(s->random, 10000);

	switch (random_below(s->random, 6)) {
	case 0: TRY(rp_fs_write(s->fs, ino, offset & INT64_MAX, buffer, random_below(s->random, 20000), 0)); break;
	case 1: TRY(rp_fs_setattr(s->fs, ino, RP_SET_SIZE | RP_SET_MODE, &attr, &attr)); break;
	case 2: TRY(rp_fs_setattr(s->fs, ino, RP_SET_UID | RP_SET_KILLPRIV, &attr, &attr)); break;
	case 3: TRY(rp_fs_fallocate(s->fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length, false)); break;
	case 4: TRY(rp_fs_fallocate(s->fs, ino, 0, offset & 0xffffff, length & 0xffff, false)); break;
	default: TRY(rp_fs_copy(s->fs, ino, 0, inode_any(s), offset & 0xffffffff, length & 0xffffff));
	}
}

static void names_change(struct seen *s)
{
	rp_object dir, ino, to_dir, to_ino;
	struct rp_name name = name_any(s, &dir, &ino), to = name_any(s, &to_dir, &to_ino);
	struct rp_attr attr;
	char made[256];

	snprintf(made, sizeof(made), "made-%llu", (unsigned long long)random_next(s->random));
	switch (random_below(s->random, 8)) {
	case 0:
	case 1: TRY(rp_fs_unlink(s->fs, dir, name, NULL)); break;
	case 2: TRY(rp_fs_rmdir(s->fs, dir, name, NULL)); break;
	case 3: TRY(ns_make(s->fs, dir, made, random_below(s->random, 2) ? S_IFREG : S_IFDIR, NULL)); break;
	case 4: TRY(rp_fs_link(s->fs, ino, to_dir, rp_name_from(made), false, &attr)); break;
	case 5: TRY(rp_fs_rename(s->fs, ns_root_cred(), dir, name, to_dir, to, (unsigned)random_below(s->random, 5))); break;
	case 6: TRY(rp_fs_rename(s->fs, ns_root_cred(), dir, name, to_dir, rp_name_from(made), 0)); break;
	default:
		if (rp_fs_tmpfile(s->fs, ns_root_cred(), dir, S_IFREG | 0600, &attr) == 0)
			rp_fs_release(s->fs, attr.ino, 1);
	}
}

static void xattrs_change(struct seen *s, rp_object ino)
{
	switch (random_below(s->random, 4)) {
	case 0: TRY(rp_fs_xattr_set(s->fs, ino, "user.small", buffer, random_below(s->random, 2000), 0, false)); break;
	case 1: TRY(rp_fs_xattr_set(s->fs, ino, "user.made", buffer, 65536, 0, false)); break;
	case 2: TRY(rp_fs_xattr_remove(s->fs, ino, "user.large")); break;
	default: TRY(rp_fs_xattr_remove(s->fs, ino, "system.posix_acl_access"));
	}
}

static void held_change(struct seen *s, rp_object ino)
{
	rp_object dir, named;
	struct rp_name name = name_any(s, &dir, &named);
	int error = rp_fs_hold(s->fs, named, 0);

	hostile_expect(error, "rp_fs_hold");
	TRY(rp_fs_unlink(s->fs, dir, name, NULL));
	TRY(rp_fs_getattr(s->fs, ino, &(struct rp_attr){ 0 }));
	if (!error)
		rp_fs_release(s->fs, named, 1);
}

static void change(struct seen *s)
{
	for (unsigned i = 0; i < CHANGES; i++) {
		switch (random_below(s->random, 6)) {
		case 0:
		case 1: contents_change(s, inode_any(s)); break;
		case 2:
		case 3: names_change(s); break;
		case 4: xattrs_change(s, inode_any(s)); break;
		default: held_change(s, inode_any(s));
		}
	}
}

void files_use(struct rp_fs *fs, uint64_t *random, bool read_only)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct rp_fs_status status;

	EXPECT(s != NULL);
	s->fs = fs;
	s->random = random;
	TRY(rp_fs_status(fs, &status));
	walk(s);
	if (!read_only) {
		change(s);
		s->count = s->next = 0;
		walk(s);
	}
	free(s);
}

/* ---- Snapshots --------------------------------------------------------------------------------------------------------- */

static int page_count_down(void *context, rp_page page)
{
	(void)page;
	return --*(int *)context <= 0;
}

static int object_count_down(void *context, rp_object object, const struct rp_record *a, const struct rp_record *b)
{
	(void)object;
	(void)a;
	(void)b;
	return --*(int *)context <= 0;
}

static void inode_changed(void *context, rp_object ino, bool directory)
{
	(void)context;
	(void)ino;
	(void)directory;
}

static void snapshot_use(struct rp_pool *pool, const char *name, uint64_t *random)
{
	struct rp_snapshot *snapshot, *live;
	struct rp_fs *fs;
	int error = rp_snapshot_open(pool, name, &snapshot), left = 3000;

	hostile_expect(error, "rp_snapshot_open");
	if (error)
		return;
	error = rp_fs_open_snapshot(pool, snapshot, &fs);
	hostile_expect(error, "rp_fs_open_snapshot");
	if (!error) {
		files_use(fs, random, true);
		if (random_below(random, 3) == 0)
			rp_fs_check(fs, quiet, NULL);
		rp_fs_close(fs);
	}
	error = rp_snapshot_take(pool, &live);
	hostile_expect(error, "rp_snapshot_take");
	if (!error) {
		TRY(rp_diff_objects(pool, snapshot, live, object_count_down, &left));
		for (rp_object object = 1; object < 40; object += 3) {
			left = 300;
			TRY(rp_diff_pages(pool, snapshot, live, object, page_count_down, &left));
		}
		rp_snapshot_put(live);
	}
	rp_snapshot_put(snapshot);
}

static void rollback_use(struct rp_fs *fs, const char *name)
{
	struct rp_pool *pool = rp_fs_pool(fs);
	struct rp_snapshot *snapshot, *before;
	int error = rp_snapshot_open(pool, name, &snapshot);

	hostile_expect(error, "rp_snapshot_open");
	if (error)
		return;
	error = rp_snapshot_take(pool, &before);
	if (!error) {
		error = rp_snapshot_rollback(pool, snapshot);
		hostile_expect(error, "rp_snapshot_rollback");
		if (!error)
			TRY(rp_fs_rolled_back(fs, before, inode_changed, NULL));
		rp_snapshot_put(before);
	}
	rp_snapshot_put(snapshot);
}

static void snapshots_use(struct rp_fs *fs, struct rp_pool *pool, uint64_t *random)
{
	struct rp_snapshot_info *list;
	size_t count;
	int error = rp_snapshot_list(pool, random_below(random, 2), &list, &count);

	hostile_expect(error, "rp_snapshot_list");
	if (error)
		return;
	for (size_t i = 0; i < count; i++)
		EXPECT(memchr(list[i].name, 0, sizeof(list[i].name)));
	for (size_t i = 0; i < count && i < 4; i++)
		snapshot_use(pool, list[i].name, random);
	TRY(rp_snapshot_create(pool, "made"));
	if (count)
		TRY(rp_snapshot_rename(pool, list[0].name, "renamed"));
	if (count > 1)
		TRY(rp_snapshot_delete(pool, list[1].name));
	if (count > 2 && fs)
		rollback_use(fs, list[2].name);
	else if (fs && random_below(random, 2))
		rollback_use(fs, "made");
	free(list);
}

/* ---- Images ------------------------------------------------------------------------------------------------------------ */

static void *allocate(void *context, size_t size)
{
	(void)context;
	/* More than anything a file of this size can need. */
	if (size > 64u << 20) {
		printf("FAIL: %zu bytes wanted at once\n", size);
		exit(1);
	}
	return calloc(1, size);
}

static const struct rp_hooks hooks = { .log = quiet, .allocate = allocate };

static void opened_use(struct rp_image *image, struct rp_pool *pool, uint64_t *random, bool read_only)
{
	struct rp_image_status status;
	struct rp_fs *fs;
	bool read_first = random_below(random, 2);
	int error;

	if (read_first)
		TRY(rp_image_read_all(image));
	error = rp_fs_open(pool, read_only, &fs);
	hostile_expect(error, "rp_fs_open");
	if (!error) {
		files_use(fs, random, read_only);
		if (!read_only)
			snapshots_use(fs, pool, random);
		files_use(fs, random, read_only);
		if (random_below(random, 2))
			rp_fs_check(fs, quiet, NULL);
		rp_fs_close(fs);
	} else {
		snapshots_use(NULL, pool, random);
	}
	TRY(rp_image_commit(image, NULL, NULL));
	TRY(rp_image_read_all(image));
	if (random_below(random, 2))
		TRY(rp_image_compact(image));
	rp_image_status(image, &status);
	rp_image_close(image);
	rp_pool_check(pool, quiet, NULL);
}

void image_use(const void *bytes, size_t size, uint64_t seed)
{
	uint64_t random = seed;
	struct rp_image_check check = { .report = quiet };
	struct disk *disk = disk_new(seed);
	char message[512] = "";
	struct rp_image_options options = {
		.io = disk_io(disk), .hooks = &hooks, .small_pages = true, .message = message,
		.no_read_ahead = random_below(&random, 3), .read_only = random_below(&random, 4) == 0,
		.generation = random_below(&random, 6) ? 0 : random_below(&random, 5),
	};
	struct rp_commit_info *list;
	struct rp_image *image;
	struct rp_pool *pool;
	size_t count;
	int error;

	disk_file_set(disk, HOSTILE_PATH, bytes, size);
	if (random_below(&random, 4) == 0) {
		TRY(rp_image_verify(HOSTILE_PATH, &options, &check));
		TRY(rp_image_describe(HOSTILE_PATH, &options, quiet, NULL));
		error = rp_image_commits(HOSTILE_PATH, &options, &list, &count);
		hostile_expect(error, "rp_image_commits");
		if (!error)
			free(list);
	}
	error = rp_image_open(HOSTILE_PATH, &options, &pool, &image);
	hostile_expect(error, "rp_image_open");
	if (!error) {
		opened_use(image, pool, &random, options.read_only);
		rp_pool_destroy(pool);
	}
	EXPECT(memchr(message, 0, sizeof(message)));
	if (random_below(&random, 4) == 0)
		TRY(rp_image_roll_back(HOSTILE_PATH, 1 + random_below(&random, 4), &options));
	disk_free(disk);
}

/* Before anything else is done with it: what must take the time of the blocks that are there. */
void image_use_fan(const void *bytes, size_t size, uint64_t seed)
{
	struct rp_image_check check = { .report = quiet };
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = { .io = disk_io(disk), .hooks = &hooks, .small_pages = true, .no_read_ahead = seed & 1 };
	struct rp_image *image;
	struct rp_pool *pool;
	struct rp_fs *fs;
	uint64_t end;
	int error;

	disk_file_set(disk, HOSTILE_PATH, bytes, size);
	TRY(rp_image_verify(HOSTILE_PATH, &options, &check));
	error = rp_image_open(HOSTILE_PATH, &options, &pool, &image);
	hostile_expect(error, "rp_image_open");
	if (!error) {
		TRY(rp_image_read_all(image));
		error = rp_fs_open(pool, false, &fs);
		for (rp_object ino = 1; ino < 40 && !error; ino++) {
			TRY(rp_fs_seek(fs, ino, 0, SEEK_HOLE, &end));
			TRY(rp_fs_write(fs, ino, UINT64_C(1) << 55, "new", 3, 0));
		}
		TRY(rp_snapshot_create(pool, "made"));
		TRY(rp_image_commit(image, NULL, NULL));
		TRY(rp_image_compact(image));
		TRY(rp_image_read_all(image));
		TRY(rp_image_save_as(pool, image, "/other", true, &options, NULL, NULL));
		if (!error)
			rp_fs_close(fs);
		rp_pool_check(pool, quiet, NULL);
		rp_image_close(image);
		rp_pool_destroy(pool);
	}
	disk_free(disk);
}
