#!/usr/bin/python3
"""What a tree of files is, and random changes to one.

tree.py list DIRECTORY          one line for each name: type, mode, owner, links, size, times, contents, holes, xattrs
tree.py change DIRECTORY SEED   random changes: names of all types, contents, holes, attributes, links
"""
import hashlib
import os
import random
import stat
import sys


def holes(path, size):
    """Where there is no data, by pages: the same contents may not be told as a hole where none was made."""
    found, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while at < size:
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            if hole >= size:
                break
            try:
                at = os.lseek(fd, hole, os.SEEK_DATA)
            except OSError:
                at = size
            found.append((hole, at))
    finally:
        os.close(fd)
    return found


def describe(path, st, links):
    xattrs = {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in os.listxattr(path, follow_symlinks=False)}
    words = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_rdev, st.st_mtime_ns, st.st_ctime_ns,
             sorted(xattrs.items())]
    if stat.S_ISREG(st.st_mode):
        with open(path, "rb") as f:
            words += [st.st_size, hashlib.sha256(f.read()).hexdigest(), holes(path, st.st_size),
                      links.setdefault(st.st_ino, path)]
    elif stat.S_ISLNK(st.st_mode):
        words.append(os.readlink(path))
    return words


def listing(top):
    links, lines = {}, []
    os.chdir(top)
    for directory, names, files in os.walk("."):
        names.sort()
        for name in [""] + sorted(files) + [n for n in names if os.path.islink(os.path.join(directory, n))]:
            path = os.path.join(directory, name) if name else directory
            lines.append(f"{path!r} {describe(path, os.lstat(path), links)}")
    print("\n".join(lines))


def change_file(rng, path):
    with open(path, "r+b" if os.path.exists(path) else "w+b") as f:
        for _ in range(rng.randrange(1, 5)):
            f.seek(rng.randrange(0, 1 << rng.choice([8, 14, 20])))
            f.write(rng.randbytes(rng.randrange(1, 1 << rng.choice([4, 10, 16]))))
        if rng.random() < 0.3:
            f.truncate(rng.randrange(0, 1 << 18))


def change(top, seed):
    rng = random.Random(seed)
    os.chdir(top)
    for _ in range(60):
        directory = f"d{rng.randrange(6)}"
        os.makedirs(directory, exist_ok=True)
        path = f"{directory}/n{rng.randrange(12)}"
        kind = rng.randrange(10)
        exists = os.path.lexists(path)
        regular = exists and stat.S_ISREG(os.lstat(path).st_mode)
        if kind < 4 and (regular or not exists):
            change_file(rng, path)
        elif kind == 4 and exists:
            os.unlink(path)
        elif kind == 5 and not exists:
            rng.choice([lambda: os.symlink("x" * rng.randrange(1, 300), path), lambda: os.mkfifo(path),
                        lambda: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))])()
        elif kind == 6 and regular:
            other = f"d{rng.randrange(6)}/l{rng.randrange(12)}"
            if os.path.isdir(os.path.dirname(other)) and not os.path.lexists(other):
                os.link(path, other)
        elif kind == 7 and regular:
            os.setxattr(path, f"user.a{rng.randrange(3)}", rng.randbytes(rng.choice([0, 10, 700, 20000])))
        elif kind == 8 and regular:
            os.chmod(path, rng.randrange(0o1000))
            os.chown(path, rng.randrange(5), rng.randrange(5))
        elif kind == 9 and exists:
            os.rename(path, f"{directory}/n{rng.randrange(12)}")


if __name__ == "__main__":
    if sys.argv[1] == "list":
        listing(sys.argv[2])
    else:
        change(sys.argv[2], int(sys.argv[3]))
