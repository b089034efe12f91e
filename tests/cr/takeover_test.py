"""posd among processes that do not answer: runners that are busy, or hang, when
it is started again; clients that connect and say nothing.
"""
import os
import signal
import subprocess
import sys
import time

from faults_test import busy_runner, prepare, wait_settled
from harness import (CliError, expect, expect_equal, main, read_text,
                     send_signal, spawn, wait_until)
from processes import finish
from programs import checkpoint, start


def taken_over_busy(test, begin):
    """A runner that does not answer keeps its session, and nobody but its own
    job waits for it. `begin`: does something to the job before posd dies."""
    node, program, undisturbed = prepare(test, "vector_add", 0.5)
    job = start(node, program, undisturbed, 0.05, times=1000)
    runner = busy_runner(node, job)
    attempt = begin(node, job)
    send_signal(runner, signal.SIGSTOP)
    node.kill()
    if attempt is not None:
        attempt.status()
    node.start()
    try:
        other = node.run(*program.command(3))
        expect_equal(node.wait(other), 0, "exit status of another job")
        expect_equal(len(node.job(job)["sessions"]), 1, "sessions")
        node.cli_fails("checkpoint", job, code="BUSY")
    finally:
        send_signal(runner, signal.SIGCONT)
    wait_until(lambda: "a runner that was busy answers" in read_text(node.log),
               "the runner's answer")
    wait_settled(node, job)
    calls = node.calls(job)
    expect(calls is not None and node.wait_calls(job, calls + 1),
           lambda: f"the job has ended{node.why(job)}: {node.output(job)[-300:]}")
    taken = None
    for _ in range(200):
        try:
            taken = checkpoint(node, job, "--stop")
            break
        except CliError as error:  # taking over ends in a moment
            expect(error.code in ("BUSY", "NOT_READY"), f"{error}")
            time.sleep(0.02)
    expect(taken is not None, "the job is over, or busy for ever")
    restored = node.cli("restore", taken["image"])["job"]
    node.cli("stop", restored)
    for image in node.images():
        node.cli("images", "rm", image)
    test.check_idle(node)


def runner_busy(test):
    taken_over_busy(test, lambda node, job: None)


def runner_busy_in_checkpoint(test):
    """Its client has detached, and waits for a word."""
    def begin(node, job):
        attempt = node.begin("checkpoint", job, as_json=False)
        attempt.wait_phase(("preflight", "quiesce", "detach", "copy",
                            "host memory", "seal"), "copy")
        return attempt
    taken_over_busy(test, begin)


def silent_attaches(test):
    """Connections that say nothing, of a user without jobs, take nobody's
    turn."""
    node, program, _ = prepare(test, "vector_add", 0.3)
    directory = next(top for top, _, names in os.walk(node.directory)
                     if "attach.sock" in names)
    code = ("import os, select, socket, sys\n"
            "os.chdir(sys.argv[1])\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "all = []\n"
            "for i in range(100):\n"
            "    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "    s.connect('attach.sock')\n"
            "    all.append(s)\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "print(len(select.select(all, [], [], 0)[0]), flush=True)\n")
    hostile = spawn([sys.executable, "-c", code, directory], text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        expect_equal(hostile.stdout.readline(), "ready\n", "connections")
        job = node.run(*program.command(3))
        expect_equal(node.wait(job), 0, "exit status")
        hostile.stdin.write("how many are closed?\n")
        hostile.stdin.flush()
        closed = int(hostile.stdout.readline())
    finally:
        hostile.kill()
        finish(hostile)
        hostile.stdin.close()
        hostile.stdout.close()
    # First come, first served would have closed them before the job had a turn,
    # but for the few that other threads were at by then.
    expect(closed < 90, f"the job waited for {closed} connections")
    test.check_idle(node)


TESTS = {f.__name__: f for f in (
    runner_busy, runner_busy_in_checkpoint, silent_attaches)}

if __name__ == "__main__":
    main(TESTS)
