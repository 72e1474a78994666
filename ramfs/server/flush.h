/* flush.h: what the server and its helper processes say to each other, over a SOCK_SEQPACKET socket. */
#ifndef RAMPOOL_SERVER_FLUSH_H
#define RAMPOOL_SERVER_FLUSH_H

#include <stdint.h>

#define RP_FLUSH_FD 3             /* the helper's end */

enum rp_flush_what {
	RP_FLUSH_ALL = 1,         /* have all dirty pages of the mount written: submitted, not waited for */
	RP_FLUSH_FILE = 2,        /* have one file's written, and wait for it */
	RP_FLUSH_DETACH = 3,      /* as ALL, then take the mount out of the tree, then as ALL */
};

struct rp_flush_ask {
	uint32_t what;
	uint32_t sequence;
	uint64_t device;          /* the mount's: another at that path is left alone */
	uint64_t number;          /* of the file: node and generation, as in a file handle */
	uint32_t generation;
	uint32_t reserved;
};

struct rp_flush_answer {
	uint32_t sequence;
	int32_t error;            /* 0 or -errno; -EPERM: this process may not open files by number */
};

#endif
