"""What is measured: filesystems under a mount point and block devices behind a socket, each started and stopped here.

Everything lives below one private directory. Whatever was started is stopped in reverse order on every way out; a mount
that does not go is taken off lazily, a server that does not end is killed by its own number.
"""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time


class Missing(Exception):
    """This system cannot be had here; the text says why."""


class Failed(Exception):
    """A workload failed; the text says how."""


class Priority:
    """Whether what runs here goes ahead of other work on the machine, which it then takes no turns with: for a machine that
    is not idle. By session, as the scheduler groups processes (autogroup)."""

    ahead = False

    @classmethod
    def give(cls, pid):
        if cls.ahead:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w") as f:
                f.write("-20")


def run(command, timeout, **options):
    """Run to the end, in a process group of its own that does not outlive the limit. Returns what it printed."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             start_new_session=True, **options)
    Priority.give(child.pid)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        try:
            child.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        raise Failed(f"{os.path.basename(command[0])}: no end after {timeout} s") from None
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    if child.returncode:
        lines = err.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"]
        raise Failed(f"{os.path.basename(command[0])}: {lines[-1][:160]}")
    return out.decode(errors="replace")


def quietly(*command, timeout=30):
    try:
        run(list(command), timeout)
        return True
    except (Failed, OSError):
        return False


def read_text(path, default=""):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return default


def device_of(path):
    st = os.stat(path)
    return f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}"


class Server:
    """A process in the foreground that serves until it is told to end."""

    def __init__(self, command, log):
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            start_new_session=True)
        Priority.give(self.process.pid)
        self.log = log

    def wait_until(self, ready, what):
        end = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                last = read_text(self.log).splitlines()[-1:] or ["it says nothing"]
                self.stop()
                raise Missing(f"{what} does not start: {last[0][:160]}")
            time.sleep(0.02)

    def stop(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
            try:
                self.process.wait(timeout=30)
                return
            except subprocess.TimeoutExpired:
                continue


class Files:
    """A filesystem. path: where workloads work; None until start()."""

    name = ""
    is_project = False

    def __init__(self, place):
        self.place = os.path.join(place, self.name)
        self.path = self.place

    def start(self):
        os.makedirs(self.place, exist_ok=True)

    def stop(self):
        pass

    def state(self):
        """How it is placed, for the record."""
        return ""

    def _mounted(self):
        return os.path.ismount(self.place)

    def _unmount(self):
        if not self._mounted():
            return
        for _ in range(20):
            if quietly("umount", self.place):
                return
            time.sleep(0.1)
        quietly("umount", "-l", self.place)


class Tmpfs(Files):
    name = "tmpfs"

    def __init__(self, place, size, name="tmpfs"):
        self.name = name
        super().__init__(place)
        self.size = size

    def start(self):
        super().start()
        if not quietly("mount", "-t", "tmpfs", "-o", f"size={self.size}", "bench", self.place):
            raise Missing("tmpfs cannot be mounted: root only")

    def stop(self):
        self._unmount()

    def state(self):
        return "huge=never (the kernel's default)"


class Disk(Files):
    """The filesystem the build lies on, for scale."""

    name = "disk"

    def stop(self):
        shutil.rmtree(self.place, ignore_errors=True)

    def state(self):
        try:
            kind = run(["stat", "-f", "-c", "%T", self.place], 10).strip()
        except (Failed, OSError):
            kind = "unknown"
        return f"{kind} under {self.place}"


class Fuse(Files):
    def start(self):
        super().start()
        if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
            raise Missing("needs root and /dev/fuse")

    def state(self):
        device = device_of(self.place)
        values = [f"{n}={read_text(f'/sys/class/bdi/{device}/{n}', '?')}"
                  for n in ("strict_limit", "max_ratio", "read_ahead_kb")]
        return ", ".join(values)


class Rampool(Fuse):
    name = "rampool"
    is_project = True

    def __init__(self, place, program, size, name="rampool", options=""):
        self.name = name
        super().__init__(place)
        self.program, self.size, self.options = program, size, options

    def start(self):
        super().start()
        options = f"size={self.size}" + ("," + self.options if self.options else "")
        try:
            run([self.program, "mount", "-o", options, self.place], 60)
        except Failed as error:
            raise Missing(str(error)) from None
        Priority.give(self.status().get("server process"))

    def stop(self):
        if self._mounted() and not quietly(self.program, "umount", self.place, timeout=120):
            quietly("umount", "-l", self.place)

    def status(self):
        pairs = (line.partition(": ") for line in run([self.program, "status", self.place], 30).splitlines())
        return {key: value for key, _, value in pairs}

    def number(self, key, status=None):
        return int(re.match(r"\d+", (status or self.status())[key]).group())

    def requests(self):
        """How many requests of each kind there were so far."""
        return {key[9:]: int(value) for key, value in self.status().items() if key.startswith("requests ")}

    def state(self):
        status = self.status()
        return (f"{status.get('request transport')}; kernel cache {status.get('kernel cache')}; "
                f"arena {status.get('arena')}; {super().state()}; options {self.options or 'none'}")


class Example(Fuse):
    """One of libfuse's own examples: a program that was built from its source."""

    def __init__(self, place, program):
        super().__init__(place)
        self.program, self.server = program, None

    def options(self):
        return []

    def start(self):
        super().start()
        if not self.program:
            raise Missing("libfuse's examples are not there")
        self.server = Server([self.program, "-f", *self.options(), self.place], self.place + ".log")
        self.server.wait_until(self._mounted, self.name)

    def stop(self):
        self._unmount()
        if self.server:
            self.server.stop()


