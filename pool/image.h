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
#include "place.h"

/* ---- Layout ------------------------------------------------------------------------------------------------------- */

#define RP_ADDR_SHIFT 6
#define RP_ADDR_UNIT (1u << RP_ADDR_SHIFT)
#define RP_ADDR_MAX RP_ENTRY_ADDR_MASK

/* Addresses that name no block but a page all zero of the kind they equal. They lie in the first superblock slot, so no
 * block can have them, and they mean the same in every file. */
#define RP_ADDR_ZERO_DATA ((rp_addr)RP_KIND_DATA)
#define RP_ADDR_ZERO_META ((rp_addr)RP_KIND_META)
static inline bool rp_addr_is_zero_page(rp_addr a) { return a == RP_ADDR_ZERO_DATA || a == RP_ADDR_ZERO_META; }

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

/* A block that was verified, under a new address and perhaps in another file. `to` as above. */
void rp_block_rewrap(const uint8_t file_id[16], rp_addr address, const struct rp_block_header *header, const void *payload,
                     void *to, uint32_t *size);

/* Decode what stands at `address` into a page. kind 0: any. `available` bytes are at `from`.
 * returns 0; -EIO with *why a constant text; -ENOMEM. verify: all but decompressing. */
int rp_block_verify(const uint8_t file_id[16], rp_addr address, unsigned kind, const void *from, size_t available,
                    const char **why);
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
/* Is one copy whole, or was it never written (all zero)? `from` as above. */
bool rp_super_copy_check(const void *from, unsigned slot, unsigned copy);
/* Can this version use it? returns 0; -ENOTSUP with the missing feature's name in `name`. */
int rp_super_features_check(const struct rp_super *super, bool read_only, char name[64]);
/* Set the words and names for files that use this codec. */
void rp_super_features_set(struct rp_super *super, enum rp_codec codec);

/* ---- Hash of 64-bit keys (addrmap.c) ---------------------------------------------------------------------------------- */

/* Keys are not 0. Grows; values are replaced. One thread at a time. */
struct rp_addrmap {
	const struct rp_hooks *hooks;
	uint64_t *slots;          /* pairs */
	size_t room, count;       /* room: a power of two, or 0 */
};
void rp_addrmap_free(struct rp_addrmap *map);
int rp_addrmap_put(struct rp_addrmap *map, uint64_t key, uint64_t value);         /* 0; -ENOMEM */
bool rp_addrmap_get(const struct rp_addrmap *map, uint64_t key, uint64_t *value); /* value may be null */

