/* The checker itself: each thing it proves is made wrong once, and it must say so; put right again, it must be silent. */
#include "ramfs/namespace/internal.h"
#include "tests/lib/namespace.h"

static struct rp_fs *fs;
static rp_object dir, file, link_ino, orphan;

static void count_fault(void *context, const char *line)
{
	(void)context;
	if (getenv("RP_TEST_LOG"))
		printf("    %s\n", line);
}

/* Change `size` bytes at `offset` of an object's record by xor; object 0: of the header. */
static void record_change(rp_object object, size_t offset, uint64_t by, size_t size)
{
	struct rp_record *record;
	struct rp_header *header;
	uint64_t word = 0;
	struct rp_op op;
	uint8_t *at;
	int error;

	do {
		rp_op_begin(&op, rp_fs_pool(fs), 0);
		if (object)
			error = rp_record_edit(&op, object, offset, size, &record);
		else
			error = rp_header_edit(&op, offset, size, &header);
		if (!error) {
			at = (object ? (uint8_t *)record : (uint8_t *)header) + offset;
			memcpy(&word, at, size);
			word ^= by;
			memcpy(at, &word, size);
		}
	} while (rp_op_end(&op, &error));
	NEED_IS(error, 0);
}

static void page_change(rp_object object, size_t offset, uint8_t by)
{
	struct rp_op op;
	uint8_t *bytes;
	void *page;
	int error;

	do {
		rp_op_begin(&op, rp_fs_pool(fs), 0);
		error = rp_page_edit(&op, object, 0, offset, 1, &page);
		bytes = page;
		if (!error)
			bytes[offset] ^= by;
	} while (rp_op_end(&op, &error));
	NEED_IS(error, 0);
}

#define INODE(field) (offsetof(struct rp_record, user) + offsetof(struct rp_inode, field))
#define HEADER(field) (offsetof(struct rp_header, user) + offsetof(struct rp_fs_header, field))

static void test_records(void)
{
	const struct {
		const char *what;
		rp_object object;
		size_t offset;
		uint64_t by;
		size_t size;
	} changes[] = {
		{ "nlink of a file", file, INODE(nlink), 1, 4 },
		{ "nlink of a directory", dir, INODE(nlink), 1, 4 },
		{ "type", file, INODE(mode), S_IFREG ^ S_IFIFO, 4 },
		{ "type of a directory", dir, INODE(mode), S_IFDIR ^ S_IFREG, 4 },
		{ "parent", dir, INODE(parent), 64, 8 },
		{ "entry count", dir, INODE(entry_count), 1, 8 },
		{ "pages of an index", dir, INODE(tree), 2, 8 },
		{ "reserved", dir, INODE(tree2), 1, 8 },
		{ "holder", file, INODE(xattrs), 32, 8 },
		{ "holder lost", file, INODE(xattrs), ns_attr(fs, file).ino ^ dir, 8 },
		{ "orphan flag on a name", file, INODE(flags), RP_INODE_ORPHAN, 4 },
		{ "orphan flag missing", orphan, INODE(flags), RP_INODE_ORPHAN, 4 },
		{ "orphan list", orphan, INODE(orphan_prev), 5, 8 },
		{ "capability flag", file, INODE(flags), RP_INODE_CAPABILITY, 4 },
		{ "ACL flag", dir, INODE(flags), RP_INODE_ACL_DEFAULT, 4 },
		{ "inlined target", link_ino, INODE(flags), RP_INODE_INLINED, 4 },
		{ "rdev", file, INODE(rdev), 1, 4 },
		{ "time", file, INODE(mtime.nsec), 0x80000000, 4 },
		{ "size past the end", file, offsetof(struct rp_record, size_bytes), UINT64_C(1) << 63, 8 },
		{ "size of a directory", dir, offsetof(struct rp_record, size_bytes), 1, 8 },
		{ "bytes past the end", file, offsetof(struct rp_record, size_bytes), 6 ^ 3, 8 },
		{ "inode count", 0, HEADER(inode_count), 1, 8 },
		{ "orphans", 0, HEADER(orphans), orphan, 8 },
		{ "root", 0, HEADER(root), 1, 8 },
		{ "hash seed", 0, HEADER(hash_seed), 1, 8 },
	};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		unsigned faults;

		record_change(changes[i].object, changes[i].offset, changes[i].by, changes[i].size);
		if (changes[i].offset == HEADER(hash_seed) && !changes[i].object)
			fs->hash_seed ^= 1;
		faults = rp_fs_check(fs, count_fault, NULL);
		if (faults == 0) {
			fprintf(stderr, "nothing was said of: %s\n", changes[i].what);
			exit(1);
		}
		if (getenv("RP_TEST_LOG"))
			printf("%s: %u\n", changes[i].what, faults);
		record_change(changes[i].object, changes[i].offset, changes[i].by, changes[i].size);
		if (changes[i].offset == HEADER(hash_seed) && !changes[i].object)
			fs->hash_seed ^= 1;
		NS_CHECK(fs);
	}
}

static void test_pages(void)
{
	/* magic, level, count, used, object, an offset; then cells, which fill the page to its end: name, type, inode */
	static const size_t offsets[] = { 0, 4, 6, 10, 16, 32, RP_PAGE_SIZE - 1, RP_PAGE_SIZE - 4, RP_PAGE_SIZE - 14 };

	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		page_change(dir, offsets[i], 1);
		if (rp_fs_check(fs, count_fault, NULL) == 0) {
			fprintf(stderr, "nothing was said of offset %zu\n", offsets[i]);
			exit(1);
		}
		page_change(dir, offsets[i], 1);
		NS_CHECK(fs);
	}
}

/* An object that nothing names. */
static void test_lost(void)
{
	uint64_t generation;
	rp_object object;
	struct rp_op op;
	int error;

	do {
		rp_op_begin(&op, rp_fs_pool(fs), 0);
		error = rp_object_create(&op, true, &object, &generation);
	} while (rp_op_end(&op, &error));
	NEED_IS(error, 0);
	NEED(rp_fs_check(fs, count_fault, NULL) >= 2);
	do {
		rp_op_begin(&op, rp_fs_pool(fs), 0);
		error = rp_object_remove(&op, object);
	} while (rp_op_end(&op, &error));
	NS_CHECK(fs);
}

int main(void)
{
	struct rp_attr attr;

	fs = ns_open(16 << 20, 0, NULL);
	NEED_IS(ns_make(fs, rp_fs_root(fs), "dir", S_IFDIR | 0755, &dir), 0);
	NEED_IS(ns_make(fs, dir, "f", S_IFREG | 0644, &file), 0);
	NEED_IS(ns_make(fs, rp_fs_root(fs), "link", S_IFLNK | 0777, &link_ino), 0);
	NEED_IS(rp_fs_write(fs, file, 0, "123456", 6, 0), 6);
	NEED_IS(rp_fs_xattr_set(fs, file, "user.a", "b", 1, 0, false), 0);
	NEED_IS(rp_fs_tmpfile(fs, ns_root_cred(), dir, 0600, &attr), 0);
	orphan = attr.ino;
	NS_CHECK(fs);
	test_records();
	test_pages();
	test_lost();
	ns_close(fs);
	printf("check: pass\n");
	return 0;
}
