/* place.h: where a page with entries stands.
 *
 * A page of an object may be named in many places: copies share it. A node, a page of the object table and one of the catalog
 * never are: whatever tree it is reached in, a node holds the same pages of the same object, because nodes are not shared
 * between objects, and a map that gets higher or lower keeps its nodes at its beginning. So a file in which one is named twice was
 * made to do harm. With each node naming one child 512 times, six blocks claim 2^62 bytes, and whoever walks through them
 * does not end. Where a block that was read in stands is remembered, as a number; when it is met elsewhere it is damaged
 * there, and every walk is bounded by what the file really holds.
 */
#ifndef RP_POOL_PLACE_H
#define RP_POOL_PLACE_H

#include <rampool/pool.h>

#define RP_PLACE_BITS 23

/* A page in some tree: its kind, the kind of its map's pages, whose map it is (0: the object table or the catalog), and the
 * first page of the map that is under it. */
struct rp_spot {
	unsigned kind, leaf;
	rp_object object;
	rp_page page;
};

/* Never 0 but for pages of objects, which may stand anywhere. Two places have the same number once in 2^23: so a file may get
 * away with it here and there, and its walks stay short. */
static inline uint32_t rp_place(unsigned kind, unsigned leaf, rp_object object, rp_page page)
{
	unsigned level = kind >= RP_KIND_NODE ? kind - RP_KIND_NODE + 1 : 0;
	uint64_t h = leaf == RP_KIND_TABLE || leaf == RP_KIND_CATALOG ? leaf : object << 3;

	if (kind == RP_KIND_DATA || kind == RP_KIND_META)
		return 0;
	h = (h << 3 | level) * UINT64_C(0x9e3779b97f4a7c15);
	h = (h ^ h >> 32 ^ page >> (RP_NODE_SHIFT * level)) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 29) * UINT64_C(0x94d049bb133111eb);
	h >>= 64 - RP_PLACE_BITS;
	return h ? (uint32_t)h : 1;
}

static inline uint32_t rp_spot_place(const struct rp_spot *spot)
{
	return rp_place(spot->kind, spot->leaf, spot->object, spot->page);
}

#endif
