/* test_keep_options.c: sizes, options and the words of requests: what is taken, what is refused, and how that is said. */
#include <errno.h>
#include <string.h>
#include <ramfs/control/internal.h>
#include <tests/lib/expect.h>
#include <tests/lib/random.h>

static void expect_size(const char *text, bool percent, int error, uint64_t bytes)
{
	uint64_t got = 12345;
	int result = rp_size_parse(text, percent, &got);

	if (result != error || (!error && got != bytes)) {
		printf("FAIL size \"%s\": %d, %llu; wanted %d, %llu\n", text, result, (unsigned long long)got, error,
		       (unsigned long long)bytes);
		exit(1);
	}
}

static void sizes_parsed(void)
{
	static const struct { const char *text; uint64_t bytes; } good[] = {
		{ "0", 0 }, { "1", 1 }, { "512", 512 }, { "512B", 512 }, { "64K", 65536 }, { "64k", 65536 }, { "64KB", 65536 },
		{ "64KiB", 65536 }, { "1M", 1 << 20 }, { "1.5G", UINT64_C(3) << 29 }, { "0.5K", 512 }, { "2T", UINT64_C(1) << 41 },
		{ "1P", UINT64_C(1) << 50 }, { "7E", UINT64_C(7) << 60 }, { "9223372036854775807", INT64_MAX },
		{ "0.000001K", 0 }, { ".5K", 512 }, { "1.0009765625M", (1 << 20) + 1024 },
	};
	static const char *const bad[] = { "", " ", "x", "-1", "+1", "1 ", " 1", "1X", "1KK", "1iB", "1.", ".", "1..2", "1.2.3",
		"8E", "9223372036854775808", "18446744073709551616", "99999999999999999999", "1e3", "0x10", "K", "50%", "1%K" };
	uint64_t half, all;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++)
		expect_size(good[i].text, i & 1, 0, good[i].bytes);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_size(bad[i], false, -EINVAL, 0);
	expect_size("101%", true, -EINVAL, 0);
	expect_size("100.1%", true, -EINVAL, 0);
	EXPECT_OK(rp_size_parse("100%", true, &all), "100%");
	EXPECT_OK(rp_size_parse("50%", true, &half), "50%");
	EXPECT_EQUAL(all, rp_memory_total());
	EXPECT_EQUAL(half, all / 2);
	EXPECT(all > 1 << 20);
}

static void sizes_printed(void)
{
	static const struct { uint64_t bytes; const char *text; } all[] = {
		{ 0, "0 bytes" }, { 1, "1 bytes" }, { 1023, "1023 bytes" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" },
		{ 1048575, "1023.9 KiB" }, { 1048576, "1 MiB" }, { UINT64_C(3) << 29, "1.5 GiB" },
		{ UINT64_MAX, "15.9 EiB" }, { INT64_MAX, "7.9 EiB" },
	};
	char to[32];
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (strcmp(rp_size_print(all[i].bytes, to), all[i].text)) {
			printf("FAIL %llu is printed as %s, not %s\n", (unsigned long long)all[i].bytes, to, all[i].text);
			exit(1);
		}
}

static int take(struct rp_keep_options *options, const char *key, const char *value, char message[512])
{
	message[0] = 0;
	return rp_keep_option(options, key, value, message);
}

static void options_refused(void)
{
	static const struct { const char *key, *value; } bad[] = {
		{ "size", NULL }, { "size", "" }, { "size", "0" }, { "size", "abc" }, { "size", "101%" }, { "inodes", "-1" },
		{ "inodes", NULL }, { "mode", "8" }, { "mode", "10000" }, { "mode", "" }, { "mode", " 7" }, { "uid", "-1" },
		{ "uid", "4294967295" }, { "uid", "root" }, { "gid", "x" }, { "gid", "99999999999999999999" }, { "ro", "maybe" },
		{ "image", "" }, { "image", NULL }, { "autosave", "x" }, { "autosave", "300s/" }, { "autosave", "/64M" },
		{ "autosave", "1s/2s" }, { "autosave", "1M/2M" }, { "autosave", "5m" }, { "autosave", "-1" },
		{ "autosave", "1s/1M/1" }, { "autosave", "99999999999999999999" }, { "autosave", "s" }, { "sync", "disk" },
		{ "sync", NULL }, { "on-save-error", "stop" }, { "keep", "0" }, { "keep", "x" }, { "codec", "gzip" },
		{ "codec", "" }, { "generation", "0" }, { "generation", "-5" }, { "label", "123456789012345678901234567890123" },
		{ "nosave", "2" }, { "directory", "" }, { "mlock", "x" },
	};
	struct rp_keep_options options = { 0 };
	char message[512];
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		int result = take(&options, bad[i].key, bad[i].value, message);

		if (result != -EINVAL || strncmp(message, bad[i].key, strlen(bad[i].key)) || strchr(message, '\n')) {
			printf("FAIL %s=%s: %d, \"%s\"\n", bad[i].key, bad[i].value ? bad[i].value : "(none)", result, message);
			exit(1);
		}
	}
	EXPECT_EQUAL(take(&options, "nothing", "1", message), 0);
	EXPECT_EQUAL(take(&options, "", "1", message), 0);
	EXPECT_EQUAL(take(&options, "siz", "1", message), 0);
	EXPECT_EQUAL(take(&options, "size\n", "1", message), 0);
	rp_keep_options_free(&options);
}

