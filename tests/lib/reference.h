/* reference.h: what a tree of a pool should hold, kept flat: for each object a sorted array of pages, for each page 16 tags
 * that stand for 256 bytes each. Trees share objects until one of them changes an object: a snapshot of the reference is
 * an array of pointers.
 */
#ifndef RP_TESTS_REFERENCE_H
#define RP_TESTS_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <rampool/pool.h>

#define REF_BLOCK 256u                      /* bytes a tag stands for; tag 0: zeroes */
#define REF_TAGS (RP_PAGE_SIZE / REF_BLOCK)
#define REF_COUNTERS 4u

struct ref_page {
	rp_page page;
	uint64_t touch;                     /* grows with every change: equal in two trees means the same frame */
	uint64_t tag[REF_TAGS];
};

struct ref_object {
	unsigned refs;                      /* trees that hold it */
	bool meta;
	rp_object number;
	uint64_t generation, size, user;
	uint64_t touch;                     /* as a page's, for the record */
	uint64_t touch_aborted;             /* some pages may be copies, of an operation that was taken back */
	struct ref_page *pages;             /* by page */
	size_t count, room;
};

struct ref_tree {
	struct ref_object **objects;        /* by number */
	size_t count, room;
	uint64_t counters[REF_COUNTERS];    /* in the header */
};

void ref_copy(struct ref_tree *to, const struct ref_tree *from);
void ref_free(struct ref_tree *tree);
/* Place of the number, or where it would stand. */
size_t ref_find(const struct ref_tree *tree, rp_object number, bool *found);
void ref_add(struct ref_tree *tree, rp_object number, uint64_t generation, bool meta);
void ref_remove(struct ref_tree *tree, size_t i);
/* Object i, to be changed: no other tree sees it. Its touch grows. */
struct ref_object *ref_change(struct ref_tree *tree, size_t i);

size_t ref_page_find(const struct ref_object *object, rp_page page, bool *found);
struct ref_page *ref_page_make(struct ref_object *object, rp_page page); /* zeroes when it was a hole; touched */
void ref_pages_drop(struct ref_object *object, rp_page first, rp_page last);
/* offset and length in blocks' multiples; the tags given are tag, tag + 1, ... ; 0: zeroes that leave holes holes */
void ref_write(struct ref_object *object, uint64_t offset, size_t length, uint64_t tag);
uint64_t ref_pages_total(const struct ref_tree *tree);

void ref_fill(void *to, uint64_t tag);                     /* 256 bytes */
/* Bytes [offset, offset + length) as they should read. */
void ref_bytes(const struct ref_object *object, uint64_t offset, void *to, size_t length);

/* The pool's tree against the reference; prints and aborts on a difference. */
void ref_verify_object(struct rp_pool *pool, struct rp_tree *tree, const struct ref_object *object);
void ref_verify_header(struct rp_pool *pool, struct rp_tree *tree, const struct ref_tree *reference);
void ref_verify(struct rp_pool *pool, struct rp_tree *tree, const struct ref_tree *reference);
/* The checker's verdict: aborts unless it is clean. */
void ref_check(struct rp_pool *pool);

/* Print the line and abort. */
__attribute__((noreturn, format(printf, 1, 2))) void ref_fail(const char *format, ...);
/* An operation around an expression that uses `op`. */
#define REF_OP(pool, flags, expression)                                                                                \
	({                                                                                                             \
		struct rp_op op;                                                                                       \
		int op_error;                                                                                          \
		do {                                                                                                   \
			rp_op_begin(&op, pool, flags);                                                                 \
			op_error = (expression);                                                                       \
		} while (rp_op_end(&op, &op_error));                                                                   \
		op_error;                                                                                              \
	})

#endif
