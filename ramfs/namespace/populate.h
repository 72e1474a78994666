/* populate.h: what the two files that copy a tree of the host share. */
#ifndef RAMPOOL_NAMESPACE_POPULATE_H
#define RAMPOOL_NAMESPACE_POPULATE_H

#include "internal.h"

struct rp_populate_links;

struct rp_populating {
	struct rp_fs *fs;
	struct rp_populate *populate;
	dev_t device;                       /* of the source's root: no other is entered */
	struct rp_populate_links *links;    /* inodes of the host with several names, and what they became */
	uint8_t *buffer;                    /* RP_BYTES_PER_OP bytes */
	char *names;                        /* RP_XATTR_LIST_MAX bytes, for lists of attributes */
};

/* Write the message: what went wrong with `name` in the directory at hand. Returns error. */
int rp_populate_failed(struct rp_populating *p, const char *what, const char *name, int error);
/* Attributes and, last, owner, mode and times of an inode made from name in the directory `dir`. */
int rp_populate_attributes(struct rp_populating *p, int dir, const char *name, const struct stat *st, rp_object ino);
/* Contents of a regular file. */
int rp_populate_contents(struct rp_populating *p, int dir, const char *name, const struct stat *st, rp_object ino);

#endif
