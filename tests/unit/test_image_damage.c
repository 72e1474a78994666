/* Damage: every bit of a small image flipped, blocks swapped, stale, zeroed, from another file, the file cut off at each block,
 * garbage behind its end. What is read is right or an error; never other bytes, never an older commit in place of the newest.
 *
 * test-timeout: 300 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pool/image.h"
#include "tests/lib/disk.h"
#include "tests/lib/expect.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define PATH "/image"
#define PROCESSES 4
#define BLOCKS_MAX 4096

struct sample {
	struct disk *disk;
	struct world_state state;
	uint64_t generation;
	uint8_t *whole;       /* the file as it should be */
	size_t size;
	size_t blocks[BLOCKS_MAX], block_count; /* offsets */
};

static char message[512], why[256];
static const char *doing = "";
static uint64_t detected, harmless;

static void quiet(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static const struct rp_hooks hooks = { .log = quiet };

static struct rp_image_options options_for(struct disk *disk, bool read_only)
{
	return (struct rp_image_options){
		.io = disk_io(disk), .hooks = &hooks, .no_read_ahead = true, .small_pages = true, .message = message,
		.read_only = read_only,
	};
}

static void sample_make(struct sample *s, uint64_t seed, unsigned pages)
{
	struct rp_pool_options pool_options = { .size_bytes = 8 << 20, .small_pages = true, .hooks = &hooks };
	struct world w = { .random = seed };
	struct rp_image_options options;
	struct rp_image_status status;
	struct rp_image *image;
	uint8_t *bytes;

	memset(s, 0, sizeof(*s));
	s->disk = disk_new(seed);
	options = options_for(s->disk, false);
	EXPECT_OK(rp_pool_create(&pool_options, &w.pool), "pool");
	EXPECT_OK(world_write(&w, pages), "write");
	EXPECT_OK(rp_snapshot_create(w.pool, "s1"), "snapshot");
	w.state.snapshots[0].name = w.state.name_next = 1;
	w.state.snapshots[0].tree = w.state.live;
	EXPECT_OK(rp_image_create(w.pool, PATH, false, &options, &image), message);
	EXPECT_OK(world_write(&w, 3), "write");
	EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
	s->state = w.state;
	rp_image_status(image, &status);
	s->generation = status.generation;
	rp_image_close(image);
	rp_pool_destroy(w.pool);
	bytes = disk_bytes(s->disk, PATH, &s->size);
	s->whole = malloc(s->size);
	EXPECT(s->whole);
	memcpy(s->whole, bytes, s->size);
	for (size_t at = RP_BLOCKS_START; at + sizeof(struct rp_block_header) <= s->size; at += RP_ADDR_UNIT) {
		const struct rp_block_header *header = (const void *)(s->whole + at);

		if (header->magic != RP_BLOCK_MAGIC || header->address != at / RP_ADDR_UNIT)
			continue;
		EXPECT(s->block_count < BLOCKS_MAX);
		s->blocks[s->block_count++] = at;
	}
	EXPECT(s->block_count > 8);
}

static void sample_free(struct sample *s)
{
	disk_free(s->disk);
	free(s->whole);
}

static size_t block_size(const struct sample *s, size_t at)
{
	const struct rp_block_header *header = (const void *)(s->whole + at);

	return sizeof(*header) + header->stored_bytes;
}

/* The file as it is now: opened, read, compared. may_fail: opening may say that the image is damaged. */
static void check(struct sample *s, bool may_fail, uint64_t n)
{
	struct rp_image_options options = options_for(s->disk, true);
	struct rp_image_status status;
	struct rp_image *image;
	struct rp_pool *pool;
	unsigned unread = 0;
	int error = rp_image_open(PATH, &options, &pool, &image);

	if (error) {
		if (may_fail && (error == -EIO || error == -EINVAL)) {
			detected++;
			return;
		}
		printf("FAIL %s %llu: open: %s\n", doing, (unsigned long long)n, message);
		exit(1);
	}
	rp_image_status(image, &status);
	if (status.generation != s->generation) {
		printf("FAIL %s %llu: an older commit came up\n", doing, (unsigned long long)n);
		exit(1);
	}
	if (world_compare_readable(pool, &s->state, why, &unread)) {
		printf("FAIL %s %llu: %s\n", doing, (unsigned long long)n, why);
		exit(1);
	}
	if (unread)
		detected++;
	else
		harmless++;
	rp_image_close(image);
	rp_pool_destroy(pool);
}

static void file_reset(struct sample *s)
{
	size_t size;
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);

	EXPECT_EQUAL(size, s->size);
	memcpy(bytes, s->whole, size);
}

