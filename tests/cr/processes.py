"""Processes of a test: starting, finding, ending them; waits with a bound."""
import ctypes
import os
import re
import signal
import subprocess
import time

POLL_S = 0.005
WAIT_S = 30.0  # bound of a wait whose own bound does not matter


class Failure(Exception):
    """What a test expected did not happen."""


class Skip(Exception):
    """What a test needs is not on this machine."""


class CliError(Failure):
    """pos-cli failed; `error` is the object it printed."""

    def __init__(self, command, status, error, text):
        self.status = status
        self.error = error or {}
        self.code = self.error.get("code")
        self.message = self.error.get("message") or ""
        super().__init__(f"pos-cli {' '.join(command)}: exit status {status}: "
                         f"{error if error else text}")


def expect(condition, message):
    if not condition:
        raise Failure(message() if callable(message) else message)


def expect_equal(got, want, what):
    expect(got == want, lambda: f"{what}: got {got!r}, want {want!r}")


def wait_until(condition, what, timeout_s=WAIT_S):
    """Polls until `condition()` is true and returns what it returned."""
    until = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise Failure(f"waited {timeout_s:g} s for {what}")
        time.sleep(POLL_S)


def read_text(path, default=""):
    try:
        with open(path, "rb") as f:
            return f.read().decode(errors="replace")
    except OSError:
        return default


# --- processes ---------------------------------------------------------------

_own_children = set()  # children that a Popen waits for
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise Skip("prctl(PR_SET_CHILD_SUBREAPER) is not permitted")


def _processes():
    """pid -> (parent, state, name) of everything that runs."""
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                stat = f.read().decode(errors="replace")
        except OSError:
            continue
        name = stat[stat.index("(") + 1:stat.rindex(")")]
        fields = stat[stat.rindex(")") + 2:].split()
        table[int(entry)] = (int(fields[1]), fields[0], name)
    return table


def descendants(root=None):
    """pid -> name of all living descendants of `root` (this test)."""
    root = root or os.getpid()
    table = _processes()
    children = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, todo = {}, [root]
    while todo:
        for pid in children.get(todo.pop(), []):
            todo.append(pid)
            if table[pid][1] not in "ZX":
                found[pid] = table[pid][2]
    return found


def reap():
    """Collects what was adopted and has ended."""
    me = os.getpid()
    for pid, (parent, state, _) in _processes().items():
        if parent == me and state == "Z" and pid not in _own_children:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def send_signal(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def kill_tree(root=None, timeout_s=WAIT_S):
    """SIGKILL to all descendants of `root` (this test), until none is left."""
    def killed():
        left = descendants(root)
        for pid in left:
            send_signal(pid, signal.SIGKILL)
        reap()
        return not left
    wait_until(killed, "killed processes to end", timeout_s)


def spawn(argv, **kwargs):
    process = subprocess.Popen(argv, **kwargs)
    _own_children.add(process.pid)
    return process


def finish(process, timeout_s=WAIT_S, what="a process"):
    """Its exit status; a process that takes longer is killed."""
    try:
        status = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        _own_children.discard(process.pid)
        raise Failure(f"{what} took more than {timeout_s:g} s")
    _own_children.discard(process.pid)
    return status


def descriptors(pid):
    """Where the descriptors of a process lead, without what differs between
    two that are the same for a test (numbers of sockets and pipes)."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        found.append(re.sub(r"\d{3,}", "N", target))
    return sorted(found)


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def mounts_below(directory):
    return [line for line in read_text("/proc/self/mountinfo").splitlines()
            if f" {directory}" in line]
