/* A full pool and a full inode table: ENOSPC exactly, deletion works, and every round comes back to the same frame count. */
#include "tests/lib/namespace.h"

static struct rp_name numbered(char to[32], uint64_t n)
{
	return (struct rp_name){ to, (size_t)snprintf(to, 32, "n%llu", (unsigned long long)n) };
}

/* Fill with files of every size until nothing goes any more, then remove all of it in another order. */
static uint64_t round_of_data(struct rp_fs *fs, uint64_t *random)
{
	static char bytes[1 << 20];
	rp_object root = rp_fs_root(fs);
	uint64_t files = 0, full = 0, written = 0;
	struct rp_attr attr;
	char name[32];
	int error;

	memset(bytes, 'f', sizeof(bytes));
	while (full < 20) {
		ssize_t got;

		error = rp_fs_make(fs, ns_root_cred(), root, numbered(name, files), S_IFREG | 0644, 0, NULL, false, &attr);
		if (error) {
			NEED_IS(error, -ENOSPC);
			full++;
			continue;
		}
		files++;
		got = rp_fs_write(fs, attr.ino, random_below(random, 3) * 100000, bytes,
				  1 + random_below(random, sizeof(bytes)), 0);
		if (got < 0) {
			NEED_IS(got, -ENOSPC);
			full++;
		} else {
			written += (uint64_t)got;
		}
		if (random_below(random, 4) == 0) {
			error = rp_fs_xattr_set(fs, attr.ino, "user.x", bytes, random_below(random, 9000), 0, false);
			NEED(error == 0 || error == -ENOSPC);
		}
	}
	NS_CHECK(fs);
	/* In the full pool: making shorter, and names that go. */
	attr.size_bytes = 1;
	for (uint64_t n = 0; n < files; n += 3) {
		struct rp_attr found;

		NEED_IS(rp_fs_lookup(fs, root, numbered(name, n), false, &found), 0);
		NEED_IS(rp_fs_setattr(fs, found.ino, RP_SET_SIZE, &attr, NULL), 0);
	}
	for (uint64_t n = files; n-- > 0;)
		NEED_IS(rp_fs_unlink(fs, root, numbered(name, n), NULL), 0);
	NS_CHECK(fs);
	return written;
}

static void test_data(struct rp_fs *fs, uint64_t *random)
{
	uint64_t frames = 0;

	for (unsigned i = 0; i < 20; i++) {
		uint64_t written = round_of_data(fs, random), used = ns_frames(fs);

		NEED(written > 8 << 20);
		/* The first round leaves what the object table remembers of numbers that were used. */
		if (i == 0)
			frames = used;
		NEED(used <= frames + 2);
	}
}

static void test_inodes(struct rp_fs *fs)
{
	rp_object root = rp_fs_root(fs), ino;
	struct rp_fs_status status;
	struct rp_attr attr;
	char name[32];

	NEED_IS(rp_fs_inode_limit_set(fs, 500), 0);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned n = 0; n < 499; n++)
			NEED_IS(rp_fs_make(fs, ns_root_cred(), root, numbered(name, n), n & 1 ? S_IFDIR | 0755 : S_IFIFO | 0644, 0,
					   NULL, false, &attr), 0);
		NEED_IS(ns_make(fs, root, "more", S_IFREG, NULL), -ENOSPC);
		NEED_IS(ns_make(fs, root, "n7", S_IFREG, NULL), -EEXIST);
		NEED_IS(rp_fs_tmpfile(fs, ns_root_cred(), root, 0600, &attr), -ENOSPC);
		NEED_IS(ns_rename(fs, root, "n4", root, "n6", 4), -ENOSPC); /* a whiteout is made before the other goes */
		NEED_IS(rp_fs_status(fs, &status), 0);
		NEED_IS(status.inode_count, 500);
		NEED_IS(rp_fs_inode_limit_set(fs, 499), -ENOSPC);
		NEED_IS(rp_fs_unlink(fs, root, rp_name_from("n0"), NULL), 0);
		NEED_IS(ns_make(fs, root, "more", S_IFREG, &ino), 0);
		/* Attributes are not inodes. */
		NEED_IS(rp_fs_xattr_set(fs, ino, "user.x", "y", 1, 0, false), 0);
		NEED_IS(ns_make(fs, root, "n0", S_IFREG, NULL), -ENOSPC);
		NEED_IS(rp_fs_unlink(fs, root, rp_name_from("more"), NULL), 0);
		for (unsigned n = 1; n < 499; n++)
			NEED_IS(n & 1 ? rp_fs_rmdir(fs, root, numbered(name, n), NULL) :
				rp_fs_unlink(fs, root, numbered(name, n), NULL), 0);
		NEED_IS(rp_fs_status(fs, &status), 0);
		NEED_IS(status.inode_count, 1);
		NS_CHECK(fs);
	}
	NEED_IS(rp_fs_inode_limit_set(fs, 0), 0);
}

/* A link more than there may be. Two billion names are not made: the count is set where it stands. */
static void test_links(struct rp_fs *fs)
{
	struct rp_record *record;
	struct rp_attr attr;
	rp_object ino;
	struct rp_op op;
	int error;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "links", S_IFREG | 0644, &ino), 0);
	for (unsigned i = 0; i < 2; i++) {
		do {
			rp_op_begin(&op, rp_fs_pool(fs), 0);
			error = rp_record_edit(&op, ino, offsetof(struct rp_record, user), sizeof(record->user), &record);
			if (!error)
				((struct rp_inode *)record->user)->nlink = i ? 1 : INT32_MAX - 1;
		} while (rp_op_end(&op, &error));
		NEED_IS(error, 0);
		if (i == 0) {
			NEED_IS(rp_fs_link(fs, ino, rp_fs_root(fs), rp_name_from("last"), false, &attr), 0);
			NEED_IS(attr.nlink, INT32_MAX);
			NEED_IS(rp_fs_link(fs, ino, rp_fs_root(fs), rp_name_from("past"), false, &attr), -EMLINK);
			NEED_IS(rp_fs_unlink(fs, rp_fs_root(fs), rp_name_from("last"), NULL), 0);
		}
	}
	NEED_IS(rp_fs_unlink(fs, rp_fs_root(fs), rp_name_from("links"), NULL), 0);
	NS_CHECK(fs);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 77), random = seed;
	struct rp_fs *fs = ns_open(16 << 20, 0, NULL);

	printf("seed: RP_SEED=%llu\n", (unsigned long long)seed);
	test_data(fs, &random);
	test_inodes(fs);
	test_links(fs);
	ns_close(fs);
	printf("full: pass\n");
	return 0;
}
