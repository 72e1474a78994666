# How many requests an operation costs, from the server's own counters: python3 requests.py MOUNTPOINT
# writeback|writethrough checked|unchecked (whether the kernel checks permissions)
# Run by test_mount_requests. Numbers are upper bounds that hold exactly on the kernels this was written on; forgets, which
# nobody waits for, do not count.

import os
import subprocess
import sys

ROOT, MODE, CHECKS = sys.argv[1] + "/d", sys.argv[2], sys.argv[3]
FAULTS = []
WRITEBACK = MODE == "writeback"
# Where permissions are checked, a directory's own attributes are asked for after each change in it.
DIRECTORY = {"getattr": 1} if CHECKS == "checked" else {}
KEPT_TIMES = {"setattr": 1} if WRITEBACK else {}


def counts():
    text = subprocess.run([os.environ["RAMPOOL"], "status", ROOT], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    return {line[len("requests "):line.index(":")]: int(line[line.index(": ") + 2:])
            for line in text.decode().splitlines() if line.startswith("requests ")}


def cost(what, most, function, *args):
    """Run it twice with arguments of its own; the second time may cost at most this."""
    function(*[a + "1" if isinstance(a, str) else a for a in args])
    before = counts()
    function(*[a + "2" if isinstance(a, str) else a for a in args])
    after = counts()
    spent = {k: after[k] - before[k] for k in after if after[k] != before[k] and k != "forget"}
    print(f"{what}: {spent}")
    over = {k: n for k, n in spent.items() if n > most.get(k, 0)}
    if over:
        FAULTS.append(f"{what}: more than {most}: {over}")


def path(name):
    return ROOT + "/" + name


def create(name):
    os.close(os.open(path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def create_and_write(name):
    fd = os.open(path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, b"x" * 4096)
    os.close(fd)


def read(name):
    fd = os.open(path(name), os.O_RDONLY)
    assert len(os.read(fd, 4096)) == 4096
    os.close(fd)


def look(name):
    os.stat(path(name))
    read(name)


def miss(name):
    assert not os.path.exists(path(name))


def rename(name):
    os.rename(path(name), path("to-" + name))


def unlink(name):
    os.unlink(path(name))


def mkdir(name):
    os.mkdir(path(name))


def rmdir(name):
    os.rmdir(path(name))


def enter(name):
    assert os.access(path(name), os.R_OK | os.W_OK)
    os.chdir(ROOT)


def overwrite(name):
    fd = os.open(path(name), os.O_WRONLY)
    os.write(fd, b"y" * 4096)
    os.fsync(fd)
    os.close(fd)


def text(name):
    with open(path(name), encoding="utf-8") as f:
        f.read()


os.mkdir(ROOT)
cost("create an empty file", {**DIRECTORY, "lookup": 1, "mknod": 1}, create, "empty")
# The times of what was written go with the close, of this file or of the one before.
cost("create, write 4 KiB, close", {**DIRECTORY, "lookup": 1, "mknod": 1, "getxattr": 1, "write": 1, "setattr": 2},
     create_and_write, "small")
for n in ("small1", "small2"):
    overwrite(n)
    look(n)
    look(n)
cost("open, read, close a known file", {}, read, "small")
# With the writeback cache the kernel forgets at each close how many blocks a file has: the next stat asks.
cost("stat, open, read, close a known file", {"getattr": 1} if WRITEBACK else {}, look, "small")
cost("open a text file in a program that asks for a terminal", {"getattr": 1} if WRITEBACK else {}, text, "small")
# Each refresh of attributes makes the kernel ask again for security.capability at the next write.
cost("overwrite 4 KiB, fsync", {**KEPT_TIMES, "write": 1, "getxattr": 1}, overwrite, "small")
cost("rename", {**DIRECTORY, **KEPT_TIMES, "lookup": 1, "rename": 1}, rename, "small")
cost("unlink", {**DIRECTORY, **KEPT_TIMES, "unlink": 1}, unlink, "to-small")
cost("mkdir", {**DIRECTORY, "lookup": 1, "mkdir": 1}, mkdir, "directory")
cost("rmdir", {**DIRECTORY, "rmdir": 1}, rmdir, "directory")
for n in ("none1", "none2"):
    miss(n)
cost("a name that is known to be missing", {}, miss, "none")
# access(2) and chdir(2), which the kernel decides by itself where it checks permissions.
for n in ("known1", "known2"):
    create(n)
cost("access, chdir", DIRECTORY if DIRECTORY else {"access": 2}, enter, "known")
os.chdir("/")
create("list")
os.listdir(ROOT)
before_list = counts()
os.listdir(ROOT)
spent_list = {k: n - before_list[k] for k, n in counts().items() if n != before_list[k]}
print(f"list a known directory: {spent_list}")
if set(spent_list) - {"getattr"}:
    FAULTS.append(f"list a known directory: {spent_list}")
total = counts()
for kind, most in (("open", 1), ("opendir", 1), ("create", 1), ("fsync", 1), ("release", 0), ("releasedir", 0),
                   ("access", 0 if CHECKS == "checked" else 4)):
    if total[kind] > most:
        FAULTS.append(f"{total[kind]} requests {kind} in all")
print("\n".join(FAULTS) or f"{MODE}, {CHECKS}: fine")
sys.exit(bool(FAULTS))
