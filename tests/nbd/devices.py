"""Exports as block devices of this kernel, through nbdfuse and a loop device, and filesystems on them.

What is set up is taken down at the end of the test, last first, or by take_down().
"""
from nbdtest import *

need("nbdfuse", "losetup", "mount", "umount", "fusermount3")
if os.geteuid() != 0:
    skip("only root can set up loop devices")
if not os.path.exists("/dev/fuse"):
    skip("there is no /dev/fuse")
undo = []               # commands that take down what was set up


def take_down(steps=0):
    """Everything beyond the first `steps`."""
    while len(undo) > steps:
        command = undo.pop()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=60, check=False)
        if done.returncode and command[0] == "umount":      # a test that failed may have files open there
            subprocess.run(["umount", "-l", command[-1]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=60, check=False)


atexit.register(take_down)      # before the server is ended: registered later, run earlier


def loop_of_file(file, read_only=False):
    done = subprocess.run(["losetup", "-f", "--show", "--direct-io=off"] + (["-r"] if read_only else []) + [file],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        skip(f"no loop device can be set up here: {done.stderr.strip()}")
    device = done.stdout.strip()
    undo.append(["losetup", "-d", device])
    return device


def loop_device(server, export, name, read_only=False):
    """The export as a file through FUSE, and that as a block device."""
    mountpoint = os.path.join(DIR, name)
    os.makedirs(mountpoint, exist_ok=True)
    fuse = subprocess.Popen(["nbdfuse"] + (["-r"] if read_only else []) + [mountpoint, server.uri(export)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    undo.append(["umount", "-l", mountpoint])
    file = os.path.join(mountpoint, "nbd")
    wait_for(lambda: os.path.exists(file) or fuse.poll() is not None, "nbdfuse mounts", 30)
    if fuse.poll() is not None:
        skip(f"nbdfuse cannot mount here: {fuse.stdout.read().decode().strip()}")
    return loop_of_file(file, read_only)


def mount(kind, device, options=""):
    """Where it is mounted; None: this kernel does not have the filesystem."""
    target = tempfile.mkdtemp(dir=DIR)
    done = subprocess.run(["mount", "-t", kind, "-o", f"noatime{options}", device, target], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    if done.returncode:
        if "unknown filesystem" in done.stdout or kind not in open("/proc/filesystems").read().split():
            return None
        fail(f"{kind} cannot be mounted: {done.stdout}")
    undo.append(["umount", target])
    return target
