"""What the tests of the NBD plugin share: a server of their own, its control socket, checks.

Each server listens on a Unix socket in a private directory and ends with the test, however that ends.
"""
import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SKIP = 77
PAGE = 4096
K, M, G = 1 << 10, 1 << 20, 1 << 30

try:
    import nbd
except ImportError:
    print("skip: python3-libnbd is not installed")
    sys.exit(SKIP)

SRC = os.environ.get("RP_SRC") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLUGIN = os.environ.get("RP_PLUGIN") or os.path.join(SRC, "build/release/nbdkit-rampool-plugin.so")
SEED = int(os.environ.get("RP_SEED") or random.SystemRandom().randrange(1 << 32))
DIR = tempfile.mkdtemp(prefix="rpnbd.")
servers = []
counted = 0             # comparisons that held


def skip(reason):
    print(f"skip: {reason}")
    sys.exit(SKIP)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            skip(f"{program} is not installed")


def fail(text):
    print(f"FAILED: {text}", flush=True)
    sys.exit(1)


def check(condition, text):
    global counted
    counted += 1
    if not condition:
        fail(text)


def equal(got, wanted, text):
    global counted
    counted += 1
    if got != wanted:
        fail(f"{text}: got {repr(got)[:300]}, wanted {repr(wanted)[:300]}")


def errno_of(call, *args):
    """The error a libnbd call fails with; 0 when it works."""
    try:
        call(*args)
    except nbd.Error as error:
        return error.errnum
    return 0


def wait_for(condition, text, seconds=60):
    """Poll until it holds. The limit is generous: it only ends what would never end."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            fail(f"waited {seconds} s in vain: {text}")
        time.sleep(0.02)


class ControlError(Exception):
    def __init__(self, errnum, text):
        super().__init__(text)
        self.errnum = errnum


def control_call(path, *words):
    """One request to a control socket: the text lines of its answer. ControlError when it fails."""
    def encode(word):
        return "".join(chr(b) if 0x20 < b < 0x7f and b != 0x25 else f"%{b:02X}" for b in word.encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(110)
        s.connect(path)
        s.sendall((" ".join(encode(w) for w in words) + "\n").encode())
        data = b""
        while chunk := s.recv(65536):
            data += chunk
    lines = data.decode().splitlines()
    check(lines, f"control: no answer to {words}")
    if lines[-1].startswith("! "):
        number, _, text = lines[-1][2:].partition(" ")
        raise ControlError(int(number), text)
    equal(lines[-1], ".", f"control: end of the answer to {words}")
    return [line[2:] for line in lines[:-1] if line.startswith("= ")]


class Server:
    """nbdkit with the plugin. stderr goes to a file: .log()."""

    def __init__(self, *parameters, options=(), wait=True):
        self.dir = tempfile.mkdtemp(dir=DIR)
        self.socket = os.path.join(self.dir, "nbd")
        self.control_path = os.path.join(self.dir, "control")
        self.log_path = os.path.join(self.dir, "log")
        command = ["nbdkit", "-f", "--exit-with-parent", "-U", self.socket, *options, PLUGIN, *parameters,
                   f"socket={self.control_path}"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        servers.append(self)
        if wait:
            wait_for(lambda: self.answers() or self.process.poll() is not None, "the server starts")
            check(self.process.poll() is None, f"the server ended: {self.log()}")

    def answers(self):
        # nbdkit makes its socket before it forks and starts threads, the plugin its own when all is ready
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.control_path) == 0

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def connect(self, export="", strict=True):
        h = nbd.NBD()
        h.set_export_name(export)
        if not strict:
            h.set_strict_mode(0)
        h.add_meta_context("base:allocation")
        h.connect_unix(self.socket)
        return h

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def control(self, *words):
        return control_call(self.control_path, *words)

    def status(self, name=None):
        lines = dict(line.split(": ", 1) for line in self.control("status") if ": " in line)
        return lines if name is None else lines[name]

    def number(self, name):
        return int(self.status(name).split()[0])

    def stop(self, status=0):
        """End it as a service manager does; the exit status says whether the last save worked."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(110)
        if status is not None:
            equal(self.process.returncode, status, f"exit status of the server ({self.log()})")

    def kill(self):
        self.process.kill()
        self.process.wait(110)

    def check_well(self):
        """Nothing damaged in pool and namespace; only while no request is under way. The reader that brings the pages of
        an image in is none, but holds pages for moments: then a fault is one that stays."""
        for left in range(100, -1, -1):
            reading = self.status().get("pages to read", "0") != "0"
            try:
                self.control("check", "frames")
                return
            except ControlError as error:
                if not reading or not left:
                    fail(f"check: {error} {self.log()}")
            time.sleep(0.1)


def extents(h, count, offset, flags=0):
    """[(length, type)] of base:allocation, joined where neighbours are of one kind."""
    result = []

    def entries(context, start, got, error):
        equal(context, "base:allocation", "context")
        for length, kind in zip(got[::2], got[1::2]):
            if result and result[-1][1] == kind:
                result[-1] = (result[-1][0] + length, kind)
            else:
                result.append((length, kind))
        return 0
    h.block_status(count, offset, entries, flags)
    return result


def all_extents(h, size):
    """The whole export's extents as (offset, length, is_data)."""
    result, offset = [], 0
    while offset < size:
        for length, kind in extents(h, min(size - offset, 1 << 31), offset):
            length = min(length, size - offset)
            data = kind == 0
            if result and result[-1][2] == data:
                start, before, _ = result[-1]
                result[-1] = (start, before + length, data)
            else:
                result.append((offset, length, data))
            offset += length
    return result


def run(*command, status=0, seconds=110, **kwargs):
    """Run a program; its output. Fails the test when the exit status differs (None: any)."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=seconds, text=True, errors="replace", **kwargs)
    if status is not None and done.returncode != status:
        fail(f"{' '.join(command)}: exit status {done.returncode}: {done.stdout}")
    return done.stdout


def clean_up():
    if os.environ.get("RP_DEBUG"):
        for server in servers:
            print("LOG", server.process.poll(), server.log())
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
    shutil.rmtree(DIR, ignore_errors=True)


def on_signal(number, frame):
    sys.exit(128 + number)


atexit.register(clean_up)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, on_signal)
need("nbdkit")
if not os.path.exists(PLUGIN):
    skip(f"{PLUGIN} is not built")
print(f"seed {SEED} (RP_SEED={SEED} replays)", flush=True)
