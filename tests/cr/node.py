"""A node under test: posd on a state directory of its own, and pos-cli.

What it needs of the environment stands in harness.py.
"""
import json
import os
import shutil
import signal
import subprocess
import threading
import time

from processes import (
    POLL_S, WAIT_S, CliError, Failure, descendants, descriptors, expect,
    expect_equal, finish, kill_tree, read_text, reap, spawn, wait_until)

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(
    os.environ.get("POS_BUILD") or os.path.join(HERE, "../../build"))
BIN = os.path.join(BUILD, "bin")
PROGRAMS = os.path.join(BUILD, "programs")
# Options of posd's when it is the outer one of two (scripts/nested --around).
NESTED = os.environ.get("POS_NESTED_SET", "").splitlines()
# The same for any other device than the default one, one name=value a line.
EXTRA = os.environ.get("POS_TEST_SET", "").splitlines()
SANITIZED = os.environ.get("POS_SANITIZED_BUILD") or None
LONG = os.environ.get("POS_LONG", "") not in ("", "0")


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
                 jobs_tmpfs_bytes=0, keep_jobs=False, posd_environment=None,
                 sanitized=False):
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
        for part, size in (("store", store_tmpfs_bytes),
                           ("jobs", jobs_tmpfs_bytes)):
            if size:
                path = os.path.join(self.state, part)
                os.makedirs(path, mode=0o700)
                test.mount_tmpfs(path, size)
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
        if cuda_runtime():  # the driver may lie where the caller looks
            own = environment.get("LD_LIBRARY_PATH") if not NESTED else None
            environment["LD_LIBRARY_PATH"] = ":".join(
                filter(None, (cuda_runtime(), own)))
        environment.update(more)
        return environment

    def start(self):
        argv = [os.path.join(self.bin, "posd"), "--state-dir", self.state,
                "--socket", self.socket]
        for line in NESTED + EXTRA:
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
