/* Hostile images: pages, headers and superblocks of a real image are changed at random and their checksums made right again;
 * then everything a program does with an image is done with it. Nothing is expected of the result but that the calls
 * return, in bounded time and memory.
 *
 * test-timeout: 200
 * RP_FUZZ_SECONDS: how long (40, but no more than 15000 cases: the same ones everywhere). RP_FUZZ_SEED: the first
 * case; RP_FUZZ_CASES: how many, instead of a time. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "pool/image.h"
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define BLOCKS_MAX 2048
#define CASE_SECONDS 60

static uint8_t *whole, *hostile;
static size_t size;
static uint32_t blocks[BLOCKS_MAX];
static unsigned block_count;
static uint64_t number;
static char message[512];

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

/* More than any image of this size can need. */
static void *allocate(void *context, size_t bytes)
{
	(void)context;
	if (bytes > 64u << 20) {
		printf("FAIL case %llu: %zu bytes wanted at once\n", (unsigned long long)number, bytes);
		exit(1);
	}
	return calloc(1, bytes);
}

static const struct rp_hooks hooks = { .log = quiet, .allocate = allocate };

/* A crash or a case that does not end says which it was. */
static void ended(int signal)
{
	char text[] = "FAIL: signal 00, case 00000000000000000000\n", *at = text + sizeof(text) - 3;
	uint64_t n = number;

	for (; n; n /= 10)
		*at-- = (char)('0' + n % 10);
	text[13] = (char)('0' + signal / 10);
	text[14] = (char)('0' + signal % 10);
	if (write(1, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

static struct rp_image_options options_for(struct disk *disk)
{
	return (struct rp_image_options){
		.io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true, .message = message,
	};
}

static void sample_make(uint64_t seed)
{
	struct rp_pool_options pool_options = { .size_bytes = 8 << 20, .small_pages = true, .hooks = &hooks };
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = options_for(disk);
	struct world w = { .random = seed };
	struct rp_image *image;
	uint8_t *bytes;

	options.codec_set = true;
	options.codec = RP_CODEC_NONE; /* so that a changed page has room where it stood */
	EXPECT_OK(rp_pool_create(&pool_options, &w.pool), "pool");
	for (unsigned i = 0; i < 80; i++)
		EXPECT_OK(world_step(&w), "step");
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	for (unsigned i = 0; i < 20; i++)
		EXPECT_OK(world_step(&w), "step");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	bytes = disk_bytes(disk, PATH, &size);
	whole = malloc(size);
	hostile = malloc(size);
	EXPECT(whole && hostile);
	memcpy(whole, bytes, size);
	for (size_t at = RP_BLOCKS_START; at + RP_BLOCK_MAX <= size; at += RP_ADDR_UNIT) {
		const struct rp_block_header *header = (const void *)(whole + at);

		if (header->magic == RP_BLOCK_MAGIC && header->address == at / RP_ADDR_UNIT && block_count < BLOCKS_MAX)
			blocks[block_count++] = (uint32_t)at;
	}
	EXPECT(block_count > 20);
	disk_free(disk);
}

/* ---- Making it hostile ------------------------------------------------------------------------------------------- */

static uint64_t word_any(uint64_t *random, uint64_t old)
{
	uint64_t addr = blocks[random_below(random, block_count)] / RP_ADDR_UNIT;

	switch (random_below(random, 12)) {
	case 0: return 0;
	case 1: return RP_ENTRY_ADDR | addr;
	case 2: return RP_ENTRY_ADDR | addr | random_below(random, 8) << RP_ENTRY_HEIGHT_SHIFT;
	case 3: return RP_ENTRY_ADDR | random_below(random, 4);
	case 4: return RP_ENTRY_FRAME | random_below(random, 600);
	case 5: return old ^ UINT64_C(1) << random_below(random, 64);
	case 6: return old + random_below(random, 5) - 2;
	case 7: return random_next(random);
	case 8: return random_below(random, 300);
	case 9: return UINT64_MAX;
	case 10: return old << 8;
	default: return RP_ENTRY_ADDR | (addr + random_below(random, 3) - 1);
	}
}

static void page_change(uint64_t *page, unsigned kind, uint64_t *random)
{
	struct rp_children children = rp_children_of(kind);
	unsigned changes = 1 + (unsigned)random_below(random, 4);

	for (unsigned i = 0; i < changes; i++) {
		unsigned word = (unsigned)random_below(random, RP_PAGE_SIZE / 8);

		if (children.count && random_below(random, 2))
			word = children.first + (unsigned)random_below(random, children.count) * children.step;
		else if (kind == RP_KIND_ROOT)
			word = (unsigned)random_below(random, sizeof(struct rp_root) / 8);
		else if (kind == RP_KIND_TABLE && random_below(random, 2))
			word = (unsigned)random_below(random, 40);
		page[word] = word_any(random, page[word]);
	}
	/* A node whose entries all name the same: as many paths as it gets. */
	if (kind >= RP_KIND_NODE && random_below(random, 16) == 0)
		for (unsigned i = 0; i < RP_NODE_ENTRIES; i++)
			page[i] = page[random_below(random, 2) ? i : 0];
}

static void block_change(const uint8_t file_id[16], uint64_t *random)
{
	uint32_t at = blocks[random_below(random, block_count)], written;
	struct rp_codec_state state = { 0 };
	struct rp_block_header header;
	uint64_t page[RP_PAGE_SIZE / 8];
	unsigned kind;

	/* Blocks near the end are nodes and roots: taken more often. */
	if (random_below(random, 2))
		at = blocks[block_count - 1 - random_below(random, block_count < 12 ? block_count : 12)];
	memcpy(&header, hostile + at, sizeof(header));
	kind = header.kind;
	memcpy(page, hostile + at + sizeof(header), RP_PAGE_SIZE);
	page_change(page, kind, random);
	if (random_below(random, 12) == 0)
		kind = (unsigned)random_below(random, RP_KIND_LAST + 2);
	if (random_below(random, 12) == 0)
		header.birth = random_next(random) >> random_below(random, 64);
	EXPECT_OK(rp_block_encode(&state, RP_CODEC_NONE, file_id, at / RP_ADDR_UNIT, kind, header.birth, page, hostile + at,
	                          &written), "encode");
}

static void super_change(struct rp_super *super, uint64_t *random)
{
	uint64_t *fields[] = {
		&super->generation, &super->generation_last, &super->root, &super->root_checksum, &super->file_end,
		&super->size_bytes, &super->sequence,
	};

	*fields[random_below(random, 7)] = word_any(random, super->root) & ~RP_ENTRY_ADDR;
	/* What it says is believed: the file goes on behind it, as a hole on a real disk, as memory on the simulated one. */
	super->file_end &= 0xffffff;
	if (random_below(random, 4) == 0)
		super->codec = (uint32_t)random_next(random);
	if (random_below(random, 4) == 0)
		super->keep = (uint32_t)random_next(random);
}

static void hostile_make(uint64_t seed)
{
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	uint64_t random = seed;
	unsigned newest, changes = 1 + (unsigned)random_below(&random, 6);

	memcpy(hostile, whole, size);
	EXPECT_OK(rp_super_decode(hostile, super, good, &newest), "superblocks");
	for (unsigned i = 0; i < changes; i++)
		block_change(super[newest].file_id, &random);
	if (random_below(&random, 10) == 0)
		super_change(&super[newest], &random);
	/* The root may be one that was changed. */
	if (super[newest].root < size / RP_ADDR_UNIT)
		memcpy(&super[newest].root_checksum, hostile + super[newest].root * RP_ADDR_UNIT,
		       super[newest].root * RP_ADDR_UNIT + 8 <= size ? 8 : 0);
	rp_super_encode(&super[newest], newest, hostile + newest * RP_SUPER_SLOT_SIZE);
}

/* ---- Using it ---------------------------------------------------------------------------------------------------- */

static void object_use(struct rp_pool *pool, struct rp_tree *tree, rp_object object)
{
	static uint8_t bytes[3 * RP_PAGE_SIZE];
	const struct rp_record *record;
	uint64_t end, at = 0;
	const void *page;
	struct rp_op op;
	bool is_data;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_record_get(&op, tree, object, 0, &record);
		if (!error)
			error = rp_bytes_read(&op, tree, object, 100, bytes, sizeof(bytes));
		if (!error)
			error = rp_page_get(&op, tree, object, 512, &page);
	} while (rp_op_end(&op, &error));
	for (unsigned i = 0; i < 20 && !error && at < RP_FILE_SIZE_MAX; i++) {
		do {
			rp_op_begin(&op, pool, RP_OP_READ);
			error = rp_extent_get(&op, tree, object, at, RP_FILE_SIZE_MAX, &is_data, &end);
		} while (rp_op_end(&op, &error));
		if (!error && end <= at)
			break;
		at = end;
	}
}

static void pool_change(struct rp_pool *pool, rp_object object)
{
	uint8_t bytes[100] = { 1 };
	rp_object made;
	uint64_t generation;
	struct rp_op op;
	rp_page next;
	size_t done;
	int error;

	do {
		rp_op_begin(&op, pool, 0);
		error = rp_bytes_write(&op, object, 5000, bytes, sizeof(bytes), &done);
	} while (rp_op_end(&op, &error));
	do {
		rp_op_begin(&op, pool, 0);
		error = rp_object_create(&op, false, &made, &generation);
	} while (rp_op_end(&op, &error));
	do {
		rp_op_begin(&op, pool, RP_OP_RESERVE);
		error = rp_pages_punch(&op, object + 1, 0, 600, &next);
	} while (rp_op_end(&op, &error));
	do {
		rp_op_begin(&op, pool, RP_OP_RESERVE);
		error = rp_object_remove(&op, object + 2);
	} while (rp_op_end(&op, &error));
}

static int nothing(void *context, rp_object object, const struct rp_record *a, const struct rp_record *b)
{
	(void)context;
	(void)object;
	(void)a;
	(void)b;
	return 0;
}

static void snapshots_use(struct rp_pool *pool)
{
	struct rp_snapshot_info *list;
	struct rp_snapshot *snapshot, *live;
	size_t count;

	if (rp_snapshot_list(pool, true, &list, &count))
		return;
	for (size_t i = 0; i < count; i++) {
		if (rp_snapshot_open(pool, list[i].name, &snapshot))
			continue;
		for (rp_object object = 1; object < 20; object += 3)
			object_use(pool, rp_snapshot_tree(snapshot), object);
		if (rp_snapshot_take(pool, &live) == 0) {
			rp_diff_objects(pool, snapshot, live, nothing, NULL);
			rp_snapshot_put(live);
		}
		if (i == 0)
			rp_snapshot_rollback(pool, snapshot);
		rp_snapshot_put(snapshot);
	}
	if (count)
		rp_snapshot_delete(pool, list[0].name);
	free(list);
}

/* The checker visits each page of the object table, and a hostile table may name one page under as many numbers as it likes:
 * it is not made for that. */
static bool numbers_small(struct rp_pool *pool)
{
	const struct rp_header *header;
	struct rp_op op;
	bool small = false;
	int error;

	do {
		rp_op_begin(&op, pool, RP_OP_READ);
		error = rp_header_get(&op, rp_pool_live(pool), &header);
		small = !error && header->page_next < 10000;
	} while (rp_op_end(&op, &error));
	return small;
}

static void image_use(struct disk *disk, uint64_t seed)
{
	struct rp_image_options options = options_for(disk);
	struct rp_image_status status;
	struct rp_image *image;
	struct rp_pool *pool;

	if (rp_image_open(PATH, &options, &pool, &image))
		return;
	if (seed % 3 == 0)
		rp_image_read_all(image);
	for (rp_object object = 1; object < 40; object++)
		object_use(pool, rp_pool_live(pool), object);
	snapshots_use(pool);
	pool_change(pool, 2 + seed % 8);
	if (numbers_small(pool))
		rp_pool_check(pool, quiet, NULL);
	rp_image_commit(image, NULL, NULL);
	rp_image_save_as(pool, image, "/other", true, &options, NULL, NULL);
	rp_image_read_all(image);
	rp_image_compact(image);
	rp_image_status(image, &status);
	rp_image_close(image);
	rp_pool_destroy(pool);
}

static void case_run(uint64_t seed)
{
	struct rp_image_check check = { .report = quiet };
	struct disk *disk = disk_new(seed);
	struct rp_image_options options = options_for(disk);
	struct rp_commit_info *list;
	size_t count;

	hostile_make(seed);
	disk_file_set(disk, PATH, hostile, size);
	rp_image_verify(PATH, &options, &check);
	rp_image_describe(PATH, &options, quiet, NULL);
	if (rp_image_commits(PATH, &options, &list, &count) == 0)
		free(list);
	image_use(disk, seed);
	rp_image_roll_back(PATH, 1, &options);
	disk_free(disk);
}

int main(void)
{
	uint64_t first = number_from_environment("RP_FUZZ_SEED", 1), cases = number_from_environment("RP_FUZZ_CASES", 0);
	uint64_t seconds = number_from_environment("RP_FUZZ_SECONDS", 0);
	time_t until = time(NULL) + (time_t)(seconds ? seconds : steps_scaled(40));
	uint64_t last = seconds ? UINT64_MAX : first + 15000;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("first case %llu; one alone: RP_FUZZ_CASES=1 RP_FUZZ_SEED=...\n", (unsigned long long)first);
	signal(SIGALRM, ended);
#if !defined(__SANITIZE_ADDRESS__)
	signal(SIGSEGV, ended);
	signal(SIGBUS, ended);
	signal(SIGABRT, ended);
#endif
	sample_make(3);
	for (number = first; cases ? number < first + cases : number < last && time(NULL) < until; number++) {
		alarm(CASE_SECONDS);
		case_run(number);
	}
	alarm(0);
	printf("%llu cases\n", (unsigned long long)(number - first));
	free(whole);
	free(hostile);
	return 0;
}
