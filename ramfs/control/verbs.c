/* verbs.c: what may be asked of a running RAM disk.
 *
 * Whatever takes a state of the tree has the client's changed pages brought here first. Verbs run at the same time as
 * everything else; only rollbacks wait for each other.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

struct verb_call {
	struct rp_keep *keep;
	char **words;          /* arguments only */
	size_t count;
	struct rp_reply *reply;
	char *message;
};

static bool argument_is(const struct verb_call *call, size_t i, const char *word)
{
	return call->count > i && !strcmp(call->words[i], word);
}

static int flush_first(struct verb_call *call)
{
	int error = rp_keep_flush_client(call->keep);

	if (error)
		rp_message(call->message, error, "the kernel's changed pages could not be had: %s", strerror(-error));
	return error;
}

static int refused_when_read_only(struct verb_call *call)
{
	return call->keep->options.read_only ? rp_message(call->message, -EROFS, "it is read-only") : 0;
}

static int image_needed(struct verb_call *call)
{
	return call->keep->image ? 0 : rp_message(call->message, -EINVAL, "there is no image to save to: start with "
	                                          "image=FILE, or use save --as FILE");
}

static int status_verb(struct verb_call *call)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);
	bool failed;

	if (!to)
		return -ENOMEM;
	rp_keep_status_print(call->keep, to);
	failed = ferror(to);
	if (fclose(to) || failed) {
		free(text);
		return -ENOMEM;
	}
	rp_reply_lines(call->reply, text);
	free(text);
	return 0;
}

/* ---- Snapshots --------------------------------------------------------------------------------------------------- */

static int snapshot_message(struct verb_call *call, const char *name, int error)
{
	const char *why = error == -EEXIST ? "a snapshot of that name exists" :
	                  error == -ENOENT ? "there is no such snapshot" :
	                  error == -EINVAL ? "no name for a snapshot: 1 to 255 bytes, no '/', '@', control characters" :
	                  strerror(-error);
	char *shown;

	if (!error)
		return 0;
	shown = rp_path_print(name, strnlen(name, 300));
	rp_message(call->message, error, "%s: %s", shown ? shown : "snapshot", why);
	free(shown);
	return error;
}

static int snapshot_verb(struct verb_call *call)
{
	int error = refused_when_read_only(call);

	if (!error)
		error = flush_first(call);
	if (!error)
		error = snapshot_message(call, call->words[0], rp_snapshot_create(call->keep->pool, call->words[0]));
	return error;
}

static int snapshots_verb(struct verb_call *call)
{
	struct rp_snapshot_info *list;
	char when[32], alone[32], all[32];
	size_t count, i;
	int error;

	error = rp_snapshot_list(call->keep->pool, true, &list, &count);
	if (error)
		return error;
	for (i = 0; i < count; i++)
		rp_reply_text(call->reply, "%s  %10s alone  %10s in all  %s", rp_time_print(list[i].sec, when),
		              list[i].alone_frames == UINT64_MAX ? "unknown" :
		              rp_size_print(list[i].alone_frames * RP_PAGE_SIZE, alone),
		              rp_size_print(list[i].frame_count * RP_PAGE_SIZE, all), list[i].name);
	free(list);
	return 0;
}

static int delete_verb(struct verb_call *call)
{
	int error = refused_when_read_only(call);

	if (!error)
		error = snapshot_message(call, call->words[0], rp_snapshot_delete(call->keep->pool, call->words[0]));
	return error;
}

static int rename_verb(struct verb_call *call)
{
	int error = refused_when_read_only(call);

	if (error)
		return error;
	error = rp_snapshot_rename(call->keep->pool, call->words[0], call->words[1]);
	return snapshot_message(call, error == -ENOENT ? call->words[0] : call->words[1], error);
}

/* For those who keep nothing of the tree that would have to be forgotten. */
static void changed_ignore(void *context, rp_object ino, bool directory)
{
	(void)context;
	(void)ino;
	(void)directory;
}

/* The state before is kept until the serving side has forgotten what it knew of it. */
static int rollback_run(struct verb_call *call, struct rp_snapshot *target)
{
	struct rp_keep *keep = call->keep;
	struct rp_snapshot *before;
	int error;

	error = flush_first(call);
	if (error)
		return error;
	error = rp_snapshot_exchange(keep->pool, target, &before);
	if (error)
		return error;
	if (keep->server.rolled_back)
		keep->server.rolled_back(keep->server.context, before);
	else
		error = rp_fs_rolled_back(keep->fs, before, changed_ignore, NULL);
	rp_snapshot_put(before);
	return error;
}

