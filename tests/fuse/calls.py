# Every kind of request through system calls on a mount: python3 calls.py MOUNTPOINT [NAME...]. Each check stands alone,
# in its own directory. Prints what failed; exit status 1 then. Run by test_mount_calls and test_mount_transports.

import ctypes
import errno
import fcntl
import mmap
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

ROOT = sys.argv[1]
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP, PUNCH, ZERO, COLLAPSE = 1, 2, 16, 8
PAGE = 4096
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def expect(code, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except OSError as error:
        assert error.errno == code, f"{function.__name__}{args}: {error}, expected {errno.errorcode[code]}"
        return
    raise AssertionError(f"{function.__name__}{args} worked, expected {errno.errorcode[code]}")


def call(name, *args):
    result = getattr(LIBC, name)(*args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(a, b, flags):
    return call("renameat2", AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), flags)


def link_open(fd, path):
    return call("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(path), 0x400)


def fallocate(fd, mode, offset, length):
    return call("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def statx(path, mask=0xfff):
    buffer = ctypes.create_string_buffer(256)
    call("statx", AT_FDCWD, os.fsencode(path), 0x100, mask, buffer)
    raw = buffer.raw
    return {
        "mask": struct.unpack_from("<I", raw, 0)[0],
        "mode": struct.unpack_from("<H", raw, 28)[0],
        "size": struct.unpack_from("<Q", raw, 40)[0],
        "btime": struct.unpack_from("<qI", raw, 80),
    }


def put(path, data=b"", mode="wb"):
    with open(path, mode) as f:
        f.write(data)
    return path


def get(path):
    with open(path, "rb") as f:
        return f.read()


def extents(path):
    found, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO, error
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        found.append((begin, at))
    os.close(fd)
    return found


@check
def names(d):
    put(d + "/file")
    os.mkdir(d + "/dir", 0o750)
    os.symlink("no/where", d + "/short")
    os.symlink("x" * 4000, d + "/long")
    os.link(d + "/file", d + "/hard")
    assert os.readlink(d + "/short") == "no/where" and os.readlink(d + "/long") == "x" * 4000
    assert os.stat(d + "/file").st_nlink == 2 and os.stat(d + "/hard").st_ino == os.stat(d + "/file").st_ino
    assert stat.S_IMODE(os.stat(d + "/dir").st_mode) == 0o750 and os.stat(d).st_nlink == 3
    assert sorted(os.listdir(d)) == ["dir", "file", "hard", "long", "short"]
    expect(errno.EEXIST, os.mkdir, d + "/file")
    expect(errno.ENOENT, os.stat, d + "/none")
    expect(errno.ENOTDIR, os.stat, d + "/file/below")
    expect(errno.EISDIR, os.unlink, d + "/dir")
    expect(errno.ENOTDIR, os.rmdir, d + "/file")
    put(d + "/dir/below")
    expect(errno.ENOTEMPTY, os.rmdir, d + "/dir")
    expect(errno.EPERM, os.link, d + "/dir", d + "/dir2")
    expect(errno.ENAMETOOLONG, put, d + "/" + "n" * 256)
    put(d + "/" + "n" * 255)
    put(os.fsencode(d) + b"/" + bytes(c for c in range(1, 256) if c != 47)[:255])
    os.unlink(d + "/file")
    assert os.stat(d + "/hard").st_nlink == 1
    expect(errno.ELOOP, os.open, d + "/short", os.O_RDONLY | os.O_NOFOLLOW)


@check
def kinds(d):
    os.mkfifo(d + "/fifo", 0o640)
    os.mknod(d + "/char", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.mknod(d + "/block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    s = socket.socket(socket.AF_UNIX)
    s.bind(d + "/socket")
    st = {n: os.stat(d + "/" + n) for n in ("fifo", "char", "block", "socket")}
    assert stat.S_ISFIFO(st["fifo"].st_mode) and stat.S_IMODE(st["fifo"].st_mode) == 0o640
    assert stat.S_ISCHR(st["char"].st_mode) and st["char"].st_rdev == os.makedev(1, 5)
    assert stat.S_ISBLK(st["block"].st_mode) and st["block"].st_rdev == os.makedev(259, 70000)
    assert stat.S_ISSOCK(st["socket"].st_mode)
    with open(d + "/char", "rb") as zero:
        assert zero.read(3) == b"\0\0\0"
    writer = threading.Thread(target=put, args=(d + "/fifo", b"through"))
    writer.start()
    assert get(d + "/fifo") == b"through"
    writer.join()
    c = socket.socket(socket.AF_UNIX)
    s.listen(1)
    c.connect(d + "/socket")
    c.close()
    s.close()
    types = {e.name: e.is_file() for e in os.scandir(d)}
    assert len(types) == 4 and not any(types.values())


@check
def rename_flags(d):
    put(d + "/a", b"a")
    put(d + "/b", b"b")
    expect(errno.EEXIST, renameat2, d + "/a", d + "/b", NOREPLACE)
    renameat2(d + "/a", d + "/c", NOREPLACE)
    renameat2(d + "/b", d + "/c", EXCHANGE)
    assert get(d + "/b") == b"a" and get(d + "/c") == b"b"
    expect(errno.ENOENT, renameat2, d + "/b", d + "/none", EXCHANGE)
    expect(errno.EINVAL, renameat2, d + "/b", d + "/c", EXCHANGE | NOREPLACE)
    os.mkdir(d + "/dir")
    renameat2(d + "/dir", d + "/b", EXCHANGE)
    assert get(d + "/dir") == b"a" and os.path.isdir(d + "/b")
    renameat2(d + "/dir", d + "/moved", WHITEOUT)
    st = os.stat(d + "/dir")
    assert stat.S_ISCHR(st.st_mode) and st.st_rdev == 0 and get(d + "/moved") == b"a"
    expect(errno.EINVAL, os.rename, d + "/b", d + "/b/below")
    os.mkdir(d + "/full")
    put(d + "/full/x")
    expect(errno.ENOTEMPTY, os.rename, d + "/b", d + "/full")
    expect(errno.EISDIR, os.rename, d + "/moved", d + "/full")
    expect(errno.ENOTDIR, os.rename, d + "/full", d + "/moved")
    os.rename(d + "/full/x", d + "/moved")
    assert get(d + "/moved") == b""


@check
def attributes(d):
    f = put(d + "/f", b"12345")
    os.chmod(f, 0o6711)
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o6711
    os.chown(f, 1000, 1001)
    st = os.stat(f)
    assert (st.st_uid, st.st_gid) == (1000, 1001) and stat.S_IMODE(st.st_mode) == 0o711, oct(st.st_mode)
    os.utime(f, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    st = os.stat(f)
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)
    os.utime(f, ns=(-1_500_000_000, 1))
    assert os.stat(f).st_atime_ns == -1_500_000_000
    os.truncate(f, 3)
    assert get(f) == b"123" and os.stat(f).st_size == 3
    os.truncate(f, 10)
    assert get(f) == b"123" + b"\0" * 7
    expect(errno.EINVAL, os.truncate, f, -1)
    before = time.time()
    put(d + "/new")
    x = statx(d + "/new")
    assert x["mask"] & 0x800, "no birth time"
    assert abs(x["btime"][0] - before) < 60
    born = x["btime"]
    put(d + "/new", b"changed")
    os.rename(d + "/new", d + "/newer")
    assert statx(d + "/newer")["btime"] == born and statx(d + "/newer")["size"] == 7
    v = os.statvfs(d)
    assert v.f_bsize == 4096 and v.f_namemax == 255 and 0 < v.f_bfree <= v.f_blocks


@check
def umask_and_sgid(d):
    old = os.umask(0o027)
    try:
        put(d + "/f")
        os.mkdir(d + "/d", 0o777)
        assert stat.S_IMODE(os.stat(d + "/f").st_mode) == 0o640
        assert stat.S_IMODE(os.stat(d + "/d").st_mode) == 0o750
    finally:
        os.umask(old)
    os.chown(d + "/d", 0, 4242)
    os.chmod(d + "/d", 0o2775)
    put(d + "/d/f")
    os.mkdir(d + "/d/sub")
    assert os.stat(d + "/d/f").st_gid == 4242 and os.stat(d + "/d/sub").st_gid == 4242
    assert os.stat(d + "/d/sub").st_mode & stat.S_ISGID


@check
def xattrs(d):
    f = put(d + "/f")
    os.setxattr(f, "user.a", b"1")
    os.setxattr(f, "user.big", b"x" * 65536)
    os.setxattr(f, "trusted.t", b"")
    os.setxattr(f, "security.s", b"s")
    assert sorted(os.listxattr(f)) == ["security.s", "trusted.t", "user.a", "user.big"]
    assert os.getxattr(f, "user.big") == b"x" * 65536 and os.getxattr(f, "trusted.t") == b""
    expect(errno.EEXIST, os.setxattr, f, "user.a", b"2", os.XATTR_CREATE)
    expect(errno.ENODATA, os.setxattr, f, "user.none", b"2", os.XATTR_REPLACE)
    os.setxattr(f, "user.a", b"22", os.XATTR_REPLACE)
    assert os.getxattr(f, "user.a") == b"22"
    os.removexattr(f, "user.big")
    expect(errno.ENODATA, os.getxattr, f, "user.big")
    expect(errno.ENODATA, os.removexattr, f, "user.big")
    expect(errno.EOPNOTSUPP, os.setxattr, f, "other.a", b"1")
    expect(errno.E2BIG, os.setxattr, f, "user.huge", b"x" * 65537)
    os.symlink("f", d + "/link")
    expect(errno.EPERM, os.setxattr, d + "/link", "user.a", b"1", follow_symlinks=False)
    os.setxattr(d, "user.dir", b"d")
    assert os.getxattr(d, "user.dir") == b"d"


@check
def acls(d):
    if not shutil.which("setfacl"):
        return
    run = lambda *words: subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=30).stdout.decode()
    os.mkdir(d + "/d")
    run("setfacl", "-d", "-m", "u:1234:rwx,g::r-x,o::-", d + "/d")
    old = os.umask(0o077)
    put(d + "/d/f")
    os.mkdir(d + "/d/sub", 0o777)
    os.umask(old)
    text = run("getfacl", "-ncp", d + "/d/f")
    assert "user:1234:rwx" in text and "other::---" in text, text
    assert stat.S_IMODE(os.stat(d + "/d/f").st_mode) == 0o660, oct(os.stat(d + "/d/f").st_mode)
    assert "default:user:1234:rwx" in run("getfacl", "-ncp", d + "/d/sub")
    run("setfacl", "-m", "u:77:r--", d + "/d/f")
    os.chmod(d + "/d/f", 0o600)
    assert "mask::---" in run("getfacl", "-ncp", d + "/d/f")
    run("setfacl", "-b", d + "/d/f")
    assert os.listxattr(d + "/d/f") == []


@check
def set_id_bits(d):
    # A write or truncation by who is not root clears them; by root it does not.
    f = put(d + "/f", b"data")
    os.chmod(f, 0o6777)
    with open(f, "r+b") as own:
        own.write(b"x")
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o6777
    os.chmod(d, 0o777)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            with open(f, "r+b") as other:
                other.write(b"y")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o777, oct(os.stat(f).st_mode)
    os.chmod(f, 0o4777)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setuid(65534)
            os.truncate(f, 1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o777, oct(os.stat(f).st_mode)


@check
def tmpfiles(d):
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"unnamed")
    assert os.fstat(fd).st_nlink == 0 and os.listdir(d) == []
    link_open(fd, d + "/named")
    os.close(fd)
    assert get(d + "/named") == b"unnamed" and os.stat(d + "/named").st_nlink == 1
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    expect(errno.ENOENT, link_open, fd, d + "/other")
    os.close(fd)
    put(d + "/gone", b"still here")
    fd = os.open(d + "/gone", os.O_RDWR)
    os.unlink(d + "/gone")
    os.write(fd, b"STILL")
    os.fsync(fd)
    assert os.pread(fd, 100, 0) == b"STILL here" and os.fstat(fd).st_nlink == 0
    os.close(fd)


@check
def open_flags(d):
    f = d + "/f"
    expect(errno.ENOENT, os.open, f, os.O_RDWR)
    fd = os.open(f, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
    os.write(fd, b"0123456789")
    os.close(fd)
    expect(errno.EEXIST, os.open, f, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fd = os.open(f, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"ab")
    os.close(fd)
    assert get(f) == b"0123456789ab"
    os.close(os.open(f, os.O_WRONLY | os.O_TRUNC))
    assert get(f) == b"" and os.stat(f).st_size == 0
    fd = os.open(f, os.O_RDWR | os.O_SYNC)
    os.write(fd, b"sync")
    os.close(fd)
    expect(errno.EISDIR, os.open, d, os.O_WRONLY)
    expect(errno.ENOTDIR, os.open, f, os.O_RDONLY | os.O_DIRECTORY)
    fd = os.open(f, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 2 * PAGE)
    page[:] = b"D" * (2 * PAGE)
    assert os.writev(fd, [page]) == 2 * PAGE
    page[:] = b"\0" * (2 * PAGE)
    assert os.preadv(fd, [page], 0) == 2 * PAGE and page[:] == b"D" * (2 * PAGE)
    os.close(fd)
    assert get(f) == b"D" * (2 * PAGE)


@check
def big_data(d):
    rng = random.Random(7)
    f = d + "/f"
    data = bytearray(rng.randbytes(3 << 20))
    put(f, data)
    with open(f, "r+b", buffering=0) as file:
        for _ in range(200):
            at, n = rng.randrange(len(data)), rng.randrange(1, 70000)
            piece = rng.randbytes(n)
            file.seek(at)
            file.write(piece)
            data[at:at + n] = piece
        os.fsync(file.fileno())
    drop(f)
    assert get(f) == bytes(data) and os.stat(f).st_size == len(data)
    assert os.stat(f).st_blocks * 512 >= len(data)
    far = (1 << 62) + 12345
    with open(f, "r+b") as file:
        os.pwrite(file.fileno(), b"end", far)
    assert os.stat(f).st_size == far + 3
    with open(f, "rb") as file:
        assert os.pread(file.fileno(), 10, far - 2) == b"\0\0end"
    os.truncate(f, 1)


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@check
def mapped(d):
    f = put(d + "/f", b"\0" * (4 * PAGE))
    with open(f, "r+b") as a, open(f, "r+b") as b:
        m = mmap.mmap(a.fileno(), 4 * PAGE)
        n = mmap.mmap(b.fileno(), 4 * PAGE)
        m[PAGE:PAGE + 5] = b"store"
        assert n[PAGE:PAGE + 5] == b"store" and os.pread(b.fileno(), 5, PAGE) == b"store"
        os.pwrite(a.fileno(), b"write", 2 * PAGE)
        assert m[2 * PAGE:2 * PAGE + 5] == b"write"
        private = mmap.mmap(a.fileno(), 4 * PAGE, mmap.MAP_PRIVATE)
        private[0:2] = b"no"
        m.flush()
        assert os.pread(b.fileno(), 2, 0) == b"\0\0"
        m.close()
        n.close()
        private.close()
    drop(f)
    assert get(f)[PAGE:PAGE + 5] == b"store"


@check
def holes(d):
    f = d + "/f"
    fd = os.open(f, os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x", 10 * PAGE)
    # The pages just written may still be the kernel's alone: they are data all the same.
    assert extents(f) == [(10 * PAGE, 10 * PAGE + 1)], extents(f)
    os.pwrite(fd, b"y" * PAGE, 3 * PAGE)
    assert extents(f) == [(3 * PAGE, 4 * PAGE), (10 * PAGE, 10 * PAGE + 1)], extents(f)
    os.ftruncate(fd, 20 * PAGE)
    m = mmap.mmap(fd, 20 * PAGE)
    m[15 * PAGE] = 1
    assert (15 * PAGE, 16 * PAGE) in extents(f), extents(f)
    m.close()
    expect(errno.ENXIO, os.lseek, fd, 20 * PAGE, os.SEEK_DATA)
    expect(errno.ENXIO, os.lseek, fd, 20 * PAGE, os.SEEK_HOLE)
    assert os.lseek(fd, 16 * PAGE, os.SEEK_HOLE) == 16 * PAGE
    expect(errno.ENXIO, os.lseek, fd, 16 * PAGE, os.SEEK_DATA)
    os.close(fd)
    subprocess.run(["cp", "--sparse=auto", f, d + "/copy"], check=True, timeout=30)
    assert get(d + "/copy") == get(f)
    # Dense, and much of it not yet written back.
    put(d + "/dense", b"z" * (1 << 20))
    assert extents(d + "/dense") == [(0, 1 << 20)]


@check
def fallocates(d):
    f = put(d + "/f", b"d" * (8 * PAGE))
    fd = os.open(f, os.O_RDWR)
    fallocate(fd, PUNCH | KEEP, PAGE, 2 * PAGE)
    assert get(f) == b"d" * PAGE + b"\0" * (2 * PAGE) + b"d" * (5 * PAGE)
    assert extents(f) == [(0, PAGE), (3 * PAGE, 8 * PAGE)], extents(f)
    fallocate(fd, PUNCH | KEEP, 3 * PAGE + 100, 200)
    assert get(f)[3 * PAGE:4 * PAGE] == b"d" * 100 + b"\0" * 200 + b"d" * (PAGE - 300)
    fallocate(fd, ZERO, 7 * PAGE, 2 * PAGE)
    assert os.stat(f).st_size == 9 * PAGE and get(f)[7 * PAGE:] == b"\0" * (2 * PAGE)
    fallocate(fd, ZERO | KEEP, 8 * PAGE, 4 * PAGE)
    assert os.stat(f).st_size == 9 * PAGE
    fallocate(fd, 0, 0, 16 * PAGE)
    assert os.stat(f).st_size == 16 * PAGE and os.stat(f).st_blocks == 16 * 8
    fallocate(fd, KEEP, 16 * PAGE, 16 * PAGE)
    assert os.stat(f).st_size == 16 * PAGE and os.stat(f).st_blocks == 32 * 8
    expect(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE, 0, PAGE)
    expect(errno.EINVAL, fallocate, fd, 0, 0, 0)
    expect(errno.ENOSPC, fallocate, fd, 0, 0, 1 << 50)
    os.close(fd)
    fd = os.open(f, os.O_RDONLY)
    expect(errno.EBADF, fallocate, fd, 0, 0, PAGE)
    os.close(fd)


@check
def copies(d):
    rng = random.Random(11)
    data = rng.randbytes(1 << 20)
    a, b = put(d + "/a", data), put(d + "/b", b"old" * 1000)
    fa, fb = os.open(a, os.O_RDWR), os.open(b, os.O_RDWR)
    assert os.copy_file_range(fa, fb, 1 << 20, 0, 0) == 1 << 20
    assert get(b) == data
    assert os.copy_file_range(fa, fb, 5000, 123, 4567) == 5000
    expected = bytearray(data)
    expected[4567:9567] = data[123:5123]
    assert get(b) == bytes(expected)
    os.pwrite(fa, b"changed", 0)
    assert get(b) == bytes(expected) and get(a)[:7] == b"changed"
    assert os.copy_file_range(fa, fb, 100, 1 << 20, 0) == 0
    expect(errno.EINVAL, os.copy_file_range, fa, fa, 8192, 0, 4096)
    os.close(fa)
    os.close(fb)


@check
def directories(d):
    n = 3000
    for i in range(n):
        put(f"{d}/name{i}")
    assert len(os.listdir(d)) == n and len(set(os.listdir(d))) == n
    seen = set()
    with os.scandir(d) as entries:
        for i, entry in enumerate(entries):
            assert entry.name not in seen
            seen.add(entry.name)
            assert entry.inode() and entry.is_file()
            if i % 2:
                os.unlink(entry.path)
    assert len(seen) == n and len(os.listdir(d)) == n // 2
    first = os.stat(d).st_ino
    os.mkdir(d + "/sub")
    assert os.stat(d + "/sub/..").st_ino == first
    for name in os.listdir(d):
        if name != "sub":
            os.unlink(d + "/" + name)
    assert os.listdir(d) == ["sub"]


def forget():
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("2")


@check
def handles(d):
    # As an NFS server does it: a file by its handle, also when the kernel has forgotten it.
    f = put(d + "/f", b"by handle")
    buffer = ctypes.create_string_buffer(136)
    struct.pack_into("<I", buffer, 0, 128)
    mount_id = ctypes.c_int()
    call("name_to_handle_at", AT_FDCWD, os.fsencode(f), buffer, ctypes.byref(mount_id), 0)
    root = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
    forget()
    fd = call("open_by_handle_at", root, buffer, os.O_RDONLY)
    assert os.read(fd, 100) == b"by handle"
    os.close(fd)
    os.unlink(f)
    # The kernel may keep the inode for a while although nobody has it.
    for _ in range(100):
        try:
            os.close(call("open_by_handle_at", root, buffer, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.ESTALE, error
            break
        forget()
        time.sleep(0.02)
    else:
        raise AssertionError("a file that is gone can be opened by its handle")
    os.close(root)


@check
def locks_and_ioctls(d):
    f = put(d + "/f", b"x")
    with open(f, "r+b") as a, open(f, "r+b") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        expect(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(a, fcntl.LOCK_UN)
        fcntl.lockf(a, fcntl.LOCK_EX, 1)
        pid = os.fork()
        if not pid:
            try:
                fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
                os._exit(1)
            except OSError:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        expect(errno.ENOTTY, fcntl.ioctl, a, 0x80086601, b"\0" * 8)
        expect(errno.ENOTTY, fcntl.ioctl, a, 0x5401, b"\0" * 64)
        os.fsync(a.fileno())
        os.fdatasync(a.fileno())
    fd = os.open(d, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@check
def times(d):
    # Data change mtime and ctime, names change the directory's; what was written back later changes nothing.
    f = put(d + "/f", b"1")
    before = os.stat(f)
    names_before = os.stat(d)
    time.sleep(0.02)
    put(f, b"2", "ab")
    after = os.stat(f)
    assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns
    os.sync()
    drop(f)
    assert os.stat(f).st_mtime_ns == after.st_mtime_ns
    put(d + "/g")
    assert os.stat(d).st_mtime_ns > names_before.st_mtime_ns
    os.utime(f, ns=(5, 6))
    put(d + "/h", b"x" * 100000)
    os.utime(d + "/h", ns=(7, 8))
    os.sync()
    drop(d + "/h")
    assert os.stat(f).st_mtime_ns == 6 and os.stat(d + "/h").st_mtime_ns == 8
    ctime = os.stat(f).st_ctime_ns
    time.sleep(0.02)
    os.link(f, d + "/i")
    assert os.stat(f).st_ctime_ns > ctime


def main():
    failed = 0
    chosen = sys.argv[2:]
    for function in CHECKS:
        if chosen and function.__name__ not in chosen:
            continue
        d = f"{ROOT}/{function.__name__}"
        os.mkdir(d)
        try:
            function(d)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            line = error.__traceback__
            while line.tb_next and line.tb_next.tb_frame.f_code is not expect.__code__:
                line = line.tb_next
            print(f"{function.__name__}, line {line.tb_lineno}: {type(error).__name__}: {error}", flush=True)
        shutil.rmtree(d, ignore_errors=True)
    print(f"{len(CHECKS)} checks, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
