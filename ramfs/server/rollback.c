/* rollback.c: after the live tree was replaced, the kernel forgets what differs, and only that.
 *
 * Names: the epoch is raised, so that each is asked for again when it is next used. Where the kernel has no epochs, the
 * names of changed directories are taken back one by one. Attributes and data: by inode. Regular files that differ get
 * new node numbers first (eras): whoever has one open gets ESTALE, whoever opens it again gets the new state.
 *
 * Called from the control socket's threads, after the kernel's dirty pages were flushed; no lock is held during a
 * notification.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ramfs/server/internal.h"

struct objects {
	rp_object *list;
	size_t count, space;
	bool failed;
};

static void objects_add(struct objects *objects, rp_object object)
{
	if (objects->count == objects->space) {
		size_t space = objects->space ? objects->space * 2 : 1024;
		rp_object *wider = reallocarray(objects->list, space, sizeof(*wider));

		if (!wider) {
			objects->failed = true;
			return;
		}
		objects->list = wider;
		objects->space = space;
	}
	objects->list[objects->count++] = object;
}

struct changes {
	struct objects files, directories;
};

static void changed(void *context, rp_object ino, bool directory)
{
	struct changes *changes = context;

	objects_add(directory ? &changes->directories : &changes->files, ino);
}

/* The kernel's number of an object before the eras change. */
static fuse_ino_t number_of(struct rp_server *server, rp_object object)
{
	const struct rp_node live = { .kind = RP_NODE_LIVE };

	return rp_node_number(server, &live, object);
}

struct names {
	struct rp_server *server;
	fuse_ino_t directory;
};

static int name_forget(void *context, struct rp_name name, const struct rp_attr *attr, uint64_t next_cookie)
{
	struct names *names = context;
	char text[256];

	(void)attr;
	(void)next_cookie;
	memcpy(text, name.bytes, name.length);
	text[name.length] = 0;
	if (strcmp(text, ".") != 0 && strcmp(text, "..") != 0)
		fuse_lowlevel_notify_inval_entry(names->server->session, names->directory, text, name.length);
	return 0;
}

/* Without epochs: the names a changed directory has and had. Names remembered as missing are among them when they are
 * no longer. */
static void names_forget(struct rp_server *server, struct rp_fs *before, const struct objects *directories)
{
	for (size_t i = 0; i < directories->count; i++) {
		struct names names = { .server = server, .directory = number_of(server, directories->list[i]) };

		rp_fs_readdir(server->fs, directories->list[i], 0, false, false, name_forget, &names);
		if (before)
			rp_fs_readdir(before, directories->list[i], 0, false, false, name_forget, &names);
	}
}

void rp_server_rolled_back(void *context, struct rp_snapshot *before)
{
	struct rp_server *server = context;
	struct changes changes = { .files = { .list = NULL } };
	fuse_ino_t *numbers;
	int error;

	error = rp_fs_rolled_back(server->fs, before, changed, &changes);
	numbers = calloc(changes.files.count + 1, sizeof(*numbers));
	for (size_t i = 0; numbers && i < changes.files.count; i++)
		numbers[i] = number_of(server, changes.files.list[i]);
	if (rp_eras_begin(&server->eras, changes.files.list, changes.files.count) || !numbers || error ||
	    changes.files.failed || changes.directories.failed)
		rp_server_log(server,
		              "rollback: not everything the kernel keeps could be taken back: unmount and mount again");
	if (atomic_load(&server->is_ready)) {
		if (fuse_lowlevel_notify_increment_epoch(server->session)) {
			struct rp_fs *old = NULL;

			if (rp_fs_open_snapshot(server->pool, before, &old))
				old = NULL;
			names_forget(server, old, &changes.directories);
			if (old)
				rp_fs_close(old);
		}
		for (size_t i = 0; numbers && i < changes.files.count; i++)
			fuse_lowlevel_notify_inval_inode(server->session, numbers[i], 0, 0);
		for (size_t i = 0; i < changes.directories.count; i++)
			fuse_lowlevel_notify_inval_inode(server->session,
			                                 number_of(server, changes.directories.list[i]), 0, 0);
	}
	free(numbers);
	free(changes.files.list);
	free(changes.directories.list);
}