static void options_taken(void)
{
	static const struct { const char *key, *value; } good[] = {
		{ "size", "2G" }, { "inodes", "1K" }, { "mode", "1770" }, { "uid", "0" }, { "gid", "100" }, { "ro", NULL },
		{ "image", "/a/b" }, { "image", "c" }, { "autosave", "300s/64M" }, { "sync", "image" }, { "nosave", "" },
		{ "on-save-error", "readonly" }, { "keep", "5" }, { "codec", "lz4" }, { "generation", "17" },
		{ "any-owner", "yes" },
		{ "nohuge", "1" }, { "mlock", "true" }, { "directory", "/d" }, { "label", "12345678901234567890123456789012" },
		{ "rw", NULL },
	};
	struct rp_keep_options o = { 0 };
	char message[512];
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++)
		EXPECT_EQUAL(take(&o, good[i].key, good[i].value, message), 1);
	EXPECT_EQUAL(o.size_bytes, INT64_C(2) << 30);
	EXPECT_EQUAL(o.inode_limit, 1024);
	EXPECT_EQUAL(o.mode, 01770);
	EXPECT(o.mode_set && o.uid_set && o.gid_set && !o.read_only && o.no_save && o.sync_image && o.readonly_on_error);
	EXPECT_EQUAL(o.gid, 100);
	EXPECT(o.image[0] == '/' && !strcmp(strrchr(o.image, '/'), "/c"));
	EXPECT_EQUAL(o.autosave_seconds, 300);
	EXPECT_EQUAL(o.autosave_bytes, 64 << 20);
	EXPECT_EQUAL(o.keep, 5);
	EXPECT(o.codec == RP_CODEC_LZ4 && o.codec_set);
	EXPECT_EQUAL(o.generation, 17);
	EXPECT(o.any_owner && o.small_pages && o.lock_memory);
	EXPECT(!strcmp(o.directory, "/d") && strlen(o.label) == 32);
	EXPECT_EQUAL(take(&o, "autosave", "64M", message), 1);
	EXPECT_EQUAL(o.autosave_seconds, 0);
	EXPECT_EQUAL(take(&o, "autosave", "10", message), 1);
	EXPECT(o.autosave_seconds == 10 && !o.autosave_bytes);
	EXPECT_EQUAL(take(&o, "autosave", "off", message), 1);
	EXPECT(!o.autosave_seconds && !o.autosave_bytes);
	rp_keep_options_free(&o);
	EXPECT(!o.image && !o.size_bytes);
	EXPECT(strstr(rp_keep_options_help(), "autosave="));
}

/* Any bytes but NUL go through a request unharmed. */
static void words_round_trip(uint64_t *seed)
{
	char line[4096], word[300], second[300], *words[4];
	size_t used, i, length;
	int round;

	for (round = 0; round < 2000; round++) {
		length = 1 + random_below(seed, 250);
		for (i = 0; i < length; i++)
			word[i] = (char)(1 + random_below(seed, 255));
		word[length] = 0;
		for (i = 0; i < length; i++)
			second[i] = (char)(' ' + random_below(seed, 90));
		second[length] = 0;
		used = 0;
		EXPECT_EQUAL(rp_word_encode(word, line, sizeof(line), &used), 0);
		line[used++] = ' ';
		EXPECT_EQUAL(rp_word_encode(second, line, sizeof(line), &used), 0);
		EXPECT(!strpbrk(line, "\n\t\r"));
		EXPECT_EQUAL(rp_words_split(line, words, 4), 2);
		EXPECT(!strcmp(words[0], word) && !strcmp(words[1], second));
	}
	used = 0;
	EXPECT_EQUAL(rp_word_encode("", line, sizeof(line), &used), -EINVAL);
	EXPECT_EQUAL(rp_word_encode("12345678", line, 8, &used), -E2BIG);
}

static void words_refused(void)
{
	static const char *const bad[] = { "", "   ", "%", "a%2", "%zz", "%00", "a b c d e", "%2g" };
	char line[64], *words[4];
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		strcpy(line, bad[i]);
		EXPECT(rp_words_split(line, words, 4) < 0);
	}
}

static void paths_printed(void)
{
	static const struct { const char *from, *to; } all[] = {
		{ "/plain name", "/plain name" }, { "/a\nb\x7f%", "/a%0Ab%7F%25" }, { "/a -> b", "/a -%3E b" },
		{ "/\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", "/\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80" }, { "/\xc3", "/%C3" },
		{ "/\xc0\xaf", "/%C0%AF" }, { "/\xed\xa0\x80", "/%ED%A0%80" }, { "/\xff", "/%FF" }, { "/\xe2\x82", "/%E2%82" },
		{ "/\xf4\x90\x80\x80", "/%F4%90%80%80" },
	};
	char *text;
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(*all); i++) {
		text = rp_path_print(all[i].from, strlen(all[i].from));
		EXPECT(text && !strcmp(text, all[i].to));
		free(text);
	}
}

int main(void)
{
	uint64_t seed = number_from_environment("RP_SEED", 20240601);

	printf("seed %llu\n", (unsigned long long)seed);
	sizes_parsed();
	sizes_printed();
	options_refused();
	options_taken();
	words_round_trip(&seed);
	words_refused();
	paths_printed();
	return 0;
}
