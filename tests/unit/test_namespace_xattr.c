/* Extended attributes: sizes up to the limit, all of them given back; ACLs: form, mode, inheritance, chmod. */
#include <sys/xattr.h>
#include "tests/lib/namespace.h"

static ssize_t get(struct rp_fs *fs, rp_object ino, const char *name, void *to, size_t size)
{
	return rp_fs_xattr_get(fs, ino, name, to, size);
}

static int set(struct rp_fs *fs, rp_object ino, const char *name, const void *from, size_t size, int flags)
{
	return rp_fs_xattr_set(fs, ino, name, from, size, flags, false);
}

static void test_sizes(struct rp_fs *fs)
{
	static const size_t sizes[] = { 0, 1, 100, 511, 512, 513, 4095, 4096, 4097, 20000, 65535, 65536 };
	enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
	static uint8_t value[COUNT][65536], back[65537];
	uint64_t random = 42, before;
	struct rp_attr attr;
	char name[300];
	rp_object ino;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "f", S_IFREG | 0644, &ino), 0);
	before = ns_frames(fs);
	for (unsigned i = 0; i < COUNT; i++) {
		for (size_t b = 0; b < sizes[i]; b++)
			value[i][b] = (uint8_t)random_next(&random);
		snprintf(name, sizeof(name), "user.size-%u", i);
		NEED_IS(set(fs, ino, name, value[i], sizes[i], XATTR_REPLACE), -ENODATA);
		NEED_IS(set(fs, ino, name, "old", 3, XATTR_CREATE), 0);
		NEED_IS(set(fs, ino, name, value[i], sizes[i], XATTR_CREATE), -EEXIST);
		NEED_IS(set(fs, ino, name, value[i], sizes[i], XATTR_REPLACE), 0);
		NS_CHECK(fs);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.size-%u", i);
		NEED_IS(get(fs, ino, name, NULL, 0), sizes[i]);
		memset(back, 0xee, sizeof(back));
		NEED_IS(get(fs, ino, name, back, sizeof(back)), sizes[i]);
		NEED(memcmp(back, value[i], sizes[i]) == 0);
		if (sizes[i] > 1)
			NEED_IS(get(fs, ino, name, back, sizes[i] - 1), -ERANGE);
	}
	NEED_IS(set(fs, ino, "user.large", back, 65537, 0), -E2BIG);
	NEED_IS(rp_fs_getattr(fs, ino, &attr), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.size-%u", i);
		NEED_IS(rp_fs_xattr_remove(fs, ino, name), 0);
		NEED_IS(rp_fs_xattr_remove(fs, ino, name), -ENODATA);
	}
	NEED_IS(rp_fs_xattr_list(fs, ino, NULL, 0), 0);
	NS_CHECK(fs);
	NEED(ns_frames(fs) <= before + 1);
	/* They go with their inode too. */
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "trusted.size-%u", i);
		NEED_IS(set(fs, ino, name, value[i], sizes[i], 0), 0);
	}
	NEED_IS(rp_fs_unlink(fs, rp_fs_root(fs), rp_name_from("f"), NULL), 0);
	NS_CHECK(fs);
	NEED(ns_frames(fs) <= before + 1);
}