/* Where a flipped bit can matter: the copies of superblocks and the blocks; of the rest a sample. */
static bool bit_matters(const struct sample *s, size_t byte)
{
	(void)s;
	if (byte < RP_BLOCKS_START)
		return byte % RP_SUPER_STRIDE < RP_SUPER_SIZE;
	return true;
}

static void bits_flip(struct sample *s, uint64_t first, uint64_t step)
{
	size_t size;
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);

	doing = "flipped bit";
	for (uint64_t bit = first; bit < size * 8; bit += step) {
		if (!bit_matters(s, bit / 8) && bit % 509)
			continue;
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		/* A flipped bit in a superblock spoils one of its copies: nothing is lost. */
		check(s, bit / 8 >= RP_BLOCKS_START, bit);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void every_bit(uint64_t seed)
{
	struct sample s;
	uint64_t stride = 100 / steps_scaled(100);
	int result = 0;

	sample_make(&s, seed, 6);
	fflush(stdout);
	for (uint64_t i = 0; i < PROCESSES; i++) {
		pid_t pid = fork();

		EXPECT(pid >= 0);
		if (pid == 0) {
			bits_flip(&s, i * stride, PROCESSES * stride);
			printf("%llu flipped bits detected, %llu harmless\n", (unsigned long long)detected,
			       (unsigned long long)harmless);
			fflush(stdout);
			_exit(detected > 0 ? 0 : 1);
		}
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		EXPECT(wait(&status) > 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			result = 1;
	}
	EXPECT_EQUAL(result, 0);
	sample_free(&s);
}

/* Each block in the place of each other one, whole with its header: it does not verify there. */
static void blocks_swap(struct sample *s)
{
	size_t size;
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);
	size_t step = 100 / (size_t)steps_scaled(100);

	doing = "swapped block";
	for (size_t i = 0; i < s->block_count * s->block_count; i += step) {
		size_t a = s->blocks[i / s->block_count], b = s->blocks[i % s->block_count], length;

		if (a == b)
			continue;
		length = block_size(s, a);
		if (b + length > size)
			continue;
		memcpy(bytes + b, s->whole + a, length);
		check(s, true, i);
		file_reset(s);
	}
}

static void blocks_spoil(struct sample *s, uint64_t seed)
{
	size_t size;
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);

	for (size_t i = 0; i < s->block_count; i++) {
		size_t length = block_size(s, s->blocks[i]);

		doing = "zeroed block";
		memset(bytes + s->blocks[i], 0, length);
		check(s, true, i);
		doing = "zeroed payload";
		memcpy(bytes + s->blocks[i], s->whole + s->blocks[i], sizeof(struct rp_block_header));
		check(s, true, i);
		doing = "garbled block";
		for (size_t at = 0; at < length; at++)
			bytes[s->blocks[i] + at] = (uint8_t)random_next(&seed);
		check(s, true, i);
		file_reset(s);
	}
}

/* The same history in another file gives the same blocks at the same places: they belong there, and not here. */
static void blocks_foreign(struct sample *s, uint64_t seed, unsigned pages)
{
	struct sample other;
	size_t size;
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);
	uint64_t before = detected, tried = 0;

	doing = "block of another file";
	sample_make(&other, seed, pages);
	for (size_t i = 0; i < other.block_count; i++) {
		size_t length = block_size(&other, other.blocks[i]);

		if (other.blocks[i] + length > size)
			continue;
		memcpy(bytes + other.blocks[i], other.whole + other.blocks[i], length);
		check(s, true, i);
		file_reset(s);
		tried++;
	}
	EXPECT(tried > 8 && detected > before);
	sample_free(&other);
}

static void file_put(struct sample *s, const uint8_t *bytes, size_t size)
{
	disk_free(s->disk);
	s->disk = disk_new(1);
	disk_file_set(s->disk, PATH, bytes, size);
}

