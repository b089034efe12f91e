"""What kernels print, among what the program prints."""
import re

from harness import expect, expect_equal, main, needs_program, needs_root
from programs import Program, check_output


def lines_of(test, name, iterations):
    """Lines that a run in the foreground writes."""
    needs_root()
    needs_program(name)
    node = test.node()
    program = Program(test, name)
    running = node.begin("run", "--", *program.command(iterations),
                         as_json=False)
    expect_equal(running.status(), 0, f"exit status of {name}")
    check_output(running.output, iterations)
    test.check_idle(node)
    return running.output.decode().splitlines()


def formats(test):
    """Every conversion gives what the host's printf gives, at its place."""
    iterations = 3
    lines = lines_of(test, "device_output", iterations)
    starts = [i for i, line in enumerate(lines) if line == "formats"]
    expect_equal(len(starts), iterations, "rounds")
    for round_, start in enumerate(starts):
        device = []
        at = start + 1
        while lines[at].startswith("device: "):
            device.append(lines[at][len("device: "):])
            at += 1
        host = [line[len("host: "):] for line in lines[at:at + len(device)]
                if line.startswith("host: ")]
        expect(len(device) >= 14, f"{len(device)} lines of the device")
        expect_equal(device, host, f"formats in round {round_}")
        at += len(device)
        in_turn = [f"block {block} thread {thread} of iteration {round_}"
                   for block in range(24) for thread in range(4)]
        expect_equal(lines[at:at + len(in_turn)], in_turn, "blocks in turn")
        at += len(in_turn)
        expect_equal(lines[at:at + 3],
                     ["the host again",
                      "part 0, part 1, part 2, part 3, that was all",
                      f"iteration {round_ + 1}/{iterations}"], "parts")


def assertion(test):
    """The text of an assertion, as CUDA writes it."""
    lines = lines_of(test, "device_assert", 2)
    failed = [line for line in lines if "Assertion" in line]
    expect_equal(len(failed), 1, f"assertions in {lines}")
    match = re.fullmatch(
        r".*device_assert\.cu:\d+: .*CheckIt.*: block: \[1,0,0\], "
        r"thread: \[5,0,0\] Assertion `(.*)` failed\.", failed[0])
    expect(match, f"not as CUDA writes it: {failed[0]}")
    expect_equal(match[1], 'data[i] != wrong && "as it must be"', "condition")
    expect_equal(lines[-4], "checking that none is 39", "what came before")
    expect_equal(lines[-3], failed[0], "at its place")


if __name__ == "__main__":
    main({"formats": formats, "assertion": assertion})
