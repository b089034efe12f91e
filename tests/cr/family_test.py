"""Jobs of several processes, each with a session: they are cut together or not
at all. One that dies in the middle, one that is stopped, one whose runner dies:
the checkpoint ends within a bound and says what was in the way, and the others
are not harmed.
"""
import contextlib
import os
import signal
import time

from harness import (LONG, CliError, Failure, expect, expect_equal, main,
                     needs_criu, needs_root, read_text, wait_until)
from programs import Program, Undisturbed, checkpoint, expect_whole, start

ROUNDS = 10 if LONG else 2
PROGRAM = "workers"  # a parent and two children, three sessions
SESSIONS = 3


def prepare(test, name=PROGRAM, target_s=2.5, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(node, program, target_s)


def session_pids(node, job):
    """All three processes, the parent first, once each has a session."""
    def found():
        sessions = (node.job(job) or {"sessions": []})["sessions"]
        pids = sorted(s["pid"] for s in sessions)
        return pids if len(pids) == SESSIONS else None
    return wait_until(found, f"{SESSIONS} sessions of {job}")


def runner_of(pid):
    """The runner that holds the other end of what `pid` has mapped: the one
    with the same ring in memory."""
    def rings(process):
        found = set()
        with contextlib.suppress(OSError):
            for line in read_text(f"/proc/{process}/maps").splitlines():
                if "memfd:" in line:
                    found.add(line.split()[4])  # inode
        return found
    wanted = rings(pid)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != pid:
            name = read_text(f"/proc/{entry}/comm").strip()
            if name.startswith("pos-runner") and rings(entry) & wanted:
                return int(entry)
    raise Failure(f"no runner of process {pid}")


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: read_text(f"/proc/{pid}/stat").rsplit(")", 1)[1]
               .split()[0] == "T", f"process {pid} to stop")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def stopped_process(test):
    """It is named at once; continued, the job can be checkpointed."""
    node, program, undisturbed = prepare(test)
    job = start(node, program, undisturbed, 0.1)
    for pid in session_pids(node, job):
        with stopped(pid):
            began = time.monotonic()
            error = node.cli_fails("checkpoint", job, code="BUSY")
            took = time.monotonic() - began
        expect(str(pid) in error.message and "stopped" in error.message,
               f"does not name process {pid}: {error.message}")
        expect(took < 5, f"it took {took:.1f} s")
    taken = checkpoint(node, job, "--stop")
    if taken is None:
        raise Failure("the job ended too early")
    expect_whole(node, node.cli("restore", taken["image"])["job"],
                 taken["image"], undisturbed)
    test.check_idle(node)


def stopped_in_between(test):
    """Stopped while the checkpoint is being made, up to the detach: it fails
    within a bound, or has been made; the job goes on."""
    node, program, undisturbed = prepare(test, target_s=4)
    job = start(node, program, undisturbed, 0.05)
    pids = session_pids(node, job)
    made = 0
    for _ in range(ROUNDS):
        attempt = node.begin("checkpoint", job)
        time.sleep(test.random.random() * 0.03)
        # No longer than a moment: CRIU must not meet the signal that ends it.
        pid = test.random.choice(pids)
        if not os.path.exists(f"/proc/{pid}"):
            break
        began = time.monotonic()
        try:
            os.kill(pid, signal.SIGSTOP)
            node.cli("images", "rm", attempt.result(60)["image"])
            made += 1
        except CliError as error:
            took = time.monotonic() - began
            expect(took < 30, f"it took {took:.1f} s: {error}")
            expect(error.code in ("BUSY", "NOT_READY", "TIMEOUT", "INTERNAL",
                                  "CLOSED", "EXTERNAL", "ABORTED"),
                   f"code {error.code}: {error.message}")
            test.note(f"{took:.1f} s: {error.code}: {error.message[:90]}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: node.state_of(job) in ("running", "exited"),
                   "the job to go on", 30)
    test.note(f"{made} of {ROUNDS} made")
    node.finish_job(job, undisturbed.output)
    test.check_idle(node)


def loses(test, victim):
    """One of three is lost during a checkpoint. The program notices (a pipe
    that ends, or an error of CUDA) and ends; posd is not harmed, and an image,
    if one was made, is whole."""
    node, program, undisturbed = prepare(test)
    for i in range(ROUNDS):
        job = start(node, program, undisturbed, 0.05)
        child = session_pids(node, job)[1 + i % 2]
        target = child if victim == "process" else runner_of(child)
        attempt = node.begin("checkpoint", job)
        time.sleep(test.random.random() * 0.15)
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
        image = None
        began = time.monotonic()
        try:
            image = attempt.result(60)["image"]
        except CliError as error:
            expect(error.code, f"no code: {error}")
            test.note(f"{error.code}: {error.message[:100]}")
        expect(time.monotonic() - began < 30, "it took too long")
        expect(node.wait(job) != 0, "a family that lost a member did well")
        if image is not None:
            node.verify(image)
            restored = node.cli("restore", image)["job"]
            expect_whole(node, restored, image, undisturbed)
            node.cli("images", "rm", image)
        test.check_idle(node)
    # Somebody else's job, afterwards.
    job = start(node, program, undisturbed, 0.1)
    taken = checkpoint(node, job)
    if taken is not None:
        node.verify(taken["image"])
    node.finish_job(job, undisturbed.output)
    test.check_idle(node)


def process_killed(test):
    loses(test, "process")


def runner_killed(test):
    loses(test, "runner")


def busy_thread(test):
    """A thread that computes all the time, holding a lock, and calls nothing:
    nobody waits for it."""
    node, program, undisturbed = prepare(test, "queued", 4)
    job = start(node, program, undisturbed, 0.1)
    for _ in range(3):
        taken = checkpoint(node, job)
        if taken is None:
            break
        test.note(f"stall {taken['stall_ms']:.0f} ms, "
                  f"{taken['attempts']} attempts")
        expect_equal(taken["attempts"], 1, "attempts")
        node.cli("images", "rm", taken["image"])
    node.finish_job(job, undisturbed.output)
    test.check_idle(node)


TESTS = {f.__name__: f for f in (stopped_process, stopped_in_between,
                                 process_killed, runner_killed, busy_thread)}

if __name__ == "__main__":
    main(TESTS)
