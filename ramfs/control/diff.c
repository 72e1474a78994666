/* diff.c: what changed between two snapshots, or between one and now.
 *
 * The pool says which records differ, at a cost that follows the changes. Directories among them are read in both
 * states and their names compared; a name that went and one that came for the same inode are one rename. Inodes in
 * both states whose contents or attributes differ are modified; a hint in the record says which directory names them,
 * and only when it leads nowhere (hard links that were moved about) is the whole tree searched, once.
 *
 * Lines: "+ PATH", "- PATH", "M PATH", "R OLD -> NEW", in the order of paths. See rp_path_print() for odd bytes.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include "internal.h"

/* One side of an inode that changed. */
struct side {
	bool there;
	rp_entry root;
	uint64_t generation, size_bytes;
	struct rp_inode inode;
};

struct change {
	rp_object ino;
	struct side a, b;
	bool holder; /* no inode: it holds the extended attributes of one */
	bool moved;  /* a name of it came or went */
};

/* A name that went (in a) or came (in b). */
struct event {
	rp_object ino;
	uint64_t generation;
	bool came;
	char *path;
};

struct line {
	char *path; /* what it is sorted by */
	char *text;
};

struct diff {
	struct rp_pool *pool;
	struct rp_snapshot *snapshot[2];
	struct rp_fs *fs[2];
	struct rp_names *names[2];
	struct change *changes; /* by inode number */
	size_t change_count, change_room;
	struct event *events;
	size_t event_count, event_room;
	struct line *lines;
	size_t line_count, line_room;
};

/* Room for one more element, zeroed; null: no memory. `array` is the address of a pointer to elements of any type,
 * which is why it is read and written as bytes. */
static void *array_add(void *array, size_t *count, size_t *room, size_t size)
{
	size_t more = *room ? *room * 2 : 64;
	void *base, *element;

	memcpy(&base, array, sizeof(base));
	if (*count == *room) {
		base = reallocarray(base, more, size);
		if (!base)
			return NULL;
		memcpy(array, &base, sizeof(base));
		*room = more;
	}
	element = (char *)base + size * (*count)++;
	memset(element, 0, size);
	return element;
}

/* ---- Which inodes changed ---------------------------------------------------------------------------------------- */

static void side_fill(struct side *side, const struct rp_record *record)
{
	const struct rp_inode *inode;

	if (!record || !(record->flags & RP_RECORD_USED))
		return;
	inode = rp_record_inode(record);
	side->there = !(inode->flags & RP_INODE_XATTR_HOLDER);
	side->root = record->root;
	side->generation = record->generation;
	side->size_bytes = record->size_bytes;
	side->inode = *inode;
}

static int change_add(void *context, rp_object object, const struct rp_record *in_a, const struct rp_record *in_b)
{
	struct diff *diff = context;
	struct change *change;

	change = array_add(&diff->changes, &diff->change_count, &diff->change_room, sizeof(*change));
	if (!change)
		return -ENOMEM;
	change->ino = object;
	side_fill(&change->a, in_a);
	side_fill(&change->b, in_b);
	change->holder = !change->a.there && !change->b.there;
	return 0;
}

static struct change *change_find(struct diff *diff, rp_object ino)
{
	size_t low = 0, high = diff->change_count, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (diff->changes[middle].ino == ino)
			return &diff->changes[middle];
		if (diff->changes[middle].ino < ino)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static bool is_directory(const struct side *side)
{
	return side->there && S_ISDIR(side->inode.mode);
}

/* ---- Which names came and went ----------------------------------------------------------------------------------- */

static int event_add(struct diff *diff, bool came, rp_object directory, const struct rp_listed *listed)
{
	struct change *change = change_find(diff, listed->ino);
	struct event *event;
	const char *path;
	int error;

	error = rp_names_directory(diff->names[came], directory, &path);
	if (error)
		return error == -ENOENT ? 0 : error; /* removed, but still open: it had no names left to lose */
	event = array_add(&diff->events, &diff->event_count, &diff->event_room, sizeof(*event));
	if (!event)
		return -ENOMEM;
	event->ino = listed->ino;
	event->generation = listed->generation;
	event->came = came;
	if (asprintf(&event->path, "%s/%s", path, listed->name) < 0) {
		diff->event_count--;
		return -ENOMEM;
	}
	if (change)
		change->moved = true;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct rp_listed *)a)->name, ((const struct rp_listed *)b)->name);
}

