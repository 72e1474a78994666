/* image.h: what the files of the image half of pool/ share: blocks, superblocks, the store, walking of trees on disk.
 *
 * Bottom up: block.c turns a page into checked bytes and back; super.c the same for superblocks; store.c is one open
 * image file with its append buffer and its two barriers (it knows blocks, not frames); everything above it walks trees.
 * pool/FORMAT.md says the same as the structs below, byte by byte.
 */
#ifndef RP_POOL_IMAGE_H
#define RP_POOL_IMAGE_H

#include <pthread.h>
#include <rampool/image.h>

/* ---- Layout ------------------------------------------------------------------------------------------------------- */

#define RP_ADDR_SHIFT 6
#define RP_ADDR_UNIT (1u << RP_ADDR_SHIFT)
#define RP_ADDR_MAX RP_ENTRY_ADDR_MASK

/* An address that names no block: a page all zero. It lies in the first superblock slot, so no block can have it. */
#define RP_ADDR_ZERO ((rp_addr)1)

#define RP_SUPER_SLOT_SIZE 4096u    /* a slot is a whole page of the file: writing one never rewrites the other's sectors */
#define RP_SUPER_SLOTS 2u
#define RP_SUPER_SIZE 1024u
#define RP_SUPER_COPIES 2u    /* in each slot: at its begin and in its middle, so that one bad sector spoils no slot */
#define RP_SUPER_STRIDE (RP_SUPER_SLOT_SIZE / RP_SUPER_COPIES)
#define RP_BLOCKS_START (RP_SUPER_SLOT_SIZE * RP_SUPER_SLOTS)
#define RP_COMMIT_ALIGN 4096u /* a commit never shares a sector with what an earlier one wrote */

static inline uint64_t rp_addr_offset(rp_addr a) { return a << RP_ADDR_SHIFT; }

/* ---- Blocks ------------------------------------------------------------------------------------------------------- */

struct rp_block_header {
	uint64_t checksum;     /* XXH3-64 of all that follows, payload included; seed: rp_block_seed() */
	uint32_t magic;        /* RP_BLOCK_MAGIC */
	uint8_t kind;          /* enum rp_kind */
	uint8_t codec;         /* enum rp_codec */
	uint16_t reserved;
	uint32_t stored_bytes; /* of the payload, which follows the header at once */
	uint32_t raw_bytes;    /* of the page: RP_PAGE_SIZE */
	uint64_t birth;        /* the epoch the page was born in */
	uint64_t address;      /* its own */
};
static_assert(sizeof(struct rp_block_header) == 40, "no padding");
#define RP_BLOCK_MAGIC 0x6b425052u /* "RPBk" */
#define RP_BLOCK_MAX (((uint32_t)sizeof(struct rp_block_header) + RP_PAGE_SIZE + RP_ADDR_UNIT - 1) & ~(RP_ADDR_UNIT - 1))

/* What compresses and what decompresses; each used by one thread at a time. Made lazily, freed with rp_codec_state_free(). */
struct rp_codec_state {
	void *zstd_compressor;
	void *zstd_decompressor;
	void *lz4_state;
};
void rp_codec_state_free(struct rp_codec_state *state);

struct rp_block_info {
	unsigned kind;
	unsigned codec;
	uint32_t stored_bytes; /* in the file: header, payload and padding */
	uint64_t birth;
};

bool rp_page_is_zero(const void *page);

/* Encode a page into `to`, RP_BLOCK_MAX bytes of room. Raw when compressing saves no unit. *size: a multiple of
 * RP_ADDR_UNIT, the padding zeroed. returns 0; -ENOMEM. */
int rp_block_encode(struct rp_codec_state *state, enum rp_codec codec, const uint8_t file_id[16], rp_addr address,
                    unsigned kind, uint64_t birth, const void *page, void *to, uint32_t *size);

/* Decode what stands at `address` into a page. kind 0: any. `available` bytes are at `from`.
 * returns 0; -EIO with *why a constant text; -ENOMEM. */
int rp_block_decode(struct rp_codec_state *state, const uint8_t file_id[16], rp_addr address, unsigned kind,
                    const void *from, size_t available, void *page, struct rp_block_info *info, const char **why);

