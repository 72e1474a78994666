/* allowed.c: every difference between tmpfs and a rampool mount that is no fault, with the reason. */
#include <stdlib.h>
#include <string.h>
#include "difftest.h"

const struct allowed allowed_differences[] = {
	{ FIELD_BLOCKS, NULL, NULL, NULL,
	  "st_blocks: copies share pages, and reading a hole through a mapping gives tmpfs a page but not rampool" },
	{ FIELD_DIR_SIZE, NULL, NULL, NULL,
	  "size of a directory: tmpfs counts 20 a name, rampool the bytes of the directory's pages" },
	{ FIELD_INODE_NUMBER, NULL, NULL, NULL,
	  "inode numbers: any number will do; that links share one is compared" },
	{ FIELD_EMULATE_ZERO_RANGE, NULL, NULL, NULL,
	  "fallocate ZERO_RANGE: tmpfs has none; there it is made of PUNCH_HOLE and ftruncate" },
	{ FIELD_MMAP_TIMES, NULL, NULL, NULL,
	  "mtime after a store through a mapping: tmpfs is not told of the store; times are set behind it" },
	{ FIELD_SEEK_GRANULARITY, NULL, NULL, NULL,
	  "SEEK_HOLE, SEEK_DATA: where a hole is may differ (copies share holes, allocated pages count as data); "
	  "that what is told to be a hole holds zeroes only is checked in both" },
	{ FIELD_INODE_FLAGS, NULL, NULL, NULL,
	  "FS_IOC_GETFLAGS: tmpfs keeps inode flags, rampool has none" },
	{ FIELD_UNSYNCED, NULL, NULL, NULL,
	  "statx with AT_STATX_DONT_SYNC: the kernel answers from what it keeps, without a birth time; that is what the "
	  "flag is for" },
	{ FIELD_SGID_WITHOUT_X, NULL, NULL, NULL,
	  "set-group-ID of a file without group execution, which means nothing: when a stranger writes, Linux clears it "
	  "by itself since 6.2, and FUSE's KILLPRIV_V2 asks to clear it with group execution only" },
	{ FIELD_CHOWN_OF_NOTHING, NULL, NULL, NULL,
	  "chown to -1, -1 clears set-user-ID elsewhere; FUSE does not tell the server of it, so it is not called" },
	{ FIELD_SEND_TO_ITSELF, NULL, NULL, NULL,
	  "sendfile and splice from a file to itself: pages are passed on by reference while they are written, so what "
	  "arrives depends on sizes and times within the kernel; not called" },
	{ FIELD_LOST_NAMES, NULL, NULL, NULL,
	  "names while a directory changes: tmpfs leaves out names that were there all the time when others come "
	  "and go between two parts of a listing; the subject must show them all" },
	{ FIELD_TRUNCATE_TO_SAME, NULL, NULL, NULL,
	  "truncate(2) to the size that a file has: tmpfs changes mtime if pages are allocated, and not otherwise; "
	  "not called" },
	{ FIELD_STICKY_FOR_ROOT, NULL, NULL, NULL,
	  "sticky bits where only root may enter: the kernel stores them and otherwise overlooks them, as it does for every "
	  "FUSE filesystem without default_permissions, so its rules against files and links that others left in such a "
	  "directory (fs.protected_*) do not hold; with --root there are none" },
	{ FIELD_TMPFILE_IN_REMOVED, NULL, NULL, NULL,
	  "O_TMPFILE in a directory that was removed and is still somebody's: tmpfs makes the file, rampool says ENOENT as "
	  "for every other name in it; not called" },
	{ 0 },
};

static const char *result_of(const char *record)
{
	const char *at = strstr(record, " = ");

	return at ? at + 3 : "";
}

bool is_allowed(const char *reference, const char *subject)
{
	const char *name = strchr(reference, ' ');
	const struct allowed *a;

	if (!name)
		return false;
	for (a = allowed_differences; a->reason; a++) {
		if (!a->call || strncmp(name + 1, a->call, strlen(a->call)) || name[1 + strlen(a->call)] != '(')
			continue;
		if (!strncmp(result_of(reference), a->reference, strlen(a->reference)) &&
		    !strncmp(result_of(subject), a->subject, strlen(a->subject)))
			return true;
	}
	return false;
}
