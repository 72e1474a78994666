/* difftest.h: the same random system calls on two directory trees, compared call by call.
 *
 * Two worker processes, one chrooted into each tree, run the same generator from the same seed: what call number i does
 * depends only on the seed, i, and results that must be equal anyway. Each worker turns every call and its result into
 * one line of text ("record"); the parent reads both streams and stops at the first pair that differs and may not.
 * Because each call has its own random stream, calls can be left out without changing the others: that is how a failing
 * run is shrunk.
 *
 * Not here: full disks, crashes, concurrency. Two processes never work in one tree.
 */
#ifndef DIFFTEST_H
#define DIFFTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define SLOT_COUNT 20
#define RECORD_MAX 65536
#define CALL_DATA_MAX (1u << 20)
#define FD_CLOSED 999           /* a descriptor number that is never open */

/* A difference that is allowed. Where `call` is null, `field` is something that is not printed at all; elsewhere the
 * record of that call may have these two results (a prefix of what follows " = "). */
enum field {
	FIELD_NONE,
	FIELD_BLOCKS,
	FIELD_DIR_SIZE,
	FIELD_INODE_NUMBER,
	FIELD_EMULATE_ZERO_RANGE,
	FIELD_MMAP_TIMES,
	FIELD_SEEK_GRANULARITY,
	FIELD_INODE_FLAGS,
	FIELD_UNSYNCED,
	FIELD_SGID_WITHOUT_X,
	FIELD_CHOWN_OF_NOTHING,
	FIELD_SEND_TO_ITSELF,
	FIELD_LOST_NAMES,
	FIELD_TMPFILE_IN_REMOVED,
	FIELD_TRUNCATE_TO_SAME,
	FIELD_STICKY_FOR_ROOT,
};
struct allowed {
	enum field field;
	const char *call;
	const char *reference;
	const char *subject;
	const char *reason;
};
extern const struct allowed allowed_differences[];
bool is_allowed(const char *reference, const char *subject);

struct slot {
	int fd;                 /* FD_CLOSED: none */
	mode_t type;            /* S_IFMT bits */
	int flags;              /* as opened */
};

struct watch {
	bool found;
	struct timespec ctime;
	int fd;                 /* -1: path */
	char path[6200];
};

struct world {
	uint64_t seed;
	uint64_t random;        /* state of this call's stream */
	uint64_t call;
	bool strict;            /* compare even the fields of the table of allowed differences */
	bool reference;
	bool stays_root;        /* in trees that only root may enter */
	mode_t umask;
	bool timed;             /* this call says whether the change times moved */
	int pipe;               /* records go here */
	int64_t start_sec;
	struct slot slots[SLOT_COUNT];
	struct watch watches[2];
	unsigned watch_count;
	char paths[4][6200];
	unsigned path_next;
	uint8_t *data;          /* CALL_DATA_MAX bytes for reads and writes */
	char *record;
	size_t record_length;
};

struct call {
	const char *name;
	unsigned weight;
	void (*run)(struct world *w);
};
extern const struct call file_calls[], name_calls[], attribute_calls[]; /* each ends with a null name */

/* world.c: random choices */
uint64_t any(struct world *w);
unsigned below(struct world *w, unsigned n);
bool one_in(struct world *w, unsigned n);
const char *any_path(struct world *w);
mode_t any_sticky(const struct world *w, mode_t mode); /* the mode, with the sticky bit if it may be there */
int any_dirfd(struct world *w);             /* AT_FDCWD or a slot; prints it */
const char *any_name(struct world *w);
mode_t any_mode(struct world *w, mode_t usual);
int64_t any_offset(struct world *w);
size_t any_length(struct world *w);
struct slot *any_slot(struct world *w, mode_t type); /* type 0: any; prints it */
void fill(struct world *w, size_t length);
struct timespec any_time(struct world *w);
bool compares(const struct world *w, enum field field);

/* world.c: the record */
void say(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say_bytes(struct world *w, const char *bytes);
void say_data(struct world *w, const void *bytes, size_t length);
void say_stat(struct world *w, const struct stat *st);
void done(struct world *w, long result);    /* " = 5" or " = -ENOENT" (errno) */
void record_end(struct world *w);
void watch_path(struct world *w, const char *path); /* before the call: what to show behind it */
void watch_fd(struct world *w, int fd);
void show(struct world *w);                 /* after the call: stat of what is watched */
void put_slot(struct world *w, int fd, int flags);
uint64_t hash(const void *bytes, size_t length, uint64_t start);
void become(unsigned user);                 /* 0: root; 1, 2: unprivileged */

/* walk.c */
void walk(struct world *w);                 /* a record for each file of the tree */
void remove_below(const char *path);        /* everything under it, in the order of names */

#endif
