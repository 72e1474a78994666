/* inside.c: the namespace and the pool by themselves, without a kernel in between: what an operation costs as things grow.
 * Times are this thread's CPU time.
 *
 *   inside names LARGEST     time of one insert and one lookup with 10^3, 10^4, ... names in the directory; memory a file
 *   inside bytes             time of one 4 KiB write and read, at random places of sparse files of 1 MiB to 64 GiB
 *   inside snapshot MIB      taking a snapshot of so much data, and the first write of each page after it
 */
#include <sys/stat.h>
#include <rampool/fs.h>
#include "measure.h"

#define WRITES 20000u

static struct rp_pool *pool;
static struct rp_fs *fs;

static void check(int error, const char *what)
{
	errno = -error;
	must(error >= 0, what);
}

static void begin(uint64_t size_bytes)
{
	struct rp_pool_options options = { .size_bytes = size_bytes };
	struct rp_fs_options fs_options = { .mode = 0 };

	check(rp_pool_create(&options, &pool), "rp_pool_create");
	check(rp_fs_format(pool, &fs_options), "rp_fs_format");
	check(rp_fs_open(pool, false, &fs), "rp_fs_open");
}

static void end(void)
{
	rp_fs_close(fs);
	rp_pool_destroy(pool);
}

static uint64_t used_bytes(void)
{
	struct rp_pool_status status;

	rp_pool_status(pool, &status);
	return status.frame_used * RP_PAGE_SIZE;
}

static rp_object make(const char *name, uint32_t mode)
{
	struct rp_cred cred = { .fsetid = true };
	struct rp_attr attr;

	check(rp_fs_make(fs, &cred, rp_fs_root(fs), rp_name_from(name), mode, 0, NULL, false, &attr), name);
	return attr.ino;
}

/* The last tenth of the inserts is timed, then as many lookups anywhere. */
static void names_of(uint64_t count, uint64_t *made)
{
	uint64_t random = 5, tail = count - count / 10, looks = count < 50000 ? count : 50000;
	double start = cpu_s();
	struct rp_attr attr;
	char name[64], row[64];

	for (; *made < count; ++*made) {
		if (*made == tail)
			start = cpu_s();
		snprintf(name, sizeof(name), "a-file-with-a-name.%llu", (unsigned long long)*made);
		make(name, S_IFREG | 0644);
	}
	snprintf(row, sizeof(row), "insert_%llu", (unsigned long long)count);
	say_us(row, cpu_s() - start, (double)(count - tail));
	start = cpu_s();
	for (uint64_t i = 0; i < looks; i++) {
		snprintf(name, sizeof(name), "a-file-with-a-name.%llu",
		         (unsigned long long)(next_random(&random) % count));
		check(rp_fs_lookup(fs, rp_fs_root(fs), rp_name_from(name), false, &attr), name);
	}
	snprintf(row, sizeof(row), "lookup_%llu", (unsigned long long)count);
	say_us(row, cpu_s() - start, (double)looks);
}

static void names(uint64_t largest)
{
	uint64_t made = 0, before;

	begin((uint64_t)4 << 30);
	before = used_bytes();
	for (uint64_t count = 1000; count <= largest; count *= 10)
		names_of(count, &made);
	say("bytes_per_file", (double)(used_bytes() - before) / (double)made, "bytes");
	end();
}

static void bytes_of(uint64_t size, const char *label)
{
	rp_object file = make(label, S_IFREG | 0644);
	struct rp_attr attr = { .size_bytes = size };
	uint64_t random = 6;
	char page[RP_PAGE_SIZE] = { 1 }, row[64];

	check(rp_fs_setattr(fs, file, RP_SET_SIZE, &attr, &attr), "rp_fs_setattr");
	for (int round = 0; round < 3; round++) {
		double start = cpu_s();

		random = 6;
		for (unsigned i = 0; i < WRITES; i++) {
			uint64_t at = next_random(&random) % (size / RP_PAGE_SIZE) * RP_PAGE_SIZE;
			ssize_t n = round < 2 ? rp_fs_write(fs, file, at, page, sizeof(page), 0) :
			                        rp_fs_read(fs, file, at, page, sizeof(page));

			check((int)n, "read or write");
		}
		snprintf(row, sizeof(row), "%s_%s", round == 0 ? "fill" : round == 1 ? "write" : "read", label);
		say_us(row, cpu_s() - start, WRITES);
	}
	check(rp_fs_unlink(fs, rp_fs_root(fs), rp_name_from(label), NULL), "rp_fs_unlink");
}

static void bytes(void)
{
	static const struct { uint64_t size; const char *label; } sizes[] = {
		{ (uint64_t)1 << 20, "1MiB" }, { (uint64_t)64 << 20, "64MiB" }, { (uint64_t)1 << 30, "1GiB" },
		{ (uint64_t)64 << 30, "64GiB" },
	};

	begin((uint64_t)1 << 30);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		bytes_of(sizes[i].size, sizes[i].label);
	end();
}

static double write_all(rp_object file, uint64_t mib, const char *block)
{
	double start = cpu_s();

	for (uint64_t i = 0; i < mib; i++)
		check((int)rp_fs_write(fs, file, i << 20, block, 1 << 20, 0), "rp_fs_write");
	return cpu_s() - start;
}

/* A first snapshot comes and goes before anything counts: it makes the pool touch the memory that a second one needs. */
static void snapshot(uint64_t mib)
{
	double bytes_written = (double)(mib << 20), start;
	struct rp_pool_status status;
	char *block = malloc(1 << 20);
	rp_object file;

	must(block != NULL, "malloc");
	memset(block, 1, 1 << 20);
	begin((mib * 5 / 2 + 64) << 20);
	file = make("file", S_IFREG | 0644);
	write_all(file, mib, block);
	check(rp_snapshot_create(pool, "first"), "rp_snapshot_create");
	write_all(file, mib, block);
	check(rp_snapshot_delete(pool, "first"), "rp_snapshot_delete");
	say_bytes("write_before_snapshot", write_all(file, mib, block), bytes_written);
	start = cpu_s();
	check(rp_snapshot_create(pool, "second"), "rp_snapshot_create");
	say_us("snapshot_take", cpu_s() - start, 1);
	say_bytes("write_after_snapshot", write_all(file, mib, block), bytes_written);
	rp_pool_status(pool, &status);
	say_us("snapshot_gate", (double)status.gate_closed_max_ns * 1e-9, 1);
	end();
	free(block);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "names") && argc > 2)
		names(strtoull(argv[2], NULL, 10));
	else if (!strcmp(what, "bytes"))
		bytes();
	else if (!strcmp(what, "snapshot") && argc > 2)
		snapshot(strtoull(argv[2], NULL, 10));
	else {
		fprintf(stderr, "usage: inside names LARGEST | bytes | snapshot MIB\n");
		return 2;
	}
	return 0;
}
