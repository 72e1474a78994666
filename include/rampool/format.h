/* format.h: everything of rampool that is laid out in frames, and so also in images.
 *
 * Little-endian, fixed-width, every size asserted. pool/FORMAT.md tells the same byte by byte. A program that only
 * wants to read an image needs this header and image.h; what stands here never names a lock, a pointer or a thread.
 */
#ifndef RAMPOOL_FORMAT_H
#define RAMPOOL_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little-endian and are used in place"
#endif

#define RP_PAGE_SHIFT 12
#define RP_PAGE_SIZE 4096u
#define RP_NODE_SHIFT 9
#define RP_NODE_ENTRIES 512u

/* Levels of nodes above the pages: 512^6 pages of 4 KiB are 2^66 bytes, more than the largest file (2^63 - 1 bytes). */
#define RP_HEIGHT_MAX 6
#define RP_PAGE_COUNT_MAX (UINT64_C(1) << 51)
#define RP_FILE_SIZE_MAX INT64_MAX

typedef uint32_t rp_frame;  /* a frame's number in the arena; 0 is no frame */
typedef uint64_t rp_page;   /* a page's index within an object */
typedef uint64_t rp_addr;   /* an image address: a byte offset in the image file divided by 64; 0 is none */
typedef uint64_t rp_object; /* an object's number, which is an inode's number too; 0 is none */
typedef uint64_t rp_entry;  /* names a page or a node: see below */

/* An entry. In a node: what holds one page, or the 512^k pages of a node below. In a record: the root of a map, which
 * then carries the map's height too (0: the entry names page 0 itself; h: it names a node of level h).
 *
 *   0                                     a hole: reads as zeroes, owns nothing
 *   bit 62 set, bits 0..31 frame number   present (only in memory, never in an image)
 *   bit 63 set, bits 0..39 image address  not in memory: brought in when it is asked for
 *   bits 56..58                           height, in roots only
 */
#define RP_ENTRY_FRAME (UINT64_C(1) << 62)
#define RP_ENTRY_ADDR (UINT64_C(1) << 63)
#define RP_ENTRY_ADDR_BITS 40
#define RP_ENTRY_ADDR_MASK ((UINT64_C(1) << RP_ENTRY_ADDR_BITS) - 1)
#define RP_ENTRY_HEIGHT_SHIFT 56
#define RP_ENTRY_HEIGHT_MASK (UINT64_C(7) << RP_ENTRY_HEIGHT_SHIFT)

static inline bool rp_entry_is_frame(rp_entry e) { return (e & RP_ENTRY_FRAME) != 0; }
static inline bool rp_entry_is_addr(rp_entry e) { return (e & RP_ENTRY_ADDR) != 0; }
static inline rp_frame rp_entry_frame(rp_entry e) { return (rp_frame)e; }
static inline rp_addr rp_entry_addr(rp_entry e) { return e & RP_ENTRY_ADDR_MASK; }
static inline unsigned rp_entry_height(rp_entry e)
{
	return (unsigned)((e & RP_ENTRY_HEIGHT_MASK) >> RP_ENTRY_HEIGHT_SHIFT);
}
static inline rp_entry rp_entry_from_frame(rp_frame f, unsigned height)
{
	return RP_ENTRY_FRAME | f | (rp_entry)height << RP_ENTRY_HEIGHT_SHIFT;
}
static inline rp_entry rp_entry_from_addr(rp_addr a, unsigned height)
{
	return RP_ENTRY_ADDR | a | (rp_entry)height << RP_ENTRY_HEIGHT_SHIFT;
}

/* What a frame, and so a block of an image, holds. A node's kind is RP_KIND_NODE + level - 1, level 1 .. 6: the level
 * is part of the kind so that no image can pass off one level as another. */
enum rp_kind {
	RP_KIND_FREE = 0,
	RP_KIND_DATA = 1,    /* bytes of a regular file */
	RP_KIND_META = 2,    /* bytes of an object that is not a regular file: a directory, extended attributes */
	RP_KIND_TABLE = 3,   /* 16 records of the object table */
	RP_KIND_CATALOG = 4, /* 8 entries of the catalog of snapshots */
	RP_KIND_ROOT = 5,    /* a commit's root block: in images only */
	RP_KIND_NODE = 16,
	RP_KIND_LAST = RP_KIND_NODE + RP_HEIGHT_MAX - 1,
};

/* The object table: a map like any other, whose pages hold 16 records of 256 bytes. Record 0 of each page is not an
 * object but the page's head; so object n is record n % 16 of page n / 16, and n % 16 is never 0. Record 0 of page 0 is
 * the pool's own header. Pages whose 15 records are free give their frame back, and their numbers are not used
 * again. */
#define RP_RECORD_SIZE 256u
#define RP_RECORDS_PER_PAGE (RP_PAGE_SIZE / RP_RECORD_SIZE)
#define RP_RECORD_USER_SIZE 216u

enum rp_record_flag {
	RP_RECORD_USED = 1,
	RP_RECORD_META = 2, /* its pages are RP_KIND_META, not RP_KIND_DATA */
};

struct rp_record {
	rp_entry root;        /* of the object's map */
	uint64_t page_count;  /* pages the map holds, nodes not counted */
	uint64_t size_bytes;  /* the owner's; pages past it may exist (fallocate with KEEP_SIZE) */
	uint64_t generation;  /* never the same twice in the pool's life */
	uint32_t flags;       /* enum rp_record_flag */
	uint32_t reserved;
	uint8_t user[RP_RECORD_USER_SIZE]; /* the filesystem's: struct rp_inode */
};
static_assert(sizeof(struct rp_record) == RP_RECORD_SIZE, "a record is 256 bytes");

