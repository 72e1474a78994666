/* acl.c: POSIX ACLs in the form the kernel passes them: a 32-bit version, then entries of tag, permissions and id.
 *
 * What Linux does for its own filesystems (fs/posix_acl.c: posix_acl_valid, posix_acl_equiv_mode, posix_acl_create_masq,
 * __posix_acl_chmod_masq), on the bytes themselves.
 */
#include <stdlib.h>
#include "internal.h"

#define ACL_VERSION 2u

enum acl_tag {
	ACL_USER_OBJ = 1, ACL_USER = 2, ACL_GROUP_OBJ = 4, ACL_GROUP = 8, ACL_MASK = 16, ACL_OTHER = 32,
};

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

static size_t acl_count(size_t size)
{
	return (size - 4) / sizeof(struct acl_entry);
}

static struct acl_entry acl_get(const void *acl, size_t i)
{
	struct acl_entry entry;

	memcpy(&entry, (const uint8_t *)acl + 4 + i * sizeof(entry), sizeof(entry));
	return entry;
}

static void acl_put(void *acl, size_t i, const struct acl_entry *entry)
{
	memcpy((uint8_t *)acl + 4 + i * sizeof(*entry), entry, sizeof(*entry));
}

/* Entries come in the order of their tags; exactly one each of owner, group and others; a mask when anyone is named. */
int rp_acl_check(const void *acl, size_t size)
{
	unsigned seen = 0, last = 0;
	uint32_t version;

	if (size < 4 || (size - 4) % sizeof(struct acl_entry))
		return -EINVAL;
	memcpy(&version, acl, 4);
	if (version != ACL_VERSION)
		return -EOPNOTSUPP;
	if (size == 4)
		return 0;
	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry entry = acl_get(acl, i);
		bool named = entry.tag == ACL_USER || entry.tag == ACL_GROUP;

		if (entry.perm > 7 || entry.tag > ACL_OTHER || __builtin_popcount(entry.tag) != 1 || entry.tag < last)
			return -EINVAL;
		if (named ? entry.id == UINT32_MAX : seen & entry.tag)
			return -EINVAL;
		seen |= entry.tag;
		last = entry.tag;
	}
	if ((seen & (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)) != (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER))
		return -EINVAL;
	return seen & (ACL_USER | ACL_GROUP) && !(seen & ACL_MASK) ? -EINVAL : 0;
}

bool rp_acl_to_mode(const void *acl, size_t size, uint32_t *mode)
{
	uint32_t bits = 0;
	bool alone = true;

	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry entry = acl_get(acl, i);

		switch (entry.tag) {
		case ACL_USER_OBJ:
			bits |= (uint32_t)entry.perm << 6;
			break;
		case ACL_GROUP_OBJ:
			bits |= (uint32_t)entry.perm << 3;
			break;
		case ACL_OTHER:
			bits |= entry.perm;
			break;
		case ACL_MASK:
			bits = (bits & ~(uint32_t)S_IRWXG) | (uint32_t)entry.perm << 3;
			alone = false;
			break;
		default:
			alone = false;
		}
	}
	*mode = (*mode & ~(uint32_t)0777) | bits;
	return alone;
}

/* Whose permissions the mode's group bits are: the mask's where there is one, else the owning group's. */
static size_t acl_group_entry(const void *acl, size_t size)
{
	size_t group = 0;

	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry entry = acl_get(acl, i);

		if (entry.tag == ACL_MASK)
			return i;
		if (entry.tag == ACL_GROUP_OBJ)
			group = i;
	}
	return group;
}

void rp_acl_chmod(void *acl, size_t size, uint32_t mode)
{
	size_t group = acl_group_entry(acl, size);

	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry entry = acl_get(acl, i);

		if (entry.tag == ACL_USER_OBJ)
			entry.perm = (mode >> 6) & 7;
		else if (i == group)
			entry.perm = (mode >> 3) & 7;
		else if (entry.tag == ACL_OTHER)
			entry.perm = mode & 7;
		acl_put(acl, i, &entry);
	}
}

