/* options.h: reading the options of `rampool mount`. */
#ifndef RAMPOOL_COMMAND_OPTIONS_H
#define RAMPOOL_COMMAND_OPTIONS_H

#include "ramfs/server/server.h"

/* Take the options of one -o. 0, or -errno with one line in message. */
int rp_mount_options_take(struct rp_mount_options *options, const char *text, char message[512]);
/* The next of options that commas divide; a backslash takes what follows as it is. Changes the text. Null: no more. */
char *rp_option_next(char **rest);
void rp_mount_options_free(struct rp_mount_options *options);

#endif
