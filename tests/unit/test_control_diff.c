/* test_control_diff.c: diff against a comparison of everything: random changes of a tree (files, directories, links, renames,
 * contents, attributes), a snapshot between two of these rounds, and two walks over both states that need no hint and know no
 * shortcut. What must come out is worked out from the walks alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <ramfs/control/internal.h>
#include <tests/lib/expect.h>
#include <tests/lib/random.h>

#define PATHS_MAX 4096
#define LINES_MAX 8192

static char message[512];
static uint64_t seed;
static const struct rp_cred cred = { .fsetid = true };

/* ---- Walks ------------------------------------------------------------------------------------------------------- */

struct seen {
	char *path;
	struct rp_attr attr;
	uint64_t sum; /* of contents and attributes */
};
struct walk {
	struct seen seen[PATHS_MAX];
	size_t count;
	struct rp_fs *fs;
	const char *at;
};

static uint64_t sum_add(uint64_t sum, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;

	while (size--)
		sum = (sum ^ *p++) * UINT64_C(0x100000001b3);
	return sum;
}

/* Names that came or went change times and counts, which are not in it. */
static uint64_t sum_of(struct rp_fs *fs, const struct rp_attr *attr)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);
	static char buffer[65536];
	uint64_t offset;
	ssize_t got;

	sum = sum_add(sum, &attr->mode, sizeof(attr->mode));
	sum = sum_add(sum, &attr->uid, sizeof(attr->uid));
	sum = sum_add(sum, &attr->gid, sizeof(attr->gid));
	if (rp_fs_xattr_get(fs, attr->ino, "user.x", buffer, 16) == 4)
		sum = sum_add(sum, buffer, 4);
	if (!S_ISREG(attr->mode))
		return sum;
	sum = sum_add(sum, &attr->mtime, sizeof(attr->mtime));
	for (offset = 0; offset < attr->size_bytes; offset += (uint64_t)got) {
		got = rp_fs_read(fs, attr->ino, offset, buffer, sizeof(buffer));
		EXPECT(got > 0);
		sum = sum_add(sum, buffer, (size_t)got);
	}
	return sum;
}

static int walk_entry(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next)
{
	struct walk *walk = context;
	struct seen *seen;

	(void)next;
	if (name.bytes[0] == '.')
		return 0;
	EXPECT(walk->count < PATHS_MAX);
	seen = &walk->seen[walk->count++];
	EXPECT(asprintf(&seen->path, "%s/%.*s", walk->at, (int)name.length, name.bytes) > 0);
	seen->attr = *attr;
	return 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct seen *)a)->path, ((const struct seen *)b)->path);
}

static void walk_all(struct rp_fs *fs, struct walk *walk)
{
	size_t i;

	walk->count = 0;
	walk->fs = fs;
	walk->at = "";
	EXPECT_EQUAL(rp_fs_readdir(fs, rp_fs_root(fs), 0, true, false, walk_entry, walk), 0);
	for (i = 0; i < walk->count; i++) {
		walk->at = walk->seen[i].path;
		if (S_ISDIR(walk->seen[i].attr.mode))
			EXPECT_EQUAL(rp_fs_readdir(fs, walk->seen[i].attr.ino, 0, true, false, walk_entry, walk), 0);
	}
	for (i = 0; i < walk->count; i++)
		walk->seen[i].sum = sum_of(fs, &walk->seen[i].attr);
	qsort(walk->seen, walk->count, sizeof(walk->seen[0]), by_path);
}

static void walk_free(struct walk *walk)
{
	while (walk->count)
		free(walk->seen[--walk->count].path);
}

static bool same_inode(const struct seen *a, const struct seen *b)
{
	return a->attr.ino == b->attr.ino && a->attr.generation == b->attr.generation;
}

/* A name by its directory and not by its path: below a directory that moved nothing has changed. */
static rp_object parent_of(const struct walk *walk, const char *path)
{
	size_t length = (size_t)(strrchr(path, '/') - path), i;

	if (!length)
		return rp_fs_root(walk->fs);
	for (i = 0; i < walk->count; i++)
		if (strlen(walk->seen[i].path) == length && !memcmp(walk->seen[i].path, path, length))
			return walk->seen[i].attr.ino;
	EXPECT(!"a path has a parent");
	return 0;
}

