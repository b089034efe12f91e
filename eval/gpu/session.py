"""One run of run_all: its budget, its commands, its nodes, its results."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests", "cr"))

TAIL = 3000  # characters of a failure's output that are kept
END_S = 15  # that an ended command or posd may take to be gone

OK, FAILED, NOT_RUN = "ok", "failed", "not run"


class NotRun(Exception):
    """A step cannot run here; the reason is reported."""


class StepFailed(Exception):
    """A step ran and went wrong."""


class Done:
    """A command that ended, or was ended."""

    def __init__(self, status, out, err, seconds, timed_out):
        self.status, self.out, self.err = status, out, err
        self.seconds, self.timed_out = seconds, timed_out

    @property
    def ok(self):
        return self.status == 0 and not self.timed_out

    def why(self):
        if self.timed_out:
            return f"ended after {self.seconds:.0f} s"
        if self.status < 0:
            return f"ended by signal {-self.status}"
        lines = (self.err.strip() or self.out.strip()).splitlines()
        errors = [line for line in lines if "Error:" in line]
        return f"exit status {self.status}: {''.join((errors or lines)[-1:])[:300]}"


class Session:
    def __init__(self, build, options, kind, quick, budget_s):
        self.build, self.kind, self.quick = build, kind, quick
        self.posd_options = options
        self.ends = time.monotonic() + budget_s
        self.step_ends = self.ends
        self.directory = tempfile.mkdtemp(prefix="pos-gpu-")
        os.chmod(self.directory, 0o755)
        self.commands, self.steps, self.values = [], [], {}
        self.native = None  # why there is no native driver; None: there is one
        self.criu = None  # the same for CRIU
        self.nodes, self.mounts, self.tag = [], [], "gpu"  # Node needs them
        self.opened = 0
        self.gib = None  # sizes asked for on the command line
        self.after_step = lambda: None

    # Time

    def left(self):
        return min(self.step_ends, self.ends) - time.monotonic()

    def step(self, name, limit_s, least_s, function):
        """Runs one step and keeps what became of it, whatever that is."""
        started = time.monotonic()
        result = {"step": name, "status": OK, "why": "", "data": {}}
        self.steps.append(result)
        total_left = self.ends - started
        print(f"== {name}", flush=True)
        try:
            if total_left < least_s:
                raise NotRun(f"{max(total_left, 0):.0f} s of the budget left, "
                             f"{least_s} s needed")
            self.step_ends = min(self.ends, started + limit_s)
            function(self, result["data"])
        except NotRun as reason:
            result.update(status=NOT_RUN, why=str(reason))
        except Exception as error:  # one step must not take the others along
            kind = "" if isinstance(error, StepFailed) else (
                type(error).__name__ + ": ")
            result.update(status=FAILED, why=f"{kind}{error}"[:2000])
        finally:
            self.step_ends = self.ends
            try:
                self.close_nodes(result)
            except Exception as error:
                result.update(status=FAILED, why=f"{result['why']} (its end: "
                              f"{error})")
                self.nodes = []
        result["seconds"] = round(time.monotonic() - started, 2)
        print(f"   {result['status']} {result['why']}", flush=True)
        self.after_step()

    # Commands

    def run(self, argv, timeout_s=60, env=None, ok=(0,), cwd=None):
        """Runs a command to its end, or ends it. What it printed is kept with
        it when its status is not among `ok`."""
        timeout_s = max(0.1, min(timeout_s, self.left()))
        started = time.monotonic()
        argv = [str(a) for a in argv]
        environment = {**os.environ, **(env or {})}
        timed_out = False
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=environment, cwd=cwd,
                start_new_session=True)
        except OSError as error:
            done = Done(127, "", str(error), 0.0, False)
        else:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                timed_out = True
                os.killpg(process.pid, signal.SIGKILL)
                try:
                    out, err = process.communicate(timeout=END_S)
                except subprocess.TimeoutExpired:
                    out, err = b"", b"its output stays open"
            done = Done(process.returncode, out.decode(errors="replace"),
                        err.decode(errors="replace"),
                        time.monotonic() - started, timed_out)
        entry = {"step": self.steps[-1]["step"] if self.steps else "",
                 "command": argv, "environment": env or {},
                 "status": done.status, "timed_out": timed_out,
                 "seconds": round(done.seconds, 3)}
        if done.status not in ok or timed_out:
            entry["output_tail"] = (done.out[-TAIL:] + done.err[-TAIL:])
        self.commands.append(entry)
        return done

    def needs_native(self):
        if self.native is not None:
            raise NotRun(f"no native driver here: {self.native}")

    def needs_criu(self):
        if self.criu is not None:
            raise NotRun(f"no CRIU here: {self.criu}")

    # Nodes

    def node(self, **options):
        from node import Node
        self.opened += 1
        return Node(self, name=f"n{self.opened}",
                    options={**self.posd_options, **options})

    def pos(self, node, *arguments, timeout_s=60, env=None, ok=(0,)):
        """pos-cli of that node."""
        return self.run([os.path.join(self.build, "bin/pos-cli"), "--socket",
                         node.socket, *arguments], timeout_s, env, ok)

    def pos_json(self, node, *arguments, timeout_s=60, env=None):
        done = self.pos(node, "--json", *arguments, timeout_s=timeout_s, env=env)
        if not done.ok:
            raise StepFailed(f"pos-cli {arguments[0]}: {done.why()} "
                             f"{done.out[-500:].strip()}")
        return json.loads(done.out)

    def either(self, argv, node, timeout_s=60, env=None, ok=(0,)):
        """Natively (node None) or as a job of that node."""
        if node is None:
            return self.run(argv, timeout_s, env, ok)
        return self.pos(node, "run", "--", *argv, timeout_s=timeout_s, env=env,
                        ok=ok)

    def close_nodes(self, result):
        """Ends the step's nodes; their logs' warnings belong to its result."""
        from processes import kill_tree, read_text, reap
        for node in self.nodes:
            refused = sorted({line for line in read_text(node.log).splitlines()
                              if is_refusal(line)})
            if refused:
                result.setdefault("refused", []).extend(refused[:50])
            try:
                if node.process is not None:
                    node.process.terminate()
                    node.process.wait(END_S)
            except subprocess.TimeoutExpired:
                result["why"] += " (posd did not end)"
                result["status"] = FAILED
            if result["status"] == FAILED:
                result["posd_log_tail"] = read_text(node.log)[-TAIL:]
        if self.nodes:
            kill_tree()
            reap()
        for node in self.nodes:
            shutil.rmtree(node.directory, ignore_errors=True)
        self.nodes = []

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def with_runtime():
    """The environment of programs with the toolkit's shared runtime. For them
    alone: PyTorch brings libraries of its own, which must not be hidden."""
    from node import cuda_runtime  # reads POS_BUILD when imported
    return {"LD_LIBRARY_PATH": ":".join(filter(None, (
        os.environ.get("LD_LIBRARY_PATH"), cuda_runtime())))}


def is_refusal(line):
    """Lines of posd, its runners and the client library that say which call of
    the driver they do not take."""
    low = line.lower()
    return any(word in low for word in (
        "not supported", "unsupported", "refused"))


def refusals(*texts):
    return sorted({line.strip() for text in texts for line in text.splitlines()
                   if is_refusal(line)})[:50]
