/* status.c: counting requests, and what the server adds to `rampool status`. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

struct rp_server *rp_request_begin(fuse_req_t req, enum rp_call call)
{
	struct rp_server *server = fuse_req_userdata(req);
	unsigned stripe = (unsigned)sched_getcpu() % RP_STRIPES;

	atomic_fetch_add_explicit(&server->stripes[stripe].calls[call], 1, memory_order_relaxed);
	return server;
}

char *rp_request_buffer(struct rp_server *server, fuse_req_t req, size_t size)
{
	size_t payload_size;
	char *payload;
	void *buffer;

	if (!fuse_req_get_payload(req, &payload, &payload_size, NULL) && payload_size >= size)
		return payload;
	buffer = pthread_getspecific(server->buffer_key);
	if (buffer)
		return buffer;
	buffer = malloc(RP_REQUEST_BYTES);
	if (buffer && pthread_setspecific(server->buffer_key, buffer)) {
		free(buffer);
		buffer = NULL;
	}
	return buffer;
}

static const char *const call_names[] = {
#define X(symbol, name) name,
	RP_CALLS(X)
#undef X
};

static uint64_t call_count(const struct rp_server *server, size_t call)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < RP_STRIPES; i++)
		sum += atomic_load_explicit(&server->stripes[i].calls[call], memory_order_relaxed);
	return sum;
}

void rp_server_status(void *context, FILE *to)
{
	struct rp_server *server = context;
	unsigned rings = 0;
	uint64_t late;

	fprintf(to, "mount point: %s\n", server->options->mountpoint);
	fprintf(to, "mount device: %u:%u\n", major(server->device), minor(server->device));
	fprintf(to, "server process: %d\n", (int)getpid());
	pthread_mutex_lock(&server->rings_lock);
	for (struct rp_ring *r = server->rings; r; r = r->next)
		rings++;
	late = server->way.late;
	pthread_mutex_unlock(&server->rings_lock);
	if (rings)
		fprintf(to, "request transport: io_uring, %u queues\nqueues behind other work: %lu times\n", rings,
		        (unsigned long)late);
	else
		fprintf(to, "request transport: classic device\n");
	fprintf(to, "kernel cache: %s\n", server->options->write_through ? "write-through" : "writeback");
	fprintf(to, "permission checks: %s\n", server->unchecked ? "none, only root may enter" : "the kernel's");
	for (size_t i = 0; i < RP_CALL_COUNT; i++)
		fprintf(to, "requests %s: %lu\n", call_names[i], (unsigned long)call_count(server, i));
}

void rp_server_log(void *context, const char *line)
{
	const struct rp_server *server = context;

	if (server && !server->options->foreground && atomic_load(&server->is_ready))
		syslog(LOG_WARNING, "%s", line);
	else
		fprintf(stderr, "rampool: %s\n", line);
}