/* Cut off at each block and inside it; also with garbage behind the end, which belongs to nothing. */
static void file_cut(struct sample *s, uint64_t seed)
{
	uint8_t *longer = malloc(s->size + 10000);

	EXPECT(longer);
	for (size_t i = 0; i < s->block_count; i++) {
		doing = "cut off at block";
		file_put(s, s->whole, s->blocks[i]);
		check(s, true, i);
		doing = "cut off inside block";
		file_put(s, s->whole, s->blocks[i] + 41);
		check(s, true, i);
	}
	doing = "cut off in the superblocks";
	for (size_t size = 0; size < RP_BLOCKS_START; size += 511) {
		file_put(s, s->whole, size);
		check(s, true, size);
	}
	memcpy(longer, s->whole, s->size);
	doing = "garbage behind the end";
	for (size_t extra = 1; extra < 10000; extra = extra * 3 + 1) {
		uint64_t before = harmless;

		for (size_t at = 0; at < extra; at++)
			longer[s->size + at] = (uint8_t)random_next(&seed);
		/* Some of it looks like blocks. */
		if (extra > 5000)
			memcpy(longer + (s->size + 63) / 64 * 64, s->whole + s->blocks[0], block_size(s, s->blocks[0]));
		file_put(s, longer, s->size + extra);
		check(s, false, extra);
		EXPECT_EQUAL(harmless, before + 1);
	}
	free(longer);
	file_put(s, s->whole, s->size);
}

/* With one page damaged the rest is used, changed, saved; the damage stays where it was, and is not saved as anything else. */
static void go_on_damaged(uint64_t seed)
{
	for (size_t i = 0; i < 12; i++) {
		struct rp_image_options options;
		struct rp_image_status status;
		struct rp_image *image;
		struct sample s;
		struct world w;
		unsigned unread = 0;
		uint8_t *bytes;
		size_t size;
		int error;

		doing = "going on with a damaged block";
		sample_make(&s, seed, 60);
		options = options_for(s.disk, false);
		bytes = disk_bytes(s.disk, PATH, &size);
		bytes[s.blocks[i * 3] + 50] ^= 4;
		memset(&w, 0, sizeof(w));
		w.state = s.state;
		w.random = seed + i;
		EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
		for (unsigned n = 0; n < 40; n++) {
			error = world_step(&w);
			EXPECT(error == 0 || error == -EIO);
		}
		EXPECT_OK(rp_image_commit(image, NULL, NULL), "commit");
		error = rp_image_read_all(image);
		EXPECT(error == 0 || error == -EIO);
		rp_image_status(image, &status);
		EXPECT(error == 0 || status.damaged_pages > 0);
		EXPECT_EQUAL(rp_image_compact(image), error == -EIO ? -EAGAIN : 0);
		EXPECT_OK(world_compare_readable(w.pool, &w.state, why, &unread), why);
		rp_image_close(image);
		rp_pool_destroy(w.pool);
		EXPECT_OK(rp_image_open(PATH, &options, &w.pool, &image), message);
		EXPECT_OK(world_compare_readable(w.pool, &w.state, why, &unread), why);
		rp_image_close(image);
		rp_pool_destroy(w.pool);
		sample_free(&s);
	}
}

static void lines_count(void *context, const char *line)
{
	(void)line;
	++*(unsigned *)context;
}

/* Verifying finds each damaged block, and which commit is whole without it. */
static void verify_finds(struct sample *s)
{
	struct rp_image_options options = options_for(s->disk, true);
	size_t size;
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);
	uint64_t older = 0;

	for (size_t i = 0; i < s->block_count; i++) {
		unsigned lines = 0;
		struct rp_image_check verify = { .report = lines_count, .context = &lines };

		bytes[s->blocks[i] + 45] ^= 0x20;
		EXPECT_OK(rp_image_verify(PATH, &options, &verify), message);
		EXPECT(verify.bad_count > 0 && lines == verify.bad_count);
		older += verify.newest_whole == s->generation - 1;
		file_reset(s);
	}
	/* The blocks that only the newest commit has. */
	EXPECT(older > 2);
	for (unsigned copy = 0; copy < 4; copy++) {
		struct rp_image_check verify = { 0 };

		bytes[copy * RP_SUPER_STRIDE + 80] ^= 1;
		EXPECT_OK(rp_image_verify(PATH, &options, &verify), message);
		EXPECT_EQUAL(verify.bad_count, 1);
		EXPECT_EQUAL(verify.superblocks_good, 2);
		EXPECT(verify.newest_is_whole);
		file_reset(s);
	}
}

