/* disks.c: a client of a block device over NBD: so many connections, each a thread that keeps so many requests under way.
 *
 *   disks SOCKET fill                                     write all of it once
 *   disks SOCKET read|write BLOCK DEPTH CONNECTIONS MS    at random block addresses, for that long
 *
 * Prints kIOPS. Each connection is opened, and negotiated, before the clock starts.
 */
#include <libnbd.h>
#include <pthread.h>
#include "measure.h"

#define DEPTH_MAX 256
#define CONNECTIONS_MAX 64
#define FILL_BLOCK ((uint64_t)1 << 20)

struct client {
	pthread_t thread;
	struct nbd_handle *nbd;
	uint64_t random, block, blocks, done;
	double end;
	unsigned depth;
	int writes;
	char *buffer;
};

static void __attribute__((noreturn)) nbd_die(void)
{
	fprintf(stderr, "%s\n", nbd_get_error());
	exit(1);
}

static int64_t start_one(struct client *c, char *buffer)
{
	uint64_t at = next_random(&c->random) % c->blocks * c->block;
	int64_t cookie = c->writes ? nbd_aio_pwrite(c->nbd, buffer, c->block, at, NBD_NULL_COMPLETION, 0)
	                           : nbd_aio_pread(c->nbd, buffer, c->block, at, NBD_NULL_COMPLETION, 0);

	if (cookie < 0)
		nbd_die();
	return cookie;
}

/* Answers may come in any order: each place looks whether its own has. */
static void *run_client(void *context)
{
	struct client *c = context;
	int64_t cookies[DEPTH_MAX];
	unsigned open = c->depth;
	int going = 1;

	for (unsigned i = 0; i < c->depth; i++)
		cookies[i] = start_one(c, c->buffer + i * c->block);
	while (open) {
		if (nbd_poll(c->nbd, -1) < 0)
			nbd_die();
		if (going && now_s() >= c->end)
			going = 0;
		for (unsigned i = 0; i < c->depth; i++) {
			int done = cookies[i] ? nbd_aio_command_completed(c->nbd, (uint64_t)cookies[i]) : 0;

			if (done < 0)
				nbd_die();
			if (!done)
				continue;
			c->done += going;
			cookies[i] = going ? start_one(c, c->buffer + i * c->block) : 0;
			open -= !going;
		}
	}
	return NULL;
}

static struct nbd_handle *connect_to(const char *socket)
{
	struct nbd_handle *nbd = nbd_create();

	if (!nbd || nbd_connect_unix(nbd, socket) < 0)
		nbd_die();
	return nbd;
}

static void fill(const char *socket)
{
	struct nbd_handle *nbd = connect_to(socket);
	int64_t size = nbd_get_size(nbd);
	char *buffer = malloc(FILL_BLOCK);

	must(buffer != NULL, "malloc");
	memset(buffer, 0x5a, FILL_BLOCK);
	if (size < 0)
		nbd_die();
	for (uint64_t at = 0; at + FILL_BLOCK <= (uint64_t)size; at += FILL_BLOCK)
		if (nbd_pwrite(nbd, buffer, FILL_BLOCK, at, 0) < 0)
			nbd_die();
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
	free(buffer);
}

static void measure(const char *socket, int writes, uint64_t block, unsigned depth, unsigned count, unsigned ms)
{
	struct client clients[CONNECTIONS_MAX];
	uint64_t done = 0;
	double start;

	for (unsigned i = 0; i < count; i++) {
		struct client *c = &clients[i];

		*c = (struct client){ .nbd = connect_to(socket), .random = i, .block = block, .depth = depth,
		                      .writes = writes, .buffer = malloc(block * depth) };
		must(c->buffer != NULL, "malloc");
		memset(c->buffer, 0x33, block * depth);
		c->blocks = (uint64_t)nbd_get_size(c->nbd) / block;
	}
	start = now_s();
	for (unsigned i = 0; i < count; i++) {
		clients[i].end = start + ms * 1e-3;
		errno = pthread_create(&clients[i].thread, NULL, run_client, &clients[i]);
		must(errno == 0, "pthread_create");
	}
	for (unsigned i = 0; i < count; i++) {
		pthread_join(clients[i].thread, NULL);
		done += clients[i].done;
		nbd_shutdown(clients[i].nbd, 0);
		nbd_close(clients[i].nbd);
		free(clients[i].buffer);
	}
	say_iops("iops", ms * 1e-3, (double)done);
}

int main(int argc, char **argv)
{
	unsigned long block, depth, count, ms;

	if (argc == 3 && !strcmp(argv[2], "fill")) {
		fill(argv[1]);
		return 0;
	}
	if (argc != 7 || (strcmp(argv[2], "read") && strcmp(argv[2], "write"))) {
		fprintf(stderr, "usage: disks SOCKET fill | SOCKET read|write BLOCK DEPTH CONNECTIONS MS\n");
		return 2;
	}
	block = strtoul(argv[3], NULL, 10);
	depth = strtoul(argv[4], NULL, 10);
	count = strtoul(argv[5], NULL, 10);
	ms = strtoul(argv[6], NULL, 10);
	if (!block || !depth || depth > DEPTH_MAX || !count || count > CONNECTIONS_MAX || !ms) {
		fprintf(stderr, "disks: a number is out of range\n");
		return 2;
	}
	measure(argv[1], !strcmp(argv[2], "write"), block, (unsigned)depth, (unsigned)count, (unsigned)ms);
	return 0;
}
