/* disk.h: a simulated disk with files and one directory, behind struct rp_io.
 *
 * It remembers what is durable and, in order, every write, truncation and change of a name that no successful sync covers
 * yet. disk_crash() makes the disk that a power failure at this moment might leave: each pending write is kept, dropped,
 * torn between or inside sectors, turned to zeroes or to garbage (whole sectors then), and they reach the disk in any
 * order; each pending name change is kept or not. A sync that fails settles what was pending the same way and forgets it:
 * the next sync succeeds and proves nothing, as on real systems; what is read back may be either.
 */
#ifndef RP_TESTS_DISK_H
#define RP_TESTS_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <rampool/image.h>

enum disk_operation { DISK_OPEN, DISK_READ, DISK_WRITE, DISK_SYNC, DISK_TRUNCATE, DISK_RENAME, DISK_UNLINK, DISK_SYNC_DIRECTORY };

struct disk;

/* Makes operations fail. Counted are operations whose bit is in `kinds`. */
struct disk_fault {
	unsigned kinds;           /* bits 1 << enum disk_operation; 0: none fails */
	uint64_t after;           /* so many succeed first */
	bool for_ever;            /* else once */
	int error;                /* -EIO, -ENOSPC, -EINTR, ...; 0: nothing but short counts */
};

struct disk *disk_new(uint64_t seed);
void disk_free(struct disk *disk);
const struct rp_io *disk_io(struct disk *disk);

void disk_fault_set(struct disk *disk, const struct disk_fault *fault); /* null: none */
bool disk_fault_fired(const struct disk *disk);
uint64_t disk_operation_count(const struct disk *disk);
/* Counts of reads and writes are short now and then. */
void disk_short_set(struct disk *disk, bool on);
/* Called before each operation that changes something, from the thread that does it. The disk may be crashed
 * from inside, not used. */
void disk_watch(struct disk *disk, void (*before)(void *context, enum disk_operation operation), void *context);

/* What a power failure now might leave. Everything in it is durable. */
struct disk *disk_crash(struct disk *disk, uint64_t seed);
/* What stands in a file as a process sees it: bytes that belong to the disk, or null. */
uint8_t *disk_bytes(struct disk *disk, const char *path, size_t *size);
/* Put a file there, durable. */
void disk_file_set(struct disk *disk, const char *path, const void *bytes, size_t size);
bool disk_exists(struct disk *disk, const char *path);
unsigned disk_file_count(struct disk *disk);

#endif
