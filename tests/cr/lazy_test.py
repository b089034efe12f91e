"""Restores that let the job run before its memory is loaded: the same output,
whatever happens until all of it is there.

Loading is slowed down (restore.lazy_bytes_per_second), so that it can be hit.
"""
import os
import signal

from harness import (expect, expect_equal, main, needs_criu,
                     needs_root, send_signal, wait_until)
from programs import (Program, Undisturbed, expect_whole,
                      start_and_checkpoint)

# The program has 32 MiB that do not compress, and kernels that need them all.
SLOW = {"restore.lazy_bytes_per_second": "8MiB"}

# In a pack: the first chunk, which is of device memory.
AT = 4096 + 10


def prepare(test, name="resident", iterations=40, target_s=0.5, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(node, program, target_s, iterations)


def image_of(node, program, undisturbed):
    return start_and_checkpoint(node, program, undisturbed, "--stop")[1]


def begin(node, image):
    """A lazy restore, admitted and still loading: its name and the command."""
    name = node.name()
    running = node.begin("restore", image, "--lazy", "--name", name)
    node.wait_running(name)
    expect(not running.ended(), "it has loaded all already")
    return name, running


def pins(node):
    return os.listdir(os.path.join(node.state, "store", "pins"))


def end(test, node, *images):
    wait_until(lambda: not pins(node), "pins to be dropped")
    for image in images:
        node.cli("images", "rm", image)
    test.check_idle(node)


def restored(test, name):
    node, program, undisturbed = prepare(test, name, iterations=None)
    image = image_of(node, program, undisturbed)
    result = node.cli("restore", image, "--lazy")
    expect(result["lazy"] is True, f"{result}")
    expect(result["loaded_ms"] >= 0 and result["restore_ms"] > 0, f"{result}")
    expect_whole(node, result["job"], image, undisturbed)
    eager = node.cli("restore", image, "--name", node.name())
    expect(eager["lazy"] is False, f"{eager}")
    expect_whole(node, eager["job"], image, undisturbed)
    end(test, node, image)


def checkpoint_while_loading(test):
    """It waits for the rest, and the image is whole."""
    node, program, undisturbed = prepare(test, options=SLOW)
    first = image_of(node, program, undisturbed)
    name, running = begin(node, first)
    attempt = node.begin("checkpoint", name, "--stop", as_json=False)
    expect(attempt.wait_phase(["load"], "load"), "no phase load")
    expect_equal(attempt.status(), 0, f"checkpoint: {attempt.errors}")
    result = running.result()
    expect(result["loaded_ms"] > result["restore_ms"], f"{result}")
    second = [i for i in node.images() if i != first]
    expect_equal(len(second), 1, "images")
    node.verify(second[0])
    log_bytes = node.cli("images", "show", first)["log_bytes"]
    node.options = {}
    node.restart()
    again = node.cli("restore", second[0])["job"]
    expect_equal(again, name, "name")
    node.finish_job(again, undisturbed.output[log_bytes:])
    end(test, node, first, second[0])


def checkpoint_given_up(test):
    """A checkpoint that waits for memory can be cancelled; nothing happened."""
    node, program, undisturbed = prepare(test, options=SLOW)
    image = image_of(node, program, undisturbed)
    name, running = begin(node, image)
    attempt = node.begin("checkpoint", name, as_json=False)
    expect(attempt.wait_phase(["load"], "load"), "no phase load")
    attempt.kill(signal.SIGINT)
    expect_equal(attempt.status(), 130, "exit status")
    running.result()
    expect_equal(node.images(), [image], "images")
    expect_whole(node, name, image, undisturbed)
    end(test, node, image)


def posd_killed(test):
    """The runner goes on loading; the next posd keeps the image for it."""
    node, program, undisturbed = prepare(test, options=SLOW)
    image = image_of(node, program, undisturbed)
    name, running = begin(node, image)
    node.kill()
    running.status()
    node.start()
    expect(pins(node), "the pin is gone")
    error = node.cli_fails("images", "rm", image, code="BUSY")
    expect(name in error.message, f"{error}")
    wait_until(lambda: not pins(node), "the pin to be dropped")
    expect_whole(node, name, image, undisturbed)
    end(test, node, image)


def posd_killed_early(test):
    """Killed before the job runs, too: it never ran and is gone, or it runs to
    its end; no pin outlives what needed it."""
    node, program, undisturbed = prepare(test)
    image = image_of(node, program, undisturbed)
    phases = ("preflight", "load", "admit")
    outcomes = []
    for i in range(len(phases)):
        name = node.name()
        attempt = node.begin("restore", image, "--lazy", "--name", name,
                             as_json=False)
        attempt.wait_phase(phases, phases[i])
        node.kill()
        attempt.status()
        node.start()
        wait_until(lambda: node.state_of(name) in (None, "running", "exited",
                                                   "failed"),
                   f"{name} to be let go (is {node.state_of(name)})")
        outcomes.append(node.state_of(name) or "none")
        if node.state_of(name) in ("running", "exited"):
            expect_whole(node, name, image, undisturbed)
        wait_until(lambda: not pins(node), "pins to be dropped")
    test.note(" ".join(outcomes))
    end(test, node, image)


def posd_ends(test):
    """With --keep-jobs: at once, whoever waits; the job and the pin stay."""
    node, program, undisturbed = prepare(test, options=SLOW, keep_jobs=True)
    image = image_of(node, program, undisturbed)
    name, running = begin(node, image)
    node.stop()
    expect(running.status() != 0, "it had loaded all")
    node.start()
    expect(pins(node), "the pin is gone")
    expect_whole(node, name, image, undisturbed)
    end(test, node, image)


def command_given_up(test):
    """Ctrl-C, once the job runs: it goes on, and loads."""
    node, program, undisturbed = prepare(test, options=SLOW)
    image = image_of(node, program, undisturbed)
    name, running = begin(node, image)
    running.kill(signal.SIGINT)
    expect_equal(running.status(), 130, "exit status")
    expect(pins(node), "the pin is gone")
    expect_whole(node, name, image, undisturbed)
    end(test, node, image)


def image_stays(test):
    """rm is refused while it is needed; two jobs can need it at once."""
    node, program, undisturbed = prepare(test, options=SLOW)
    image = image_of(node, program, undisturbed)
    first, one = begin(node, image)
    second, two = begin(node, image)
    node.cli_fails("images", "rm", image, code="BUSY")
    expect_equal(len(pins(node)), 2, "pins")
    one.result()
    two.result()
    expect_whole(node, first, image, undisturbed)
    expect_whole(node, second, image, undisturbed)
    end(test, node, image)


def stopped(test):
    """Jobs that are stopped, or whose runner is killed, while they load."""
    node, program, undisturbed = prepare(
        test, options={"restore.lazy_bytes_per_second": "1MiB"})
    image = image_of(node, program, undisturbed)
    name, running = begin(node, image)
    node.cli("stop", name)
    running.status()
    name, running = begin(node, image)
    for pid in runners_of(node, name):
        send_signal(pid, signal.SIGKILL)
    expect(node.wait(name) != 0, "the job ended well without its memory")
    running.status()
    end(test, node, image)


def runners_of(node, job):
    found = []
    for pid in node.quiet_runners():
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}")
                     for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(f"-{job}-" in link for link in links):
            found.append(pid)
    expect(found, f"no runner of {job}")
    return found


