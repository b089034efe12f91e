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
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from processes import (  # noqa: F401: tests import all from here
    POLL_S, WAIT_S, CliError, Failure, Skip, become_subreaper, descendants,
    descriptors, expect, expect_equal, finish, kill_tree, mounts_below,
    read_text, reap, send_signal, spawn, threads, wait_until)

# What an idle posd may have more than at its start: the warm runner's, and
# what gRPC makes at the first call.
SPARE_DESCRIPTORS = 8

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(
    os.environ.get("POS_BUILD") or os.path.join(HERE, "../../build"))
BIN = os.path.join(BUILD, "bin")
PROGRAMS = os.path.join(BUILD, "programs")
# Options of posd's when it is the outer one of two (scripts/nested --around).
NESTED = os.environ.get("POS_NESTED_SET", "").splitlines()
SANITIZED = os.environ.get("POS_SANITIZED_BUILD") or None
LONG = os.environ.get("POS_LONG", "") not in ("", "0")
SKIPPED = 77


def cuda_runtime():
    """Where libcudart.so lies, for programs with the shared runtime: beside
    nvcc."""
    for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        for lib in ("lib64", "lib"):
            path = os.path.join(home or "/nonexistent", lib)
            if os.path.isdir(path) and any(
                    n.startswith("libcudart.so") for n in os.listdir(path)):
                return path
    return None


# --- posd and pos-cli --------------------------------------------------------


