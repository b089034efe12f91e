"""What a job may go through: checkpoints while it runs, checkpoints of what was
restored, one image restored several times, side by side, beside the original.

lifecycle_test.py goes_on | refused | generations | twice_PROGRAM | devices |
                  memory_info
"""
import subprocess
import sys

from harness import (LONG, expect, expect_equal, main, needs_criu, needs_root,
                     wait_until)
from programs import (Program, Undisturbed, checkpoint, expect_whole, start,
                      start_and_checkpoint)

TWICE = ("vector_add", "vector_add_shared", "driver_api", "python_driver.py",
         "fork_child", "pinned")


def prepare(test, name, target_s=1.5, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(node, program, target_s)


def goes_on(test):
    """One checkpoint after the other; the job never notices. Many threads: some
    stand at the door, some sleep in a call that waits."""
    node, program, undisturbed = prepare(test, "host_threads", 2.5)
    for _ in range(3):
        job = start(node, program, undisturbed, 0.05)
        images = []
        while len(images) < (30 if LONG else 4):
            taken = checkpoint(node, job)
            if taken is None:
                break
            images.append(taken["image"])
            expect(taken["stall_ms"] >= taken["cpu_dump_ms"] > 0, str(taken))
            expect(taken["live_bytes"] >= taken["copied_bytes"], str(taken))
        node.finish_job(job, undisturbed.output)
        if len(images) >= 3:
            break
        # Checkpoints take long today: a longer job.
        for image in images:
            node.cli("images", "rm", image)
        undisturbed.lengthen(node, program)
    expect(len(images) >= 3, f"only {len(images)} checkpoints")
    listed = node.images()
    expect_equal(listed, images, "images in the order of their making")
    for image in (images[0], images[-1]):
        node.verify(image)
        restored = node.cli("restore", image)["job"]
        expect_whole(node, restored, image, undisturbed)
    for image in images:
        node.cli("images", "rm", image)
    expect_equal(node.images(), [], "images left")
    test.note(f"{len(images)} checkpoints of one run")
    test.check_idle(node)


# Prints free and total bytes before anything was allocated, with 600 MiB of its
# own, and without them again; waits for a line of input in between.
MEMORY = """
import ctypes
l = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    status = getattr(l, name)(*arguments)
    assert status == 0, (name, status)
def told():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    print(free.value >> 20, total.value >> 20, flush=True)
call("cuInit", 0)
context, block = ctypes.c_void_p(), ctypes.c_uint64()
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
call("cuCtxSetCurrent", context)
told()
call("cuMemAlloc_v2", ctypes.byref(block), ctypes.c_size_t(600 << 20))
told()
input()
call("cuMemFree_v2", block)
told()
"""


def memory_info(test):
    """Free memory is what everybody together has left: before a program's first
    allocation, while another holds some, and after it gave it back."""
    node = test.node(options={"sim.memory": "2GiB"})

    def begin():
        running = node.begin("run", "--", sys.executable, "-c", MEMORY,
                             as_json=False, stdin=subprocess.PIPE)
        wait_until(lambda: running.output.count(b"\n") >= 2 or running.ended(),
                   "the program to have allocated")
        return running

    def end(running):
        running.process.stdin.write(b"\n")
        running.process.stdin.close()
        expect_equal(running.status(), 0, f"exit status: {running.errors}")
        return [[int(word) for word in line.split()]
                for line in running.output.decode().splitlines()]

    first = begin()
    second = begin()
    second_told = end(second)
    first_told = end(first)
    test.note(f"MiB free, total: {first_told}, meanwhile {second_told}")
    (all_free, total), (held, _), (given_back, _) = first_told
    expect(0 < all_free <= total, f"{all_free} of {total} before anything")
    expect_equal(all_free - held, 600, "less for the 600 that it allocated")
    expect_equal(given_back, all_free, "free after it gave them back")
    # What a program was granted ahead of its need is not there for others.
    expect(600 <= all_free - second_told[0][0] < 1200,
           f"the other program sees {second_told[0][0]} of {all_free}")
    test.check_idle(node)


CONNECTED = """
import os, runpy, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(listener.getsockname())
other, _ = listener.accept()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def refused(test):
    """What cannot be checkpointed is refused before the job is held back: no
    phase but the preflight is reached, and the program never notices."""
    node, program, undisturbed = prepare(test, "python_driver.py", 3.0)
    command = program.command(undisturbed.iterations)
    job = node.run(command[0], "-c", CONNECTED, *command[1:])
    expect(node.wait_calls(job, 10), lambda: node.output(job).decode())
    attempt = node.begin("checkpoint", job, as_json=False)
    status = attempt.status()
    text = attempt.errors.decode()
    expect(status != 0 and "TCP connection" in text, f"not refused: {text!r}")
    expect(": preflight" in text, f"no preflight: {text!r}")
    for phase in (": quiesce", ": detach", ": copy"):
        expect(phase not in text, f"the job was held back: {text!r}")
    node.cli_fails("checkpoint", job, code="INCOMPATIBLE")
    node.finish_job(job, undisturbed.output)
    test.check_idle(node)


def generations(test):
    """A checkpoint of a restored job of a restored job."""
    node, program, undisturbed = prepare(test, "symbols_shared", 3.0)
    job = start(node, program, undisturbed, 0.1)
    ns_pid = last = None
    before = 0  # output in the logs of earlier generations
    for generation in range(3):
        taken = checkpoint(node, job, "--stop")
        expect(taken is not None, f"ended before generation {generation}")
        shown = node.cli("images", "show", taken["image"])
        expect(ns_pid in (None, shown["ns_pid"]), "the pid inside has changed")
        ns_pid = shown["ns_pid"]
        if generation > 0:
            before += last["log_bytes"]
        last = shown
        name = f"{node.name()}-g{generation}"
        restored = node.cli("restore", taken["image"], "--name", name)
        expect_equal(restored["job"], name, "name")
        job = name
    expect_whole(node, job, taken["image"], undisturbed, before)
    test.check_idle(node)


def twice(program_name):
    def run(test):
        node, program, undisturbed = prepare(test, program_name)
        job, image = start_and_checkpoint(node, program, undisturbed,
                                          share=0.2)
        # Beside the living original, and beside each other.
        beside = [node.cli("restore", image, "--name", node.name())["job"]
                  for _ in range(2)]
        node.finish_job(job, undisturbed.output)
        for restored in beside:
            expect_whole(node, restored, image, undisturbed)
        # One after the other; the first goes on in the log of the original.
        restored = node.cli("restore", image)
        expect_equal(restored["job"], job, "name of an ended job")
        expect_whole(node, job, image, undisturbed)
        again = node.cli("restore", image, "--name", node.name())["job"]
        expect_whole(node, again, image, undisturbed)
        node.cli("images", "rm", image)
        test.check_idle(node)
    return run


def devices(test):
    """Two devices: jobs on each, a restore from the one to the other, and one
    onto a device that the node does not have."""
    node, program, undisturbed = prepare(
        test, "vector_add", options={"sim.count": 2})
    expect_equal([d["device"] for d in node.cli("devices")["devices"]],
                 ["0", "1"], "devices")
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    restored = node.cli("restore", image, "--device", "0:1")["job"]
    expect_equal(node.job(restored)["devices"], ["1"], "devices of the restored")
    expect_whole(node, restored, image, undisturbed)
    node.cli_fails("restore", image, "--device", "0:7",
                   code=("NO_SUCH", "INVALID", "INCOMPATIBLE"))

    def free():
        return all(d["free_bytes"] == d["memory_bytes"]
                   for d in node.cli("devices")["devices"])
    wait_until(free, "all device memory to be free")
    test.check_idle(node)


def all_tests():
    tests = {"goes_on": goes_on, "refused": refused, "generations": generations,
             "devices": devices, "memory_info": memory_info}
    for name in TWICE:
        tests["twice_" + name] = twice(name)
    return tests


if __name__ == "__main__":
    main(all_tests())
