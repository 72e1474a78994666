/* listen.h: the Unix sockets of a served disk. Each call returns an exit status, and has said in one line what failed. */
#ifndef RAMPOOL_COMMAND_LISTEN_H
#define RAMPOOL_COMMAND_LISTEN_H

/* Connect; -errno. */
int rp_listen_connect(const char *path);

/* A directory of our own for this socket: nobody else may put something in its place. */
int rp_listen_directory(const char *path);
/* Sockets of a server that was killed stay behind: they go; one that answers does not. */
int rp_listen_free(const char *path);

/* For a program that takes a socket which is made already: make it, 0600, as the descriptor that socket activation wants,
 * and say so in the environment of this process, which is to become that program. */
int rp_listen_inherit(const char *path);

/* For a program that makes its socket itself, with permissions that it chooses: it does so out of reach. */
struct rp_stage {
	char path[108];         /* where the program shall make its socket */
};
/* A new directory of mode 0700 beside `path`. */
int rp_stage_open(struct rp_stage *stage, const char *path);
/* The socket gets the mode 0600, then its name; the directory goes. */
int rp_stage_publish(struct rp_stage *stage, const char *path);
/* After a failure. Nothing when it was published. */
void rp_stage_close(struct rp_stage *stage);

#endif
