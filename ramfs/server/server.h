/* server.h: what the `rampool` program asks of the FUSE server: mount, serve until the end, and the helper process. */
#ifndef RAMPOOL_SERVER_H
#define RAMPOOL_SERVER_H

#include <stdbool.h>
#include <rampool/keep.h>

enum rp_uring_choice { RP_URING_AUTO, RP_URING_ON, RP_URING_OFF };

struct rp_mount_options {
	struct rp_keep_options keep;
	char *mountpoint;         /* absolute, without symbolic links */
	char *source;             /* what /proc/mounts shows first; null: "rampool" */
	char *context;            /* "context=...,fscontext=..." for the kernel; null: none */
	unsigned long flags;      /* MS_* of mount(2) */
	bool allow_other;
	bool default_permissions; /* asked for: permissions are checked although only root may enter */
	bool foreground;
	bool nonempty;            /* the mount point may have entries */
	bool write_through;       /* no writeback cache in the kernel */
	bool no_xattr;
	bool debug;
	enum rp_uring_choice uring;
};

/* Mount and serve until the mount is gone, then save. Blocks; call with one thread only, signals as the program got
 * them. ready: descriptor that gets "R" when the mount answers, or "E" and one line when it cannot be; -1: none, errors
 * go to stderr. Returns the exit status: 0; 1: could not be mounted, or the last save failed. */
int rp_server_run(struct rp_mount_options *options, int ready);

/* Can this be mounted there? Looks only. 0, or -errno with one line in message. */
int rp_mount_check(const struct rp_mount_options *options, char message[512]);

/* Unmount from outside: umount2(2), or fusermount3 for an ordinary user. lazy: MNT_DETACH. */
int rp_mount_detach(const char *mountpoint, bool lazy);

/* Body of the helper process (`rampool flush`): flushes dirty pages of the mount when the server asks through the socket
 * at descriptor 3; ends with the server. oom_score_adj: what the server had before it protected itself. Returns the exit
 * status. */
int rp_flush_serve(const char *mountpoint, const char *oom_score_adj);

#endif
