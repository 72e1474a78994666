/* run.h: running other programs, and where sockets of served disks live. */
#ifndef RAMPOOL_COMMAND_RUN_H
#define RAMPOOL_COMMAND_RUN_H

#include <stddef.h>

#define RP_OUTPUT_SIZE 4096

/* Run a program that is found in PATH or a directory of system programs, with standard input from nowhere, and wait for
 * its end. What it said goes to output, cut to RP_OUTPUT_SIZE; processes that it leaves behind may keep the other end
 * open. Returns its exit status (128 and more: by a signal), -ENOENT when there is no such program, or -errno. */
int rp_program_run(char *const arguments[], char output[RP_OUTPUT_SIZE]);
/* Become the program. Returns only when that fails: -errno. */
int rp_program_become(char *const arguments[]);
/* The first line of the output, without "PROGRAM: error: " and the like. Changes the output. */
char *rp_program_line(char output[RP_OUTPUT_SIZE]);

/* A list of arguments that grows; ends with a null. */
struct rp_arguments {
	char **list;
	size_t count, space;
	int error;              /* -ENOMEM: sticks */
};

void rp_arguments_add(struct rp_arguments *arguments, const char *format, ...) __attribute__((format(printf, 2, 3)));
void rp_arguments_free(struct rp_arguments *arguments);

/* Where what is served under this name has its files: /run/rampool/NAME.SUFFIX and the like. The directory is not
 * made. -EINVAL: no name for a file; -ENAMETOOLONG. */
int rp_runtime_path(const char *name, const char *suffix, char to[4096]);

#endif