static bool name_is_in(const struct walk *in, const struct walk *from, const struct seen *one)
{
	const char *name = strrchr(one->path, '/');
	rp_object parent = parent_of(from, one->path);
	size_t i;

	for (i = 0; i < in->count; i++)
		if (same_inode(&in->seen[i], one) && !strcmp(strrchr(in->seen[i].path, '/'), name) &&
		    parent_of(in, in->seen[i].path) == parent)
			return true;
	return false;
}

/* ---- What must come out ---------------------------------------------------------------------------------------------- */

struct lines {
	char *line[LINES_MAX];
	size_t count;
};

static void line_add(struct lines *lines, char *line)
{
	EXPECT(line && lines->count < LINES_MAX);
	lines->line[lines->count++] = line;
}

static void lines_free(struct lines *lines)
{
	while (lines->count)
		free(lines->line[--lines->count]);
}

static bool has_line(const struct lines *lines, const char *line)
{
	size_t i;

	for (i = 0; i < lines->count; i++)
		if (!strcmp(lines->line[i], line))
			return true;
	return false;
}

static void fail_with(const struct lines *got, const char *why, const char *line)
{
	size_t i;

	printf("FAIL %s: %s\ndiff says:\n", why, line);
	for (i = 0; i < got->count; i++)
		printf("  %s\n", got->line[i]);
	exit(1);
}

/* The line of a name that went or came: alone, or as one side of a rename. */
static bool told(const struct lines *got, char sign, const char *path)
{
	char line[1024];
	size_t i, length;

	snprintf(line, sizeof(line), "%c %s", sign, path);
	if (has_line(got, line))
		return true;
	length = strlen(path);
	for (i = 0; i < got->count; i++) {
		const char *text = got->line[i], *arrow = strstr(text, " -> ");

		if (text[0] != 'R' || !arrow)
			continue;
		if (sign == '-' && (size_t)(arrow - text - 2) == length && !memcmp(text + 2, path, length))
			return true;
		if (sign == '+' && !strcmp(arrow + 4, path))
			return true;
	}
	return false;
}

static const struct seen *find_inode(const struct walk *walk, const struct seen *one)
{
	size_t i;

	for (i = 0; i < walk->count; i++)
		if (same_inode(&walk->seen[i], one))
			return &walk->seen[i];
	return NULL;
}

/* Names that went or came; how many lines that makes, a rename counting for two. */
static size_t names_expected(const struct walk *a, const struct walk *b, char sign, const struct lines *got)
{
	size_t i, count = 0;

	for (i = 0; i < a->count; i++) {
		if (name_is_in(b, a, &a->seen[i]))
			continue;
		count++;
		if (!told(got, sign, a->seen[i].path))
			fail_with(got, sign == '-' ? "a name that went is missing" : "a name that came is missing",
			          a->seen[i].path);
	}
	return count;
}

/* Each inode in both whose sum differs: one line with one of its names. */
static size_t modified_expected(const struct walk *a, const struct walk *b, const struct lines *got)
{
	size_t i, j, lines, count = 0;
	char line[1024];

	for (i = 0; i < b->count; i++) {
		const struct seen *before = find_inode(a, &b->seen[i]);

		if (!before || before->sum == b->seen[i].sum || find_inode(b, &b->seen[i]) != &b->seen[i])
			continue;
		for (lines = 0, j = 0; j < b->count; j++) {
			snprintf(line, sizeof(line), "M %s", b->seen[j].path);
			lines += same_inode(&b->seen[j], &b->seen[i]) && has_line(got, line);
		}
		if (lines != 1)
			fail_with(got, "something modified is told other than once", b->seen[i].path);
		count++;
	}
	return count;
}

