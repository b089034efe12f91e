"""Kernels that never end are ended: by pos-cli stop, by the process's exit, by
cuCtxDestroy. Each within a bound, and a job after it finds the device free.

endless_test.py stop | exit | destroy
"""
import os
import signal
import time

from harness import (PROGRAMS, expect, expect_equal, main, needs_program,
                     needs_root, wait_until)

KERNELS = ("loop", "spin", "mbarrier")
BOUND_S = 30  # far above what it takes, below a grace period that hangs


def prepare(test):
    needs_root()
    needs_program("endless")
    return test.node()


def start(node, kernel, mode):
    job = node.run(os.path.join(PROGRAMS, "endless"), kernel, mode)
    wait_until(lambda: b"started" in node.output(job),
               f"{kernel} of {job} to start", 60)
    return job


def works(node):
    """Another job gets its turn and ends."""
    job = node.run(os.path.join(PROGRAMS, "endless"), "spin", "destroy")
    expect_equal(node.wait(job), 0, node.why(job))
    expect(b"PASS" in node.output(job), node.why(job))


def within(since, what):
    took = time.monotonic() - since
    expect(took < BOUND_S, f"{what} took {took:.1f} s")
    return took


def stop(test):
    node = prepare(test)
    for kernel in KERNELS:
        job = start(node, kernel, "wait")
        expect_equal(node.state_of(job), "running", kernel)
        since = time.monotonic()
        node.cli("stop", job)
        status = node.wait(job)
        took = within(since, f"the stop of {kernel}")
        # The first that stop asks with; a program has no handler for it.
        expect_equal(status, 128 + signal.SIGINT, f"exit status of {kernel}")
        test.note(f"{kernel}: stopped in {took:.1f} s")
        test.check_idle(node)
    works(node)


def exits(test):
    node = prepare(test)
    for kernel in KERNELS:
        since = time.monotonic()
        job = start(node, kernel, "exit")
        expect_equal(node.wait(job), 0, node.why(job))
        within(since, f"the exit under {kernel}")
        test.check_idle(node)
    works(node)


def destroy(test):
    node = prepare(test)
    for kernel in KERNELS:
        since = time.monotonic()
        job = start(node, kernel, "destroy")
        expect_equal(node.wait(job), 0, node.why(job))
        expect(b"PASS" in node.output(job), node.why(job))
        within(since, f"three contexts destroyed under {kernel}")
    test.check_idle(node)


TESTS = {"stop": stop, "exit": exits, "destroy": destroy}

if __name__ == "__main__":
    main(TESTS)
