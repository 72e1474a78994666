/* expect.h: what must hold in a test; otherwise it says where and ends. */
#ifndef RP_TESTS_EXPECT_H
#define RP_TESTS_EXPECT_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPECT(condition)                                                                  \
	do {                                                                               \
		if (!(condition)) {                                                        \
			printf("FAIL %s:%d: %s\n", __FILE__, __LINE__, #condition);        \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

#define EXPECT_EQUAL(have, want)                                                                               \
	do {                                                                                                   \
		long long have_ = (long long)(have), want_ = (long long)(want);                                \
		if (have_ != want_) {                                                                          \
			printf("FAIL %s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #have, have_, want_); \
			exit(1);                                                                               \
		}                                                                                              \
	} while (0)

/* A call that gives 0, or why[] says more. */
#define EXPECT_OK(call, why)                                                                            \
	do {                                                                                            \
		int error_ = (call);                                                                    \
		if (error_) {                                                                           \
			printf("FAIL %s:%d: %s: %d: %s\n", __FILE__, __LINE__, #call, error_, (why));   \
			exit(1);                                                                        \
		}                                                                                       \
	} while (0)

/* Go to a new directory of this test's own; directory_leave() removes it. Below TMPDIR, which the runner removes too. */
static inline void directory_enter(char to[256])
{
	const char *base = getenv("TMPDIR");

	snprintf(to, 256, "%s/rampool-test-XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(to) || chdir(to)) {
		perror(to);
		exit(1);
	}
}

static inline void directory_leave(const char *directory)
{
	char command[300];

	snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	if (chdir("/") || system(command))
		exit(1);
}

#endif
