"""Jobs of several processes, each with a session: they are cut together or not
at all. One that dies in the middle, one that is stopped, one whose runner dies:
the checkpoint ends within a bound and says what was in the way, and the others
are not harmed.
"""
import contextlib
import os
import signal
import time

from harness import (LONG, Failure, expect, expect_equal, main,
                     needs_criu, needs_root, read_text, wait_until)
from programs import Program, Undisturbed, checkpoint, expect_whole, start

ROUNDS = 10 if LONG else 2
PHASES = ("preflight", "quiesce", "detach", "copy", "host memory", "seal")
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


def loses(test, victim):
    """One of three is lost during a checkpoint. The program notices (a pipe
    that ends, or an error of CUDA) and ends; posd is not harmed, and an image,
    if one was made, is whole."""
    node, program, undisturbed = prepare(test)
    for i in range(ROUNDS):
        job = start(node, program, undisturbed, 0.05)
        child = session_pids(node, job)[1 + i % 2]
        target = child if victim == "process" else runner_of(child)
        attempt = node.begin("checkpoint", job, as_json=False)
        phase = test.random.choice(PHASES)
        attempt.wait_phase(PHASES, phase)
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
        began = time.monotonic()
        status = attempt.status(60)
        expect(time.monotonic() - began < 30, "it took too long")
        test.note(f"{phase}: {status} "
                  f"{attempt.errors.decode().splitlines()[-1][:100]}")
        expect(node.wait(job) != 0, "a family that lost a member did well")
        images = node.images()
        expect_equal(len(images), 1 if status == 0 else 0, "images")
        for image in images:
            node.verify(image)
            # It died before its tree was frozen, or afterwards: then the image
            # has it alive.
            restored = node.cli("restore", image)["job"]
            if node.wait(restored) == 0:
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


TESTS = {f.__name__: f for f in (stopped_process, process_killed,
                                 runner_killed, busy_thread)}

if __name__ == "__main__":
    main(TESTS)
