"""Checkpoints that copy memory while the job runs: cow and recopy.

concurrent_test.py MODE_PROGRAM      one program at random points of its life,
                                     killed and restored
concurrent_test.py stall             cow stalls less than stop
concurrent_test.py unforeseen        cow turns to recopy by itself
concurrent_test.py too_fast          recopy ends as stop, and says so
concurrent_test.py memory            the job gets what cow has borrowed
concurrent_test.py cancelled         Ctrl-C while memory is copied
concurrent_test.py posd_killed       the job runs on, with nobody to help it
concurrent_test.py ends              the job ends while its memory is copied
concurrent_test.py auto              which mode is taken, and why
"""
import os
import signal
import sys
import time

from harness import (Failure, expect, expect_equal, main, needs_criu,
                     needs_program, needs_root, wait_until)
from programs import Program, Undisturbed, checkpoint, expect_whole, start
from programs_test import OPTIONS, TooShort, disturbed

# Copies take this long when they go over the link, so that a checkpoint is
# copying for about as long as a test needs.
LINK = "64MiB"
SLOW = {"sim.copy_bandwidth": LINK}
MODES = ("cow", "recopy")


def random_points(mode, name):
    def run(test):
        needs_root()
        needs_program(name)
        node = test.node(options=OPTIONS.get(name))
        needs_criu(node)
        program = Program(test, name)
        undisturbed = Undisturbed(node, program)
        stop = test.random.randrange(2) == 1
        for attempt in range(3):
            try:
                taken = disturbed(test, node, program, undisturbed, stop,
                                  mode=mode)
                break
            except TooShort:
                if attempt == 2:
                    raise
                undisturbed = Undisturbed(
                    node, program, iterations=4 * undisturbed.iterations)
        test.note(taken["reason"])
        if stop and mode == "cow":
            expect_equal(taken["mode"], "stop", "mode")
        test.check_idle(node)
    return run


def resident(node, mib, percent=1, ms=20):
    """A job with so much memory, that writes some of it in each iteration."""
    os.environ.update(RESIDENT_MIB=str(mib), RESIDENT_PERCENT=str(percent),
                      RESIDENT_MS=str(ms))
    try:
        job = node.run(needs_program("resident"), "100000")
    finally:
        for name in ("MIB", "PERCENT", "MS"):
            del os.environ["RESIDENT_" + name]
    wait_until(lambda: node.output(job).count(b"\n") >= 2,
               f"{job} to begin", 60)
    return job


def goes_on(node, job, what):
    """It prints further lines, which it does only after its kernels ran."""
    before = node.output(job).count(b"\n")
    wait_until(lambda: node.output(job).count(b"\n") > before + 2,
               f"{job} to go on {what}: {node.why(job)}", 30)


def prepare(test, **options):
    needs_root()
    needs_program("resident")
    node = test.node(options=options)
    needs_criu(node)
    return node


def copying(node, job, mode):
    """A checkpoint of a job that is being copied beside it now."""
    attempt = node.begin("checkpoint", "--mode", mode, job, as_json=False)
    expect(attempt.wait_phase(("preflight", "background copy", "seal"),
                              "background copy"), f"{mode}: it was not seen")
    return attempt


def stall(test):
    node = prepare(test)
    job = resident(node, 256)
    stalls = {}
    for mode in ("stop", "cow"):
        taken = node.cli("checkpoint", job, "--mode", mode)
        expect_equal(taken["mode"], mode, taken["reason"])
        expect_equal(taken["unforeseen_chunks"], 0, "unforeseen")
        stalls[mode] = taken["stall_ms"] - taken["cpu_dump_ms"]
        node.verify(taken["image"])
        # Otherwise the second finds everything there.
        node.cli("images", "rm", taken["image"])
        goes_on(node, job, f"after {mode}")
    test.note(f"stall but for the CPU dump: {stalls}")
    node.cli("stop", job)


def unforeseen(test):
    """Its kernels write payloads that only pointers in memory lead to."""
    node = prepare(test)
    program = Program(test, "linked_list")
    undisturbed = Undisturbed(node, program)
    for _ in range(10):
        job = start(node, program, undisturbed, 0.2)
        taken = checkpoint(node, job, "--mode", "cow")
        if taken is None:
            continue
        node.finish_job(job, undisturbed.output)
        restored = node.cli("restore", taken["image"], "--name", node.name())
        expect_whole(node, restored["job"], taken["image"], undisturbed)
        node.cli("images", "rm", taken["image"])
        if taken["unforeseen_chunks"] > 0:
            break
    else:
        raise Failure("nothing was written unforeseen")
    expect_equal(taken["mode"], "recopy", taken["reason"])
    expect("unforeseen" in taken["reason"], taken["reason"])
    test.check_idle(node)


