"""Processes that stand still for a checkpoint or a restore: for as long as posd
works on it, which may be longer than a hold; not for longer when posd has died,
when nobody wants it any more, or when it cannot succeed.

Copies are slowed down (sim.copy_bandwidth), so that they outlast a hold, which
is short (criu.hold_ms).
"""
import os
import signal
import time

from concurrent_test import goes_on, resident
from harness import (criu_script, expect, expect_equal, main, needs_criu,
                     needs_program, needs_root, wait_until)
from lazy_test import runners_of

HOLD_S = 2
MIB = 32  # that do not compress: 5 s
SLOW = {"sim.copy_bandwidth": f"{MIB * 1024 // 5}KiB",
        "criu.hold_ms": f"{HOLD_S}s"}
# So slow that no test waits for its end: 50 s. A chunk takes a second.
ENDLESS = dict(SLOW, **{"sim.copy_bandwidth": "2MiB"})
MUCH = 100
SOON_S = 20  # on a slow machine
PHASES = ("preflight", "quiesce", "detach", "copy", "host memory", "seal")


def prepare(test, options):
    needs_root()
    needs_program("resident")
    node = test.node(options=options)
    needs_criu(node)
    return node


def stat_letter(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


def stands_still(pid):
    return stat_letter(pid) in "tT"


def copying(node, job, *flags):
    """A checkpoint whose tree is held while its memory is copied."""
    attempt = node.begin("checkpoint", job, "--mode", "stop", *flags,
                         as_json=False)
    expect(attempt.wait_phase(PHASES, "copy"), f"no copy: {attempt.errors}")
    pid = node.job(job)["pid"]
    wait_until(lambda: stands_still(pid), "the tree to stand still")
    return attempt, pid


def longer_than_the_hold(test):
    node = prepare(test, SLOW)
    job = resident(node, MIB)
    taken = node.cli("checkpoint", job, "--mode", "stop")
    expect(taken["stall_ms"] > 1.5 * HOLD_S * 1000, f"too fast: {taken}")
    node.verify(taken["image"])
    goes_on(node, job, "after the checkpoint")
    node.cli("stop", job)
    test.check_idle(node)


def stop_longer_than_the_hold(test):
    node = prepare(test, SLOW)
    job = resident(node, MIB)
    taken = node.cli("checkpoint", job, "--stop")
    expect(taken["total_ms"] > 1.5 * HOLD_S * 1000, f"too fast: {taken}")
    expect(node.state_of(job) in (None, "stopped"), "the job goes on")
    node.verify(taken["image"])
    test.check_idle(node)


def restore_longer_than_the_hold(test):
    """Eager: all is loaded before the tree runs."""
    node = prepare(test, {})
    taken = node.cli("checkpoint", resident(node, MIB), "--stop")
    node.options = SLOW
    node.restart()
    result = node.cli("restore", taken["image"])
    expect(result["loaded_ms"] > 1.5 * HOLD_S * 1000, f"too fast: {result}")
    goes_on(node, result["job"], "after the restore")
    node.cli("stop", result["job"])
    test.check_idle(node)


def posd_killed(test):
    """With nobody there the hold ends, and the processes run."""
    node = prepare(test, SLOW)
    job = resident(node, MIB)
    for flags in ([], ["--stop"]):
        attempt, pid = copying(node, job, *flags)
        node.kill()
        attempt.status()
        wait_until(lambda: not stands_still(pid), "the tree to run", SOON_S)
        node.start()
        wait_until(lambda: node.state_of(job) == "running", "the job to run")
        goes_on(node, job, f"after checkpoint {flags}")
        expect_equal(node.images(), [], "images")
    node.cli("stop", job)
    test.check_idle(node)


def posd_killed_in_restore(test):
    """The tree never runs, and is gone without a posd's help."""
    node = prepare(test, {})
    image = node.cli("checkpoint", resident(node, MIB), "--stop")["image"]
    node.options = SLOW
    node.restart()
    name = node.name()
    attempt, pid = restoring(node, image, name)
    node.kill()
    attempt.status()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "its end", SOON_S)
    node.start()
    expect(node.state_of(name) in (None, "failed"), "a job that never ran")
    test.check_idle(node)


def restoring(node, image, name):
    """An eager restore whose tree is held while its memory is loaded."""
    attempt = node.begin("restore", image, "--name", name, as_json=False)
    pid = wait_until(lambda: (node.job(name) or {}).get("pid")
                     or attempt.ended(), "the restored tree")
    expect(not attempt.ended(), f"it has ended: {attempt.errors}")
    expect_equal(node.state_of(name), "restoring", "state")
    return attempt, pid


