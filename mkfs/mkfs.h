/* mkfs.h: what mkfs.rampool, fsck.rampool and dump.rampool share. They use the public headers only. */
#ifndef MKFS_H
#define MKFS_H

#include <stdarg.h>
#include <stdio.h>
#include <rampool/fs.h>
#include <rampool/image.h>
#include <rampool/keep.h>

#ifndef RP_VERSION
#define RP_VERSION "unknown"
#endif

/* ---- say.c: messages and progress -------------------------------------------------------------------------------- */

/* "program: text" on stderr, one line. */
void rp_say(const char *program, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "Input/output error" and such, for 0 or -errno. */
const char *rp_error_text(int error);
/* Bytes of a name as they may go to a terminal: control characters, backslashes and what is no ASCII as \xNN unless the
 * whole is valid UTF-8. to has room for 4 * length + 1. */
char *rp_name_print(const char *name, size_t length, char *to);

/* A bar on a terminal, nothing elsewhere. */
struct rp_meter {
	const char *what;
	bool on;
	uint64_t started_ms, shown_ms;
};
void rp_meter_start(struct rp_meter *meter, const char *what, bool on);
void rp_meter_show(struct rp_meter *meter, uint64_t done, uint64_t total); /* total 0: unknown */
void rp_meter_end(struct rp_meter *meter);

/* ---- from_tar.c, from_disk.c: filling a fresh filesystem --------------------------------------------------------- */

/* All return 0 or -errno with one line in message. */
struct rp_filling {
	struct rp_fs *fs;
	struct rp_meter *meter;
	uint64_t byte_count;
	char message[512];
};
/* Everything an archive holds, in any format and compression libarchive reads. path "-": standard input. */
int rp_fill_from_tar(struct rp_filling *filling, const char *path);
/* A raw disk image or block device, or anything qemu-img reads, as the file "disk". For the latter a sparse temporary
 * file is made in the folder of `beside`. */
int rp_fill_from_disk(struct rp_filling *filling, const char *path, const char *beside);

/* ---- acl.c: POSIX ACLs between extended attributes and archive entries ------------------------------------------- */

struct archive_entry;
/* The attribute's value (system.posix_acl_access or _default) into the entry. -EINVAL: malformed. */
int rp_acl_to_entry(struct archive_entry *entry, bool is_default, const void *value, size_t size);
/* The entry's ACL as an attribute value, malloc'd; *size 0 and null: it has none. -EOPNOTSUPP: no numbers. */
int rp_acl_from_entry(struct archive_entry *entry, bool is_default, void **value, size_t *size);

/* ---- view.c: looking at an image without mounting it ------------------------------------------------------------- */

struct rp_view {
	const char *program;
	struct rp_pool *pool;
	struct rp_image *image;
	struct rp_snapshot *snapshot;
	struct rp_fs *fs;
};
/* The newest commit, or `generation`, or the snapshot of that name in it (null: the live tree). Read-only. Says what is
 * wrong by itself. */
int rp_view_open(struct rp_view *view, const char *program, const char *path, uint64_t generation, const char *snapshot,
                 bool any_owner);
void rp_view_close(struct rp_view *view);

/* Each name below a directory, itself first, in the order of the directory. A directory that is not where its own ".."
 * leads to is reported, and not entered: no damaged image leads in circles. `path` has no leading or trailing slash.
 * A nonzero return of `each` ends the walk and is returned. */
struct rp_walk {
	struct rp_view *view;
	bool recursive;         /* false: a directory's own names only */
	unsigned faults;        /* what was reported and left out */
	int (*each)(void *context, const char *path, const struct rp_attr *attr);
	void *context;
};
int rp_walk_tree(struct rp_walk *walk, const char *path, const struct rp_attr *start);

/* ---- to_tar.c ---------------------------------------------------------------------------------------------------- */

/* The tree or file at `path` as a pax archive. output null: standard output. */
int rp_dump_tar(struct rp_view *view, const char *path, const char *output);
/* ---- list.c ------------------------------------------------------------------------------------------------------ */
int rp_dump_ls(struct rp_view *view, const char *path, bool is_long, bool recursive);
int rp_dump_cat(struct rp_view *view, const char *path, const char *output);

#endif
