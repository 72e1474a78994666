"""The rows: what each is called, which way is better, and what is to be reached against whom.

reach is {peer: bound} on the ratio of rampool's number to the peer's in the same round: at least the bound where more
is better, at most where less is. "" as a peer bounds rampool's number itself.
"""


class Row:
    def __init__(self, key, title, reach=None):
        self.key, self.title, self.reach = key, title, reach or {}


LESS_IS_BETTER = {"us", "ms", "s", "bytes", "%", "requests"}


def less_is_better(unit):
    return unit in LESS_IS_BETTER


def _file_rows():
    return [
        Row("read_1m_cached", "read 1 MiB sequential, cached", {"tmpfs": 0.95}),
        Row("read_4k_random_cached", "read 4 KiB random, cached", {"tmpfs": 0.95}),
        Row("write_1m_first", "write 1 MiB sequential, first", {"tmpfs": 0.85}),
        Row("write_1m_first_closed", "write 1 MiB sequential, first, until closed"),
        Row("write_1m_again", "write 1 MiB sequential, again", {"tmpfs": 0.85}),
        Row("write_1m_again_closed", "write 1 MiB sequential, again, until closed"),
        Row("write_4k_random", "write 4 KiB random", {"tmpfs": 0.6}),
        Row("write_4k_random_closed", "write 4 KiB random, until closed"),
        Row("mmap_random", "mmap read and write, cached", {"tmpfs": 0.9}),
        Row("mmap_first_write", "mmap, first write to each page"),
        Row("read_1m_cold", "read 1 MiB sequential, cold", {"tmpfs": 0.5}),
        Row("read_4k_random_cold", "read 4 KiB random, cold"),
        Row("stat_known", "stat of a known file", {"tmpfs": 1 / 0.95}),
        Row("open_read_close", "open, read, close of a known file", {"tmpfs": 1 / 0.95}),
        Row("stat_missing_again", "stat of a missing name, again"),
        Row("create_empty", "create an empty file", {"tmpfs": 4, "memfs_ll": 0.5}),
        Row("create_4k", "create, write 4 KiB, close", {"tmpfs": 6, "memfs_ll": 0.5}),
        Row("unlink_empty", "unlink, empty", {"tmpfs": 4, "memfs_ll": 0.5}),
        Row("unlink_4k", "unlink, 4 KiB", {"tmpfs": 4, "memfs_ll": 0.5}),
        Row("rename", "rename", {"tmpfs": 5, "memfs_ll": 0.5}),
        Row("mkdir", "mkdir", {"tmpfs": 4, "memfs_ll": 0.5}),
        Row("rmdir", "rmdir"),
        Row("readdir_attr", "readdir with attributes, cold, a name", {"tmpfs": 3}),
        Row("unpack", "unpack a source tree", {"tmpfs": 4}),
        Row("remove_tree", "remove a source tree"),
        Row("build", "build a library", {"tmpfs": 1.05}),
        Row("git_commit", "git add and commit"),
        Row("git_status", "git status", {"tmpfs": 1.1}),
        Row("git_clone", "git clone", {"tmpfs": 3}),
        Row("sqlite_delete", "SQLite insert, rollback journal", {"tmpfs": 4}),
        Row("sqlite_wal", "SQLite insert, WAL", {"tmpfs": 2}),
        Row("pgbench", "pgbench, a transaction", {"tmpfs": 1.5}),
    ] + [Row(f"threads_{what}_{n}", f"{what} 4 KiB random, {n} threads, cached")
         for what in ("read", "write") for n in (1, 2, 4, 8)]


def nbd_key(what, block, depth, connections):
    return f"nbd_{what}_{block // 1024}k_q{depth}_c{connections}"


def _nbd_rows():
    rows = []
    for block in (4096, 262144):
        for what in ("read", "write"):
            for depth in (1, 32):
                for connections in (1, 4):
                    memory = 1.3 if connections == 4 or (block > 4096 and what == "write") else 1.0
                    reach = {"nbd-memory": memory, "nbd-malloc": memory}
                    if block == 4096:
                        reach["nbd-null"] = 0.95
                    rows.append(Row(nbd_key(what, block, depth, connections),
                                    f"NBD {what} {block // 1024} KiB, queue {depth}, {connections} conn.", reach))
    return rows


def _exact_rows():
    return [
        Row("requests_stat", "stat of a known file", {"": 0}),
        Row("requests_open", "open, read, close of a known file", {"": 0}),
        Row("requests_create", "create an empty file", {"": 2}),
        Row("requests_create_4k", "create, write 4 KiB, close", {"": 5}),
        Row("requests_unlink", "unlink", {"": 1}),
        Row("requests_rename", "rename", {"": 3}),
        Row("requests_mkdir", "mkdir"),
        Row("requests_missing", "a missing name asked twice", {"": 1}),
        Row("requests_unpack", "unpack a source tree, a file"),
        Row("memory_large", "memory beyond the data, big files", {"": 1.5}),
        Row("bytes_per_file", "memory of an empty file", {"": 400}),
        Row("snapshot_memory", "memory a snapshot holds, of 1 % of pages changed after it"),
        Row("save_all_written", "written by a full save, of the data"),
        Row("save_little_written", "written after 1 % of pages changed, of a full save"),
    ]


def _alone_rows():
    rows = [Row("snapshot_gate", "snapshot: writers paused"), Row("snapshot_take", "snapshot: taken"),
            Row("write_before_snapshot", "pool write 1 MiB, before a snapshot"),
            Row("write_after_snapshot", "pool write 1 MiB, first after a snapshot"),
            Row("snapshot_command", "rampool snapshot, the whole command"),
            Row("save_all", "rampool save, everything"), Row("save_little", "rampool save, 1 % changed, here and there"),
            Row("open_small", "mount an image of 4 MiB, first byte read"),
            Row("open_read_small", "mount an image of 4 MiB, all read"),
            Row("open_large", "mount a large image, first byte read"),
            Row("open_read_large", "mount a large image, all read")]
    for n in (1000, 10000, 100000, 1000000):
        rows += [Row(f"insert_{n}", f"insert, {n} names"), Row(f"lookup_{n}", f"lookup, {n} names")]
    for what in ("fill", "write", "read"):
        rows += [Row(f"{what}_{size}", f"{what} 4 KiB random in sparse {size}")
                 for size in ("1MiB", "64MiB", "1GiB", "64GiB")]
    return rows


SECTIONS = [
    ("Files", _file_rows()),
    ("Block devices", _nbd_rows()),
    ("Counted", _exact_rows()),
    ("The pool alone, snapshots, the image", _alone_rows()),
]
EVERY = {row.key: row for _, rows in SECTIONS for row in rows}