class Running:
    """A pos-cli that runs: `checkpoint`, `restore`, `run`, …"""

    def __init__(self, node, arguments, as_json=True, **kwargs):
        self.arguments = list(arguments)
        self.as_json = as_json
        argv = [os.path.join(node.bin, "pos-cli"), "--socket", node.socket]
        argv += (["--json"] if as_json else []) + self.arguments
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        self.process = spawn(argv, env=node.environment(), **kwargs)
        self.output, self.errors = b"", b""
        self._readers = []
        for name in ("stdout", "stderr"):
            stream = getattr(self.process, name)
            if stream is not None:
                reader = threading.Thread(
                    target=self._read, args=(stream, name), daemon=True)
                reader.start()
                self._readers.append(reader)

    def _read(self, stream, name):
        while True:
            data = os.read(stream.fileno(), 65536)
            if not data:
                return
            if name == "stdout":
                self.output += data
            else:
                self.errors += data

    def ended(self):
        return self.process.poll() is not None

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def wait_phase(self, phases, phase, timeout_s=WAIT_S):
        """Until `phase`, or a later one of `phases`, is among the lines of
        progress (as_json=False); False when it ended without."""
        wanted = [f": {p}".encode() for p in phases[phases.index(phase):]]

        def seen():
            return any(w in self.errors for w in wanted)
        wait_until(lambda: seen() or self.ended(), f"phase {phase} of "
                   f"{' '.join(self.arguments)}", timeout_s)
        return seen()

    def status(self, timeout_s=60):
        status = finish(self.process, timeout_s,
                        f"pos-cli {' '.join(self.arguments)}")
        for reader in self._readers:
            reader.join(WAIT_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def result(self, timeout_s=60):
        """The object that it printed. CliError unless its status is 0."""
        status = self.status(timeout_s)
        text = (self.output + self.errors).decode(errors="replace").strip()
        value = None
        if self.as_json:
            try:
                value = json.loads(self.output)
            except ValueError:
                if status == 0:
                    raise Failure(f"pos-cli {' '.join(self.arguments)} printed "
                                  f"no JSON object: {text!r}")
        if status != 0:
            error = value.get("error") if isinstance(value, dict) else None
            raise CliError(self.arguments, status, error, text)
        return value


class Node:
    """posd on a state directory of its own."""

    def __init__(self, test, name="n", options=None, store_tmpfs_bytes=0,
                 keep_jobs=False, posd_environment=None, sanitized=False):
        self.test = test
        self.directory = os.path.join(test.directory, name)
        self.state = os.path.join(self.directory, "state")
        self.socket = os.path.join(self.directory, "posd.sock")
        self.log = os.path.join(self.directory, "posd.log")
        self.options = dict(options or {})
        self.keep_jobs = keep_jobs
        self.posd_environment = dict(posd_environment or {})
        self.process = None
        self._names = 0
        os.makedirs(self.directory)
        self.bin = self._sanitized_programs() if sanitized else BIN
        if store_tmpfs_bytes:
            store = os.path.join(self.state, "store")
            os.makedirs(store, mode=0o700)
            test.mount_tmpfs(store, store_tmpfs_bytes)
        test.nodes.append(self)
        self.start()

    def _sanitized_programs(self):
        """A directory of programs as posd expects it, with the sanitized
        pos-runner: a program finds the others beside itself."""
        bin_dir = os.path.join(self.directory, "build", "bin")
        lib_dir = os.path.join(self.directory, "build", "lib", "pos")
        os.makedirs(bin_dir)
        os.makedirs(lib_dir)
        files = [(os.path.join(BIN, name), bin_dir)
                 for name in ("posd", "pos-cli", "pos-job")]
        files += [(os.path.join(SANITIZED, "bin", "pos-runner"), bin_dir),
                  (os.path.join(BUILD, "lib", "pos", "libcuda.so.1"), lib_dir)]
        for source, directory in files:
            target = os.path.join(directory, os.path.basename(source))
            try:
                os.link(source, target)
            except OSError:  # another file system
                shutil.copy2(source, target)
        # Leaks are looked for by ptrace, which a runner's sandbox forbids.
        self.posd_environment["ASAN_OPTIONS"] = "detect_leaks=0"
        return bin_dir

    def environment(self, **more):
        environment = dict(os.environ)
        environment.pop("POS_SOCKET", None)
        if not NESTED:  # else it is what posd's driver connects to
            environment.pop("POS_ATTACH", None)
        if cuda_runtime():
            environment["LD_LIBRARY_PATH"] = cuda_runtime()
        environment.update(more)
        return environment

    def start(self):
        argv = [os.path.join(self.bin, "posd"), "--state-dir", self.state,
                "--socket", self.socket]
        for line in NESTED:
            argv += ["--set", line]
        for name, value in self.options.items():
            argv += ["--set", f"{name}={value}"]
        if self.keep_jobs:
            argv.append("--keep-jobs")
        with open(self.log, "ab") as log:
            self.process = spawn(argv, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=log,
                                 env=self.environment(**self.posd_environment))
        line = self._first_line()
        if line != b"posd ready\n":
            status = finish(self.process, what="posd")
            self.process.stdout.close()
            self.process = None
            raise Failure(f"posd did not get ready (exit status {status}): "
                          + read_text(self.log)[-2000:])
        self.descriptors = descriptors(self.pid)

    def _first_line(self):
        line = b""
        until = time.monotonic() + WAIT_S
        os.set_blocking(self.process.stdout.fileno(), False)
        while not line.endswith(b"\n"):
            data = self.process.stdout.read(64)
            if data == b"":
                break
            line += data or b""
            if data is None:
                if time.monotonic() > until:
                    self.process.kill()
                    break
                time.sleep(POLL_S)
        return line

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """SIGKILL to posd alone."""
        self.process.kill()
        self._ended()

    def kill_everything(self):
        """SIGKILL to posd and to all that it started."""
        kill_tree()
        self._ended()

    def stop(self):
        """SIGTERM; posd has to end with status 0."""
        self.process.terminate()
        status = self._ended()
        expect_equal(status, 0, "posd's exit status after SIGTERM")

    def _ended(self):
        status = finish(self.process, 60, "posd's end")
        self.process.stdout.close()
        self.process = None
        reap()
        return status

    def restart(self):
        if self.process is not None:
            self.kill()
        self.start()

    # pos-cli

    def begin(self, *arguments, **kwargs):
        return Running(self, arguments, **kwargs)

    def cli(self, *arguments, timeout_s=60):
        return self.begin(*arguments).result(timeout_s)

    def cli_fails(self, *arguments, code=None, timeout_s=60):
        """The error of a command that has to fail, of that code."""
        try:
            value = self.cli(*arguments, timeout_s=timeout_s)
        except CliError as error:
            expect(error.status != 0 and error.code is not None,
                   f"no error object: {error}")
            if code is not None:
                codes = (code,) if isinstance(code, str) else code
                expect(error.code in codes,
                       f"{' '.join(arguments)}: code {error.code} "
                       f"({error.message}), want {code}")
            return error
        raise Failure(f"{' '.join(arguments)} succeeded: {value}")

    def name(self):
        """A job's name that no other test uses: shared memory carries it."""
        self._names += 1
        return f"{self.test.tag}{self._names}"

    def run(self, *command, name=None, timeout_s=60):
        """Starts a detached job; returns its name."""
        name = name or self.name()
        value = self.cli("run", "--detach", "--name", name, "--", *command,
                         timeout_s=timeout_s)
        expect_equal(value["job"], name, "name of the job")
        return name

    def jobs(self):
        return {job["job"]: job for job in self.cli("ps")["jobs"]}

    def job(self, name):
        return self.jobs().get(name)

    def state_of(self, name):
        job = self.job(name)
        return job["state"] if job else None

    def calls(self, name):
        """Calls executed by the job's sessions; None when it has ended."""
        job = self.job(name)
        if job is None or job["exit_code"] is not None:
            return None
        return sum(s["calls"] or 0 for s in job["sessions"])

    def wait(self, name, timeout_s=60):
        """The job's exit status, once it has ended."""
        running = self.begin("wait", name)
        status = running.status(timeout_s)
        try:
            value = json.loads(running.output)
        except ValueError:
            raise Failure(f"wait {name}: {running.output!r} {running.errors!r}")
        if "error" in value:
            raise CliError(["wait", name], status, value["error"], "")
        expect_equal(value["exit_code"], status, "exit status of pos-cli wait")
        return status

    def wait_running(self, name, timeout_s=WAIT_S):
        wait_until(lambda: self.state_of(name) == "running",
                   f"job {name} to run", timeout_s)

    def wait_calls(self, name, count, timeout_s=60):
        """Until the job has executed `count` calls; False when it has ended."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            calls = self.calls(name)
            if calls is None:
                return False
            if calls >= count:
                return True
            time.sleep(POLL_S)
        raise Failure(f"job {name} did not get to {count} calls")

    def output(self, name):
        """What the job has written, as users find it."""
        path = os.path.join(self.state, "jobs", name, "output.log")
        with open(path, "rb") as f:
            return f.read()

    def images(self):
        return [i["image"] for i in self.cli("images", "ls")["images"]]

    def verify(self, image):
        value = self.cli("images", "verify", image)
        expect(value["ok"], f"image {image} is damaged: {value}")

    def finish_job(self, name, want, timeout_s=90):
        """The job has to end well, with exactly this output."""
        status = self.wait(name, timeout_s)
        got = self.output(name)
        expect(status == 0, lambda: f"job {name} ended with {status}: "
               + tail(got) + self.why(name))
        if got != want:
            raise Failure(f"job {name}: wrong output: " + difference(got, want))

    def why(self, name):
        job = self.job(name)
        return f" (ps: {job})"

    def quiet_runners(self):
        """pos-runners that serve no session: the warm pool."""
        return [pid for pid, name in descendants().items()
                if name.startswith("pos-runner")]


def tail(output, size=600):
    return output[-size:].decode(errors="replace")


def difference(got, want):
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b),
              min(len(got), len(want)))
    lo = max(0, at - 60)
    return (f"{len(got)} bytes, want {len(want)}; they differ at {at}: "
            f"got …{got[lo:at + 60]!r}, want …{want[lo:at + 60]!r}")


# --- a test and what it must leave behind ------------------------------------


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
