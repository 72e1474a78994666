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
