/* later.c: requests that must wait for something, or take long, are answered by other threads, so that their queue goes on.
 *
 * One thread answers fsync with sync=image: it takes all that have come, waits for one commit, and answers them all.
 * Another answers lseek, which needs the file's dirty pages brought in first. Neither needs a request of this mount
 * answered by a thread that waits here. Large reads have a thread for each other CPU, as far as MOVERS_MAX: a ring's
 * thread has its caller's CPU, where copying for reading ahead would alternate with the caller's copying of what came
 * before; here both go on at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "ramfs/server/internal.h"

#define MOVERS_MAX 8

struct job {
	struct job *next;
	fuse_req_t req;
	struct rp_ring *ring;
	fuse_ino_t number;
	off_t offset;
	int whence;               /* of lseek */
	size_t size;              /* of read */
	char *buffer;
};

struct queue {
	struct rp_server *server;
	pthread_mutex_t lock;     /* guards all below; held for moments */
	pthread_cond_t changed;
	struct job *first, **last;
	bool stop;
	pthread_t threads[MOVERS_MAX];
	unsigned thread_count;    /* set before there is a job; 0: nobody serves it */
};

struct rp_later {
	struct queue syncs, seeks, reads;
};

/* Answer under the lock of the request's ring: see ring.c. */
static void job_end(struct job *job, void (*answer)(struct job *, int error, uint64_t value), int error, uint64_t value)
{
	struct rp_ring *ring = job->ring;

	pthread_mutex_lock(&ring->lock);
	answer(job, error, value);
	pthread_mutex_unlock(&ring->lock);
	atomic_fetch_sub(&ring->later, 1);
	free(job);
}

static void answer_error(struct job *job, int error, uint64_t value)
{
	(void)value;
	rp_reply_error(job->req, error);
}

static void answer_seek(struct job *job, int error, uint64_t value)
{
	if (error)
		rp_reply_error(job->req, error);
	else
		fuse_reply_lseek(job->req, (off_t)value);
}

static void answer_read(struct job *job, int error, uint64_t value)
{
	if (error)
		rp_reply_error(job->req, error);
	else
		fuse_reply_buf(job->req, job->buffer, (size_t)value);
}

static bool queue_put(struct queue *queue, const struct job *job)
{
	struct job *copy;

	/* A ring's thread that ring.c does not know: nobody else may answer for it. */
	if (!queue->thread_count || (fuse_req_is_uring(job->req) && !job->ring->uring))
		return false;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	*copy = *job;
	copy->next = NULL;
	rp_way_take_back(copy->ring);
	pthread_mutex_lock(&queue->lock);
	if (queue->stop) {
		pthread_mutex_unlock(&queue->lock);
		free(copy);
		return false;
	}
	atomic_fetch_add(&copy->ring->later, 1);
	*queue->last = copy;
	queue->last = &copy->next;
	pthread_cond_signal(&queue->changed);
	pthread_mutex_unlock(&queue->lock);
	return true;
}

/* The first job, or all there are; null at the end. */
static struct job *queue_take(struct queue *queue, bool all)
{
	struct job *jobs;

	pthread_mutex_lock(&queue->lock);
	while (!queue->first && !queue->stop)
		pthread_cond_wait(&queue->changed, &queue->lock);
	jobs = queue->first;
	queue->first = jobs && !all ? jobs->next : NULL;
	if (!queue->first)
		queue->last = &queue->first;
	pthread_mutex_unlock(&queue->lock);
	return jobs;
}

static void *sync_thread(void *context)
{
	struct queue *queue = context;
	struct job *job;

	while ((job = queue_take(queue, true))) {
		int error = rp_keep_sync(queue->server->keep);

		while (job) {
			struct job *next = job->next;

			job_end(job, answer_error, error, 0);
			job = next;
		}
	}
	return NULL;
}