static void renames_check(const struct walk *a, const struct walk *b, const struct lines *got)
{
	size_t i, j, k;

	for (i = 0; i < got->count; i++) {
		char *text = got->line[i], *arrow = strstr(text, " -> ");
		bool right = false;

		if (text[0] != 'R')
			continue;
		EXPECT(arrow);
		for (j = 0; j < a->count; j++)
			for (k = 0; !right && k < b->count; k++)
				right = strlen(a->seen[j].path) == (size_t)(arrow - text - 2) &&
				        !memcmp(text + 2, a->seen[j].path, (size_t)(arrow - text - 2)) &&
				        !strcmp(arrow + 4, b->seen[k].path) && same_inode(&a->seen[j], &b->seen[k]);
		if (!right)
			fail_with(got, "not a rename", text);
	}
}

/* ---- Running the verb ------------------------------------------------------------------------------------------------ */

static void diff_run(const char *path, const char *from, const char *to, struct lines *out)
{
	const char *words[3] = { "diff", from, to };
	char *text = NULL, *state = NULL, *line;
	size_t size;
	FILE *stream = open_memstream(&text, &size);

	EXPECT(stream);
	EXPECT_OK(rp_control_call(path, words, to ? 3 : 2, stream, false, message), message);
	EXPECT(!fclose(stream));
	out->count = 0;
	for (line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
		line_add(out, strdup(line));
	free(text);
}

/* Lines by their first path. */
static int path_order(const char *a, const char *b)
{
	const char *end_a = strstr(a, " -> "), *end_b = strstr(b, " -> ");
	size_t length_a = end_a ? (size_t)(end_a - a) : strlen(a), length_b = end_b ? (size_t)(end_b - b) : strlen(b);
	int order = memcmp(a + 2, b + 2, (length_a < length_b ? length_a : length_b) - 2);

	return order ? order : length_a < length_b ? -1 : length_a > length_b;
}

static void compare(const struct walk *a, const struct walk *b, const struct lines *got)
{
	size_t went, came, modified, lines = 0, extra = 0, i;

	went = names_expected(a, b, '-', got);
	came = names_expected(b, a, '+', got);
	modified = modified_expected(a, b, got);
	renames_check(a, b, got);
	for (i = 0; i < got->count; i++) {
		lines += got->line[i][0] == 'R' ? 2 : got->line[i][0] != 'M';
		extra += got->line[i][0] == 'M';
		EXPECT(!i || path_order(got->line[i - 1], got->line[i]) <= 0);
	}
	if (lines != went + came)
		fail_with(got, "lines for names that neither went nor came", "");
	/* A file written with the bytes it had, or an attribute set to what it was, may be told: its times say it was changed.
	 * The other way round nothing is missing. */
	EXPECT(extra >= modified);
}

/* ---- Changes ----------------------------------------------------------------------------------------------------- */

static struct walk now;

static const struct seen *any_of(uint32_t type)
{
	size_t start = now.count ? random_below(&seed, now.count) : 0, i;

	for (i = 0; i < now.count; i++) {
		const struct seen *one = &now.seen[(start + i) % now.count];

		if (!type || (one->attr.mode & S_IFMT) == type)
			return one;
	}
	return NULL;
}

static rp_object any_directory(struct rp_fs *fs)
{
	const struct seen *one = random_below(&seed, 3) ? any_of(S_IFDIR) : NULL;

	return one ? one->attr.ino : rp_fs_root(fs);
}

static struct rp_name any_name(void)
{
	static char name[16];

	snprintf(name, sizeof(name), "n%u", (unsigned)random_below(&seed, 40));
	return rp_name_from(name);
}

static void change_contents(struct rp_fs *fs, const struct seen *file)
{
	uint64_t offset = random_below(&seed, 20000), word = random_next(&seed);

	if (random_below(&seed, 4))
		EXPECT_EQUAL(rp_fs_write(fs, file->attr.ino, offset, &word, sizeof(word), 0), sizeof(word));
	else
		EXPECT_EQUAL(rp_fs_fallocate(fs, file->attr.ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192, false), 0);
}

/* Errors that a random step may meet are no matter: what counts is the state it leaves. */
static void change_one(struct rp_fs *fs)
{
	const struct seen *file = any_of(S_IFREG), *one = any_of(0);
	struct rp_name name = any_name();
	rp_object in = any_directory(fs);
	struct rp_attr attr = { 0 };
	uint32_t word = (uint32_t)random_next(&seed);

	switch (random_below(&seed, 11)) {
	case 0: case 1:
		rp_fs_make(fs, &cred, in, name, S_IFREG | 0644, 0, NULL, false, &attr);
		break;
	case 2:
		rp_fs_make(fs, &cred, in, name, S_IFDIR | 0755, 0, NULL, false, &attr);
		break;
	case 3: case 4:
		if (file)
			change_contents(fs, file);
		break;
	case 5:
		rp_fs_unlink(fs, in, name, NULL);
		break;
	case 6:
		rp_fs_rmdir(fs, in, name, NULL);
		break;
	case 7:
		if (file)
			rp_fs_link(fs, file->attr.ino, in, name, false, &attr);
		break;
	case 8:
		rp_fs_rename(fs, &cred, in, name, any_directory(fs), rp_name_from(random_below(&seed, 2) ? "n1" : "moved"),
		             random_below(&seed, 3) ? 0 : RENAME_EXCHANGE);
		break;
	case 9:
		attr.mode = (uint32_t)random_below(&seed, 01000);
		if (one)
			rp_fs_setattr(fs, one->attr.ino, RP_SET_MODE, &attr, &attr);
		break;
	default:
		if (one)
			rp_fs_xattr_set(fs, one->attr.ino, "user.x", &word, sizeof(word), 0, false);
	}
}

static void change_some(struct rp_fs *fs, unsigned steps)
{
	while (steps--) {
		walk_all(fs, &now);
		change_one(fs);
		walk_free(&now);
	}
}

int main(void)
{
	struct rp_keep_options options = { .size_bytes = 32 << 20 };
	char directory[] = "/tmp/rampool-diff-XXXXXX", path[64];
	static struct walk before, after;
	static struct lines got;
	struct rp_control *control;
	struct rp_snapshot *snapshot;
	struct rp_keep *keep;
	struct rp_fs *old;
	unsigned round;

	seed = number_from_environment("RP_SEED", 20240604);
	printf("seed %llu\n", (unsigned long long)seed);
	EXPECT(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	EXPECT_OK(rp_keep_start(&options, NULL, &keep, message), message);
	EXPECT_OK(rp_control_open(keep, path, false, &control, message), message);
	EXPECT_OK(rp_control_serve(control, message), message);
	for (round = 0; round < 60; round++) {
		change_some(rp_keep_fs(keep), round % 3 ? 8 : 40);
		EXPECT_EQUAL(rp_snapshot_create(rp_keep_pool(keep), "a"), 0);
		diff_run(path, "a", NULL, &got);
		EXPECT_EQUAL(got.count, 0);
		change_some(rp_keep_fs(keep), (unsigned)random_below(&seed, 30));
		EXPECT_EQUAL(rp_snapshot_open(rp_keep_pool(keep), "a", &snapshot), 0);
		EXPECT_EQUAL(rp_fs_open_snapshot(rp_keep_pool(keep), snapshot, &old), 0);
		walk_all(old, &before);
		walk_all(rp_keep_fs(keep), &after);
		diff_run(path, "a", NULL, &got);
		compare(&before, &after, &got);
		lines_free(&got);
		EXPECT_EQUAL(rp_snapshot_create(rp_keep_pool(keep), "b"), 0);
		diff_run(path, "b", "a", &got); /* backwards is as good */
		compare(&after, &before, &got);
		lines_free(&got);
		walk_free(&before);
		walk_free(&after);
		rp_fs_close(old);
		rp_snapshot_put(snapshot);
		EXPECT_EQUAL(rp_snapshot_delete(rp_keep_pool(keep), "a"), 0);
		EXPECT_EQUAL(rp_snapshot_delete(rp_keep_pool(keep), "b"), 0);
	}
	rp_control_stop(control);
	EXPECT_OK(rp_keep_stop(keep, message), message);
	EXPECT(!rmdir(directory));
	return 0;
}
