"""What a job has open: files, pipes, terminals, and what becomes of them."""
import os
import pty
import subprocess

from harness import (LONG, expect, expect_equal, finish, main, needs_criu,
                     needs_root, spawn, wait_until)
from programs import (Program, Undisturbed, checkpoint, expect_whole,
                      start_and_checkpoint)


def prepare(test, name, target_s=1.2, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(node, program, target_s)


def growing(program):
    names = [n for n in os.listdir(program.files) if n.endswith(".growing")]
    return os.path.join(program.files, max(
        names, key=lambda n: os.path.getmtime(os.path.join(program.files, n))))


def files(test):
    """A file that has grown since is cut back (the program checks that it finds
    what it wrote, once); one that shrank is refused by name."""
    node, program, undisturbed = prepare(test, "open_files")
    job, image = start_and_checkpoint(node, program, undisturbed)
    node.finish_job(job, undisturbed.output)
    shown = node.cli("images", "show", image)
    path = growing(program)
    recorded = {f["path"]: f["bytes"] for f in shown["open_files"]}
    expect(path in recorded, f"{path} is not among {recorded}")
    expect(os.path.getsize(path) > recorded[path], "the file did not grow")
    restored = node.cli("restore", image, "--name", node.name())["job"]
    expect_whole(node, restored, image, undisturbed)
    # On copies: the files of the first run stay as they are.
    size = os.path.getsize(path)
    copies = test.path("copies")
    os.makedirs(copies, exist_ok=True)
    restored = node.cli("restore", image, "--name", node.name(), "--files",
                        f"copy={copies}")["job"]
    node.wait(restored)
    expect_equal(os.path.getsize(path), size, "size of the original")
    expect(os.listdir(copies), "no copies")
    with open(path, "ab") as f:
        f.truncate(recorded[path] // 2)
    error = node.cli_fails("restore", image, "--name", node.name())
    expect(path in str(error.error), f"not named: {error}")
    node.cli("images", "rm", image)
    test.check_idle(node)


def pipe(test):
    """Standard output is a pipe; the reader sees an ordinary program. After a
    checkpoint and a restore the rest is in the log."""
    node, program, undisturbed = prepare(test, "vector_add", 2.0)
    name = node.name()
    running = node.begin("run", "--name", name, "--",
                         *program.command(undisturbed.iterations),
                         as_json=False)
    wait_until(lambda: node.state_of(name) == "running", "the job")
    node.wait_calls(name, undisturbed.calls // 10)
    taken = checkpoint(node, name)
    expect(taken, "ended early")
    expect_equal(running.status(), 0, "exit status of run")
    expect_equal(running.output, undisturbed.output, "output through the pipe")
    restored = node.cli("restore", taken["image"], "--name", node.name())["job"]
    expect_whole(node, restored, taken["image"], undisturbed)
    node.cli("images", "rm", taken["image"])
    test.check_idle(node)


def reader_gone(test):
    """A reader that goes away ends the program as it does without POS."""
    node, program, undisturbed = prepare(test, "vector_add", 1.5)
    read_end, write_end = os.pipe()
    running = node.begin("run", "--", *program.command(undisturbed.iterations),
                         as_json=False, stdout=write_end)
    os.close(write_end)
    os.read(read_end, 10)
    os.close(read_end)
    expect(running.status() != 0, "SIGPIPE did not end the program")
    test.check_idle(node)


def terminal(test):
    """Standard streams are a terminal: the program's are one, too, and after a
    restore it goes on."""
    node, program, undisturbed = prepare(test, "vector_add", 2.0)
    outer, inner = pty.openpty()
    name = node.name()
    running = node.begin("run", "--name", name, "--",
                         *program.command(undisturbed.iterations),
                         as_json=False, stdin=inner, stdout=inner, stderr=inner,
                         start_new_session=True)
    os.close(inner)
    wait_until(lambda: node.state_of(name) == "running", "the job")
    node.wait_calls(name, undisturbed.calls // 10)
    taken = checkpoint(node, name)
    output = b""
    while True:
        try:
            data = os.read(outer, 65536)
        except OSError:
            break
        if not data:
            break
        output += data
    os.close(outer)
    expect_equal(running.status(), 0, "exit status of run")
    expect_equal(output.replace(b"\r\n", b"\n"), undisturbed.output,
                 "output on the terminal")
    expect(taken, "ended early")
    restored = node.cli("restore", taken["image"], "--name", node.name())["job"]
    expect_equal(node.wait(restored), 0, "exit status after the restore")
    after = node.output(restored).replace(b"\r\n", b"\n")
    expect(undisturbed.output.endswith(after) and len(after) > 20,
           f"output after the restore: {after[-200:]!r}")
    node.cli("images", "rm", taken["image"])
    test.check_idle(node)


TESTS = {f.__name__: f for f in (files, pipe, reader_gone, terminal)}

if __name__ == "__main__":
    main(TESTS)
