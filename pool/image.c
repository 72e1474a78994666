/* image.c: struct rp_image: made, ended, asked for its numbers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "image_state.h"

int rp_image_new(const struct rp_image_options *options, const struct rp_hooks *hooks, struct rp_image **out)
{
	struct rp_image *image = rp_image_allocate(hooks, sizeof(*image));

	if (!image)
		return -ENOMEM;
	if (hooks)
		image->hooks = *hooks;
	image->io = options && options->io ? options->io : &rp_io_files;
	image->keep = options && options->keep ? options->keep : 1;
	image->read_only = options && options->read_only;
	image->damaged_set.hooks = &image->hooks;
	image->spoilt_set.hooks = &image->hooks;
	pthread_rwlock_init(&image->store_lock, NULL);
	pthread_mutex_init(&image->lock, NULL);
	pthread_cond_init(&image->ended, NULL);
	pthread_cond_init(&image->wanted, NULL);
	pthread_mutex_init(&image->reading_lock, NULL);
	pthread_mutex_init(&image->damaged_lock, NULL);
	*out = image;
	return 0;
}

void rp_image_free(struct rp_image *image)
{
	rp_store_close(image->store);
	rp_addrmap_free(&image->damaged_set);
	rp_addrmap_free(&image->spoilt_set);
	pthread_rwlock_destroy(&image->store_lock);
	pthread_mutex_destroy(&image->lock);
	pthread_cond_destroy(&image->ended);
	pthread_cond_destroy(&image->wanted);
	pthread_mutex_destroy(&image->reading_lock);
	pthread_mutex_destroy(&image->damaged_lock);
	free(image->path);
	free(image);
}

void rp_image_close(struct rp_image *image)
{
	if (!image)
		return;
	rp_image_worker_stop(image);
	rp_image_role_take(image);
	rp_pool_source_set(image->pool, NULL);
	rp_image_free(image);
}

/* Frames are looked at one by one: who is referenced cannot become anything else meanwhile. */
void rp_image_readdress(struct rp_pool *pool, const struct rp_addrmap *map)
{
	uint64_t end;

	pthread_mutex_lock(&pool->arena.lock);
	end = pool->arena.extents_made * RP_EXTENT_FRAMES;
	pthread_mutex_unlock(&pool->arena.lock);
	if (end > pool->arena.capacity)
		end = pool->arena.capacity;
	for (uint64_t i = 1; i < end; i++) {
		rp_frame f = (rp_frame)i;
		uint64_t fresh = 0;
		rp_addr addr;

		if (!rp_frame_addr(pool, f) || !rp_frame_get_live(pool, f))
			continue;
		addr = rp_frame_addr(pool, f);
		if (addr && !(map && rp_addr_is_zero_page(addr))) {
			if (map)
				rp_addrmap_get(map, addr, &fresh);
			if (pool->resident)
				rp_resident_remove(pool, addr, f);
			rp_frame_addr_set(pool, f, fresh);
		}
		rp_frame_put_outside(pool, f);
	}
}

void rp_image_status(struct rp_image *image, struct rp_image_status *out)
{
	struct rp_pool_status pool;

	memset(out, 0, sizeof(*out));
	rp_pool_status(image->pool, &pool);
	rp_image_is_changed(image);
	pthread_mutex_lock(&image->lock);
	snprintf(out->path, sizeof(out->path), "%s", image->path);
	out->generation = image->generation;
	out->saved_sec = image->saved_sec;
	out->opened_clean = image->opened_clean;
	out->file_bytes = image->file_bytes;
	out->written_bytes = image->written_bytes;
	out->live_bytes = rp_image_live_bytes(image, 0, 0);
	out->commits = image->commits;
	out->commits_failed = image->commits_failed;
	out->last_error = image->last_error;
	memcpy(out->last_error_text, image->last_error_text, sizeof(out->last_error_text));
	out->committing = image->committing;
	out->progress = image->progress;
	out->changed_since_sec = image->changed_since_sec;
	out->codec = image->codec;
	out->keep = image->keep;
	out->read_only = image->read_only;
	pthread_mutex_unlock(&image->lock);
	out->changed_bytes = out->changed_since_sec ? pool.dirty_frames * RP_PAGE_SIZE : 0;
	out->unread_pages = pool.unread_pages;
	out->damaged_pages = atomic_load(&image->damaged);
}