/* Memory through the hooks; zeroed; free(). */
void *rp_image_allocate(const struct rp_hooks *hooks, size_t size);
void rp_image_now(const struct rp_hooks *hooks, int64_t *sec, uint32_t *nsec);
int rp_image_random(const struct rp_hooks *hooks, void *to, size_t size);
void rp_image_log(const struct rp_hooks *hooks, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Into options->message, if the caller wants one. Returns `error`. */
int rp_image_say(const struct rp_image_options *options, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- The store: one image file (store.c, store_read.c) ------------------------------------------------------------------ */

/* What one reading thread needs. window_room 0: one block at a time; else reads ahead into a window while addresses rise. */
struct rp_reader {
	struct rp_reader *next;
	struct rp_codec_state codec;
	uint64_t window_offset;
	size_t window_size, window_room;
	uint8_t *window;
	uint8_t block[RP_BLOCK_MAX];
};

struct rp_store {
	/* set once; path changes with rp_store_rename(), by the thread that commits */
	const struct rp_io *io;
	const struct rp_hooks *hooks;
	char *path;
	void *lock;               /* the handle that holds the lock, kept apart from the one that may have to be replaced; null:
	                             read-only */
	bool read_only;
	bool named;               /* the path is the image's own, no longer the one it is made under */
	uint8_t file_id[16];

	/* handle_lock: readers hold it shared while they read, replacing the handle takes it exclusively */
	pthread_rwlock_t handle_lock;
	void *handle;

	/* readers_lock guards the list of readers nobody uses now; held for a few instructions */
	pthread_mutex_t readers_lock;
	struct rp_reader *readers;

	/* the committing thread's alone */
	struct rp_super super;    /* the last durable one */
	unsigned slot;            /* where it stands; the next one goes to the other */
	uint64_t sequence_last;   /* given to the last superblock that was tried */
	uint64_t end;             /* beyond everything ever written: where the next block goes once the buffer is out */
	uint64_t data_end;        /* behind the last block that was written */
	uint64_t end_published;   /* `end` when the last superblock was tried: nothing before may be cut off */
	uint64_t size_known;      /* the file cannot be shorter, unless somebody cuts it */
	uint8_t *buffer;
	size_t buffered;          /* bytes in it; they go to `end` */
	struct rp_behind *behind; /* writes full buffers; null: none was full yet */
	bool doubtful;            /* a write or sync failed: a new handle before anything else is written */
	enum rp_codec codec;
	struct rp_codec_state codec_state;
	uint64_t written_bytes;
};

struct rp_store_options {
	const struct rp_io *io;
	const struct rp_hooks *hooks;
	bool read_only, any_owner;
	const struct rp_image_options *says; /* whose message is filled; may be null */
};

/* Make a new file; it must not exist (what a crash left of an earlier attempt is removed, unless locked). */
int rp_store_create(const char *path, const struct rp_store_options *options, enum rp_codec codec, struct rp_store **out);
/* Open an existing one: lock, superblocks, features. super_good may be null. */
int rp_store_open(const char *path, const struct rp_store_options *options, struct rp_store **out);
void rp_store_close(struct rp_store *store);

/* Writing; the committing thread only. A failure makes the store doubtful; rp_store_abort() then makes it fit for the next
 * attempt. Order: begin, append..., barrier, publish. */
int rp_store_begin(struct rp_store *store);
int rp_store_append(struct rp_store *store, unsigned kind, uint64_t birth, const void *page, rp_addr *out, uint32_t *size);
/* A block as it stands in another file, verified and still encoded, under a new address. */
int rp_store_append_encoded(struct rp_store *store, const struct rp_block_header *header, const void *payload, rp_addr *out,
                            uint32_t *size);
int rp_store_barrier(struct rp_store *store);
/* next: generation, root, time, flags, keep, size, label, uuid; the rest is filled in. */
int rp_store_publish(struct rp_store *store, const struct rp_super *next);
void rp_store_abort(struct rp_store *store, int error);
/* Does the path still name this file, with what was last written to it? -ESTALE: no; -ENOENT. */
int rp_store_name_check(struct rp_store *store);
/* Did somebody cut the file short, so that blocks are gone? */
int rp_store_cut_check(struct rp_store *store, bool *is_cut);
int rp_store_rename(struct rp_store *store, const char *to);

/* Reading; any thread. -EIO: *why says what is wrong. */
struct rp_reader *rp_reader_claim(struct rp_store *store, size_t window_room);
void rp_reader_release(struct rp_store *store, struct rp_reader *reader);
int rp_store_read(struct rp_store *store, struct rp_reader *reader, rp_addr addr, unsigned kind, void *page,
                  struct rp_block_info *info, const char **why);
/* The same without decoding: header and payload stay in reader->block. Verified. */
int rp_store_read_encoded(struct rp_store *store, struct rp_reader *reader, rp_addr addr, unsigned kind,
                          const struct rp_block_header **header, const void **payload, const char **why);
/* A commit's root. end: the file offset behind the block; checksum: its header's; both may be null. */
int rp_store_read_root(struct rp_store *store, rp_addr addr, struct rp_root *root, uint64_t *end, uint64_t *checksum,
                       const char **why);

/* ---- Pages as they stand in an image (children.c) ------------------------------------------------------------------------ */

/* The children of a page: its words that are entries. */
struct rp_children {
	unsigned first, step, count; /* in words of 8 bytes */
};
struct rp_children rp_children_of(unsigned kind);
/* What the child in this word is: its kind, and what the pages of its map are. leaf: the parent's map's. */
unsigned rp_children_kind(unsigned kind, unsigned leaf, const uint64_t *page, unsigned word, unsigned *child_leaf);
/* The same, and where the child stands. */
struct rp_spot rp_children_spot(const struct rp_spot *parent, const uint64_t *page, unsigned word);
/* Where the root of an object table (leaf RP_KIND_TABLE) or a catalog stands. */
struct rp_spot rp_root_spot(rp_entry root, unsigned leaf);
/* Is every entry of a page read from `addr` fit to be followed? *why: what is wrong. */
bool rp_children_valid(unsigned kind, const uint64_t *page, rp_addr addr, const char **why);
bool rp_entry_valid(rp_entry e, rp_addr below, bool may_have_height, const char **why);

/* ---- The system's files --------------------------------------------------------------------------------------------- */

extern const struct rp_io rp_io_files;
/* -EPERM: the file is somebody else's, or others may write it. The handle must be of rp_io_files. */
int rp_io_file_owner_check(void *handle);

#endif
