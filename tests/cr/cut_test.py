"""What goes wrong in a checkpoint's cut at moments that cannot be hit from outside:
posd, pos-job and pos-runner with faulty_process.cc loaded into them. No client is
left waiting for a word that never comes.
"""
import os
import signal
import sys
import time

from faults_test import CHECKPOINT_PHASES, busy_runner, expect_lost, prepare
from harness import (expect, expect_equal, main, needs_criu, needs_root,
                     read_text, send_signal, wait_until)
from node import BUILD
from programs import (check_output, expect_whole, start,
                      start_and_checkpoint)

HERE = os.path.dirname(os.path.abspath(__file__))
FAULTY = os.path.join(BUILD, "tests/cr/libfaulty_process.so")


def faulty(**variables):
    """For posd's environment: see faulty_process.cc."""
    return {"LD_PRELOAD": FAULTY,
            **{f"POS_FAULTY_{k.upper()}": str(v) for k, v in variables.items()}}


def detached_alone(test):
    """The runner ends when it has asked the program to detach: before it could
    answer, and with the answer unread. Nobody waits for a word from it."""
    for how in ("end", "answered"):
        node, program, undisturbed = prepare(
            test, "vector_add", iterations=20,
            posd_environment=faulty(detach=how))
        job = start(node, program, undisturbed, 0.1, times=500)
        node.cli_fails("checkpoint", job, code="CLOSED")
        expect_lost(node, job)
        test.check_idle(node)
        node.stop()


def told_at_the_second_try(test):
    """pos-job cannot write into one of three processes at first: the others are
    called back all the same, and that one is when it can; after a checkpoint,
    after one that failed, after a restore."""
    node, program, undisturbed = prepare(
        test, "workers", 2.5, posd_environment=faulty(pokes=1))
    job, image = start_and_checkpoint(node, program, undisturbed)
    node.finish_job(job, undisturbed.output)
    restored = node.cli("restore", image)["job"]
    expect_whole(node, restored, image, undisturbed)
    node.cli("images", "rm", image)
    job = start(node, program, undisturbed, 0.05)
    attempt = node.begin("checkpoint", job, as_json=False)
    attempt.wait_phase(CHECKPOINT_PHASES, "copy")
    attempt.kill(signal.SIGINT)
    attempt.status()
    node.finish_job(job, undisturbed.output)
    for image in node.images():
        node.cli("images", "rm", image)
    # The last job may have ended before it could be disturbed.
    expect(read_text(node.log).count("called back once more") >= 2,
           "everybody was told at the first try")
    test.check_idle(node)


def children_unseen(test):
    """The kernel's lists of children may leave out some that live: a session
    does not end for that."""
    node, program, undisturbed = prepare(
        test, "vector_add", 0.9, posd_environment=faulty(children=1))
    job, image = start_and_checkpoint(node, program, undisturbed)
    node.finish_job(job, undisturbed.output)
    restored = node.cli("restore", image)["job"]
    expect_whole(node, restored, image, undisturbed)
    node.cli("images", "rm", image)
    test.check_idle(node)


def main_thread_ended(test):
    """A program whose main thread has ended while others run cannot be
    checkpointed; it is told so, and goes on."""
    needs_root()
    node = test.node()
    needs_criu(node)
    job = node.run(sys.executable, os.path.join(HERE, "leaderless_program.py"),
                   test.path("end"))
    wait_until(lambda: b"alone" in node.output(job), "its main thread's end")
    for _ in range(2):
        error = node.cli_fails("checkpoint", job, code="INCOMPATIBLE")
        expect("main thread" in error.message, error.message)
    with open(test.path("end"), "wb"):
        pass
    expect_equal(node.wait(job), 0, "exit status")
    expect(node.output(job).endswith(b"PASS\n"), "no PASS")
    test.check_idle(node)


def runner_hangs(test):
    """posd waits in vain for a runner that is to come to rest. When that goes on
    it first does what it was asked and then what it was told since: the job
    runs on."""
    node, program, undisturbed = prepare(test, "vector_add", iterations=20)
    job = start(node, program, undisturbed, 0.1, times=100)
    runner = busy_runner(node, job)
    send_signal(runner, signal.SIGSTOP)
    began = time.monotonic()
    node.cli_fails("checkpoint", "--mode", "stop", job, code="TIMEOUT",
                   timeout_s=90)
    expect(time.monotonic() - began < 60, "it was tried again and again")
    send_signal(runner, signal.SIGCONT)
    expect_done(node, job, 100 * undisturbed.iterations)
    test.check_idle(node)


def expect_done(node, job, iterations):
    """The job ends well, with all that it has to print."""
    expect_equal(node.wait(job), 0, "exit status")
    check_output(node.output(job), iterations)


def detach_unanswered(test):
    """The same when the program is to detach: it has detached, and is called
    back."""
    node, program, undisturbed = prepare(
        test, "vector_add", iterations=20,
        options={"quiesce.detach_ms": "1ms"}, posd_environment=faulty(detach="slow"))
    job = start(node, program, undisturbed, 0.1, times=100)
    node.cli_fails("checkpoint", "--mode", "stop", job, code="TIMEOUT",
                   timeout_s=90)
    expect_done(node, job, 100 * undisturbed.iterations)
    test.check_idle(node)


TESTS = {f.__name__: f for f in (
    detached_alone, told_at_the_second_try, children_unseen, main_thread_ended,
    runner_hangs, detach_unanswered)}

if __name__ == "__main__":
    main(TESTS)
