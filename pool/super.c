/* super.c: the two superblock slots at the begin of an image.
 *
 * A commit counts from the moment its superblock is durable. Commits write the two slots in turn, so that a write torn by a
 * crash spoils at most the slot of the commit that was not acknowledged. Each slot holds two equal copies half a slot apart:
 * a flipped bit in one does not take the newest commit away. Whichever whole copy has the highest sequence counts.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "image.h"

static uint64_t super_checksum(const struct rp_super *super)
{
	return XXH3_64bits(super, offsetof(struct rp_super, checksum));
}

void rp_super_encode(const struct rp_super *super, unsigned slot, void *to)
{
	memset(to, 0, RP_SUPER_SLOT_SIZE);
	for (unsigned copy = 0; copy < RP_SUPER_COPIES; copy++) {
		struct rp_super one = *super;

		memcpy(one.magic, RP_SUPER_MAGIC, sizeof(one.magic));
		one.size = RP_SUPER_SIZE;
		one.slot = (uint8_t)slot;
		one.copy = (uint8_t)copy;
		one.checksum = super_checksum(&one);
		memcpy((char *)to + (size_t)copy * RP_SUPER_STRIDE, &one, sizeof(one));
	}
}

static bool super_is_whole(const struct rp_super *super, unsigned slot, unsigned copy)
{
	return memcmp(super->magic, RP_SUPER_MAGIC, sizeof(super->magic)) == 0 && super->size == RP_SUPER_SIZE &&
	       super->slot == slot && super->copy == copy && super->checksum == super_checksum(super);
}

/* Does it look as if there had been an image? Tells "not an image" from "damaged". */
static bool super_is_trace(const struct rp_super *super)
{
	unsigned equal = 0;

	for (unsigned i = 0; i < sizeof(super->magic); i++)
		equal += super->magic[i] == RP_SUPER_MAGIC[i];
	return equal >= sizeof(super->magic) - 1;
}

int rp_super_decode(const void *from, struct rp_super best[RP_SUPER_SLOTS], bool good[RP_SUPER_SLOTS], unsigned *newest)
{
	bool trace = false;

	for (unsigned slot = 0; slot < RP_SUPER_SLOTS; slot++) {
		good[slot] = false;
		for (unsigned copy = 0; copy < RP_SUPER_COPIES; copy++) {
			struct rp_super one;

			memcpy(&one, (const char *)from + slot * RP_SUPER_SLOT_SIZE + copy * RP_SUPER_STRIDE, sizeof(one));
			trace = trace || super_is_trace(&one);
			if (!super_is_whole(&one, slot, copy))
				continue;
			if (!good[slot] || one.sequence > best[slot].sequence)
				best[slot] = one;
			good[slot] = true;
		}
	}
	if (!good[0] && !good[1])
		return trace ? -EIO : -EINVAL;
	*newest = !good[0] || (good[1] && best[1].sequence > best[0].sequence);
	return 0;
}

bool rp_super_copy_check(const void *from, unsigned slot, unsigned copy)
{
	const uint8_t *at = (const uint8_t *)from + slot * RP_SUPER_SLOT_SIZE + copy * RP_SUPER_STRIDE;
	struct rp_super one;
	unsigned set = 0;

	memcpy(&one, at, sizeof(one));
	for (unsigned i = 0; i < sizeof(one); i++)
		set |= at[i];
	return !set || super_is_whole(&one, slot, copy);
}

static void feature_name(const struct rp_super *super, unsigned word, unsigned bit, char name[64])
{
	static const char *const words[] = { "", "compat", "ro_compat", "incompat" };

	for (unsigned i = 0; i < RP_FEATURE_NAMES; i++) {
		const struct rp_feature_name *one = &super->names[i];

		if (one->word == word && one->bit == bit && one->name[0]) {
			snprintf(name, 64, "%.30s", one->name);
			/* The name comes from the file and goes to a terminal. */
			for (char *c = name; *c; c++)
				if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
					*c = '?';
			return;
		}
	}
	snprintf(name, 64, "%s bit %u", words[word], bit);
}

int rp_super_features_check(const struct rp_super *super, bool read_only, char name[64])
{
	uint64_t missing = super->incompat & ~RP_INCOMPAT_KNOWN;

	if (missing) {
		feature_name(super, RP_FEATURE_INCOMPAT, (unsigned)__builtin_ctzll(missing), name);
		return -ENOTSUP;
	}
	missing = super->ro_compat & ~RP_RO_COMPAT_KNOWN;
	if (missing && !read_only) {
		feature_name(super, RP_FEATURE_RO_COMPAT, (unsigned)__builtin_ctzll(missing), name);
		return -ENOTSUP;
	}
	return 0;
}

static void feature_add(struct rp_super *super, unsigned bit, const char *text)
{
	for (unsigned i = 0; i < RP_FEATURE_NAMES; i++) {
		struct rp_feature_name *one = &super->names[i];

		if (one->word == RP_FEATURE_INCOMPAT && one->bit == bit)
			return;
		if (one->word == 0) {
			one->word = RP_FEATURE_INCOMPAT;
			one->bit = (uint8_t)bit;
			memcpy(one->name, text, strlen(text));
			return;
		}
	}
}

void rp_super_features_set(struct rp_super *super, enum rp_codec codec)
{
	if (codec == RP_CODEC_LZ4) {
		super->incompat |= RP_INCOMPAT_LZ4;
		feature_add(super, 0, "blocks compressed with lz4");
	} else if (codec == RP_CODEC_ZSTD) {
		super->incompat |= RP_INCOMPAT_ZSTD;
		feature_add(super, 1, "blocks compressed with zstd");
	}
}