def damaged(test):
    """A chunk that turns out to be damaged when the job runs already: the
    command fails, the job ends, both say why. Another one: refused at once."""
    node, program, undisturbed = prepare(test, options=SLOW)
    image = image_of(node, program, undisturbed)
    packs = os.path.join(node.state, "store", "packs")
    pack = os.path.join(packs, os.listdir(packs)[0])
    with open(pack, "r+b") as f:
        whole = f.read()
        f.seek(AT)
        f.write(bytes([whole[AT] ^ 1]))
    name = node.name()
    error = node.cli_fails("restore", image, "--lazy", "--name", name,
                           code="CORRUPT")
    expect("could not be loaded" in error.message, f"{error}")
    expect(node.wait(name) != 0, "the job ended well without its memory")
    wait_until(lambda: not pins(node), "pins to be dropped")
    with open(pack, "wb") as f:
        f.write(whole[:-8192])
    name = node.name()
    node.cli_fails("restore", image, "--lazy", "--name", name, code="CORRUPT")
    expect(node.job(name) is None, "a job of an image that is refused")
    with open(pack, "wb") as f:
        f.write(whole)
    name = node.cli("restore", image, "--lazy", "--name", node.name())["job"]
    expect_whole(node, name, image, undisturbed)
    end(test, node, image)


TESTS = {f.__name__: f for f in (
    checkpoint_while_loading, checkpoint_given_up, posd_killed,
    posd_killed_early, posd_ends,
    command_given_up, image_stays, stopped, damaged)}
for program_name in ("vector_add", "async_copies", "resident",
                     "virtual_memory", "pinned", "fork_child"):
    TESTS["restored_" + program_name] = (
        lambda test, p=program_name: restored(test, p))

if __name__ == "__main__":
    main(TESTS)