/* A damaged newest commit is not replaced by an older one unasked; asked for, it is. */
static void roll_back(struct sample *s)
{
	struct rp_image_options options = options_for(s->disk, false);
	size_t size, root = s->blocks[s->block_count - 1];
	uint8_t *bytes = disk_bytes(s->disk, PATH, &size);
	struct rp_commit_info *list;
	struct rp_image *image;
	struct rp_pool *pool;
	size_t count;

	EXPECT_EQUAL(((const struct rp_block_header *)(const void *)(s->whole + root))->kind, RP_KIND_ROOT);
	bytes[root + 60] ^= 1;
	EXPECT_EQUAL(rp_image_open(PATH, &options, &pool, &image), -EIO);
	EXPECT_OK(rp_image_commits(PATH, &options, &list, &count), message);
	EXPECT_EQUAL(count, 1);
	EXPECT_EQUAL(list[0].generation, s->generation - 1);
	free(list);
	EXPECT_OK(rp_image_roll_back(PATH, s->generation - 1, &options), message);
	EXPECT_OK(rp_image_open(PATH, &options, &pool, &image), message);
	EXPECT_OK(rp_image_read_all(image), "read all");
	rp_image_close(image);
	rp_pool_destroy(pool);
}

/* An image of a version to come says which feature is missing. */
static void newer_format(struct sample *s)
{
	struct rp_image_options options = options_for(s->disk, false);
	struct rp_super super[RP_SUPER_SLOTS];
	bool good[RP_SUPER_SLOTS];
	uint8_t *bytes;
	struct rp_image *image;
	struct rp_pool *pool;
	unsigned newest;
	size_t size;

	bytes = disk_bytes(s->disk, PATH, &size);
	EXPECT_OK(rp_super_decode(bytes, super, good, &newest), "decode");
	super[newest].incompat |= UINT64_C(1) << 40;
	super[newest].sequence++;
	super[newest].names[5] = (struct rp_feature_name){ RP_FEATURE_INCOMPAT, 40, "quantum pages" };
	rp_super_encode(&super[newest], newest, bytes + newest * RP_SUPER_SLOT_SIZE);
	EXPECT_EQUAL(rp_image_open(PATH, &options, &pool, &image), -ENOTSUP);
	EXPECT(strstr(message, "quantum pages"));
	super[newest].names[5].word = 0;
	rp_super_encode(&super[newest], newest, bytes + newest * RP_SUPER_SLOT_SIZE);
	EXPECT_EQUAL(rp_image_open(PATH, &options, &pool, &image), -ENOTSUP);
	EXPECT(strstr(message, "incompat bit 40"));
	super[newest].incompat &= ~(UINT64_C(1) << 40);
	super[newest].ro_compat |= 2;
	rp_super_encode(&super[newest], newest, bytes + newest * RP_SUPER_SLOT_SIZE);
	EXPECT_EQUAL(rp_image_open(PATH, &options, &pool, &image), -ENOTSUP);
	options.read_only = true;
	EXPECT_OK(rp_image_open(PATH, &options, &pool, &image), message);
	rp_image_close(image);
	rp_pool_destroy(pool);
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_TEST_SEED", 1);
	struct sample s;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	every_bit(seed);
	sample_make(&s, seed, 12);
	blocks_swap(&s);
	blocks_spoil(&s, seed);
	blocks_foreign(&s, seed, 12);
	verify_finds(&s);
	file_cut(&s, seed);
	roll_back(&s);
	sample_free(&s);
	sample_make(&s, seed, 3);
	newer_format(&s);
	sample_free(&s);
	go_on_damaged(seed);
	printf("%llu detected, %llu harmless\n", (unsigned long long)detected, (unsigned long long)harmless);
	return 0;
}
