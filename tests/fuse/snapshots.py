# Snapshots of a mount as its users see them: python3 snapshots.py MOUNTPOINT. Run by test_mount_snapshots.

import errno
import hashlib
import mmap
import os
import random
import shlex
import shutil
import subprocess
import sys
import time

ROOT = sys.argv[1]
SNAP = ROOT + "/.snapshots"
SEED = int(os.environ.get("SEED", "20"))
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


# A child that is started while files are open closes its copies of them, and close(2) writes dirty pages back: what is to
# be shown would then be done by the test itself. So the commands are run by a shell that was started before.
SHELL = subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)


def rampool(*words):
    line = " ".join(shlex.quote(w) for w in ("timeout", "100", os.environ["RAMPOOL"], words[0], ROOT, *words[1:]))
    print(line + " >&2; echo $?", file=SHELL.stdin, flush=True)
    status = SHELL.stdout.readline().strip()
    assert status == "0", f"rampool {words}: exit status {status}"


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def expect(codes, function, *args):
    try:
        function(*args)
    except OSError as error:
        assert error.errno in codes, f"{function.__name__}{args}: {error}"
        return
    raise AssertionError(f"{function.__name__}{args} worked")


@check
def dirty_pages(d):
    """Every write that returned before the command is in the snapshot, stores through a mapping too."""
    rng = random.Random(SEED)
    for i in range(3):
        piece = rng.randbytes(1 << 20)
        digest = hashlib.md5()
        with open(f"{d}/big{i}", "wb", buffering=0) as f:
            for k in range(60):
                piece = piece[k + 1:] + piece[:k + 1]
                f.write(piece)
                digest.update(piece)
            with open(f"{d}/mapped", "w+b") as m:
                m.truncate(8 << 20)
                with mmap.mmap(m.fileno(), 8 << 20) as view:
                    for at in range(0, 8 << 20, 4096):
                        view[at:at + 8] = (at + i).to_bytes(8, "little")
                    rampool("snapshot", f"dirty{i}")
                    view[:] = b"\xff" * (8 << 20)
            f.write(b"after")
        name = os.path.basename(d)
        assert hashlib.md5(get(f"{SNAP}/dirty{i}/{name}/big{i}")).digest() == digest.digest(), f"round {i}: the file"
        data = get(f"{SNAP}/dirty{i}/{name}/mapped")
        for at in range(0, 8 << 20, 4096):
            assert data[at:at + 8] == (at + i).to_bytes(8, "little"), f"round {i}: the mapping at {at}"
        os.unlink(f"{d}/big{i}")
    for i in range(3):
        rampool("delete", f"dirty{i}")


@check
def under_load(d):
    """With writers that never stop, the command returns, and what was written before it is there."""
    code = ("import os, sys\n"
            "fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
            "for n in range(10 ** 9):\n"
            "    os.pwrite(fd, n.to_bytes(8, 'little') * 512, n % 4096 * 4096)\n"
            "    if n % 512 == 511: print(n, flush=True)\n")
    writers = [subprocess.Popen([sys.executable, "-c", code, f"{d}/w{i}"], stdout=subprocess.PIPE) for i in range(2)]
    try:
        for i in range(4):
            said = [int(w.stdout.readline()) for w in writers]
            rampool("snapshot", f"load{i}")
            for k, last in enumerate(said):
                data = get(f"{SNAP}/load{i}/{os.path.basename(d)}/w{k}")
                for n in range(max(0, last - 400), last + 1):
                    at = n % 4096 * 4096
                    found = int.from_bytes(data[at:at + 8], "little")
                    assert found >= n and found % 4096 == n % 4096, f"round {i}, writer {k}: {found} where {n} was"
            rampool("delete", f"load{i}")
    finally:
        for w in writers:
            w.kill()
            w.wait()
            w.stdout.close()


