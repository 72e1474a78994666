/* words.c: how requests and names are written in one line.
 *
 * In a request each word is percent-encoded, so that names of any bytes travel in it. For people, paths are left
 * readable where that is unambiguous.
 */
#include <stdlib.h>
#include "internal.h"

static const char hex_digits[] = "0123456789ABCDEF";

int rp_word_encode(const char *word, char *to, size_t size, size_t *used)
{
	const unsigned char *p;
	size_t at = *used;
	bool plain;

	if (!*word)
		return -EINVAL;
	for (p = (const unsigned char *)word; *p; p++) {
		plain = *p > ' ' && *p < 0x7f && *p != '%';
		if (size - at < 4)
			return -E2BIG;
		if (plain) {
			to[at++] = (char)*p;
			continue;
		}
		to[at++] = '%';
		to[at++] = hex_digits[*p >> 4];
		to[at++] = hex_digits[*p & 15];
	}
	to[at] = 0;
	*used = at;
	return 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static int word_decode(char *word)
{
	char *to = word;
	int high, low;

	for (; *word; word++) {
		if (*word != '%') {
			*to++ = *word;
			continue;
		}
		high = hex_value(word[1]);
		low = high < 0 ? -1 : hex_value(word[2]);
		if (low < 0 || (high == 0 && low == 0))
			return -EINVAL;
		*to++ = (char)(high << 4 | low);
		word += 2;
	}
	*to = 0;
	return 0;
}

int rp_words_split(char *line, char **words, size_t max)
{
	char *state = NULL, *word;
	size_t count = 0;

	for (word = strtok_r(line, " ", &state); word; word = strtok_r(NULL, " ", &state)) {
		if (count == max)
			return -E2BIG;
		if (word_decode(word))
			return -EINVAL;
		words[count++] = word;
	}
	return count ? (int)count : -EINVAL;
}

/* Length of the UTF-8 sequence at p, 0: none. What only looks long (overlong forms) and surrogates are none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	size_t length = *p >= 0xf0 && *p < 0xf5 ? 4 : *p >= 0xe0 ? 3 : 2, i;

	if (*p < 0xc2 || *p > 0xf4 || length > left)
		return 0;
	for (i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return length;
}

char *rp_path_print(const char *bytes, size_t length)
{
	const unsigned char *p = (const unsigned char *)bytes;
	char *text = malloc(length * 3 + 1), *to = text;
	size_t i = 0, run;

	if (!text)
		return NULL;
	while (i < length) {
		if (p[i] >= ' ' && p[i] < 0x7f && p[i] != '%' && p[i] != '>')
			run = 1;
		else
			run = p[i] >= 0x80 ? utf8_length(p + i, length - i) : 0;
		if (!run) {
			*to++ = '%';
			*to++ = hex_digits[p[i] >> 4];
			*to++ = hex_digits[p[i] & 15];
			i++;
			continue;
		}
		memcpy(to, p + i, run);
		to += run;
		i += run;
	}
	*to = 0;
	return text;
}