static void test_names(struct rp_fs *fs)
{
	char name[300], list[65536];
	unsigned made = 0;
	rp_object ino, link;
	ssize_t length;
	int error;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "n", S_IFREG | 0644, &ino), 0);
	NEED_IS(ns_make(fs, rp_fs_root(fs), "l", S_IFLNK | 0777, &link), 0);
	NEED_IS(set(fs, ino, "user.", "", 0, 0), -EINVAL);
	NEED_IS(set(fs, ino, "", "", 0, 0), -ERANGE);
	NEED_IS(set(fs, ino, "other.x", "", 0, 0), -EOPNOTSUPP);
	NEED_IS(get(fs, ino, "system.x", NULL, 0), -EOPNOTSUPP);
	NEED_IS(set(fs, link, "user.x", "", 0, 0), -EPERM);
	NEED_IS(get(fs, link, "user.x", NULL, 0), -ENODATA);
	NEED_IS(set(fs, link, "trusted.x", "v", 1, 0), 0);
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[256] = 0;
	NEED_IS(set(fs, ino, name, "", 0, 0), -ERANGE);
	name[255] = 0;
	NEED_IS(set(fs, ino, name, "longest", 7, 0), 0);
	NEED_IS(get(fs, ino, name, list, sizeof(list)), 7);
	NEED_IS(rp_fs_xattr_list(fs, ino, list, 255), -ERANGE);
	NEED_IS(rp_fs_xattr_list(fs, ino, list, 256), 256);
	NEED_IS(strcmp(list, name), 0);
	/* As many as a list can hold, and no more. */
	for (;;) {
		snprintf(name, sizeof(name), "user.%0200u", made);
		error = set(fs, ino, name, &made, sizeof(made), 0);
		if (error)
			break;
		made++;
	}
	NEED_IS(error, -ENOSPC);
	length = rp_fs_xattr_list(fs, ino, list, sizeof(list));
	NEED(length > 65536 - 256 && length <= 65536);
	NEED(made > 300);
	NS_CHECK(fs);
	for (unsigned i = 0; i < made; i++) {
		unsigned value;

		snprintf(name, sizeof(name), "user.%0200u", i);
		NEED_IS(get(fs, ino, name, &value, sizeof(value)), sizeof(value));
		NEED_IS(value, i);
		NEED_IS(rp_fs_xattr_remove(fs, ino, name), 0);
	}
	NS_CHECK(fs);
	/* A capability is known by a flag, and goes with a change of owner. */
	NEED_IS(set(fs, ino, "security.capability", "cap", 3, 0), 0);
	NEED(ns_attr(fs, ino).flags & RP_INODE_CAPABILITY);
	NEED_IS(rp_fs_setattr(fs, ino, RP_SET_UID, &(struct rp_attr){ .uid = 5 }, NULL), 0);
	NEED_IS(get(fs, ino, "security.capability", NULL, 0), -ENODATA);
	NS_CHECK(fs);
}

/* ---- ACLs --------------------------------------------------------------------------------------------------------- */

struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} entry[5];
};

static struct acl acl_make(unsigned user, unsigned named, unsigned group, unsigned mask, unsigned other)
{
	struct acl acl = { .version = 2, .entry = {
		{ 1, (uint16_t)user, UINT32_MAX }, { 2, (uint16_t)named, 1000 }, { 4, (uint16_t)group, UINT32_MAX },
		{ 16, (uint16_t)mask, UINT32_MAX }, { 32, (uint16_t)other, UINT32_MAX },
	} };

	return acl;
}

