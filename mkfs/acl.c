/* acl.c: POSIX ACLs as the kernel keeps them in extended attributes (linux/posix_acl_xattr.h: version 2, then entries
 * of tag, permissions and id, little-endian, in the order of tags) and as libarchive holds them. */
#define _GNU_SOURCE
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "mkfs.h"

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

enum { ACL_VERSION = 2, ACL_NO_ID = 0xffffffff };
enum { TAG_USER_OBJ = 1, TAG_USER = 2, TAG_GROUP_OBJ = 4, TAG_GROUP = 8, TAG_MASK = 16, TAG_OTHER = 32 };

static const struct { uint16_t tag; int archive_tag; } tags[] = {
	{ TAG_USER_OBJ, ARCHIVE_ENTRY_ACL_USER_OBJ }, { TAG_USER, ARCHIVE_ENTRY_ACL_USER },
	{ TAG_GROUP_OBJ, ARCHIVE_ENTRY_ACL_GROUP_OBJ }, { TAG_GROUP, ARCHIVE_ENTRY_ACL_GROUP },
	{ TAG_MASK, ARCHIVE_ENTRY_ACL_MASK }, { TAG_OTHER, ARCHIVE_ENTRY_ACL_OTHER },
};
#define TAG_COUNT (sizeof(tags) / sizeof(*tags))

/* Of one user or group, whose number follows. */
static bool is_named(uint16_t tag) { return tag == TAG_USER || tag == TAG_GROUP; }

int rp_acl_to_entry(struct archive_entry *entry, bool is_default, const void *value, size_t size)
{
	int type = is_default ? ARCHIVE_ENTRY_ACL_TYPE_DEFAULT : ARCHIVE_ENTRY_ACL_TYPE_ACCESS;
	struct acl_entry one;
	uint32_t version;
	size_t at, i;
	int id;

	if (size < 4 || (size - 4) % sizeof(one))
		return -EINVAL;
	memcpy(&version, value, 4);
	if (version != ACL_VERSION)
		return -EINVAL;
	for (at = 4; at < size; at += sizeof(one)) {
		memcpy(&one, (const char *)value + at, sizeof(one));
		for (i = 0; i < TAG_COUNT && tags[i].tag != one.tag; i++)
			;
		if (i == TAG_COUNT || one.perm > 7)
			return -EINVAL;
		id = is_named(one.tag) ? (int)one.id : -1;
		if (archive_entry_acl_add_entry(entry, type, one.perm, tags[i].archive_tag, id, "") < ARCHIVE_WARN)
			return -ENOMEM;
	}
	return 0;
}

static int entry_compare(const void *a, const void *b)
{
	const struct acl_entry *x = a, *y = b;

	if (x->tag != y->tag)
		return x->tag < y->tag ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* An access ACL of nothing but the three classes says no more than the mode. */
static bool is_worth_keeping(const struct acl_entry *entries, size_t count, bool is_default)
{
	for (size_t i = 0; i < count; i++)
		if (is_default || is_named(entries[i].tag) || entries[i].tag == TAG_MASK)
			return true;
	return false;
}

int rp_acl_from_entry(struct archive_entry *entry, bool is_default, void **value, size_t *size)
{
	int want = is_default ? ARCHIVE_ENTRY_ACL_TYPE_DEFAULT : ARCHIVE_ENTRY_ACL_TYPE_ACCESS;
	int room = archive_entry_acl_reset(entry, want), type, perm, tag, id;
	uint32_t version = ACL_VERSION;
	struct acl_entry *entries;
	const char *name;
	size_t count = 0, i;

	*value = NULL;
	*size = 0;
	if (room <= 0)
		return 0;
	entries = calloc((size_t)room + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	while (count < (size_t)room &&
	       archive_entry_acl_next(entry, want, &type, &perm, &tag, &id, &name) == ARCHIVE_OK) {
		for (i = 0; i < TAG_COUNT && tags[i].archive_tag != tag; i++)
			;
		if (i == TAG_COUNT || (is_named(tags[i].tag) && id < 0)) {
			free(entries);
			return -EOPNOTSUPP;
		}
		entries[count].tag = tags[i].tag;
		entries[count].perm = perm & 7;
		entries[count++].id = is_named(tags[i].tag) ? (uint32_t)id : ACL_NO_ID;
	}
	if (!is_worth_keeping(entries, count, is_default)) {
		free(entries);
		return 0;
	}
	qsort(entries, count, sizeof(*entries), entry_compare);
	/* The version stands in front: the array has one entry's room more. */
	*size = 4 + count * sizeof(*entries);
	memmove((char *)entries + 4, entries, count * sizeof(*entries));
	memcpy(entries, &version, 4);
	*value = entries;
	return 0;
}
