"""The workloads: each group runs one of them once on one system and gives {row: (value, unit)}.

A group says on which systems it runs and how often. Whatever it made on a system it removes there.
"""
import os
import random
import shutil
import tempfile
import time

import rows
from systems import Failed, Rampool, run

LIMIT = 300             # seconds a workload may take before its row is given up


def parse(text):
    found = {}
    for line in text.splitlines():
        key, value, unit = line.split()
        found[key] = (float(value), unit)
    return found


def timed(command, **options):
    start = time.monotonic()
    run(command, LIMIT, **options)
    return time.monotonic() - start


class Scale:
    """How much is done: a full run, or one of a few minutes."""

    def __init__(self, quick):
        self.quick = quick
        self.rounds = 3 if quick else 5
        self.stream_mib = 96 if quick else 512
        self.names = 2000 if quick else 20000
        self.listed = 10000 if quick else 100000
        self.sqlite = 300 if quick else 2000
        self.nbd_mib = 256 if quick else 1024
        self.nbd_ms = 250 if quick else 1500
        self.large_mib = 512 if quick else 4096
        self.inside_names = 100000 if quick else 1000000
        self.snapshot_mib = 128 if quick else 1024
        self.image_mib = 128 if quick else 4096
        self.tree_files = 1500 if quick else 8000


class Tools:
    """Where the programs and the input are."""

    def __init__(self, build, source, place):
        self.build, self.source, self.place = build, source, place
        self.files, self.disks, self.inside = (os.path.join(build, "tests/bench", n)
                                               for n in ("files", "disks", "inside"))
        self.inserts = os.path.join(source, "tests/bench/inserts.py")
        self.rampool = os.path.join(build, "rampool")
        self.plugin = os.path.join(build, "nbdkit-rampool-plugin.so")
        self.tree, self.tree_count = None, 0
        self.environment = dict(os.environ, HOME=place, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C",
                                GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="gc.auto", GIT_CONFIG_VALUE_0="0",
                                GIT_AUTHOR_NAME="bench", GIT_AUTHOR_EMAIL="bench@localhost",
                                GIT_COMMITTER_NAME="bench", GIT_COMMITTER_EMAIL="bench@localhost")

    def tree_archive(self, count):
        """An archive of so many header files of this system, in the order of their names."""
        if self.tree:
            return self.tree
        names = []
        for folder, folders, found in os.walk("/usr/include"):
            folders.sort()
            names += [os.path.join(folder, n) for n in sorted(found)]
            if len(names) >= count:
                break
        names = [n for n in names[:count] if os.path.isfile(n) and not os.path.islink(n)]
        if len(names) < 100:
            raise Failed("/usr/include is nearly empty")
        listing = os.path.join(self.place, "tree.list")
        with open(listing, "w") as f:
            f.write("\n".join(names) + "\n")
        path = os.path.join(self.place, "tree.tar")
        run(["tar", "-cPf", path, "-T", listing], LIMIT)
        self.tree, self.tree_count = path, len(names)
        return path


class Group:
    systems = ("tmpfs", "rampool", "memfs_ll", "passthrough", "brd", "zram", "disk")
    once = ("brd", "zram", "disk")      # systems measured in one round only: for scale, or slow
    repeated = True                     # rounds, with one before that does not count

    def __init__(self, tools, scale):
        self.tools, self.scale = tools, scale

    def prepare(self, system):
        pass

    def run(self, system):
        raise NotImplementedError

    def finish(self, system):
        pass

    def folder(self, system):
        return tempfile.mkdtemp(dir=system.path)


class InFolder(Group):
    """Works in a directory of its own that is new in each round."""

    def run(self, system):
        folder = self.folder(system)
        try:
            return self.work(folder, system)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def work(self, folder, system):
        raise NotImplementedError


class Stream(InFolder):
    once = (*Group.once, "memfs_ll", "passthrough")

    def work(self, folder, system):
        # libfuse's example does not survive a shared mapping.
        words = ["nomap"] if system.name == "memfs_ll" else []
        return parse(run([self.tools.files, "stream", folder, str(self.scale.stream_mib), *words], LIMIT))


class Names(InFolder):
    systems = ("tmpfs", "rampool", "memfs_ll", "passthrough", "rampool-private", "rampool-noxattr",
               "rampool-writethrough", "rampool-classic", "brd", "zram", "disk")

    def work(self, folder, system):
        return parse(run([self.tools.files, "names", folder, str(self.scale.names)], LIMIT))


class Listing(Group):
    systems = ("tmpfs", "rampool")

    def __init__(self, tools, scale):
        super().__init__(tools, scale)
        self.made = {}

    def prepare(self, system):
        folder = self.made[system.name] = self.folder(system)
        run([self.tools.files, "fill", folder, str(self.scale.listed)], LIMIT)

    def run(self, system):
        # Names and attributes leave the kernel's caches; pages of files stay.
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("2\n")
        return parse(run([self.tools.files, "list", self.made[system.name]], LIMIT))

    def finish(self, system):
        shutil.rmtree(self.made.get(system.name, ""), ignore_errors=True)