static void test_acl(struct rp_fs *fs)
{
	const char *access = "system.posix_acl_access", *by_default = "system.posix_acl_default";
	struct rp_cred cred = { .umask = 077, .fsetid = true };
	struct acl acl = acl_make(7, 6, 5, 4, 1), back, bad;
	uint32_t minimal[7] = { 2, 1 | 6 << 16, UINT32_MAX, 4 | 4 << 16, UINT32_MAX, 32 | 0 << 16, UINT32_MAX };
	struct rp_attr attr;
	rp_object dir, file;

	NEED_IS(ns_make(fs, rp_fs_root(fs), "acl", S_IFDIR | 0755, &dir), 0);
	NEED_IS(ns_make(fs, dir, "file", S_IFREG | 0644, &file), 0);
	NEED_IS(set(fs, file, by_default, &acl, sizeof(acl), 0), -EACCES);
	NEED_IS(set(fs, file, access, &acl, sizeof(acl) - 1, 0), -EINVAL);
	NEED_IS(set(fs, file, access, &acl, sizeof(acl) - 8, 0), -EINVAL);
	bad = acl;
	bad.entry[3].tag = 8;
	NEED_IS(set(fs, file, access, &bad, sizeof(bad), 0), -EINVAL);
	bad = acl;
	bad.version = 1;
	NEED_IS(set(fs, file, access, &bad, sizeof(bad), 0), -EOPNOTSUPP);
	NEED_IS(ns_attr(fs, file).mode, S_IFREG | 0644);
	/* The mask is what the group bits of the mode say. */
	NEED_IS(set(fs, file, access, &acl, sizeof(acl), 0), 0);
	NEED_IS(ns_attr(fs, file).mode, S_IFREG | 0741);
	NEED_IS(get(fs, file, access, &back, sizeof(back)), sizeof(back));
	NEED(memcmp(&back, &acl, sizeof(acl)) == 0);
	NEED_IS(rp_fs_setattr(fs, file, RP_SET_MODE, &(struct rp_attr){ .mode = 0620 }, NULL), 0);
	NEED_IS(get(fs, file, access, &back, sizeof(back)), sizeof(back));
	NEED_IS(back.entry[0].perm, 6);
	NEED_IS(back.entry[2].perm, 5);
	NEED_IS(back.entry[3].perm, 2);
	NEED_IS(back.entry[4].perm, 0);
	/* One that says no more than a mode is a mode. */
	NEED_IS(set(fs, file, access, minimal, sizeof(minimal), 0), 0);
	NEED_IS(ns_attr(fs, file).mode, S_IFREG | 0640);
	NEED_IS(get(fs, file, access, NULL, 0), -ENODATA);
	NEED_IS(rp_fs_xattr_remove(fs, file, access), 0);
	NS_CHECK(fs);
	/* Inheritance: the umask does not count, the mode asked for does. */
	NEED_IS(set(fs, dir, by_default, &acl, sizeof(acl), 0), 0);
	NEED_IS(rp_fs_make(fs, &cred, dir, rp_name_from("new"), S_IFREG | 0666, 0, NULL, false, &attr), 0);
	NEED_IS(attr.mode, S_IFREG | 0640);
	NEED_IS(get(fs, attr.ino, access, &back, sizeof(back)), sizeof(back));
	NEED_IS(back.entry[0].perm, 6);
	NEED_IS(back.entry[1].perm, 6);
	NEED_IS(back.entry[3].perm, 4);
	NEED_IS(back.entry[4].perm, 0);
	NEED_IS(get(fs, attr.ino, by_default, NULL, 0), -ENODATA);
	NEED_IS(rp_fs_make(fs, &cred, dir, rp_name_from("sub"), S_IFDIR | 0777, 0, NULL, false, &attr), 0);
	NEED_IS(get(fs, attr.ino, by_default, &back, sizeof(back)), sizeof(back));
	NEED(memcmp(&back, &acl, sizeof(acl)) == 0);
	NEED_IS(get(fs, attr.ino, access, NULL, 0), sizeof(back));
	NEED_IS(rp_fs_tmpfile(fs, &cred, dir, 0666, &attr), 0);
	NEED_IS(attr.mode, S_IFREG | 0640);
	NS_CHECK(fs);
	rp_fs_release(fs, attr.ino, 1);
	NEED_IS(rp_fs_xattr_remove(fs, dir, by_default), 0);
	NEED_IS(rp_fs_make(fs, &cred, dir, rp_name_from("plain"), S_IFREG | 0666, 0, NULL, false, &attr), 0);
	NEED_IS(attr.mode, S_IFREG | 0600);
	NS_CHECK(fs);
}

int main(void)
{
	struct rp_fs *fs = ns_open(64 << 20, 0, NULL);

	test_sizes(fs);
	test_names(fs);
	test_acl(fs);
	ns_close(fs);
	printf("xattr: pass\n");
	return 0;
}