/* The payload of a block of kind RP_KIND_ROOT: one commit. The rest of the page is zero. */
struct rp_root {
	rp_entry table;           /* of the object table; never a hole */
	rp_entry catalog;         /* of the catalog of snapshots; 0: no snapshots */
	uint64_t epoch;           /* the pool's when the commit was taken */
	uint64_t generation;
	int64_t sec;
	uint32_t nsec;
	uint32_t flags;           /* enum rp_root_flag */
	rp_addr previous;         /* root block of the commit before; 0: none */
	uint64_t start;           /* file offset where this commit's blocks begin */
	uint64_t page_count;      /* distinct blocks reachable from this commit: frames it takes to bring all in */
	uint64_t live_bytes;      /* what these take in the file */
	uint64_t size_bytes;      /* of the pool */
	uint64_t object_count;
	uint8_t uuid[16];         /* the pool's */
	char label[32];
	uint8_t file_id[16];      /* the file's, so that a root block found by itself says where it belongs */
};
static_assert(sizeof(struct rp_root) == 160, "no padding");

enum rp_root_flag {
	RP_ROOT_CLEAN = 1,        /* the last commit of a life that ended as it should */
};

/* ---- Superblocks -------------------------------------------------------------------------------------------------- */

#define RP_FEATURE_NAMES 16
struct rp_feature_name {
	uint8_t word;             /* enum rp_feature_word; 0: this entry is free */
	uint8_t bit;
	char name[30];            /* zero-filled */
};
static_assert(sizeof(struct rp_feature_name) == 32, "no padding");

enum rp_feature_word { RP_FEATURE_COMPAT = 1, RP_FEATURE_RO_COMPAT = 2, RP_FEATURE_INCOMPAT = 3 };

#define RP_INCOMPAT_LZ4 (UINT64_C(1) << 0)
#define RP_INCOMPAT_ZSTD (UINT64_C(1) << 1)
#define RP_INCOMPAT_KNOWN (RP_INCOMPAT_LZ4 | RP_INCOMPAT_ZSTD)
#define RP_RO_COMPAT_KNOWN UINT64_C(0)

struct rp_super {
	char magic[8];            /* RP_SUPER_MAGIC */
	uint32_t size;            /* RP_SUPER_SIZE */
	uint8_t slot;             /* where this copy stands: a misplaced one is not taken */
	uint8_t copy;
	uint16_t reserved;
	uint8_t file_id[16];      /* random, another one for each file */
	uint8_t uuid[16];         /* the pool's */
	uint64_t compat, ro_compat, incompat;
	uint64_t sequence;        /* rises with every superblock written: the highest whole one counts */
	uint64_t generation;      /* of the commit `root` names */
	uint64_t generation_last; /* the highest ever given in this file or the one it was compacted from */
	rp_addr root;
	uint64_t root_checksum;   /* of the root block's header */
	uint64_t file_end;        /* the commit needs no byte from here on */
	int64_t sec;
	uint32_t nsec;
	uint32_t flags;           /* enum rp_root_flag, the same as the root's */
	uint32_t codec;           /* enum rp_codec: what the next commits use */
	uint32_t keep;
	uint64_t size_bytes;      /* of the pool */
	char label[32];
	char writer[40];          /* the program that wrote it, zero-filled */
	uint8_t reserved2[32];
	struct rp_feature_name names[RP_FEATURE_NAMES];
	uint8_t reserved3[248];
	uint64_t checksum;        /* XXH3-64 of all before it */
};
static_assert(sizeof(struct rp_super) == RP_SUPER_SIZE, "no padding");
#define RP_SUPER_MAGIC "RAMPOOL\n"

/* Fill in magic, checksum, place; zero the slot's rest. */
void rp_super_encode(const struct rp_super *super, unsigned slot, void *to);
/* Look at both slots (RP_BLOCKS_START bytes, zeroed where the file is shorter). best[slot] is the newer whole copy of a
 * slot, good[slot] whether there is one; *newest the slot with the highest sequence.
 * returns 0; -EINVAL no superblock and no trace of one; -EIO there was one, none is whole. */
int rp_super_decode(const void *from, struct rp_super best[RP_SUPER_SLOTS], bool good[RP_SUPER_SLOTS], unsigned *newest);
/* Can this version use it? returns 0; -ENOTSUP with the missing feature's name in `name`. */
int rp_super_features_check(const struct rp_super *super, bool read_only, char name[64]);
/* Set the words and names for files that use this codec. */
void rp_super_features_set(struct rp_super *super, enum rp_codec codec);

/* ---- The system's files --------------------------------------------------------------------------------------------- */

extern const struct rp_io rp_io_files;
/* -EPERM: the file is somebody else's, or others may write it. The handle must be of rp_io_files. */
int rp_io_file_owner_check(void *handle);

#endif
