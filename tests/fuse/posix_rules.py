# Calls on every kind of file, by three users: python3 posix_rules.py DIRECTORY
# Prints, for each, the result or errno, and what became of everything around it: types, modes, owners, links, sizes, and which
# of the three times changed, also where the call failed. Run by test_posix_rules, which compares two filesystems.
# All cases are prepared first, and the clock ticks once before the calls, so that nothing depends on how fast they are.

import ctypes
import errno
import os
import socket
import stat
import sys
import time

OWNER, OTHER = 61001, 61003
USERS = {"root": (0, 0, []), "owner": (OWNER, OWNER, [61002]), "other": (OTHER, OTHER, [])}
OLD = 10**18
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
EXCHANGE, NOREPLACE, WHITEOUT = 2, 1, 4
libc = ctypes.CDLL(None, use_errno=True)


def c_call(function, *arguments):
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if function(*arguments) < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def times_set(path, atime, mtime, flags=0):
    c_call(libc.utimensat, -100, os.fsencode(path), (ctypes.c_long * 4)(*atime, *mtime), flags)


def rename2(a, b, flags):
    c_call(libc.renameat2, -100, os.fsencode(a), -100, os.fsencode(b), flags)


def with_fd(path, flags, call=lambda fd: None):
    fd = os.open(path, flags | os.O_NONBLOCK, 0o644)
    try:
        call(fd)
    finally:
        os.close(fd)


def opened(flags, call=lambda fd: None):
    return lambda p: with_fd(p, flags, call)


def allocated(mode, offset, length):
    return opened(os.O_RDWR, lambda fd: c_call(libc.fallocate, fd, mode, offset, length))


def bound(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)


def put(path, data=b"12345", mode=0o644, owner=OWNER):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
    os.write(fd, data)
    os.close(fd)
    os.chown(path, owner, owner)
    os.chmod(path, mode)


def put_dir(path, mode=0o755, owner=OWNER):
    os.mkdir(path)
    os.chown(path, owner, owner)
    os.chmod(path, mode)


def put_link(path, to):
    os.symlink(to, path)
    os.lchown(path, OWNER, OWNER)


def put_node(path, kind):
    os.mknod(path, kind | 0o644, os.makedev(1, 3) if kind == stat.S_IFCHR else 0)
    os.chown(path, OWNER, OWNER)