static int rollback_verb(struct verb_call *call)
{
	struct rp_keep *keep = call->keep;
	bool forced = argument_is(call, 1, "force");
	struct rp_snapshot *target;
	int error;

	if (call->count > 1 && !forced)
		return rp_message(call->message, -EINVAL, "rollback takes a name, and perhaps force");
	error = refused_when_read_only(call);
	if (error)
		return error;
	error = rp_snapshot_open(keep->pool, call->words[0], &target);
	if (error)
		return snapshot_message(call, call->words[0], error);
	pthread_mutex_lock(&keep->rollback_lock);
	if (keep->server.rollback_allowed)
		error = keep->server.rollback_allowed(keep->server.context, forced, call->message);
	if (!error)
		error = rollback_run(call, target);
	pthread_mutex_unlock(&keep->rollback_lock);
	rp_snapshot_put(target);
	return error;
}

static int diff_verb(struct verb_call *call)
{
	return rp_verb_diff(call->keep, call->words, call->count, call->reply, call->message);
}

/* ---- Saving ------------------------------------------------------------------------------------------------------ */

static int saved_message(struct verb_call *call, const char *path, int error)
{
	struct rp_image_status status;

	if (!error || call->message[0])
		return error;
	if (error == -ECANCELED)
		return rp_message(call->message, error, "%s: canceled; what was saved before stands", path);
	if (!call->keep->image)
		return rp_message(call->message, error, "%s: %s", path, strerror(-error));
	rp_image_status(call->keep->image, &status);
	return rp_message(call->message, error, "%s: %s; what was saved before stands", path,
	                  status.last_error == error && status.last_error_text[0] ? status.last_error_text :
	                  strerror(-error));
}

static int save_verb(struct verb_call *call)
{
	struct rp_image_status before, after;
	uint64_t start_ns = rp_clock_ns();
	char written[32];
	int error;

	error = image_needed(call);
	if (!error)
		error = refused_when_read_only(call);
	if (error)
		return error;
	rp_image_status(call->keep->image, &before);
	error = rp_keep_save(call->keep, rp_reply_progress, call->reply);
	rp_image_status(call->keep->image, &after);
	if (error)
		return saved_message(call, after.path, error);
	rp_reply_text(call->reply, "%s: generation %llu, %s written in %.2f s", after.path,
	              (unsigned long long)after.generation,
	              rp_size_print(after.written_bytes - before.written_bytes, written),
	              (double)(rp_clock_ns() - start_ns) / 1e9);
	return 0;
}