static int listings_compare(struct diff *diff, rp_object directory, const struct rp_listing *a,
                            const struct rp_listing *b)
{
	size_t i = 0, j = 0;
	int order, error = 0;

	while (!error && (i < a->count || j < b->count)) {
		order = i == a->count ? 1 : j == b->count ? -1 : by_name(&a->names[i], &b->names[j]);
		if (!order && a->names[i].ino == b->names[j].ino && a->names[i].generation == b->names[j].generation) {
			i++;
			j++;
			continue;
		}
		if (order <= 0)
			error = event_add(diff, false, directory, &a->names[i++]);
		if (!error && order >= 0)
			error = event_add(diff, true, directory, &b->names[j++]);
	}
	return error;
}

static int side_list(struct diff *diff, const struct change *change, bool later, struct rp_listing *to)
{
	int error = 0;

	*to = (struct rp_listing){ 0 };
	if (is_directory(later ? &change->b : &change->a))
		error = rp_listing_load(diff->fs[later], change->ino, to);
	if (!error && to->count)
		qsort(to->names, to->count, sizeof(*to->names), by_name);
	return error;
}

/* The same pages hold the same names. */
static bool same_names(const struct change *change)
{
	const struct rp_inode *a = &change->a.inode, *b = &change->b.inode;

	return is_directory(&change->a) && is_directory(&change->b) && change->a.generation == change->b.generation &&
	       change->a.root == change->b.root && a->entry_count == b->entry_count && a->tree == b->tree &&
	       a->tree2 == b->tree2 && !memcmp(a->inlined, b->inlined, sizeof(a->inlined));
}

static int names_compare(struct diff *diff, const struct change *change)
{
	struct rp_listing a, b;
	int error;

	if ((!is_directory(&change->a) && !is_directory(&change->b)) || same_names(change))
		return 0;
	error = side_list(diff, change, false, &a);
	if (error)
		return error;
	error = side_list(diff, change, true, &b);
	if (!error)
		error = listings_compare(diff, change->ino, &a, &b);
	rp_listing_free(&a);
	rp_listing_free(&b);
	return error;
}

/* ---- Lines ------------------------------------------------------------------------------------------------------- */

/* Takes over nothing; to may be null. */
static int line_add(struct diff *diff, char sign, const char *path, const char *to)
{
	char *shown = rp_path_print(path, strlen(path)), *shown_to = to ? rp_path_print(to, strlen(to)) : NULL;
	struct line *line = NULL;

	if (shown && (shown_to || !to))
		line = array_add(&diff->lines, &diff->line_count, &diff->line_room, sizeof(*line));
	if (line && asprintf(&line->text, to ? "%c %s -> %s" : "%c %s", sign, shown, shown_to) < 0) {
		line->text = NULL;
		diff->line_count--;
		line = NULL;
	}
	free(shown_to);
	if (!line) {
		free(shown);
		return -ENOMEM;
	}
	line->path = shown;
	return 0;
}

static int by_line(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order ? order : -strcmp(x->text, y->text); /* what went stands before what came */
}

static int by_inode(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->generation != y->generation)
		return x->generation < y->generation ? -1 : 1;
	if (x->came != y->came)
		return x->came ? 1 : -1;
	return strcmp(x->path, y->path);
}

/* Events of one inode: those that went come first. As many as there are of both kinds are renames. */
static int events_lines(struct diff *diff, const struct event *events, size_t count)
{
	size_t went = 0, pairs, i;
	int error = 0;

	while (went < count && !events[went].came)
		went++;
	pairs = went < count - went ? went : count - went;
	for (i = 0; !error && i < pairs; i++)
		error = line_add(diff, 'R', events[i].path, events[went + i].path);
	for (i = pairs; !error && i < went; i++)
		error = line_add(diff, '-', events[i].path, NULL);
	for (i = went + pairs; !error && i < count; i++)
		error = line_add(diff, '+', events[i].path, NULL);
	return error;
}

