"""Every CUDA program: plainly, and checkpointed, killed and restored.

programs_test.py plain_NAME       one program in the foreground, at every
                                  instruction-set level, and sanitized
programs_test.py each_N           a quarter of the programs, once each
programs_test.py heap_refused     nested: what cannot be saved
programs_test.py newer_ptx        code for a device that is not there
programs_test.py restore_NAME     one program at random points of its life
"""
import os
import sys
import time

from harness import (LONG, PROGRAMS, SANITIZED, Failure, expect, expect_equal,
                     main, needs_criu, needs_program, needs_root, read_text,
                     tail)
from programs import Program, Undisturbed, check_output, checkpoint

POINTS = 10 if LONG else 2
# A point may lie behind the end of a run that goes faster than the first one:
# then one is drawn that lies earlier.
DRAWS = 8


# Programs that need a posd of their own kind.
OPTIONS = {
    # PTX for 10.0 alone.
    "cg_groups_sm100": {"sim.compute_capability": "10.0"},
}


LEVELS = ("x86-64", "x86-64-v3", "x86-64-v4")


def plain(program_name):
    """Exit status 0, own checks passed, nothing else than the first run's
    digest: twice as it comes, once at each instruction-set level (the best that
    the processor has, where it lacks one), once with a sanitized runner."""
    def run(test):
        needs_program(program_name)
        program = Program(test, program_name)
        digests = {}

        def once(node, what):
            running = node.begin("run", "--", *program.command(2),
                                 as_json=False)
            status = running.status()
            output = running.output
            expect(status == 0, lambda: f"{what}: exit status {status}: "
                   f"{output[-500:]!r} {running.errors[-500:]!r} "
                   f"{tail(read_text(node.log).encode())}")
            digests[what] = check_output(output, 2)

        own = OPTIONS.get(program_name)
        node = test.node(options=own)
        once(node, "first")
        once(node, "again")
        test.check_idle(node)
        node.stop()
        nodes = {level: {"posd_environment": {"POS_PTX_ISA": level}}
                 for level in LEVELS}
        if SANITIZED:
            nodes["sanitized"] = {"sanitized": True}
        for what, options in nodes.items():
            node = test.node(options=own, **options)
            once(node, what)
            node.stop()
            errors = [line for line in read_text(node.log).splitlines()
                      if "runtime error" in line or "AddressSanitizer" in line]
            expect(not errors, f"{what}: {errors[:5]}")
        expect_equal(set(digests.values()), {digests["first"]},
                     f"digests of {program_name}: {digests}")
        test.note(f"{program_name}: {', '.join(digests)}")
    return run


PARTS = 4


def each(part):
    """A quarter of the programs, once each in the foreground on one node."""
    def run(test):
        node = test.node()
        names = sorted(os.listdir(PROGRAMS))[part - 1::PARTS]
        for name in names:
            if name == "endless" or any(
                    option.startswith("sim.") for option in
                    OPTIONS.get(name, {})):
                continue
            program = Program(test, name)
            running = node.begin("run", "--", *program.command(2),
                                 as_json=False)
            status = running.status()
            output = running.output
            expect(status == 0, lambda: f"{name}: exit status {status}: "
                   f"{output[-500:]!r} {running.errors[-500:]!r}")
            check_output(output, 2)
        test.check_idle(node)
    return run


def newer_ptx(test):
    """PTX for a newer device than posd's is refused by its name, at the first
    launch, and the session goes on to an orderly end."""
    node = test.node()
    program = Program(test, "cg_groups_sm100")
    running = node.begin("run", "--", *program.command(1), as_json=False)
    expect_equal(running.status(), 1, "exit status")
    expect(b"cudaErrorNoKernelImageForDevice" in running.output,
           f"output: {running.output!r}")
    test.check_idle(node)