/* An image inside the mount whose state it holds would grow with each save, and be lost with what it saves. */
static int outside_own_mount(struct verb_call *call, const char *path)
{
	struct rp_keep_server *server = &call->keep->server;
	char directory[4096];
	const char *slash = strrchr(path, '/');
	struct stat st;
	dev_t device;

	if ((size_t)(slash - path) >= sizeof(directory))
		return rp_message(call->message, -ENAMETOOLONG, "%.200s...: the name is too long", path);
	snprintf(directory, sizeof(directory), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (stat(directory, &st))
		return rp_message(call->message, -errno, "%s: %s", directory, strerror(errno));
	if (server->device && !server->device(server->context, &device) && st.st_dev == device)
		return rp_message(call->message, -EINVAL, "%s: an image cannot be inside the mount that it saves",
		                  path);
	return 0;
}

static int save_as_verb(struct verb_call *call)
{
	const struct rp_keep_options *o = &call->keep->options;
	struct rp_image_options options = {
		.hooks = &call->keep->hooks,
		.codec = o->codec,
		.codec_set = o->codec_set,
		.keep = o->keep,
		.any_owner = o->any_owner,
		.message = call->message,
	};
	const char *path = call->words[0];
	bool replace = argument_is(call, 1, "force");
	int error;

	if (*path != '/' || (call->count > 1 && !replace))
		return rp_message(call->message, -EINVAL, "save-as takes an absolute name, and perhaps force");
	error = outside_own_mount(call, path);
	if (!error)
		error = flush_first(call);
	if (error)
		return error;
	error = rp_image_save_as(call->keep->pool, call->keep->image, path, replace, &options, rp_reply_progress,
	                         call->reply);
	if (error == -EEXIST && !call->message[0])
		rp_message(call->message, error, "%s: exists; force replaces it", path);
	if (error)
		return saved_message(call, path, error);
	call->message[0] = 0;
	rp_reply_text(call->reply, "%s: saved", path);
	return 0;
}

static int compact_verb(struct verb_call *call)
{
	struct rp_image_status before, after;
	char was[32], is[32];
	int error;

	error = image_needed(call);
	if (!error)
		error = refused_when_read_only(call);
	if (error)
		return error;
	rp_image_status(call->keep->image, &before);
	error = rp_image_compact(call->keep->image);
	if (error == -EAGAIN)
		return rp_message(call->message, error, "pages of the image are still being read in; try again later");
	if (error)
		return error;
	rp_image_status(call->keep->image, &after);
	rp_reply_text(call->reply, "%s: %s before, %s now", after.path, rp_size_print(before.file_bytes, was),
	              rp_size_print(after.file_bytes, is));
	return 0;
}

/* ---- The rest ---------------------------------------------------------------------------------------------------- */

static void check_report(void *context, const char *line)
{
	rp_reply_text(context, "%s", line);
}

/* The namespace is checked as a snapshot holds it, so work may go on. `check frames` proves the pool's invariants
 * too; these hold only between operations, so it is for a RAM disk that nobody uses at the moment. */
static int check_verb(struct verb_call *call)
{
	struct rp_keep *keep = call->keep;
	struct rp_snapshot *snapshot;
	struct rp_fs *fs;
	unsigned faults;
	int error;

	if (call->count && !argument_is(call, 0, "frames"))
		return rp_message(call->message, -EINVAL, "check takes nothing, or frames");
	error = flush_first(call);
	if (!error)
		error = rp_snapshot_take(keep->pool, &snapshot);
	if (error)
		return error;
	error = rp_fs_open_snapshot(keep->pool, snapshot, &fs);
	if (!error) {
		faults = rp_fs_check(fs, check_report, call->reply);
		rp_fs_close(fs);
	}
	rp_snapshot_put(snapshot);
	if (error)
		return error;
	if (call->count)
		faults += rp_pool_check(keep->pool, check_report, call->reply);
	return faults ? rp_message(call->message, -EUCLEAN, "%u faults", faults) : 0;
}

static int flush_done_verb(struct verb_call *call)
{
	return flush_first(call);
}

/* The program ends as on SIGTERM: it saves a last time, and whoever waits for the process learns how that went. */
static int stop_verb(struct verb_call *call)
{
	rp_reply_text(call->reply, "process: %ld", (long)getpid());
	return kill(getpid(), SIGTERM) ? -errno : 0;
}

static int resize_verb(struct verb_call *call)
{
	struct rp_pool_status status;
	char text[32], used[32];
	uint64_t bytes, used_bytes;
	int error;

	error = refused_when_read_only(call);
	if (error)
		return error;
	if (rp_size_parse(call->words[0], true, &bytes) || !bytes)
		return rp_message(call->message, -EINVAL, "%s: not a size: a number of bytes with K, M, G or T, or a "
		                  "part of memory such as 50%%", call->words[0]);
	error = rp_keep_resize(call->keep->pool, bytes, &used_bytes);
	if (error)
		return rp_message(call->message, error, "%s: cannot be: %s (%s used)", rp_size_print(bytes, text),
		                  error == -ENOSPC ? "less than is used" : strerror(-error),
		                  rp_size_print(used_bytes, used));
	rp_pool_status(call->keep->pool, &status);
	rp_reply_text(call->reply, "size: %s", rp_size_print(status.size_bytes, text));
	return 0;
}

static const struct {
	const char *name;
	size_t least, most; /* arguments */
	int (*run)(struct verb_call *call);
} verbs[] = {
	{ "status", 0, 0, status_verb },
	{ "snapshot", 1, 1, snapshot_verb },
	{ "snapshots", 0, 0, snapshots_verb },
	{ "rollback", 1, 2, rollback_verb },
	{ "delete", 1, 1, delete_verb },
	{ "rename", 2, 2, rename_verb },
	{ "diff", 1, 2, diff_verb },
	{ "save", 0, 0, save_verb },
	{ "save-as", 1, 2, save_as_verb },
	{ "compact", 0, 0, compact_verb },
	{ "check", 0, 1, check_verb },
	{ "flush-done", 0, 0, flush_done_verb },
	{ "stop", 0, 0, stop_verb },
	{ "resize", 1, 1, resize_verb },
};

int rp_verb_run(struct rp_keep *keep, char **words, size_t count, struct rp_reply *reply, char message[RP_MESSAGE_SIZE])
{
	struct verb_call call = { keep, words + 1, count - 1, reply, message };
	size_t i;

	for (i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		if (strcmp(words[0], verbs[i].name))
			continue;
		if (call.count < verbs[i].least || call.count > verbs[i].most)
			return rp_message(message, -EINVAL, "%s: wrong number of arguments", words[0]);
		return verbs[i].run(&call);
	}
	return rp_message(message, -EINVAL, "unknown request");
}
