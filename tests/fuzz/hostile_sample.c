/* hostile_sample.c: the images that cases start from, made by the code under test on a simulated disk. */
#include <string.h>
#include "hostile.h"
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/namespace.h"

static char long_bytes[65536];

/* Samples are the same each time as far as the code allows, so that a case's number means the same. */
static void same_now(void *context, int64_t *sec, uint32_t *nsec)
{
	(void)context;
	*sec = 1700000000;
	*nsec = 123456789;
}

static void same_random(void *context, void *to, size_t size)
{
	(void)context;
	for (size_t i = 0; i < size; i++)
		((uint8_t *)to)[i] = (uint8_t)(i * 37 + 11);
}

static const struct rp_hooks same_hooks = { .now = same_now, .random = same_random };

static rp_object make(struct rp_fs *fs, rp_object dir, const char *name, uint32_t mode)
{
	rp_object made;

	EXPECT_OK(ns_make(fs, dir, name, mode, &made), name);
	return made;
}

static void text_write(struct rp_fs *fs, rp_object ino, uint64_t offset, size_t size)
{
	EXPECT_EQUAL(rp_fs_write(fs, ino, offset, long_bytes, size, 0), size);
}

static void xattrs_make(struct rp_fs *fs, rp_object ino)
{
	static const struct {
		uint32_t version;
		struct { uint16_t tag, perm; uint32_t id; } entries[5];
	} acl = { 2, { { 1, 7, UINT32_MAX }, { 2, 6, 1000 }, { 4, 5, UINT32_MAX }, { 16, 7, UINT32_MAX }, { 32, 4, UINT32_MAX } } };
	char name[32];

	EXPECT_OK(rp_fs_xattr_set(fs, ino, "user.small", "value", 5, 0, false), "xattr");
	EXPECT_OK(rp_fs_xattr_set(fs, ino, "user.empty", "", 0, 0, false), "xattr");
	EXPECT_OK(rp_fs_xattr_set(fs, ino, "user.large", long_bytes, 65536, 0, false), "xattr");
	EXPECT_OK(rp_fs_xattr_set(fs, ino, "user.middle", long_bytes, 700, 0, false), "xattr");
	EXPECT_OK(rp_fs_xattr_set(fs, ino, "system.posix_acl_access", &acl, sizeof(acl), 0, false), "ACL");
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "user.number-%u", i);
		EXPECT_OK(rp_fs_xattr_set(fs, ino, name, long_bytes, i * 17, 0, false), name);
	}
}

static void sparse_make(struct rp_fs *fs, rp_object dir)
{
	rp_object ino = make(fs, dir, "sparse", S_IFREG | 0644);

	/* Nodes of all six levels. */
	text_write(fs, ino, 0, 9000);
	text_write(fs, ino, UINT64_C(3) << 30, 5000);
	text_write(fs, ino, UINT64_C(5) << 40, 100);
	text_write(fs, ino, UINT64_C(1) << 62, 100);
	EXPECT_OK(rp_fs_fallocate(fs, ino, 0, 1 << 20, 40000, false), "allocate");
}

static void links_make(struct rp_fs *fs, rp_object dir)
{
	char target[3000];
	struct rp_attr attr;
	rp_object file = make(fs, dir, "file", S_IFREG | 04755);

	text_write(fs, file, 0, 30000);
	EXPECT_OK(rp_fs_link(fs, file, dir, rp_name_from("second"), false, &attr), "link");
	EXPECT_OK(rp_fs_link(fs, file, rp_fs_root(fs), rp_name_from("third"), false, &attr), "link");
	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	EXPECT_OK(rp_fs_make(fs, ns_root_cred(), dir, rp_name_from("long"), S_IFLNK | 0777, 0, target, false, &attr), "symlink");
	EXPECT_OK(rp_fs_make(fs, ns_root_cred(), dir, rp_name_from("short"), S_IFLNK | 0777, 0, "to", false, &attr), "symlink");
	make(fs, dir, "fifo", S_IFIFO | 0600);
	EXPECT_OK(rp_fs_make(fs, ns_root_cred(), dir, rp_name_from("device"), S_IFCHR | 0600, 259, NULL, false, &attr), "mknod");
	xattrs_make(fs, file);
}

static void names_make(struct rp_fs *fs, rp_object dir, unsigned count, unsigned length)
{
	char name[256];

	for (unsigned i = 0; i < count; i++) {
		memset(name, 'n', sizeof(name));
		name[length] = 0;
		name[snprintf(name, sizeof(name), "%u", i)] = '-';
		name[length] = 0;
		make(fs, dir, name, i % 50 ? S_IFREG | 0644 : S_IFDIR | 0755);
	}
}