def cancelled(test):
    """Ctrl-C while the job stands still: it goes on at once."""
    node = prepare(test, ENDLESS)
    job = resident(node, MUCH)
    for flags in ([], ["--stop"]):
        attempt, pid = copying(node, job, *flags)
        attempt.kill(signal.SIGINT)
        attempt.status()
        wait_until(lambda: not stands_still(pid), "the tree to run", SOON_S)
        wait_until(lambda: node.state_of(job) == "running", "the end", SOON_S)
        goes_on(node, job, f"after checkpoint {flags} was cancelled")
        expect_equal(node.images(), [], "images")
    node.cli("stop", job)
    test.check_idle(node)


def restore_cancelled(test):
    """Ctrl-C, and the end of posd, while memory is loaded: nothing is left."""
    node = prepare(test, {})
    image = node.cli("checkpoint", resident(node, MUCH), "--stop")["image"]
    node.options = ENDLESS
    node.restart()
    name = node.name()
    attempt, pid = restoring(node, image, name)
    attempt.kill(signal.SIGINT)
    attempt.status()
    wait_until(lambda: node.job(name) is None, "the restore's end", SOON_S)
    expect(not os.path.exists(f"/proc/{pid}"), "its tree is there")
    test.check_idle(node)
    attempt, pid = restoring(node, image, node.name())
    since = time.monotonic()
    node.stop()
    expect(time.monotonic() - since < SOON_S, "posd waited for the load")
    expect(attempt.status() != 0, "it was restored")
    expect(not os.path.exists(f"/proc/{pid}"), "its tree is there")
    test.check_nothing_left()
    node.start()


def runner_killed(test):
    """While it loads: the restore fails at once, and says why."""
    node = prepare(test, {})
    image = node.cli("checkpoint", resident(node, MUCH), "--stop")["image"]
    node.options = ENDLESS
    node.restart()
    name = node.name()
    attempt, pid = restoring(node, image, name)
    for runner in runners_of(node, name):
        os.kill(runner, signal.SIGKILL)
    expect(attempt.status(SOON_S) != 0, "it was restored")
    expect(b" is gone" in attempt.errors, f"unclear: {attempt.errors}")
    expect_equal(node.job(name), None, "what is left of the job")
    expect(not os.path.exists(f"/proc/{pid}"), "its tree is there")
    test.check_idle(node)


def criu_refuses(test):
    """The dump fails at once: nobody copies any further."""
    switch = test.path("fail")
    program_path = criu_script(
        test, f"if [ \"$1\" = swrk -a -e {switch} ]; then\n  exit 1\nfi\n")
    node = prepare(test, dict(ENDLESS, **{"criu.path": program_path}))
    job = resident(node, MUCH)
    open(switch, "w").close()
    since = time.monotonic()
    node.cli_fails("checkpoint", job, "--mode", "stop", code="CRIU")
    expect(time.monotonic() - since < SOON_S, "it waited for the copy")
    goes_on(node, job, "after a dump that failed")
    node.cli("stop", job)
    test.check_idle(node)


def posd_stands_still(test):
    """For longer than a hold, with --stop: the job goes on and there is no
    image, or it has ended with its image; never both, never neither."""
    node = prepare(test, SLOW)
    outcomes = []
    # A seal may be over before anybody has seen it begin.
    for phase in ("copy", "seal", "seal", "seal"):
        job = resident(node, MIB)
        attempt = node.begin("checkpoint", job, "--stop", as_json=False)
        seen = attempt.wait_phase(PHASES, phase)
        expect(seen or phase == "seal", f"no {phase}")
        if seen:
            os.kill(node.pid, signal.SIGSTOP)
            time.sleep(2 * HOLD_S)
            os.kill(node.pid, signal.SIGCONT)
        status = attempt.status()
        expect(seen or status == 0, "it failed by itself")
        images = node.images()
        if status == 0:
            expect_equal(len(images), 1, "images")
            expect(node.state_of(job) in (None, "stopped"), "and the job")
            node.verify(images[0])
            node.cli("images", "rm", images[0])
        else:
            expect_equal(images, [], "images of a job that goes on")
            goes_on(node, job, f"after posd stood still in {phase}")
            node.cli("stop", job)
        outcomes.append(f"{phase}: {'image' if images else 'job'}")
        if seen and phase == "seal":
            break
    test.note(" ".join(outcomes))
    expect(outcomes[0] == "copy: job", "the tree outlived its hold")
    test.check_idle(node)


TESTS = {f.__name__: f for f in (
    longer_than_the_hold, stop_longer_than_the_hold,
    restore_longer_than_the_hold, posd_killed, posd_killed_in_restore,
    cancelled, restore_cancelled, runner_killed, criu_refuses,
    posd_stands_still)}

if __name__ == "__main__":
    main(TESTS)