class Tree(InFolder):
    systems = ("tmpfs", "rampool", "rampool-private", "rampool-writethrough", "passthrough", "brd", "zram", "disk")
    once = (*Group.once, "passthrough")

    def work(self, folder, system):
        archive = self.tools.tree_archive(self.scale.tree_files)
        tree, clone = os.path.join(folder, "tree"), os.path.join(folder, "clone")
        os.mkdir(tree)
        found = {"unpack": timed(["tar", "-xf", archive, "-C", tree])}
        git = ["git", "-C", tree]
        environment = self.tools.environment
        run([*git, "init", "-q"], LIMIT, env=environment)
        found["git_commit"] = (timed([*git, "add", "."], env=environment) +
                               timed([*git, "commit", "-qm", "tree"], env=environment))
        for _ in range(2):              # the first ones write the index anew
            run([*git, "status", "-s"], LIMIT, env=environment)
        found["git_status"] = timed([*git, "status", "-s"], env=environment)
        found["git_clone"] = timed(["git", "clone", "-q", tree, clone], env=environment)
        shutil.rmtree(os.path.join(tree, ".git"))
        found["remove_tree"] = timed(["rm", "-rf", tree])
        return {key: (value, "s") for key, value in found.items()}


class Build(InFolder):
    systems = ("tmpfs", "rampool")

    def work(self, folder, system):
        for name in ("Makefile", "include", "pool", "scripts"):
            run(["cp", "-r", os.path.join(self.tools.source, name), folder], LIMIT)
        out = os.path.join(folder, "out")
        return {"build": (timed(["make", "-s", "-C", folder, f"O={out}", out + "/release/librppool.a"]), "s")}


class Inserts(InFolder):
    systems = ("tmpfs", "rampool", "rampool-private", "rampool-writethrough", "passthrough", "brd", "zram", "disk")
    once = (*Group.once, "passthrough")

    def work(self, folder, system):
        return parse(run(["/usr/bin/python3", self.tools.inserts, folder, str(self.scale.sqlite)], LIMIT))


class Postgres(InFolder):
    systems = ("tmpfs", "rampool")

    def work(self, folder, system):
        os.chmod(folder, 0o777)
        script = os.path.join(self.tools.source, "tests/bench/pgbench")
        return parse(run([script, folder, "4", "10"], LIMIT))


class Threads(InFolder):
    systems = ("tmpfs", "rampool")

    def work(self, folder, system):
        found = {}
        for n in (1, 2, 4, 8):
            found.update(parse(run([self.tools.files, "threads", folder, "128", str(n)], LIMIT)))
        return found


class Disks(Group):
    systems = ("nbd-null", "nbd-memory", "nbd-malloc", "rampool")
    once = ()

    def __init__(self, tools, scale, what, block, depth, connections):
        super().__init__(tools, scale)
        self.words = (what, block, depth, connections)

    def run(self, system):
        what, block, depth, connections = self.words
        text = run([self.tools.disks, system.socket, what, str(block), str(depth), str(connections),
                    str(self.scale.nbd_ms)], LIMIT)
        return {rows.nbd_key(*self.words): parse(text)["iops"]}


def disk_groups(tools, scale):
    cases = [(w, b, d, c) for b in (4096, 262144) for w in ("read", "write") for d in (1, 32) for c in (1, 4)]
    if scale.quick:
        cases = [c for c in cases if c[0] == "write" or c[2:] == (32, 4)]
    return [Disks(tools, scale, *c) for c in cases]


# ---- Counted: exact, so once and on the project alone

COUNTED_OPERATIONS = 200
NOBODY_WAITS = {"forget", "release"}


class Requests(Group):
    """Requests for an operation that the caller waits for."""

    systems = ("rampool", "rampool-private")
    repeated = False

    def run(self, system):
        folder, found = self.folder(system), {}

        def count(key, work):
            def all_of_them():
                for i in range(COUNTED_OPERATIONS):
                    work(os.path.join(folder, f"{i}"))
            found["requests_" + key] = (self._waited_for(system, all_of_them) / COUNTED_OPERATIONS, "requests")

        def make(path, data=None):
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            if data:
                os.write(fd, data)
            os.close(fd)

        def look(path):
            fd = os.open(path + "d", os.O_RDONLY)
            os.read(fd, 4096)
            os.close(fd)

        system.requests()
        make(os.path.join(folder, "first"), b"1")
        count("create", make)
        count("create_4k", lambda path: make(path + "d", b"x" * 4096))
        for i in range(COUNTED_OPERATIONS):
            os.stat(os.path.join(folder, f"{i}d"))
        count("stat", lambda path: os.stat(path + "d"))
        count("open", look)
        count("missing", lambda path: [os.path.exists(path + "none") for _ in range(2)])
        count("rename", lambda path: os.rename(path, path + "r"))
        count("unlink", lambda path: os.unlink(path + "r"))
        count("mkdir", lambda path: os.mkdir(path + "m"))
        found["requests_unpack"] = (self._unpack(system, folder), "requests")
        shutil.rmtree(folder)
        return found

    @staticmethod
    def _waited_for(system, work):
        before = system.requests()
        work()
        after = system.requests()
        return sum(after[k] - before[k] for k in after if k not in NOBODY_WAITS)

    def _unpack(self, system, folder):
        archive = self.tools.tree_archive(self.scale.tree_files)
        total = self._waited_for(system, lambda: run(["tar", "-xf", archive, "-C", folder], LIMIT))
        return total / self.tools.tree_count