@check
def reading(d):
    name = os.path.basename(d)
    os.mkdir(d + "/sub")
    put(d + "/sub/f", b"before")
    os.symlink("sub/f", d + "/link")
    os.setxattr(d + "/sub/f", "user.a", b"x")
    rampool("snapshot", "one")
    put(d + "/sub/f", b"after, and longer")
    os.unlink(d + "/link")
    old = f"{SNAP}/one/{name}"
    assert ".snapshots" not in os.listdir(ROOT) and os.listdir(SNAP) == ["one"]
    assert get(old + "/sub/f") == b"before" and get(old + "/link") == b"before" and get(d + "/sub/f")[:5] == b"after"
    assert os.getxattr(old + "/sub/f", "user.a") == b"x"
    assert sorted(os.listdir(old)) == ["link", "sub"] and os.listdir(d) == ["sub"]
    assert os.stat(old + "/sub/f").st_ino != os.stat(d + "/sub/f").st_ino
    assert os.stat(SNAP + "/one/..").st_ino == os.stat(SNAP).st_ino and os.stat(SNAP + "/..").st_ino == os.stat(ROOT).st_ino
    expect({errno.EROFS}, put, old + "/new", b"")
    expect({errno.EROFS}, os.unlink, old + "/link")
    expect({errno.EROFS}, os.chmod, old + "/sub/f", 0o600)
    expect({errno.EROFS}, os.truncate, old + "/sub/f", 0)
    expect({errno.EROFS, errno.EXDEV}, os.rename, old + "/link", d + "/link")
    expect({errno.EROFS, errno.EPERM, errno.ENOENT, errno.EBUSY}, os.rmdir, SNAP + "/one")
    expect({errno.EEXIST}, os.mkdir, SNAP)
    shutil.copytree(old, d + "/copy", symlinks=True)
    assert get(d + "/copy/sub/f") == b"before"
    # Deleted while someone is in it: readable for him, gone for others; the name may be used again.
    handle = os.open(old + "/sub/f", os.O_RDONLY)
    rampool("delete", "one")
    assert os.read(handle, 100) == b"before"
    assert not os.path.exists(SNAP + "/one") and os.listdir(SNAP) == []
    rampool("snapshot", "one")
    assert get(old + "/sub/f") == b"after, and longer" and os.pread(handle, 100, 0) == b"before"
    os.close(handle)
    rampool("rename", "one", "two")
    assert os.listdir(SNAP) == ["two"] and not os.path.exists(SNAP + "/one")
    rampool("delete", "two")


def read_whole(fd):
    os.lseek(fd, 0, os.SEEK_SET)
    data = b""
    while piece := os.read(fd, 1 << 20):
        data += piece
    return data


@check
def rolling_back(d):
    put(d + "/same", b"same")
    put(d + "/grown", b"short")
    put(d + "/shrunk", b"long" * 100000)
    put(d + "/gone", b"gone")
    put(d + "/chmod", b"")
    os.mkdir(d + "/dir")
    put(d + "/dir/x", b"x")
    os.rename(d + "/dir/x", d + "/dir/y")
    rampool("snapshot", "base")
    state = {p: (os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in (d + "/same", d + "/grown", d + "/shrunk", d + "/chmod")}
    for round_ in range(3):
        put(d + "/grown", b"much longer than before" * 10000)
        os.truncate(d + "/shrunk", 3)
        os.unlink(d + "/gone")
        os.chmod(d + "/chmod", 0o600)
        shutil.rmtree(d + "/dir")
        put(d + "/new", b"new")
        put(d + "/dir", b"now a file")
        assert not os.path.exists(d + "/never") and not os.path.exists(d + "/gone")
        open_files = {n: os.open(f"{d}/{n}", os.O_RDWR) for n in ("same", "grown", "new", "dir")}
        with mmap.mmap(open_files["grown"], 4096) as m:
            m[0:4] = b"MAPD"
        os.listdir(d)
        rampool("rollback", "base")
        # First: listing a directory tells the kernel names.
        assert os.path.exists(d + "/gone") and not os.path.exists(d + "/new"), "names of before"
        assert sorted(os.listdir(d)) == ["chmod", "dir", "gone", "grown", "same", "shrunk"], os.listdir(d)
        assert os.listdir(d + "/dir") == ["y"] and get(d + "/dir/y") == b"x"
        assert get(d + "/grown") == b"short" and get(d + "/shrunk") == b"long" * 100000 and get(d + "/gone") == b"gone"
        assert not os.path.exists(d + "/new") and os.stat(d + "/chmod").st_mode & 0o777 == 0o644
        for p, (size, mtime) in state.items():
            assert (os.stat(p).st_size, os.stat(p).st_mtime_ns) == (size, mtime), f"{p}, round {round_}"
        assert read_whole(open_files["same"]) == b"same"
        os.write(open_files["same"], b"")
        for name, whole in (("grown", b"short"), ("new", None), ("dir", None)):
            try:
                data = read_whole(open_files[name])
                assert data == whole, f"{name}: an open file shows {data[:40]}"
            except OSError as error:
                # The answer is ESTALE, but a page that cannot be read is EIO to the reader on some kernels.
                assert error.errno in (errno.ESTALE, errno.EIO), error
        for fd in open_files.values():
            try:
                os.close(fd)
            except OSError as error:
                assert error.errno in (errno.ESTALE, errno.EIO), error
    put(d + "/grown", b"after the rollback")
    assert get(d + "/grown") == b"after the rollback"
    rampool("delete", "base")


def main():
    failed = 0
    print(f"seed {SEED}")
    for function in CHECKS:
        d = f"{ROOT}/{function.__name__}"
        os.mkdir(d)
        start = time.monotonic()
        try:
            function(d)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            frame = error.__traceback__
            while frame.tb_next:
                frame = frame.tb_next
            print(f"{function.__name__}, line {frame.tb_lineno}: {type(error).__name__}: {error}")
        print(f"{function.__name__}: {time.monotonic() - start:.1f} s", flush=True)
        shutil.rmtree(d, ignore_errors=True)
    SHELL.stdin.close()
    SHELL.wait()
    return 1 if failed else 0


sys.exit(main())