static int all_events_lines(struct diff *diff)
{
	struct event *events = diff->events;
	size_t first, end;
	int error = 0;

	if (!diff->event_count)
		return 0;
	qsort(events, diff->event_count, sizeof(*events), by_inode);
	for (first = 0; !error && first < diff->event_count; first = end) {
		for (end = first + 1; end < diff->event_count; end++)
			if (events[end].ino != events[first].ino || events[end].generation != events[first].generation)
				break;
		error = events_lines(diff, events + first, end - first);
	}
	return error;
}

/* ---- What was modified ------------------------------------------------------------------------------------------- */

static int page_seen(void *context, rp_page page)
{
	(void)page;
	*(bool *)context = true;
	return 1;
}

static bool same_time(struct rp_time a, struct rp_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

/* A time of access alone is no modification; nor is what comes with names that came or went: link count, time of
 * change. */
static int is_modified(struct diff *diff, const struct change *change, bool *modified)
{
	const struct side *a = &change->a, *b = &change->b;
	const struct rp_inode *x = &a->inode, *y = &b->inode;
	const struct change *attributes = y->xattrs ? change_find(diff, y->xattrs) : NULL;
	bool directory = is_directory(a), pages = false;
	int error;

	*modified = x->mode != y->mode || x->uid != y->uid || x->gid != y->gid || x->rdev != y->rdev ||
	            x->xattrs != y->xattrs || (attributes && attributes->holder) ||
	            (x->flags ^ y->flags) & (RP_INODE_ACL_ACCESS | RP_INODE_ACL_DEFAULT | RP_INODE_CAPABILITY);
	if (!directory && (a->size_bytes != b->size_bytes || !same_time(x->mtime, y->mtime)))
		*modified = true;
	if (!same_time(x->ctime, y->ctime) && same_time(x->mtime, y->mtime) && x->nlink == y->nlink && !change->moved)
		*modified = true;
	if (*modified || directory || a->root == b->root)
		return 0;
	error = rp_diff_pages(diff->pool, diff->snapshot[0], diff->snapshot[1], change->ino, page_seen, &pages);
	*modified = pages;
	return error < 0 ? error : 0;
}

/* Directories that are still to be searched, and what for, by number. */
struct search {
	rp_object *directories;
	size_t count, room;
	rp_object *wanted;
	bool *found;
	size_t wanted_count;
};

static int search_name(struct diff *diff, struct search *search, const char *path, const struct rp_listed *listed)
{
	size_t low = 0, high = search->wanted_count, middle;
	rp_object *below;
	char *whole;
	int error;

	if (S_ISDIR(listed->mode)) {
		below = array_add(&search->directories, &search->count, &search->room, sizeof(*below));
		if (below)
			*below = listed->ino;
		return below ? 0 : -ENOMEM;
	}
	while (low < high) {
		middle = low + (high - low) / 2;
		if (search->wanted[middle] < listed->ino)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == search->wanted_count || search->wanted[low] != listed->ino || search->found[low])
		return 0;
	search->found[low] = true;
	if (asprintf(&whole, "%s/%s", path, listed->name) < 0)
		return -ENOMEM;
	error = line_add(diff, 'M', whole, NULL);
	free(whole);
	return error;
}

static int search_directory(struct diff *diff, struct search *search, rp_object directory)
{
	struct rp_listing listing;
	const char *path;
	size_t i;
	int error;

	error = rp_names_directory(diff->names[1], directory, &path);
	if (!error)
		error = rp_listing_load(diff->fs[1], directory, &listing);
	if (error)
		return error;
	for (i = 0; !error && i < listing.count; i++)
		error = search_name(diff, search, path, &listing.names[i]);
	rp_listing_free(&listing);
	return error;
}

/* The whole later tree, for those that no hint led to. */
static int search_tree(struct diff *diff, rp_object *wanted, size_t count)
{
	struct search search = { .wanted = wanted, .found = calloc(count, sizeof(bool)), .wanted_count = count };
	rp_object at = rp_fs_root(diff->fs[1]);
	int error = search.found ? 0 : -ENOMEM;

	while (!error) {
		error = search_directory(diff, &search, at);
		if (!search.count)
			break;
		at = search.directories[--search.count];
	}
	free(search.directories);
	free(search.found);
	return error;
}

static int modified_lines(struct diff *diff)
{
	rp_object *unnamed = NULL, *one;
	size_t unnamed_count = 0, unnamed_room = 0, i;
	bool modified;
	char *path;
	int error = 0;

	for (i = 0; !error && i < diff->change_count; i++) {
		struct change *change = &diff->changes[i];

		if (!change->a.there || !change->b.there || change->a.generation != change->b.generation ||
		    !change->b.inode.nlink)
			continue;
		error = is_modified(diff, change, &modified);
		if (error || !modified)
			continue;
		if (change->ino == rp_fs_root(diff->fs[1])) {
			error = line_add(diff, 'M', "/", NULL);
			continue;
		}
		error = rp_names_within(diff->names[1], change->b.inode.parent, change->ino, &path);
		if (!error) {
			error = line_add(diff, 'M', path, NULL);
			free(path);
		} else if (error == -ENOENT || error == -ESTALE) {
			one = array_add(&unnamed, &unnamed_count, &unnamed_room, sizeof(*one));
			error = one ? 0 : -ENOMEM;
			if (one)
				*one = change->ino;
		}
	}
	if (!error && unnamed_count)
		error = search_tree(diff, unnamed, unnamed_count);
	free(unnamed);
	return error;
}

/* ---- The verb ---------------------------------------------------------------------------------------------------- */

static int diff_run(struct diff *diff, struct rp_reply *reply)
{
	size_t i;
	int error;

	error = rp_diff_objects(diff->pool, diff->snapshot[0], diff->snapshot[1], change_add, diff);
	for (i = 0; !error && i < diff->change_count; i++)
		error = names_compare(diff, &diff->changes[i]);
	if (!error)
		error = all_events_lines(diff);
	if (!error)
		error = modified_lines(diff);
	if (error || !diff->line_count)
		return error;
	qsort(diff->lines, diff->line_count, sizeof(*diff->lines), by_line);
	for (i = 0; i < diff->line_count; i++)
		rp_reply_text(reply, "%s", diff->lines[i].text);
	return 0;
}

static void diff_close(struct diff *diff)
{
	size_t i;

	for (i = 0; i < diff->event_count; i++)
		free(diff->events[i].path);
	for (i = 0; i < diff->line_count; i++) {
		free(diff->lines[i].path);
		free(diff->lines[i].text);
	}
	free(diff->changes);
	free(diff->events);
	free(diff->lines);
	for (i = 0; i < 2; i++) {
		if (diff->names[i])
			rp_names_close(diff->names[i]);
		if (diff->fs[i])
			rp_fs_close(diff->fs[i]);
		if (diff->snapshot[i])
			rp_snapshot_put(diff->snapshot[i]);
	}
}

/* name null: the tree as it is now. */
static int side_open(struct rp_keep *keep, const char *name, struct diff *diff, unsigned i, char *message)
{
	char *shown;
	int error;

	error = name ? rp_snapshot_open(keep->pool, name, &diff->snapshot[i]) :
	        rp_snapshot_take(keep->pool, &diff->snapshot[i]);
	if (error == -ENOENT) {
		shown = rp_path_print(name, strnlen(name, 300));
		rp_message(message, error, "%s: there is no such snapshot", shown ? shown : "diff");
		free(shown);
	}
	if (!error)
		error = rp_fs_open_snapshot(keep->pool, diff->snapshot[i], &diff->fs[i]);
	return error ? error : rp_names_open(diff->fs[i], &diff->names[i]);
}

int rp_verb_diff(struct rp_keep *keep, char **words, size_t count, struct rp_reply *reply,
                 char message[RP_MESSAGE_SIZE])
{
	struct diff diff = { .pool = keep->pool };
	int error = 0;

	if (count == 1) {
		error = rp_keep_flush_client(keep);
		if (error)
			return rp_message(message, error, "the kernel's changed pages could not be had: %s",
			                  strerror(-error));
	}
	error = side_open(keep, words[0], &diff, 0, message);
	if (!error)
		error = side_open(keep, count > 1 ? words[1] : NULL, &diff, 1, message);
	if (!error)
		error = diff_run(&diff, reply);
	diff_close(&diff);
	return error;
}
