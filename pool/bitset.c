/* bitset.c: a set of small numbers as a 64-ary tree of bits: a bit on level k + 1 says that a word of level k has one.
 * Add, remove and first take as many steps as there are levels: three for an arena of half a TiB. */
#include <stdlib.h>
#include <sys/mman.h>
#include "internal.h"

static size_t level_words(uint64_t size) { return (size + 63) / 64; }

int rp_bitset_init(struct rp_bitset *set, uint64_t size)
{
	memset(set, 0, sizeof(*set));
	set->size = size;
	for (uint64_t n = size;;) {
		size_t words = level_words(n);
		/* Sparse: most of an arena's address space is never used. */
		void *memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (memory == MAP_FAILED) {
			rp_bitset_free(set);
			return -ENOMEM;
		}
		set->level[set->levels++] = memory;
		if (words == 1)
			return 0;
		n = words;
	}
}

void rp_bitset_free(struct rp_bitset *set)
{
	uint64_t n = set->size;

	for (unsigned i = 0; i < set->levels; i++) {
		size_t words = level_words(n);

		munmap(set->level[i], words * 8);
		n = words;
	}
	set->levels = 0;
}

bool rp_bitset_has(const struct rp_bitset *set, uint64_t i)
{
	return set->level[0][i / 64] >> (i % 64) & 1;
}

void rp_bitset_add(struct rp_bitset *set, uint64_t i)
{
	if (rp_bitset_has(set, i))
		return;
	set->count++;
	for (unsigned l = 0; l < set->levels; l++, i /= 64) {
		uint64_t *word = &set->level[l][i / 64];
		bool was_empty = *word == 0;

		*word |= UINT64_C(1) << (i % 64);
		if (!was_empty)
			return;
	}
}

void rp_bitset_remove(struct rp_bitset *set, uint64_t i)
{
	if (!rp_bitset_has(set, i))
		return;
	set->count--;
	for (unsigned l = 0; l < set->levels; l++, i /= 64) {
		uint64_t *word = &set->level[l][i / 64];

		*word &= ~(UINT64_C(1) << (i % 64));
		if (*word)
			return;
	}
}

uint64_t rp_bitset_first(const struct rp_bitset *set)
{
	uint64_t i = 0;

	if (set->count == 0)
		return UINT64_MAX;
	for (unsigned l = set->levels; l-- > 0;)
		i = i * 64 + (unsigned)__builtin_ctzll(set->level[l][i]);
	return i;
}
