/* behind.c: full buffers of a store are written by a thread of its own while the next one is filled, so that compressing
 * does not wait for the file system's copy. One buffer is under way at a time, so writes keep their order; what became of
 * it is told to whoever gives the next or waits. The thread starts with the first buffer that fills, which a small commit
 * never does. Without memory or a thread there is none, and the caller writes.
 *
 * Lock: `lock` guards the fields named so in struct rp_behind; held for a few instructions.
 */
#include <errno.h>
#include <stdlib.h>
#include "image.h"
#include "store.h"

struct rp_behind {
	struct rp_store *store;
	uint8_t *spare; /* the committing thread's own: the buffer that is not being filled */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* lock guards */
	bool stop, busy;
	size_t size; /* of what is under way in `spare` */
	uint64_t offset;
	int error;
};

static void *behind_main(void *context)
{
	struct rp_behind *behind = context;

	pthread_mutex_lock(&behind->lock);
	for (;;) {
		int error;

		while (!behind->busy && !behind->stop)
			pthread_cond_wait(&behind->changed, &behind->lock);
		if (!behind->busy)
			break;
		pthread_mutex_unlock(&behind->lock);
		error = rp_store_write_all(behind->store, behind->spare, behind->size, behind->offset);
		pthread_mutex_lock(&behind->lock);
		behind->error = error;
		behind->busy = false;
		pthread_cond_broadcast(&behind->changed);
	}
	pthread_mutex_unlock(&behind->lock);
	return NULL;
}

static struct rp_behind *behind_start(struct rp_store *store)
{
	struct rp_behind *behind = rp_image_allocate(store->hooks, sizeof(*behind));

	if (!behind)
		return NULL;
	*behind = (struct rp_behind){ .store = store, .spare = rp_store_buffer_allocate(store->hooks) };
	pthread_mutex_init(&behind->lock, NULL);
	pthread_cond_init(&behind->changed, NULL);
	if (behind->spare && !pthread_create(&behind->thread, NULL, behind_main, behind))
		return behind;
	pthread_cond_destroy(&behind->changed);
	pthread_mutex_destroy(&behind->lock);
	free(behind->spare);
	free(behind);
	return NULL;
}

int rp_behind_wait(struct rp_store *store)
{
	struct rp_behind *behind = store->behind;
	int error;

	if (!behind)
		return 0;
	pthread_mutex_lock(&behind->lock);
	while (behind->busy)
		pthread_cond_wait(&behind->changed, &behind->lock);
	error = behind->error;
	behind->error = 0;
	pthread_mutex_unlock(&behind->lock);
	return error;
}

int rp_behind_write(struct rp_store *store, size_t size, uint64_t offset)
{
	int error = rp_behind_wait(store);
	uint8_t *full = store->buffer;
	struct rp_behind *behind;

	if (error)
		return error;
	if (!store->behind)
		store->behind = behind_start(store);
	behind = store->behind;
	if (!behind)
		return rp_store_write_all(store, full, size, offset);
	store->buffer = behind->spare;
	pthread_mutex_lock(&behind->lock);
	behind->spare = full;
	behind->size = size;
	behind->offset = offset;
	behind->busy = true;
	pthread_cond_broadcast(&behind->changed);
	pthread_mutex_unlock(&behind->lock);
	return 0;
}

void rp_behind_end(struct rp_store *store)
{
	struct rp_behind *behind = store->behind;

	if (!behind)
		return;
	pthread_mutex_lock(&behind->lock);
	behind->stop = true;
	pthread_cond_broadcast(&behind->changed);
	pthread_mutex_unlock(&behind->lock);
	pthread_join(behind->thread, NULL);
	pthread_cond_destroy(&behind->changed);
	pthread_mutex_destroy(&behind->lock);
	free(behind->spare);
	free(behind);
	store->behind = NULL;
}