def too_fast(test):
    node = prepare(test, **SLOW, **{"recopy.max_rounds": 3})
    job = resident(node, 64, percent=100, ms=0)
    taken = node.cli("checkpoint", job, "--mode", "recopy")
    expect_equal(taken["mode"], "stop", taken["reason"])
    expect("rounds" in taken["reason"], taken["reason"])
    expect(2 <= taken["rounds"] <= 3, f"{taken['rounds']} rounds")
    goes_on(node, job, "afterwards")
    restored = node.cli("restore", taken["image"], "--name", node.name())
    goes_on(node, restored["job"], "restored")
    node.cli("stop", restored["job"])
    node.cli("stop", job)


def cancelled(test):
    node = prepare(test, **SLOW)
    job = resident(node, 96)
    for mode in MODES:
        attempt = copying(node, job, mode)
        attempt.kill(signal.SIGINT)
        attempt.status()
        wait_until(lambda: node.state_of(job) == "running", "the end", 20)
        goes_on(node, job, f"after a cancelled {mode}")
        expect_equal(node.images(), [], "images")
    taken = node.cli("checkpoint", job, "--mode", "stop")
    node.verify(taken["image"])
    node.cli("stop", job)


def posd_killed(test):
    node = prepare(test, **SLOW)
    job = resident(node, 96)
    for mode in MODES:
        attempt = copying(node, job, mode)
        node.kill()
        attempt.status()
        path = os.path.join(node.state, "jobs", job, "output.log")

        def lines():
            with open(path, "rb") as log:
                return log.read().count(b"\n")
        before = lines()
        wait_until(lambda: lines() > before + 5, f"{job} to go on alone", 30)
        since = time.monotonic()
        node.start()
        expect(time.monotonic() - since < 10, "posd waits for something")
        expect_equal(node.state_of(job), "running", mode)
        goes_on(node, job, f"after {mode}")
        expect_equal(node.images(), [], "images")
    taken = node.cli("checkpoint", job, "--mode", "cow")
    node.verify(taken["image"])
    node.cli("stop", job)


def ends(test):
    """The image of a job that has ended meanwhile is whole, or there is none."""
    node = prepare(test, **SLOW)
    for mode in MODES:
        job = resident(node, 64)
        attempt = copying(node, job, mode)
        node.cli("stop", job)
        status = attempt.status()
        expect(status != 0 or mode == "cow", f"{mode}: status {status}")
        for image in node.images():
            node.verify(image)
            restored = node.cli("restore", image, "--name", node.name())["job"]
            goes_on(node, restored, "restored")
            node.cli("stop", restored)
            node.cli("images", "rm", image)
    test.check_idle(node)


def memory(test):
    """What the job needs itself it gets back."""
    node = prepare(test, **SLOW, **{"sim.memory": "256MiB",
                                    "ckpt.shadow_bytes": "128MiB"})
    job = resident(node, 96, percent=100)
    attempt = copying(node, job, "cow")
    # Another 96 MiB of the device are the shadow's.
    goes_on(node, job, "while it is copied")
    expect_equal(attempt.status(), 0, "the checkpoint")
    node.cli("stop", job)
    test.check_idle(node)


def auto(test):
    node = prepare(test)
    job = resident(node, 8)
    taken = node.cli("checkpoint", job)
    expect_equal(taken["mode"], "stop", taken["reason"])
    expect("soon" in taken["reason"], taken["reason"])
    node.cli("stop", job)
    job = resident(node, 160)
    taken = node.cli("checkpoint", job)
    expect_equal(taken["mode"], "cow", taken["reason"])
    expect("free" in taken["reason"], taken["reason"])
    taken = node.cli("checkpoint", job, "--mode", "recopy", "--stop")
    expect_equal(taken["mode"], "recopy", taken["reason"])
    expect_equal(node.state_of(job), "stopped", "state")
    node.cli("restore", taken["image"])
    goes_on(node, job, "restored")
    taken = node.cli("checkpoint", job, "--stop")
    expect_equal(taken["mode"], "stop", taken["reason"])
    node.cli_fails("checkpoint", job, "--mode", "fast", code="INVALID")


def all_tests():
    tests = {function.__name__: function for function in
             (stall, unforeseen, too_fast, cancelled, posd_killed, ends, memory,
              auto)}
    for name in sys.argv[1:]:
        mode, _, program = name.partition("_")
        if mode in MODES:
            tests[name] = random_points(mode, program)
    return tests


if __name__ == "__main__":
    main(all_tests())