def heap_refused(test):
    """What an image would not hold is refused, and the job goes on."""
    node = test.node()
    program = Program(test, "device_heap")
    undisturbed = Undisturbed(node, program)
    job = node.run(*program.command(undisturbed.iterations))
    expect(node.wait_calls(job, max(1, undisturbed.calls // 4)), "it has ended")
    node.cli_fails("checkpoint", job, code="INCOMPATIBLE")
    node.finish_job(job, undisturbed.output)
    test.check_idle(node)


class TooShort(Failure):
    """The program goes so much faster than when it was measured (the machine
    was busy then) that no point was in time."""


def disturbed(test, node, program, undisturbed, stop, kernel_running=False,
              mode=None):
    """One run: checkpoint at a point drawn over the calls, everything killed by
    SIGKILL, restored under a posd started again; the output must be whole."""
    share = 0.85
    for _ in range(DRAWS):
        point = test.random.randint(1, max(1, int(undisturbed.calls * share)))
        share *= 0.7
        job = node.run(*program.command(undisturbed.iterations))
        if undisturbed.calls == 0:  # too short to be seen: draw over its time
            time.sleep(test.random.random() * undisturbed.seconds * 0.7)
        elif not node.wait_calls(job, point):
            continue
        taken = checkpoint(node, job, *(["--stop"] if stop else []),
                           *(["--mode", mode] if mode else []))
        if taken is not None:
            break
    else:
        raise TooShort(f"{program.name} ended before each of {DRAWS} points")
    if not stop:
        # It runs on, past the image: that part must not show up twice.
        node.wait_calls(job, point + undisturbed.calls // 20)
    node.kill_everything()
    before = node.output(job)
    node.start()
    node.verify(taken["image"])
    restored = node.cli("restore", taken["image"])
    expect_equal(restored["image"], taken["image"], "image restored")
    test.note(f"{program.name}: at call {point} of {undisturbed.calls}"
              f"{', --stop' if stop else ''}, {taken['mode']}; "
              f"stall {taken['stall_ms']:.0f} ms, "
              f"restore {restored['restore_ms']:.0f} ms")
    name = restored["job"]
    if name == job:
        node.finish_job(name, undisturbed.output)
    else:
        # A log of its own: what was written until the image, and the rest.
        expect_equal(node.wait(name, 90), 0, f"exit status of {name}")
        after = node.output(name)
        length = len(undisturbed.output) - len(after)
        expect(0 <= length <= len(before), f"{name}: {len(before)} bytes before, "
               f"{len(after)} after, want {len(undisturbed.output)}")
        expect(before[:length] + after == undisturbed.output,
               f"{name}: the output is not that of an undisturbed run")
    node.cli("images", "rm", taken["image"])
    if kernel_running:
        # Its kernels follow each other without a gap, and are waited for.
        expect(taken["stall_ms"] > 0, "no stall")
    return taken


def restore(program_name):
    def run(test):
        needs_root()
        needs_program(program_name)
        node = test.node(options=OPTIONS.get(program_name))
        needs_criu(node)
        program = Program(test, program_name)
        undisturbed = Undisturbed(node, program)
        first = test.random.randrange(2)
        for i in range(POINTS):
            arguments = ((first + i) % 2 == 0, program_name == "long_kernel")
            try:
                disturbed(test, node, program, undisturbed, *arguments)
            except TooShort as error:
                test.note(f"{error}; four times as long")
                undisturbed = Undisturbed(node, program,
                                          iterations=4 * undisturbed.iterations)
                disturbed(test, node, program, undisturbed, *arguments)
        test.check_idle(node)
    return run


def all_tests():
    kinds = {"plain_": plain, "restore_": restore}
    programs = os.listdir(PROGRAMS) if os.path.isdir(PROGRAMS) else []
    names = sys.argv[1:] or [kind + p for kind in kinds for p in programs]
    tests = {name: make(name[len(kind):]) for name in sorted(set(names))
             for kind, make in kinds.items() if name.startswith(kind)}
    tests["newer_ptx"] = newer_ptx
    tests["heap_refused"] = heap_refused
    for part in range(1, PARTS + 1):
        tests[f"each_{part}"] = each(part)
    return tests


if __name__ == "__main__":
    main(all_tests())