/* Head of a page of the object table. */
struct rp_table_head {
	uint32_t magic;     /* RP_TABLE_MAGIC */
	uint16_t used;      /* bit i: record i is used; bit 0 always set */
	uint16_t reserved;
	uint8_t reserved2[248];
};
static_assert(sizeof(struct rp_table_head) == RP_RECORD_SIZE, "a head is as large as a record");
#define RP_TABLE_MAGIC 0x54505252u

/* Object 1 is the bitmap of free numbers: bit p % 32768 of its page p / 32768 is set when page p of the object table
 * exists and has a free record. */
#define RP_OBJECT_BITMAP 1u
#define RP_BITMAP_BITS (RP_PAGE_SIZE * 8)

/* The pool's header: record 0 of page 0 of the object table. Its first 8 bytes are that page's head. */
struct rp_header {
	uint32_t magic;
	uint16_t used;
	uint16_t reserved;
	uint64_t partial_count;     /* pages of the object table with a free record: bits set in the bitmap */
	uint64_t page_next;         /* first page of the object table never used */
	uint64_t generation_next;
	uint64_t object_count;      /* without the bitmap */
	uint64_t object_limit;      /* at most so many; 0: no limit */
	uint64_t size_bytes;        /* of the pool: what `size=` said when it was made or resized */
	int64_t created_sec;
	uint8_t uuid[16];
	char label[32];             /* zero-filled; all 32 bytes may be used */
	uint8_t reserved2[16];
	uint8_t user[128];          /* the filesystem's: struct rp_fs_header */
};
static_assert(sizeof(struct rp_header) == RP_RECORD_SIZE, "the header is as large as a record");

/* The catalog of snapshots: a map whose pages hold 8 entries of 512 bytes. Entry i is on page i / 8. It stands beside
 * the object table, not in it: a rollback does not lose the snapshots taken since. */
#define RP_SNAPSHOT_NAME_MAX 255u
struct rp_catalog_entry {
	rp_entry root;              /* of the object table as it was; 0: this entry is free */
	uint64_t id;                /* never the same twice in the pool's life; 0: free */
	int64_t sec;                /* when, by the system's clock */
	uint32_t nsec;
	uint16_t name_len;
	uint16_t reserved;
	uint64_t frame_count;       /* frames in use at that moment, for listings */
	char name[RP_SNAPSHOT_NAME_MAX + 1];
	uint8_t reserved2[216];
};
static_assert(sizeof(struct rp_catalog_entry) == 512, "eight entries a page");
#define RP_CATALOG_PER_PAGE (RP_PAGE_SIZE / (unsigned)sizeof(struct rp_catalog_entry))

/* The filesystem's part of a record. Times are seconds and nanoseconds since 1970. */
struct rp_time {
	int64_t sec;
	uint32_t nsec;
} __attribute__((packed, aligned(4)));

struct rp_inode {
	uint32_t mode;              /* type and permissions, as st_mode */
	uint32_t uid, gid;
	uint32_t nlink;
	/* as new_encode_dev of Linux: minor's low 8 bits, 12 bits of major, the rest of minor */
	uint32_t rdev;
	uint32_t flags;             /* enum rp_inode_flag */
	struct rp_time atime, mtime, ctime, btime;
	/* of a directory: what ".." names; of an orphan: 0; of others: a directory where a name of it was made last (a
	 * hint for finding names; it may be stale when there are several) */
	uint64_t parent;
	uint64_t xattrs;            /* the object that holds the extended attributes; 0: none */
	uint64_t orphan_next, orphan_prev; /* list of inodes without a name; 0: none */
	uint64_t entry_count;       /* of a directory: names in it */
	uint64_t tree;              /* of a directory or an attribute object: the owner's (root page, free pages) */
	uint64_t tree2;
	uint8_t inlined[88];        /* a symlink's target where it fits (size_bytes <= 88) */
};
static_assert(sizeof(struct rp_inode) == RP_RECORD_USER_SIZE, "an inode fills the record's user area");

enum rp_inode_flag {
	RP_INODE_ORPHAN = 1,        /* in the list of inodes without a name */
	RP_INODE_INLINED = 2,       /* the symlink's target is in `inlined`, no page holds it */
	RP_INODE_ACL_ACCESS = 4,    /* has system.posix_acl_access */
	RP_INODE_ACL_DEFAULT = 8,
	RP_INODE_CAPABILITY = 16,   /* has security.capability */
	/* not a file: the object that holds another's attributes, or one long value of them */
	RP_INODE_XATTR_HOLDER = 32,
	RP_INODE_TAIL = 64,         /* pages past the size may hold bytes: they go before the size grows */
	RP_INODE_TMPFILE = 128,     /* made without a name, and may still be given one */
};

/* The filesystem's part of the pool's header. */
struct rp_fs_header {
	uint64_t root;              /* the root directory's object */
	uint64_t orphans;           /* first inode without a name; 0: none */
	uint64_t inode_count;       /* without attribute holders */
	uint64_t inode_limit;       /* 0: none but the pool's size */
	uint64_t hash_seed;         /* of the hash of names, random */
	uint8_t reserved[88];
};
static_assert(sizeof(struct rp_fs_header) == 128, "fills the header's user area");

#endif
