/* status.c: what `rampool status` says, as lines "name: value". The first word of a value is what a script wants; what
 * follows is for people. The first lines are the contract: what would be lost if the power went now. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

static void size_line(FILE *to, const char *name, uint64_t bytes)
{
	char text[32];

	fprintf(to, "%s: %llu bytes (%s)\n", name, (unsigned long long)bytes, rp_size_print(bytes, text));
}

static uint64_t seconds_since(int64_t sec)
{
	int64_t now = (int64_t)time(NULL);

	return now > sec ? (uint64_t)(now - sec) : 0;
}

/* ---- The contract ------------------------------------------------------------------------------------------------ */

/* Both numbers are the most it can be: bytes are whole pages, and the first change was made after the last save. */
static void loss_line(struct rp_keep *keep, const struct rp_image_status *image, FILE *to)
{
	int64_t since = image->saved_sec ? image->saved_sec : image->changed_since_sec;
	char text[32];

	fputs("lost if the power went now: ", to);
	if (!keep->image)
		fputs("everything (there is no image)\n", to);
	else if (!image->changed_since_sec && !image->changed_bytes)
		fputs("nothing\n", to);
	else
		fprintf(to, "%llu bytes (at most %s), %llu seconds of changes\n",
		        (unsigned long long)image->changed_bytes, rp_size_print(image->changed_bytes, text),
		        (unsigned long long)(since ? seconds_since(since) : 0));
}

static void autosave_line(struct rp_keep *keep, FILE *to)
{
	const struct rp_keep_options *o = &keep->options;
	char text[32];

	fputs("autosave: ", to);
	if (o->no_save || o->read_only || (!o->autosave_seconds && !o->autosave_bytes)) {
		fputs("off\n", to);
		return;
	}
	if (o->autosave_seconds)
		fprintf(to, "%llus", (unsigned long long)o->autosave_seconds);
	if (o->autosave_bytes)
		fprintf(to, "%s%s", o->autosave_seconds ? " or " : "", rp_size_print(o->autosave_bytes, text));
	fputc('\n', to);
}

static void errors_lines(struct rp_keep *keep, const struct rp_image_status *image, FILE *to)
{
	int64_t since;
	int error;
	char when[32];

	pthread_mutex_lock(&keep->lock);
	error = keep->save_error;
	since = keep->save_error_sec;
	pthread_mutex_unlock(&keep->lock);
	fprintf(to, "on save error: %s\n", keep->options.readonly_on_error ? "readonly" : "continue");
	if (!error)
		fputs("save state: well\n", to);
	else
		fprintf(to, "save state: failing since %s: %s%s\n", rp_time_print(since, when),
		        image->last_error_text[0] ? image->last_error_text : strerror(-error),
		        keep->options.readonly_on_error ? "; changes are refused until a save works" : "");
}

static void image_lines(struct rp_keep *keep, FILE *to)
{
	struct rp_image_status image = { 0 };
	char when[32];

	if (!keep->image) {
		loss_line(keep, &image, to);
		fputs("image: none\n", to);
		return;
	}
	rp_image_status(keep->image, &image);
	loss_line(keep, &image, to);
	fprintf(to, "image: %s\n", image.path);
	if (image.saved_sec)
		fprintf(to, "last save: %s, %llu seconds ago\n", rp_time_print(image.saved_sec, when),
		        (unsigned long long)seconds_since(image.saved_sec));
	else
		fputs("last save: never\n", to);
	fprintf(to, "generation: %llu\n", (unsigned long long)image.generation);
	fprintf(to, "start: %s\n", keep->fresh ? "fresh" : image.opened_clean ? "after a clean end" :
	        "after an end that was not clean: it had not saved a last time");
	autosave_line(keep, to);
	fprintf(to, "sync: %s\n", rp_keep_syncs(keep) ? "image" : "ram");
	errors_lines(keep, &image, to);
	if (image.committing)
		fprintf(to, "saving: %llu of %llu bytes\n", (unsigned long long)image.progress.done_bytes,
		        (unsigned long long)image.progress.total_bytes);
	fprintf(to, "commits: %llu\n", (unsigned long long)image.commits);
	fprintf(to, "commits failed: %llu\n", (unsigned long long)image.commits_failed);
	size_line(to, "written by commits", image.written_bytes);
	size_line(to, "image file", image.file_bytes);
	size_line(to, "image live", image.live_bytes);
	fprintf(to, "codec: %s\n", rp_codec_name(image.codec));
	fprintf(to, "keep: %u\n", image.keep ? image.keep : 1);
	fprintf(to, "pages to read: %llu\n", (unsigned long long)image.unread_pages);
	fprintf(to, "pages damaged: %llu\n", (unsigned long long)image.damaged_pages);
}

/* ---- The pool ---------------------------------------------------------------------------------------------------- */

static void uuid_line(FILE *to, const uint8_t uuid[16])
{
	unsigned i;

	fputs("uuid: ", to);
	for (i = 0; i < 16; i++)
		fprintf(to, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	fputc('\n', to);
}

static void pool_lines(struct rp_keep *keep, FILE *to)
{
	struct rp_pool_status pool;
	char *label;

	rp_pool_status(keep->pool, &pool);
	uuid_line(to, pool.uuid);
	label = rp_path_print(pool.label, strlen(pool.label));
	if (label && *label)
		fprintf(to, "label: %s\n", label);
	free(label);
	size_line(to, "size", pool.size_bytes);
	size_line(to, "used", pool.frame_used * RP_PAGE_SIZE);
	size_line(to, "used at most", pool.frame_high * RP_PAGE_SIZE);
	size_line(to, "reserve", pool.frame_reserve * RP_PAGE_SIZE);
	size_line(to, "not saved", pool.dirty_frames * RP_PAGE_SIZE);
	fprintf(to, "frames: %llu\n", (unsigned long long)pool.frame_used);
	size_line(to, "memory", pool.arena_bytes);
	fprintf(to, "arena: %s\n", pool.arena_kind);
	fprintf(to, "objects: %llu\n", (unsigned long long)pool.object_count);
	fprintf(to, "snapshots: %llu\n", (unsigned long long)pool.snapshot_count);
	fprintf(to, "epoch: %llu\n", (unsigned long long)pool.epoch);
	fprintf(to, "gate closings: %llu\n", (unsigned long long)pool.gate_closings);
	fprintf(to, "gate closed at most: %llu ns\n", (unsigned long long)pool.gate_closed_max_ns);
}

static void filesystem_lines(struct rp_keep *keep, FILE *to)
{
	struct rp_fs_status fs;

	if (rp_fs_status(keep->fs, &fs))
		return;
	fprintf(to, "inodes: %llu", (unsigned long long)fs.inode_count);
	if (fs.inode_limit)
		fprintf(to, " of %llu", (unsigned long long)fs.inode_limit);
	fputc('\n', to);
	size_line(to, "free", fs.block_free * RP_PAGE_SIZE);
}

void rp_keep_status_print(struct rp_keep *keep, FILE *to)
{
	image_lines(keep, to);
	fprintf(to, "program: %s\n", keep->server.program ? keep->server.program : "rampool");
	fprintf(to, "process: %ld\n", (long)getpid());
	fprintf(to, "changes: %s\n", rp_keep_refuses_changes(keep) ? "refused" : "accepted");
	pool_lines(keep, to);
	filesystem_lines(keep, to);
	if (keep->server.status)
		keep->server.status(keep->server.context, to);
}
