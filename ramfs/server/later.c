/* later.c: requests that must wait for something are answered by two threads, so that their queue goes on.
 *
 * One thread answers fsync with sync=image: it takes all that have come, waits for one commit, and answers them all.
 * The other answers lseek, which needs the file's dirty pages brought in first. Neither needs a request of this mount
 * answered by a thread that waits here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ramfs/server/internal.h"

struct job {
	struct job *next;
	fuse_req_t req;
	struct rp_ring *ring;
	fuse_ino_t number;
	off_t offset;
	int whence;
};

struct queue {
	struct rp_server *server;
	pthread_mutex_t lock;     /* guards all below; held for moments */
	pthread_cond_t changed;
	struct job *first, **last;
	bool stop;
	pthread_t thread;
};

struct rp_later {
	struct queue syncs, seeks;
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

static bool queue_put(struct queue *queue, const struct job *job)
{
	struct job *copy;

	/* A ring's thread that ring.c does not know: nobody else may answer for it. */
	if (fuse_req_is_uring(job->req) && !job->ring->uring)
		return false;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	*copy = *job;
	copy->next = NULL;
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

/* All jobs there are, or null at the end. */
static struct job *queue_take(struct queue *queue)
{
	struct job *jobs;

	pthread_mutex_lock(&queue->lock);
	while (!queue->first && !queue->stop)
		pthread_cond_wait(&queue->changed, &queue->lock);
	jobs = queue->first;
	queue->first = NULL;
	queue->last = &queue->first;
	pthread_mutex_unlock(&queue->lock);
	return jobs;
}

static void *sync_thread(void *context)
{
	struct queue *queue = context;
	struct job *job;

	while ((job = queue_take(queue))) {
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

	while ((job = queue_take(queue))) {
		while (job) {
			struct job *next = job->next;

			seek(queue->server, job);
			job = next;
		}
	}
	return NULL;
}

static int queue_start(struct queue *queue, struct rp_server *server, void *(*thread)(void *))
{
	queue->server = server;
	queue->last = &queue->first;
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->changed, NULL);
	return -pthread_create(&queue->thread, NULL, thread, queue);
}

static void queue_destroy(struct queue *queue)
{
	pthread_cond_destroy(&queue->changed);
	pthread_mutex_destroy(&queue->lock);
}

static void queue_stop(struct queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->stop = true;
	pthread_cond_signal(&queue->changed);
	pthread_mutex_unlock(&queue->lock);
	pthread_join(queue->thread, NULL);
	queue_destroy(queue);
}

int rp_later_start(struct rp_server *server)
{
	struct rp_later *later = calloc(1, sizeof(*later));
	int error;

	if (!later)
		return -ENOMEM;
	error = queue_start(&later->syncs, server, sync_thread);
	if (error) {
		queue_destroy(&later->syncs);
		free(later);
		return error;
	}
	error = queue_start(&later->seeks, server, seek_thread);
	if (error) {
		queue_destroy(&later->seeks);
		queue_stop(&later->syncs);
		free(later);
		return error;
	}
	server->later = later;
	return 0;
}

void rp_later_stop(struct rp_server *server)
{
	if (!server->later)
		return;
	queue_stop(&server->later->syncs);
	queue_stop(&server->later->seeks);
	free(server->later);
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
