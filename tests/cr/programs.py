"""CUDA programs as jobs: how to run them, and what they print undisturbed.

All programs of tests/programs take an iteration count, print "iteration I/N" as
they go and end with "digest …" and "PASS" (see check.h there). Their output
depends on the count alone.
"""
import os
import re
import sys
import time

from harness import (CliError, Failure, expect, expect_equal, needs_program,
                     tail, wait_until)

# What a disturbed run should take, undisturbed: long enough to be hit.
TARGET_S = 0.9
MOST_ITERATIONS = 20000


class Program:
    def __init__(self, test, name):
        self.test = test
        self.name = name
        self.path = needs_program(name)
        self.files = test.path("files")  # where it may leave files
        os.makedirs(self.files, exist_ok=True)

    def command(self, iterations=None):
        command = [self.path]
        if self.name.endswith(".py"):
            command.insert(0, sys.executable)
        if iterations is not None:
            command += [str(iterations), self.files]
        return command


def check_output(output, iterations=None):
    """What a program prints about itself must be whole and in order."""
    lines = output.decode().splitlines()
    expect(len(lines) >= 3 and lines[-1] == "PASS", "no PASS: " + tail(output))
    expect(re.fullmatch(r"digest [0-9a-f]{16}", lines[-2]),
           "no digest: " + tail(output))
    if iterations is not None:
        steps = [line for line in lines if line.startswith("iteration ")]
        expect_equal(steps, [f"iteration {i + 1}/{iterations}"
                             for i in range(iterations)], "lines of progress")
    return lines[-2]


class Undisturbed:
    """A complete run that nobody disturbed: count, output, time, calls.
    `iterations`: instead of as many as take `target_s`."""

    def __init__(self, node, program, target_s=TARGET_S, iterations=None):
        self._measure(node, program,
                      iterations or self._choose(node, program, target_s))

    def lengthen(self, node, program):
        """Another such run with twice as many iterations: the machine was
        busy when they were counted, and is not any more."""
        self._measure(node, program, 2 * self.iterations)
        print(f"  {program.name} ends too early: now {self.iterations} "
              "iterations", flush=True)

    def _measure(self, node, program, iterations):
        self.iterations = iterations
        started = time.monotonic()
        job = node.run(*program.command(self.iterations))
        self.calls = 0

        def ended():
            calls = node.calls(job)
            self.calls = max(self.calls, calls or 0)
            return calls is None
        wait_until(ended, f"{program.name} to end", 120)
        self.seconds = time.monotonic() - started
        expect_equal(node.wait(job), 0, f"exit status of {program.name}")
        self.output = node.output(job)
        check_output(self.output, self.iterations)

    @staticmethod
    def _choose(node, program, target_s):
        def measure(count):
            started = time.monotonic()
            running = node.begin("run", "--", *program.command(count),
                                 as_json=False)
            status = running.status(120)
            seconds = time.monotonic() - started
            expect_equal(status, 0, f"exit status of {program.name}: " +
                         tail(running.output + running.errors))
            check_output(running.output, count)
            return seconds

        # Starting takes longer than a few iterations, and varies.
        least = min(measure(1), measure(1))
        count = 4
        while True:
            # The faster of two: a pause of the machine is not the program's.
            seconds = max(min(measure(count), measure(count)) - least, 1e-3)
            if seconds >= target_s / 4 or count >= MOST_ITERATIONS:
                break
            count *= 4
        return max(2, min(MOST_ITERATIONS, int(count * target_s / seconds)))


def checkpoint(node, job, *flags, timeout_s=60):
    """A checkpoint that is tried again while a process is just coming or
    going, as users are told to. None when the job ended first."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return node.cli("checkpoint", job, *flags, timeout_s=timeout_s)
        except CliError as error:
            if error.code not in ("NOT_READY", "BUSY", "CLOSED", "NO_SUCH"):
                raise
            state = node.state_of(job)
            if state in (None, "exited", "stopped"):
                return None
            if state == "failed" or time.monotonic() > until:
                raise Failure(f"job {job} is {state}: {error}")


def start(node, program, undisturbed, share=0.4, times=1):
    """A job that has done about that share of its calls, or less, and goes on.
    `times` as many iterations: for one whose end is not awaited. Where each of
    several ended before that was seen, `undisturbed` is lengthened: what other
    jobs of it print is then compared in vain."""
    for attempt in range(8):
        job = node.run(*program.command(times * undisturbed.iterations))
        if node.wait_calls(job, max(1, int(undisturbed.calls * share))):
            return job
        # It goes faster now than when it was measured, or pos-cli slower.
        share /= 3
        if attempt >= 1:
            undisturbed.lengthen(node, program)
    raise Failure(f"{program.name} ends before anything can be done to it")


def start_and_checkpoint(node, program, undisturbed, *flags, share=0.3):
    """A job and an image of it, made while it ran; earlier when it ended too
    early."""
    for _ in range(5):
        job = start(node, program, undisturbed, share)
        taken = checkpoint(node, job, *flags)
        if taken is not None:
            return job, taken["image"]
        share /= 2
    raise Failure(f"{program.name} ends before it can be checkpointed")


def expect_whole(node, restored, image, undisturbed, before=0):
    """A restored job ends well; its log holds the whole output when it has the
    name of the image's job, else what came after the image. `before`: bytes of
    output that went to other logs before the image's job."""
    shown = node.cli("images", "show", image)
    if restored != shown["job"]:
        before += shown["log_bytes"]
    node.finish_job(restored, undisturbed.output[before:])
