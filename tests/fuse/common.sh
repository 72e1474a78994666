# Sourced by the tests of this folder: a private directory, mounts that are gone on every way out, and small words.
#
#   ram_mount NAME [OPTIONS]   a RAM disk at $tmp/NAME; $dir is where
#   ram_umount NAME            the same again
#   need PROGRAM...            or the test is skipped
#   die TEXT, skip TEXT        ends

set -u
src=${RP_SRC:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
build=${RP_BUILD:-$src/build/release}
RAMPOOL=${RAMPOOL:-$build/rampool}
PATH=$build:$build/tests/fuse:$PATH
tmp=$(mktemp -d)
chmod 755 "$tmp"
mounted=()
at_exit=()
export LC_ALL=C.UTF-8

die() {
	echo "FAILED: $*"
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

# Everything that was started ends here, whatever happened before. A mount that does not go is taken off lazily.
clean_up() {
	local status=$? i
	trap '' HUP INT TERM
	trap - EXIT
	cd /
	for i in "${at_exit[@]}"; do
		eval "$i"
	done
	for i in $(jobs -p); do
		kill "$i" 2>/dev/null
	done
	for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do
		if mountpoint -q "${mounted[i]}"; then
			timeout 30 umount "${mounted[i]}" 2>/dev/null || timeout 20 umount -l "${mounted[i]}"
		fi
	done
	if ! grep -qF " $tmp/" /proc/self/mountinfo; then
		rm -rf "$tmp"
	fi
	exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

need() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed"
	done
}

need_fuse() {
	[ -c /dev/fuse ] || skip "there is no /dev/fuse"
	[ "$(id -u)" -eq 0 ] || skip "only root can run this"
	[ -x "$RAMPOOL" ] || die "$RAMPOOL is not built"
}

ram_mount() {
	local name=$1
	shift
	dir=$tmp/$name
	mkdir -p "$dir"
	mounted+=("$dir")
	timeout 60 "$RAMPOOL" mount "$@" "$dir" || die "rampool mount $* exited with $?"
	mountpoint -q "$dir" || die "rampool mount returned, and nothing is mounted"
}

ram_umount() {
	timeout 60 "$RAMPOOL" umount "$tmp/$1" || die "rampool umount exited with $?"
	! mountpoint -q "$tmp/$1" || die "rampool umount returned, and it is still mounted"
}

tmpfs_mount() {
	dir=$tmp/$1
	mkdir -p "$dir"
	mounted+=("$dir")
	mount -t tmpfs -o "$2" "$1" "$dir" || skip "no tmpfs can be mounted"
}

# Files that are awkward to copy: holes, odd names, times, links, attributes, devices, modes.
awkward_tree() {
	/usr/bin/python3 - "$1" <<'END'
import os, stat, sys
os.chdir(sys.argv[1])
def put(name, *pieces, size=0):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644)
    for at, data in pieces:
        os.pwrite(fd, data, at)
    if size:
        os.ftruncate(fd, size)
    os.close(fd)
put("empty")
put("one", (0, b"x"))
put("page", (0, b"p" * 4096))
put("sparse", (1 << 20, b"middle"), (10 << 20, b"far"), size=(20 << 20) + 17)
put("huge", ((1 << 41) + 5, b"end"), size=1 << 42)
put("hole at end", (0, b"a" * 5000), size=3 << 20)
put("zeroes", (0, b"\0" * 200000))
for i, name in enumerate([b"new\nline", b"\xff\xfe\x01", b"-n", b" ", b"*", b"\\", "grüße".encode(), b"n" * 255]):
    put(name, (0, b"%d" % i))
for i in range(5):
    os.link("page", "link %d" % i)
os.symlink("page", "short")
os.symlink("/" + "long/" * 200, "long")
os.symlink("x" * 88, "88")
os.symlink("x" * 89, "89")
os.mkfifo("fifo", 0o640)
os.mknod("null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod("block", 0o600 | stat.S_IFBLK, os.makedev(4000, 300000))
os.mknod("socket", 0o600 | stat.S_IFSOCK)
os.mkdir("dir", 0o700)
os.mkdir("dir/below", 0o3775)
put("dir/below/file", (0, b"deep"))
put("modes", (0, b"m"))
os.chown("modes", 61001, 61002)
os.chmod("modes", 0o6751)
os.setxattr("one", "user.small", b"v")
os.setxattr("one", "user.large", os.urandom(3000))
os.setxattr("one", "trusted.t", b"\0\1\2")
os.setxattr("dir", "user.of dir", b"d")
for i in range(40):
    os.setxattr("page", "user.many.%d" % i, b"%d" % i)
os.utime("empty", ns=(1, 999999999))
os.utime("one", ns=(-5 * 10**9, 2**33 * 10**9 + 123456789))
os.utime("short", ns=(3, 4 * 10**9 + 5), follow_symlinks=False)
os.utime("dir", ns=(0, 10**18))
END
}

# The tree as text: types, modes, owners, sizes, times, links, targets, contents, attributes. Sorted by name.
# Directories' sizes are the filesystem's own.
tree_text() {
	/usr/bin/python3 - "$1" <<'END'
import hashlib, os, stat, sys
root = os.fsencode(sys.argv[1])
links = {}
def attributes(path):
    out = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        out.append("%s=%s" % (name, hashlib.md5(os.getxattr(path, name, follow_symlinks=False)).hexdigest()[:8]))
    return ",".join(out)
def contents(path, size):
    h = hashlib.md5()
    with open(path, "rb") as f:
        while True:
            try:
                f.seek(os.lseek(f.fileno(), f.tell(), os.SEEK_DATA))
            except OSError:
                break
            at = f.tell()
            end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            f.seek(at)
            while at < end:
                piece = f.read(min(4096 - at % 4096, end - at))
                if piece.strip(b"\0"):
                    h.update(b"%d:" % at + piece)
                at += len(piece)
    return h.hexdigest()
def show(path):
    st = os.lstat(path)
    words = ["%o" % st.st_mode, "%d:%d" % (st.st_uid, st.st_gid), "m=%d" % st.st_mtime_ns]
    if not stat.S_ISDIR(st.st_mode):
        words += ["links=%d" % st.st_nlink, "size=%d" % st.st_size]
        if st.st_nlink > 1:
            words.append("as=%d" % links.setdefault(st.st_ino, len(links)))
    if stat.S_ISREG(st.st_mode):
        words.append(contents(path, st.st_size))
    elif stat.S_ISLNK(st.st_mode):
        words.append(repr(os.readlink(path)))
    elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        words.append("dev=%x" % st.st_rdev)
    words.append(attributes(path))
    print(repr(path[len(root):]), *words)
    if stat.S_ISDIR(st.st_mode):
        for name in sorted(os.listdir(path)):
            show(os.path.join(path, name))
show(root)
END
}

same_tree() {
	tree_text "$1" >"$tmp/tree.1" || die "cannot read $1"
	tree_text "$2" >"$tmp/tree.2" || die "cannot read $2"
	[ "$(wc -l <"$tmp/tree.1")" -ge "${3:-2}" ] || die "$1 holds next to nothing"
	cmp -s "$tmp/tree.1" "$tmp/tree.2" || {
		diff "$tmp/tree.1" "$tmp/tree.2" | head -20
		die "$1 and $2 differ"
	}
}