static void seek(struct rp_server *server, struct job *job)
{
	struct rp_node node;
	struct rp_attr attr;
	uint64_t at = 0;
	int error = rp_node_find(server, job->number, &node);

	if (!error)
		error = rp_node_getattr(server, &node, &attr);
	/* Not brought here: nobody knows where the holes are. */
	if (!error && rp_flush_file(server, job->number, attr.generation))
		error = -EIO;
	if (!error)
		error = rp_seek(server, job->number, job->offset, job->whence, &at);
	job_end(job, answer_seek, error, at);
}

static void *seek_thread(void *context)
{
	struct queue *queue = context;
	struct job *job;

	while ((job = queue_take(queue, false)))
		seek(queue->server, job);
	return NULL;
}

static void *read_thread(void *context)
{
	struct queue *queue = context;
	struct job *job;

	while ((job = queue_take(queue, false))) {
		ssize_t result = rp_read(queue->server, job->req, job->number, job->size, job->offset, &job->buffer);

		job_end(job, answer_read, result < 0 ? (int)result : 0, result < 0 ? 0 : (uint64_t)result);
	}
	return NULL;
}

/* Fewer threads than asked for are enough; none is not. */
static int queue_start(struct queue *queue, struct rp_server *server, void *(*thread)(void *), unsigned count)
{
	int error = 0;

	queue->server = server;
	queue->last = &queue->first;
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->changed, NULL);
	while (!error && queue->thread_count < count) {
		error = -pthread_create(&queue->threads[queue->thread_count], NULL, thread, queue);
		queue->thread_count += !error;
	}
	return queue->thread_count || !count ? 0 : error;
}

static void queue_stop(struct queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->stop = true;
	pthread_cond_broadcast(&queue->changed);
	pthread_mutex_unlock(&queue->lock);
	for (unsigned i = 0; i < queue->thread_count; i++)
		pthread_join(queue->threads[i], NULL);
	pthread_cond_destroy(&queue->changed);
	pthread_mutex_destroy(&queue->lock);
}

int rp_later_start(struct rp_server *server)
{
	struct rp_later *later = calloc(1, sizeof(*later));
	long others = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	int error;

	if (!later)
		return -ENOMEM;
	others = others < 0 ? 0 : others < MOVERS_MAX ? others : MOVERS_MAX;
	error = queue_start(&later->syncs, server, sync_thread, 1);
	if (!error)
		error = queue_start(&later->seeks, server, seek_thread, 1);
	if (!error)
		error = queue_start(&later->reads, server, read_thread, (unsigned)others);
	server->later = later;
	if (error)
		rp_later_stop(server);
	return error;
}

void rp_later_stop(struct rp_server *server)
{
	struct rp_later *later = server->later;
	struct queue *queues[] = { &later->syncs, &later->seeks, &later->reads };

	if (!later)
		return;
	for (size_t i = 0; i < sizeof(queues) / sizeof(queues[0]); i++)
		if (queues[i]->server)
			queue_stop(queues[i]);
	free(later);
	server->later = NULL;
}

bool rp_later_fsync(struct rp_server *server, fuse_req_t req)
{
	return queue_put(&server->later->syncs, &(struct job){ .req = req, .ring = rp_ring_here(server) });
}

bool rp_later_lseek(struct rp_server *server, fuse_req_t req, fuse_ino_t number, off_t offset, int whence)
{
	return queue_put(&server->later->seeks, &(struct job){ .req = req,
	                                                       .ring = rp_ring_here(server),
	                                                       .number = number,
	                                                       .offset = offset,
	                                                       .whence = whence });
}

bool rp_later_read(struct rp_server *server, fuse_req_t req, fuse_ino_t number, size_t size, off_t offset)
{
	return fuse_req_is_uring(req) && queue_put(&server->later->reads, &(struct job){ .req = req,
	                                                                                 .ring = rp_ring_here(server),
	                                                                                 .number = number,
	                                                                                 .offset = offset,
	                                                                                 .size = size });
}