bool rp_acl_create(void *acl, size_t size, uint32_t *mode)
{
	size_t group = acl_group_entry(acl, size);
	uint32_t bits = *mode & 0777;
	bool needed = false;

	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry entry = acl_get(acl, i);

		if (entry.tag == ACL_USER || entry.tag == ACL_GROUP || entry.tag == ACL_MASK)
			needed = true;
		if (entry.tag == ACL_USER_OBJ) {
			entry.perm &= (uint16_t)(bits >> 6);
			bits = (bits & ~(uint32_t)S_IRWXU) | (uint32_t)entry.perm << 6;
		} else if (entry.tag == ACL_OTHER) {
			entry.perm &= (uint16_t)(bits & 7);
			bits = (bits & ~(uint32_t)S_IRWXO) | entry.perm;
		} else if (i == group) {
			entry.perm &= (uint16_t)(bits >> 3 & 7);
			bits = (bits & ~(uint32_t)S_IRWXG) | (uint32_t)entry.perm << 3;
		}
		acl_put(acl, i, &entry);
	}
	*mode = (*mode & ~(uint32_t)0777) | bits;
	return needed;
}

/* ---- ACLs of inodes ------------------------------------------------------------------------------------------------------ */

/* Read one into memory of its own; *size 0: there is none. What an image says is checked as what a caller says. */
static int acl_load(struct rp_op *op, struct rp_fs *fs, const struct rp_record *record, const char *name, uint8_t **acl,
		    size_t *size)
{
	struct rp_name attribute = rp_name_from(name);
	int error;

	*acl = NULL;
	*size = 0;
	error = rp_xattr_read(op, fs, record, attribute, NULL, 0, size);
	if (error || *size == 0) {
		*size = 0;
		return error == -ENODATA ? 0 : error;
	}
	*acl = rp_fs_allocate(fs, *size);
	if (!*acl)
		return -ENOMEM;
	error = rp_xattr_read(op, fs, record, attribute, *acl, *size, size);
	if (!error && (rp_acl_check(*acl, *size) || *size == 4)) {
		rp_fs_log(fs, "an ACL that cannot be");
		error = -EIO;
	}
	if (error) {
		free(*acl);
		*acl = NULL;
	}
	return error;
}

int rp_acl_follow_mode(struct rp_op *op, struct rp_fs *fs, rp_object ino, const struct rp_record *record, uint32_t mode)
{
	uint8_t *acl;
	size_t size;
	int error;

	if (!(rp_record_inode(record)->flags & RP_INODE_ACL_ACCESS))
		return 0;
	error = acl_load(op, fs, record, RP_XATTR_ACL_ACCESS, &acl, &size);
	if (error || !acl)
		return error;
	rp_acl_chmod(acl, size, mode);
	error = rp_xattr_write(op, fs, ino, rp_name_from(RP_XATTR_ACL_ACCESS), acl, size, 0);
	free(acl);
	return error;
}

int rp_acl_inherit(struct rp_op *op, struct rp_fs *fs, const struct rp_record *dir, uint32_t umask, uint32_t *mode,
		   struct rp_acl_inherited *out)
{
	int error;

	memset(out, 0, sizeof(*out));
	if (S_ISLNK(*mode))
		return 0;
	if (rp_record_inode(dir)->flags & RP_INODE_ACL_DEFAULT) {
		error = acl_load(op, fs, dir, RP_XATTR_ACL_DEFAULT, &out->acl, &out->size);
		if (error)
			return error;
	}
	if (!out->acl) {
		*mode &= ~(umask & 0777);
		return 0;
	}
	out->access = rp_fs_allocate(fs, out->size);
	if (!out->access) {
		rp_acl_inherited_free(out);
		return -ENOMEM;
	}
	memcpy(out->access, out->acl, out->size);
	if (!rp_acl_create(out->access, out->size, mode)) {
		free(out->access);
		out->access = NULL;
	}
	return 0;
}

int rp_acl_inherit_store(struct rp_op *op, struct rp_fs *fs, rp_object ino, uint32_t mode, const struct rp_acl_inherited *from)
{
	int error = 0;

	if (from->access)
		error = rp_xattr_write(op, fs, ino, rp_name_from(RP_XATTR_ACL_ACCESS), from->access, from->size, 0);
	if (!error && from->acl && S_ISDIR(mode))
		error = rp_xattr_write(op, fs, ino, rp_name_from(RP_XATTR_ACL_DEFAULT), from->acl, from->size, 0);
	return error;
}

void rp_acl_inherited_free(struct rp_acl_inherited *inherited)
{
	free(inherited->acl);
	free(inherited->access);
	memset(inherited, 0, sizeof(*inherited));
}
