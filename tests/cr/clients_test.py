"""Many programs: one after the other, and at once. Afterwards posd has as many
threads and descriptors, and the node as many processes and files, as before.
"""
import re

from harness import (LONG, descriptors, expect, expect_equal, main,
                     needs_root, read_text, threads, wait_until)
from programs import Program, check_output


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", read_text(f"/proc/{pid}/status"))[1])


def settled(node, before_fds, before_threads):
    wait_until(lambda: len(descriptors(node.pid)) <= len(before_fds),
               lambda: "posd's descriptors to be as before", 10)
    expect(threads(node.pid) <= before_threads + 2,
           f"threads: {threads(node.pid)}, before {before_threads}")


def warm_up(node, program, count):
    """What posd makes once, it makes now."""
    for _ in range(count):
        node.begin("run", "--", *program.command(1), as_json=False).status()


def sequentially(test, count):
    needs_root()
    node = test.node()
    program = Program(test, "vector_add")
    warm_up(node, program, 5)
    test.check_idle(node)
    fds, n = descriptors(node.pid), threads(node.pid)
    memory = resident_kib(node.pid)
    output = None
    for _ in range(count):
        running = node.begin("run", "--", *program.command(1), as_json=False)
        expect_equal(running.status(), 0, "exit status")
        output = output or running.output
        expect_equal(running.output, output, "output")
    check_output(output, 1)
    test.check_idle(node)
    settled(node, fds, n)
    grown = resident_kib(node.pid) - memory
    test.note(f"{count} clients; posd grew by {grown} KiB")
    # Ended jobs are remembered, a bounded number of them.
    expect(grown < 20000, f"posd grew by {grown} KiB")


def one_after_the_other(test):
    sequentially(test, 1000 if LONG else 50)


def at_once(test):
    """64 programs; each finds a device and gets its own results."""
    needs_root()
    node = test.node(options={"sim.memory": "16GiB"})
    program = Program(test, "vector_add")
    warm_up(node, program, 3)
    test.check_idle(node)
    fds, n = descriptors(node.pid), threads(node.pid)
    for _ in range(3 if LONG else 1):
        running = [node.begin("run", "--", *program.command(3), as_json=False)
                   for _ in range(64)]
        statuses = [one.status(90) for one in running]
        expect_equal(statuses, [0] * 64, "exit statuses")
        expect_equal(len({one.output for one in running}), 1, "outputs")
        check_output(running[0].output, 3)
        test.check_idle(node)
    wait_until(lambda: len(descriptors(node.pid)) <= len(fds) + 8,
               "posd's descriptors to be as before", 15)
    # gRPC keeps some of the threads that it had.
    test.note(f"threads {n} before, {threads(node.pid)} after")


TESTS = {"one_after_the_other": one_after_the_other, "at_once": at_once}

if __name__ == "__main__":
    main(TESTS)
