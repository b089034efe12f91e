"""A node of POS under test: posd, pos-cli, jobs, and proof that nothing is left.

A test is a function that takes a Test. Test gives it a scratch directory, random
numbers (seed printed, taken from POS_SEED), nodes, and at the end checks that no
process, mount, shared memory, socket or half-written file is left.

Every process that a test starts, directly or through posd, is a descendant of
the test: it is the subreaper of what outlives its parent. So what belongs to a
test is known, tests can run side by side, and what is left over is found even
when posd was killed.

Environment:
  POS_BUILD   build directory; default: build/ of this tree
  POS_SANITIZED_BUILD
              build directory with a pos-runner under ASan and UBSan, if any
  POS_SEED    seed of the random choices
  POS_LONG    1: the long mode, more points and rounds
  POS_KEEP    1: keep the scratch directory
  POS_CRIU    CRIU to use, as for posd
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from node import (  # noqa: F401: tests import all from here
    BIN, BUILD, LONG, NESTED, PROGRAMS, SANITIZED, Node, Running,
    cuda_runtime, difference, tail)
from processes import (  # noqa: F401: tests import all from here
    POLL_S, WAIT_S, CliError, Failure, Skip, become_subreaper, descendants,
    descriptors, expect, expect_equal, finish, kill_tree, mounts_below,
    read_text, reap, send_signal, spawn, threads, wait_until)

# What an idle posd may have more than at its start: the warm runner's, and
# what gRPC makes at the first call.
SPARE_DESCRIPTORS = 8
SKIPPED = 77


class Test:
    def __init__(self, name):
        become_subreaper()
        self.name = name
        self.seed = int(os.environ.get("POS_SEED") or time.time_ns() % 10**9)
        self.random = random.Random(f"{self.seed}/{name}")
        self.directory = tempfile.mkdtemp(prefix="pos-")
        os.chmod(self.directory, 0o755)
        self.tag = "t" + os.path.basename(self.directory)[4:].replace("_", "-")
        self.tag += f"-{os.getpid()}-"
        self.nodes = []
        self.mounts = []
        print(f"seed {self.seed}", flush=True)

    def note(self, text):
        print(f"  {text}", flush=True)

    def node(self, **kwargs):
        return Node(self, name=f"n{len(self.nodes)}", **kwargs)

    def path(self, name):
        return os.path.join(self.directory, name)

    def mount_tmpfs(self, path, size_bytes):
        status = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700",
             "pos-test", path], capture_output=True, timeout=WAIT_S)
        if status.returncode != 0:
            raise Skip("mount: " + status.stderr.decode().strip())
        self.mounts.append(path)

    # Leaks

    def shared_memory(self):
        return [name for name in os.listdir("/dev/shm") if self.tag in name]

    def unix_sockets(self):
        return [line.split()[-1]
                for line in read_text("/proc/net/unix").splitlines()
                if self.directory in line]

    def half_written(self, node):
        """Files below the state directory that only a running operation has."""
        found = []
        for part in ("store/tmp", "store/trash", "store/pins", "run/runners"):
            top = os.path.join(node.state, part)
            for path, _, files in os.walk(top):
                found += [os.path.relpath(os.path.join(path, f), node.state)
                          for f in files]
        for path, _, files in os.walk(node.state):
            if "job.sock" in files:
                found.append(os.path.relpath(path, node.state) + "/job.sock")
        return found

    def check_idle(self, node):
        """With no job alive, posd has its warm runners and nothing else."""
        def left():
            reap()
            found = []
            others = [f"{name}({pid})" for pid, name in descendants().items()
                      if pid != node.pid and not name.startswith("pos-runner")]
            if others:
                found.append(f"processes {others}")
            runners = node.quiet_runners()
            warm = int(node.options.get("runner.warm_pool", 1))
            if len(runners) > warm:
                found.append(f"{len(runners)} runners")
            if self.shared_memory():
                found.append(f"shared memory {self.shared_memory()}")
            more = descriptors(node.pid)
            if len(more) > len(node.descriptors) + SPARE_DESCRIPTORS:
                found.append(f"{len(more)} descriptors, {len(node.descriptors)}"
                             f" at posd's start: {more}")
            files = [f for f in self.half_written(node)
                     if not f.startswith("run/runners/")]
            if files:
                found.append(f"files {files}")
            return found
        self._settled(left, "an idle node")

    def _settled(self, left, what, timeout_s=15):
        """`left` has to become empty: ends are asynchronous, but bounded."""
        until = time.monotonic() + timeout_s
        while True:
            found = left()
            if not found:
                return
            if time.monotonic() > until:
                raise Failure(f"left behind ({what}): " + "; ".join(found))
            time.sleep(0.02)

    def check_nothing_left(self):
        def left():
            reap()
            found = []
            if descendants():
                found.append(f"processes {descendants()}")
            if self.shared_memory():
                found.append(f"shared memory {self.shared_memory()}")
            if self.unix_sockets():
                found.append(f"sockets {self.unix_sockets()}")
            mounts = [m for m in mounts_below(self.directory)
                      if not any(path in m for path in self.mounts)]
            if mounts:
                found.append(f"mounts {mounts}")
            for node in self.nodes:
                files = self.half_written(node)
                if files:
                    found.append(f"files {files}")
            return found
        self._settled(left, "the end")

    def close(self, failed):
        """Ends what is left, whatever happened; the checks come before."""
        try:
            if failed:
                self._show_logs()
            else:
                for node in self.nodes:
                    if node.process is not None:
                        node.stop()
                self.check_nothing_left()
        finally:
            kill_tree()
            for path in self.mounts:
                subprocess.run(["umount", "-l", path], timeout=WAIT_S)
            for name in self.shared_memory():
                os.unlink(os.path.join("/dev/shm", name))
            if os.environ.get("POS_KEEP", "") in ("", "0"):
                shutil.rmtree(self.directory, ignore_errors=True)
            else:
                print(f"kept {self.directory}")

    def _show_logs(self):
        for node in self.nodes:
            if node.process is not None and node.process.poll() is not None:
                print(f"posd has ended with {node.process.returncode}")
            logs = [node.log]
            for path, _, files in os.walk(os.path.join(node.state, "jobs")):
                logs += [os.path.join(path, f) for f in files
                         if f in ("pos-job.log", "dump.log", "restore.log")]
            for log in logs:
                text = read_text(log)
                if text:
                    print(f"--- {log}\n{text[-3000:]}")


def needs_root():
    if os.geteuid() != 0:
        raise Skip("needs root: CRIU, namespaces, mounts")


def needs_program(name):
    path = os.path.join(PROGRAMS, name)
    if not os.path.exists(path):
        raise Skip(f"{name} was not built (no nvcc)")
    return path


def needs_criu(node):
    """Skips where processes cannot be dumped."""
    try:
        checks = node.cli("check")["checks"]
    except CliError as error:
        raise Skip(f"pos-cli check: {error.message}")
    for check in checks:
        if "criu" in check["name"].lower() and not check["ok"]:
            raise Skip(f"CRIU: {check['detail']}")


def criu_script(test, shell):
    """Path of a CRIU that runs these lines of the shell first."""
    real = os.environ.get("POS_CRIU") or shutil.which("criu")
    built = os.path.join(os.path.dirname(__file__), "../../build/criu/criu")
    if real is None and os.path.exists(built):
        real = os.path.abspath(built)
    if real is None:
        raise Skip("no CRIU")
    path = test.path("criu")
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\n{shell}exec {real} \"$@\"\n")
    os.chmod(path, 0o755)
    return path


def fill_up(directory):
    """Until nothing more fits on the file system; returns what takes the
    space."""
    ballast = os.path.join(directory, "ballast")
    with open(ballast, "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError:
            pass
    return ballast


def run_test(name, function, limit_s):
    """Exit status of one test; it is ended after `limit_s`."""
    def expired(_number, _frame):  # or told to end: cleans up all the same
        raise Failure(f"the test took too long (at most {limit_s} s)")
    signal.signal(signal.SIGALRM, expired)
    signal.signal(signal.SIGTERM, expired)
    signal.alarm(limit_s)
    started = time.monotonic()
    test = None
    failed = True
    try:
        try:
            test = Test(name)
            function(test)
            failed = False
        finally:
            if test is not None:
                signal.alarm(limit_s if failed else max(
                    1, int(limit_s - (time.monotonic() - started))))
                test.close(failed)
    except Skip as reason:
        print(f"SKIP: {reason}")
        return SKIPPED
    except Exception:  # a test must end with its logs shown, whatever it was
        traceback.print_exc(file=sys.stdout)
        return 1
    finally:
        signal.alarm(0)
    print(f"ok {name} ({time.monotonic() - started:.1f} s)")
    return 0


def main(tests, limit_s=110):
    """Runs the tests (name -> function) that the command line names."""
    names = sys.argv[1:] or list(tests)
    for name in names:
        if name not in tests:
            print(f"no test {name}; there are: {' '.join(tests)}")
            sys.exit(2)
    if LONG:
        limit_s *= 6
    status = 0
    for name in names:
        print(f"test {name}", flush=True)
        result = run_test(name, tests[name], limit_s)
        if result not in (0, SKIPPED) or len(names) == 1:
            status = result
    sys.exit(status)