class Memfs(Example):
    """The one that keeps everything in memory."""

    name = "memfs_ll"


class Passthrough(Example):
    """The one that hands everything on to another filesystem: here a tmpfs."""

    name = "passthrough"

    def __init__(self, place, program, size):
        super().__init__(place, program)
        self.below = Tmpfs(place, size, self.name + "-below")

    def options(self):
        return ["-o", f"source={self.below.place},cache=always,writeback,allow_other"]

    def start(self):
        self.below.start()
        super().start()

    def stop(self):
        super().stop()
        self.below.stop()


class OnDevice(Files):
    """ext4 on one of the kernel's own RAM disks."""

    device = None

    def __init__(self, place, mib):
        super().__init__(place)
        self.mib = mib

    def attach(self):
        """Make self.device, a RAM disk of self.mib MiB."""
        raise NotImplementedError

    def release(self):
        raise NotImplementedError

    def start(self):
        super().start()
        if os.geteuid() != 0:
            raise Missing("root only")
        self.attach()
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,nodiscard", self.device], 120)
        run(["mount", self.device, self.place], 30)

    def stop(self):
        self._unmount()
        if self.device:
            self.release()
            self.device = None

    def state(self):
        return f"ext4 on {self.device}"


class Brd(OnDevice):
    name = "brd"

    def attach(self):
        if os.path.exists("/dev/ram0"):
            raise Missing("/dev/ram0 is there already and may be in use")
        if not quietly("modprobe", "brd", "rd_nr=1", f"rd_size={self.mib << 10}"):
            raise Missing("this kernel has no brd")
        self.device = "/dev/ram0"

    def release(self):
        quietly("modprobe", "-r", "brd")


class Zram(OnDevice):
    name = "zram"

    def attach(self):
        quietly("modprobe", "zram")
        number = read_text("/sys/class/zram-control/hot_add")
        if not number:
            raise Missing("this kernel has no zram")
        self.device = "/dev/zram" + number
        with open(f"/sys/block/zram{number}/disksize", "w") as f:
            f.write(f"{self.mib}M")

    def release(self):
        number = self.device.removeprefix("/dev/zram")
        for path in (f"/sys/block/zram{number}/reset", "/sys/class/zram-control/hot_remove"):
            with contextlib.suppress(OSError), open(path, "w") as f:
                f.write("1" if path.endswith("reset") else number)

    def state(self):
        number = os.path.basename(self.device)
        return super().state() + ", " + read_text(f"/sys/block/{number}/comp_algorithm")


class Nbd:
    """nbdkit with one plugin, behind a Unix socket."""

    def __init__(self, place, name, plugin, parameters, is_project=False):
        self.name, self.plugin, self.parameters, self.is_project = name, plugin, parameters, is_project
        self.socket = os.path.join(place, name + ".nbd")
        self.log = os.path.join(place, name + ".log")
        self.server = None

    def _answers(self):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.socket) == 0

    def start(self):
        if not shutil.which("nbdkit"):
            raise Missing("nbdkit is not installed")
        self.server = Server(["nbdkit", "-f", "--exit-with-parent", "-U", self.socket, self.plugin, *self.parameters],
                             self.log)
        self.server.wait_until(self._answers, self.name)

    def stop(self):
        if self.server:
            self.server.stop()

    def state(self):
        return " ".join([os.path.basename(self.plugin), *self.parameters])