static void orphans_make(struct rp_fs *fs, rp_object dir)
{
	struct rp_attr attr;
	rp_object gone;

	for (unsigned i = 0; i < 3; i++) {
		EXPECT_OK(rp_fs_tmpfile(fs, ns_root_cred(), dir, S_IFREG | 0600, &attr), "tmpfile");
		text_write(fs, attr.ino, i * 10000, 5000);
	}
	gone = make(fs, dir, "gone", S_IFREG | 0600);
	EXPECT_OK(rp_fs_hold(fs, gone, 0), "hold");
	EXPECT_OK(rp_fs_unlink(fs, dir, rp_name_from("gone"), NULL), "unlink");
}

static void mixed_fill(struct rp_fs *fs, struct rp_image *image)
{
	rp_object root = rp_fs_root(fs), dir = make(fs, root, "dir", S_IFDIR | 02755), deep = dir;

	links_make(fs, dir);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	EXPECT_OK(rp_snapshot_create(rp_fs_pool(fs), "first"), "snapshot");
	sparse_make(fs, dir);
	for (unsigned i = 0; i < 6; i++)
		deep = make(fs, deep, "deeper", S_IFDIR | 0755);
	xattrs_make(fs, deep);
	names_make(fs, deep, 60, 20);
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	EXPECT_OK(rp_snapshot_create(rp_fs_pool(fs), "second"), "snapshot");
	orphans_make(fs, dir);
	EXPECT_OK(rp_fs_unlink(fs, root, rp_name_from("third"), NULL), "unlink");
	EXPECT_OK(rp_snapshot_create(rp_fs_pool(fs), "a third one"), "snapshot");
}

static void fill(unsigned which, struct rp_fs *fs, struct rp_image *image)
{
	if (which == SAMPLE_NAMES) {
		names_make(fs, rp_fs_root(fs), 600, 40);
		EXPECT_OK(rp_snapshot_create(rp_fs_pool(fs), "first"), "snapshot");
		names_make(fs, make(fs, rp_fs_root(fs), "dir", S_IFDIR | 0755), 300, 200);
	} else if (which == SAMPLE_DEEP) {
		names_make(fs, rp_fs_root(fs), 3200, 254);
	} else {
		mixed_fill(fs, image);
	}
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
}

static void blocks_find(struct sample *s)
{
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	unsigned newest;

	s->blocks = malloc((s->size / RP_ADDR_UNIT + 1) * sizeof(*s->blocks));
	EXPECT(s->blocks != NULL);
	for (size_t at = RP_BLOCKS_START; at + sizeof(struct rp_block_header) <= s->size; at += RP_ADDR_UNIT) {
		const struct rp_block_header *header = (const void *)(s->bytes + at);

		if (header->magic == RP_BLOCK_MAGIC && header->address == at / RP_ADDR_UNIT &&
		    at + sizeof(*header) + header->stored_bytes <= s->size)
			s->blocks[s->block_count++] = (uint32_t)at;
	}
	EXPECT(s->block_count > 20);
	EXPECT_OK(rp_super_decode(s->bytes, super, good, &newest), "superblocks");
	memcpy(s->file_id, super[newest].file_id, sizeof(s->file_id));
}

void sample_make(unsigned which, struct sample *out)
{
	static const enum rp_codec codecs[SAMPLE_COUNT] = { [SAMPLE_ZSTD] = RP_CODEC_ZSTD, [SAMPLE_LZ4] = RP_CODEC_LZ4 };
	struct disk *disk = disk_new(1);
	struct rp_image_options options = { .io = disk_io(disk), .hooks = &same_hooks, .codec = codecs[which], .codec_set = true,
		                            .keep = 5, .no_read_ahead = true, .small_pages = true };
	struct rp_image *image;
	struct rp_fs *fs;
	const uint8_t *bytes;

	for (unsigned i = 0; i < sizeof(long_bytes); i++)
		long_bytes[i] = (char)("all kinds of text"[i % 17] + i / 256 % 3);
	fs = ns_open(32 << 20, 0, &same_hooks);
	EXPECT_OK(rp_image_create(rp_fs_pool(fs), HOSTILE_PATH, false, &options, &image), "image");
	fill(which, fs, image);
	rp_image_close(image);
	ns_close(fs);
	*out = (struct sample){ 0 };
	bytes = disk_bytes(disk, HOSTILE_PATH, &out->size);
	EXPECT(bytes && out->size <= HOSTILE_SIZE_MAX / 2);
	out->bytes = malloc(out->size);
	EXPECT(out->bytes != NULL);
	memcpy(out->bytes, bytes, out->size);
	blocks_find(out);
	disk_free(disk);
}

void sample_free(struct sample *sample)
{
	free(sample->bytes);
	free(sample->blocks);
}
