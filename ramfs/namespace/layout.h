/* layout.h: the pages of directories and of attribute holders, byte by byte. DESIGN.md tells the same in words.
 *
 * Part of what images hold, as format.h is: never changed without a feature word.
 */
#ifndef RAMPOOL_NAMESPACE_LAYOUT_H
#define RAMPOOL_NAMESPACE_LAYOUT_H

#include <rampool/format.h>

/* A page of an index (a B+tree over the pages of one object). Level 0 is a leaf: behind the head stand `count` 16-bit
 * offsets of cells, in the order of their keys; the cells fill the page from its end downwards. Higher levels: behind the
 * head stand `count` links in the order of their keys. */
#define RP_INDEX_MAGIC 0x58495052u
#define RP_INDEX_LEVELS 8u      /* a leaf and at most seven levels above it */

struct rp_index_head {
	uint32_t magic;         /* RP_INDEX_MAGIC */
	uint8_t level;
	uint8_t reserved;
	uint16_t count;         /* cells or links, at least 1 */
	uint16_t low;           /* leaf: no cell begins below this offset; else 0 */
	uint16_t used;          /* leaf: bytes of all cells; else 0 */
	uint32_t reserved2;
	uint64_t object;        /* whose page this is */
	uint64_t reserved3;
};
static_assert(sizeof(struct rp_index_head) == 32, "the head of an index page is 32 bytes");

/* The child covers keys from its link's key up to the next link's, the last one up to the page's own upper bound; the first
 * one from the page's own lower bound, wherever within its range the first link's key is. */
struct rp_index_link {
	uint64_t key;
	uint64_t page;
};
static_assert(sizeof(struct rp_index_link) == 16, "a link is 16 bytes");

/* A cell: these 20 bytes, then the name, then the data. Not aligned. */
struct rp_index_cell {
	uint64_t key;           /* hash of the name (55 bits, neither all 0 nor all 1) << 8 | number among names of that hash */
	uint64_t ref;           /* directory: the inode; attribute: the object that holds the value, 0: `data` is the value */
	uint16_t data_length;   /* directory: 0 */
	uint8_t kind;           /* directory: the type as in st_mode >> 12; attribute: 0 */
	uint8_t name_length;    /* 1 .. 255 */
} __attribute__((packed));
static_assert(sizeof(struct rp_index_cell) == 20, "a cell begins with 20 bytes");

#define RP_INDEX_ROOM (RP_PAGE_SIZE - (unsigned)sizeof(struct rp_index_head))
#define RP_INDEX_LINKS (RP_INDEX_ROOM / (unsigned)sizeof(struct rp_index_link))
#define RP_INDEX_DATA_MAX 512u  /* a longer attribute value stands in an object of its own */

#define RP_SYMLINK_MAX 4095u

#endif