# name: (what is made, the path that is given to the call)
TARGETS = {
    "file": (lambda: put("t"), "t"),
    "set-ID": (lambda: put("t", mode=0o6755), "t"),
    "read-only": (lambda: put("t", mode=0o444, owner=0), "t"),
    "directory": (lambda: put_dir("t"), "t"),
    "full": (lambda: (put_dir("t"), put("t/in")), "t"),
    "link": (lambda: (put("f"), put_link("t", "f")), "t"),
    "link to directory": (lambda: (put_dir("f"), put_link("t", "f")), "t"),
    "dangling": (lambda: put_link("t", "nowhere"), "t"),
    "loop": (lambda: put_link("t", "t"), "t"),
    "fifo": (lambda: put_node("t", stat.S_IFIFO), "t"),
    "socket": (lambda: put_node("t", stat.S_IFSOCK), "t"),
    "device": (lambda: put_node("t", stat.S_IFCHR), "t"),
    "nothing": (lambda: None, "t"),
    "empty": (lambda: None, ""),
    "file/x": (lambda: put("t"), "t/x"),
    "file/": (lambda: put("t"), "t/"),
    "directory/": (lambda: put_dir("t"), "t/"),
    "directory/.": (lambda: put_dir("t"), "t/."),
    "directory/..": (lambda: put_dir("t"), "t/.."),
    "nothing/": (lambda: None, "t/"),
    "255 bytes": (lambda: None, "t" * 255),
    "256 bytes": (lambda: None, "t" * 256),
    "in closed": (lambda: (put_dir("t", 0, 0), put("t/f")), "t/f"),
    "in read-only": (lambda: (put_dir("t", 0o555), put("t/f")), "t/f"),
    "new in read-only": (lambda: put_dir("t", 0o555), "t/f"),
    "in sticky": (lambda: (put_dir("t", 0o1777, 0), put("t/f")), "t/f"),
}
CALLS = {
    "read": opened(os.O_RDONLY),
    "write": opened(os.O_WRONLY, lambda fd: stat.S_ISREG(os.fstat(fd).st_mode) and os.write(fd, b"ab")),
    "write nothing": opened(os.O_WRONLY, lambda fd: os.write(fd, b"")),
    "create": opened(os.O_RDWR | os.O_CREAT),
    "exclusive": opened(os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "O_TRUNC": opened(os.O_WRONLY | os.O_TRUNC),
    "create, O_TRUNC": opened(os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    "O_DIRECTORY": opened(os.O_RDONLY | os.O_DIRECTORY),
    "O_NOFOLLOW": opened(os.O_RDONLY | os.O_NOFOLLOW),
    "O_TMPFILE": opened(os.O_RDWR | os.O_TMPFILE),
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "mkfifo": os.mkfifo,
    "mknod": os.mknod,
    "mknod device": lambda p: os.mknod(p, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "bind": bound,
    "symlink": lambda p: os.symlink("whatever", p),
    "readlink": os.readlink,
    "link": lambda p: os.link(p, "new", follow_symlinks=False),
    "link to": lambda p: os.link("other", p),
    "rename": lambda p: os.rename(p, "new"),
    "rename away": lambda p: os.rename(p, "odir/new"),
    "rename file to": lambda p: os.rename("other", p),
    "rename directory to": lambda p: os.rename("odir", p),
    "rename to directory": lambda p: os.rename(p, "odir"),
    "rename to itself": lambda p: os.rename(p, p),
    "rename below itself": lambda p: os.rename(p, p + "/sub"),
    "exchange": lambda p: rename2("other", p, EXCHANGE),
    "no replace": lambda p: rename2("other", p, NOREPLACE),
    "whiteout": lambda p: rename2("other", p, WHITEOUT),
    "shorter": lambda p: c_call(libc.truncate, os.fsencode(p), 3),
    "longer": lambda p: c_call(libc.truncate, os.fsencode(p), 100000),
    "negative": lambda p: c_call(libc.truncate, os.fsencode(p), -1),
    "ftruncate": opened(os.O_RDWR, lambda fd: os.ftruncate(fd, 9999)),
    "fallocate": allocated(0, 0, 9000),
    "fallocate inside": allocated(0, 1, 2),
    "keep size": allocated(1, 0, 90000),
    "punch": allocated(3, 0, 2),
    "collapse": allocated(8, 0, 4096),
    "insert": allocated(0x20, 0, 4096),
    "chmod": lambda p: os.chmod(p, 0o640),
    "chmod all": lambda p: os.chmod(p, 0o7777),
    "chown": lambda p: os.chown(p, 61005, 61006),
    "chgrp": lambda p: os.chown(p, -1, 61002),
    "lchown": lambda p: os.lchown(p, 61005, 61006),
    "utime null": lambda p: c_call(libc.utimensat, -100, os.fsencode(p), None, 0),
    "utime now": lambda p: times_set(p, (0, NOW), (0, NOW)),
    "utime omit": lambda p: times_set(p, (0, OMIT), (0, OMIT)),
    "utime now, omit": lambda p: times_set(p, (0, NOW), (0, OMIT)),
    "utime omit, now": lambda p: times_set(p, (0, OMIT), (0, NOW)),
    "utime set": lambda p: times_set(p, (5, 6), (-7, 999999999)),
    "utime of link": lambda p: times_set(p, (2**33, 1), (2**33, 2), 0x100),
    "utime bad": lambda p: times_set(p, (5, 10**9), (7, 8)),
    "user attribute": lambda p: os.setxattr(p, "user.a", b"v"),
    "link's attribute": lambda p: os.setxattr(p, "user.a", b"v", follow_symlinks=False),
    "trusted attribute": lambda p: os.setxattr(p, "trusted.a", b"v", follow_symlinks=False),
    "replace attribute": lambda p: os.setxattr(p, "user.none", b"v", os.XATTR_REPLACE),
    "remove attribute": lambda p: os.removexattr(p, "user.none"),
    "chdir": lambda p: os.chdir(p),
    "list": lambda p: sorted(os.listdir(p)),
    "access": lambda p: [os.access(p, how) for how in (0, 1, 2, 4)],
}


def shown(path, above, out):
    st = os.lstat(path)
    directory = stat.S_ISDIR(st.st_mode)
    out[above] = ("%o %d %d:%d %d %x" % (st.st_mode, st.st_nlink, st.st_uid, st.st_gid, 0 if directory else st.st_size,
                                         st.st_rdev), st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns)
    if directory:
        for name in os.listdir(path):
            shown(path + "/" + name, above + "/" + name[:9], out)
    return out


def prepare(where, make):
    os.mkdir(where)
    os.chdir(where)
    make()
    put("other")
    put_dir("odir")
    for path in [p for p in os.listdir(".")] + ["."]:
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)
    os.chown(".", OWNER, OWNER)
    os.chmod(".", 0o777)
    os.chdir("..")


def changes(before, after):
    out = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        times = "".join(letter for i, letter in ((1, "a"), (2, "m"), (3, "c")) if not old or not new or old[i] != new[i])
        # Times that a call gave, which are far from the present.
        set_to = [t for t in new[1:3] if t < 10**12 or t > 2 * 10**18] if new else []
        out.append("%s: %s%s %s" % (path, new[0] if new else "gone", " new" if not old else " changed " + times, set_to))
    return "; ".join(out)


def run_as(user, cases, to):
    uid, gid, groups = USERS[user]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    here = os.open(".", os.O_RDONLY)
    for where, call, path in cases:
        os.chdir(where)
        try:
            result = "OK %s" % (CALLS[call](path),)
        except OSError as e:
            result = errno.errorcode.get(e.errno, str(e))
        os.fchdir(here)
        os.write(to, (result + "\n").encode())


def as_user(user, cases):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            run_as(user, cases, write)
            os._exit(0)
        except BaseException as e:
            print("FAILED:", user, repr(e), flush=True)
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as f:
        results = f.read().splitlines()
    if os.waitpid(pid, 0)[1] or len(results) != len(cases):
        sys.exit("FAILED: %s: %d results of %d cases" % (user, len(results), len(cases)))
    return results


def main():
    os.chdir(sys.argv[1])
    os.umask(0o022)
    for user in USERS:
        cases = []
        os.mkdir(user)
        os.chmod(user, 0o755)
        os.chdir(user)
        for call in CALLS:
            for target, (make, path) in TARGETS.items():
                where = "%d" % len(cases)
                prepare(where, make)
                cases.append((where, call, path, target))
        time.sleep(0.1)
        before = [shown(case[0], "", {}) for case in cases]
        results = as_user(user, [case[:3] for case in cases])
        for case, old, result in zip(cases, before, results):
            print(user, "/", case[1], "/", case[3], "/", result, "/", changes(old, shown(case[0], "", {})))
        os.chdir("..")


main()
