/* random.h: a small generator (splitmix64) whose whole state is one number, so that a printed seed replays a run. */
#ifndef RP_TESTS_RANDOM_H
#define RP_TESTS_RANDOM_H

#include <stdint.h>
#include <stdlib.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit) { return random_next(state) % limit; }

/* A number from the environment, for seeds and step counts. */
static inline uint64_t number_from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* How often to do something that is done `normal` times: a tenth under the sanitizers; RP_TEST_STEPS is a percentage. */
static inline uint64_t steps_scaled(uint64_t normal)
{
	const char *mode = getenv("RP_MODE");
	uint64_t percent = number_from_environment("RP_TEST_STEPS", mode && (mode[0] == 'a' || mode[0] == 't') ? 10 : 100);
	uint64_t steps = normal * percent / 100;

	return steps ? steps : 1;
}

#endif
