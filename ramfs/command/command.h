/* command.h: what the files of the `rampool` program share. */
#ifndef RAMPOOL_COMMAND_H
#define RAMPOOL_COMMAND_H

#include <rampool/keep.h>

/* Exit statuses. */
enum { RP_EXIT_OK = 0, RP_EXIT_FAILED = 1, RP_EXIT_USAGE = 2 };

/* Each runs one command; arguments[0] is its name. Returns the exit status. */
int rp_command_mount(int count, char **arguments);
int rp_command_umount(int count, char **arguments);
int rp_command_flush(int count, char **arguments);
int rp_command_serve(int count, char **arguments);
int rp_command_stop(int count, char **arguments);
int rp_command_attach(int count, char **arguments);
int rp_command_detach(int count, char **arguments);
int rp_command_call(int count, char **arguments); /* everything a control socket answers */

/* Called as mount(8)'s helper: SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]. */
int rp_command_mount_helper(int count, char **arguments);

void rp_mount_help(FILE *to);

/* One line on standard error, "rampool: ..."; returns the status. */
int rp_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