class Memory(Group):
    systems = ("rampool",)
    repeated = False

    def run(self, system):
        folder = self.folder(system)
        before, size = system.number("used"), self.scale.large_mib
        run(["dd", "if=/dev/zero", f"of={folder}/a", "bs=1M", f"count={size // 2}", "conv=fsync"], LIMIT)
        run(["dd", "if=/dev/zero", f"of={folder}/b", "bs=1M", f"count={size - size // 2}", "conv=fsync"], LIMIT)
        data = size << 20
        beyond = system.number("used") - before - data
        shutil.rmtree(folder)
        return {"memory_large": (beyond / data * 100, "%")}


class Inside(Group):
    """The pool and the namespace without a kernel in between."""

    systems = ("rampool",)
    repeated = False

    def run(self, system):
        inside = self.tools.inside
        found = parse(run([inside, "names", str(self.scale.inside_names)], LIMIT))
        found.update(parse(run([inside, "bytes"], LIMIT)))
        found.update(parse(run([inside, "snapshot", str(self.scale.snapshot_mib)], LIMIT)))
        return found


class Snapshots(Group):
    """The command, with the kernel's dirty pages brought in first, while a file is half written."""

    systems = ("rampool",)
    repeated = False

    def run(self, system):
        folder = self.folder(system)
        times = []
        for i in range(5):
            with open(os.path.join(folder, "file"), "ab") as f:
                f.write(b"x" * 65536)
            times.append(timed([self.tools.rampool, "snapshot", system.path, f"bench-{i}"]))
        for i in range(5):
            run([self.tools.rampool, "delete", system.path, f"bench-{i}"], LIMIT)
        shutil.rmtree(folder)
        return {"snapshot_command": (sorted(times)[2] * 1e3, "ms")}


class Image(Group):
    """Saving and opening, on mounts of its own whose image lies on the disk; on the disk: cp of as much, and fsync."""

    systems = ("rampool", "disk")
    once = ()
    repeated = False

    def _mount(self, image, name):
        mount = Rampool(self.tools.place, self.tools.rampool, "5G", name=name, options=f"image={image}")
        return mount

    def _fill(self, path, mib):
        with open("/dev/urandom", "rb") as source, open(path, "wb") as f:
            for _ in range(mib):
                f.write(source.read(1 << 20))

    def _change(self, path, mib):
        """Pages here and there, one in a hundred. Returns how many."""
        pages = random.Random(mib).sample(range(mib * 256), mib * 256 // 100)
        with open(path, "r+b", buffering=0) as f:
            for page in pages:
                f.seek(page * 4096)
                f.write(os.urandom(4096))
            os.fsync(f.fileno())
        return len(pages)

    def _save(self, mount, mib, found):
        data = os.path.join(mount.path, "data")
        self._fill(data, mib)
        seconds = timed([self.tools.rampool, "save", mount.path])
        if found is None:
            return
        full = mount.number("written by commits")
        found["save_all"] = (mib / seconds, "MiB/s")
        found["save_all_written"] = (full / (mib << 20) * 100, "%")
        run([self.tools.rampool, "snapshot", mount.path, "bench"], LIMIT)
        before = mount.number("used")
        pages = self._change(data, mib)
        found["snapshot_memory"] = ((mount.number("used") - before) / (pages * 4096) * 100, "%")
        found["save_little"] = (timed([self.tools.rampool, "save", mount.path]) * 1e3, "ms")
        found["save_little_written"] = ((mount.number("written by commits") - full) / full * 100, "%")

    def _open(self, mount, label, found):
        start = time.monotonic()
        mount.start()
        try:
            with open(os.path.join(mount.path, "data"), "rb", buffering=0) as f:
                f.read(1)
                found["open_" + label] = ((time.monotonic() - start) * 1e3, "ms")
                while f.read(1 << 20):
                    pass
            found["open_read_" + label] = ((time.monotonic() - start) * 1e3, "ms")
        finally:
            mount.stop()

    def _copy(self, folder, mib):
        source, target = (os.path.join(folder, name) for name in ("source", "target"))
        self._fill(source, mib)
        run(["sync", source], LIMIT)
        seconds = timed(["sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", source, target])
        os.unlink(source)
        os.unlink(target)
        return {"save_all": (mib / seconds, "MiB/s")}

    def run(self, system):
        if system.name == "disk":
            return self._copy(system.path, self.scale.image_mib)
        found = {}
        for label, mib in (("small", 4), ("large", self.scale.image_mib)):
            image = os.path.join(self.tools.place, label + ".rampool")
            mount = self._mount(image, "image-" + label)
            mount.start()
            try:
                self._save(mount, mib, found if label == "large" else None)
            finally:
                mount.stop()
            self._open(mount, label, found)
            os.unlink(image)
        return found
