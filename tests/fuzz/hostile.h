/* hostile.h: what the parts of test_hostile_files share: samples, changes, uses.
 *
 * A sample is an image that the real code made. A case copies one, changes it, and uses it in every way a program can. Only
 * the seed decides what a case does.
 */
#ifndef RP_TESTS_HOSTILE_H
#define RP_TESTS_HOSTILE_H

#include <rampool/fs.h>
#include "pool/image.h"
#include "tests/lib/random.h"

#define HOSTILE_PATH "/image"
#define HOSTILE_SIZE_MAX (16u << 20)

struct sample {
	uint8_t *bytes;
	size_t size;
	uint32_t *blocks;       /* where blocks begin, in the order of the file */
	unsigned block_count;
	uint8_t file_id[16];
};

/* ---- hostile_sample.c ---- */

enum { SAMPLE_MIXED, SAMPLE_NAMES, SAMPLE_DEEP, SAMPLE_ZSTD, SAMPLE_LZ4, SAMPLE_COUNT };

/* Everything a filesystem can hold; directories of one, two and three levels; each codec. Ends the program when it cannot. */
void sample_make(unsigned which, struct sample *out);
void sample_free(struct sample *sample);

/* ---- hostile_change.c, hostile_page.c ---- */

/* A changed copy in `to`, HOSTILE_SIZE_MAX bytes of room; its size. Checksums are right again but where the case is about
 * wrong ones. `other`: where foreign blocks come from. fan: nodes name the same child 512 times, on every level, so that files
 * seem to have 2^51 pages. */
size_t sample_change(const struct sample *sample, const struct sample *other, bool fan, uint64_t *random, uint8_t *to);
/* One change of a page of this kind. */
void page_change(const struct sample *sample, unsigned kind, uint64_t *page, uint64_t *random);
/* Numbers that are at the edge of something. */
uint64_t number_hostile(uint64_t *random, uint64_t old);
uint64_t entry_hostile(const struct sample *sample, uint64_t *random, uint64_t old);

/* ---- hostile_use.c ---- */

/* A call must give 0 or an error that means something to its caller. */
void hostile_expect(long result, const char *call);
/* Open, read, walk, change, commit, check. Ends the program with a line when something cannot be. */
void image_use(const void *bytes, size_t size, uint64_t seed);
/* Only what must take the time of the blocks that are there, not of the pages that they seem to be. */
void image_use_fan(const void *bytes, size_t size, uint64_t seed);
/* The same for an opened filesystem: walk, and change it when it is not read-only. */
void files_use(struct rp_fs *fs, uint64_t *random, bool read_only);

#endif
