"""What users do with images besides restoring them: compare, export, import, free
space; checkpoints that posd makes by itself; traces.
"""
import contextlib
import json
import os
import shutil
import subprocess
import time

from harness import (CliError, criu_script, expect, expect_equal, fill_up,
                     main, needs_criu, needs_root, wait_until)
from programs import (Program, Undisturbed, checkpoint, expect_whole, start,
                      start_and_checkpoint)


# Of each program: enough to be hit early, and soon over.
ITERATIONS = {"symbols": 1600, "large_buffers": 12}


def prepare(test, name="symbols", times=1, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(
        node, program, iterations=ITERATIONS[name] * times)


def show(test):
    """Sizes of allocations and handles add up to the image's."""
    node, program, undisturbed = prepare(test, "large_buffers")
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    shown = node.cli("images", "show", image)
    device = [m for m in shown["memory"] if m["kind"] == "device memory"]
    expect(device, f"no device memory in {shown['memory']}")
    expect_equal(sum(m["bytes"] for m in device), shown["live_bytes"],
                 "bytes of the allocations")
    stored = sum(s["stored_bytes"] for s in shown["sessions"])
    expect_equal(sum(m["stored_bytes"] for m in shown["memory"]), stored,
                 "stored bytes of the regions")
    expect_equal(shown["memory_left_out"], 0, "regions left out")
    kinds = {h["kind"]: h for h in shown["handles"]}
    for kind in ("context", "module"):
        expect(kinds.get(kind, {}).get("count", 0) >= 1,
               f"no {kind} in {kinds}")
    expect(shown["largest_handles"], "no handles")
    sizes = [h["bytes"] for h in shown["largest_handles"]]
    expect_equal(sizes, sorted(sizes, reverse=True), "order of the handles")
    node.cli("images", "rm", image)
    test.check_idle(node)


def diff_and_gc(test):
    """Two images of a job: something changed, something is the same; and what
    gc gives back once they are gone."""
    node, program, undisturbed = prepare(test, "large_buffers")
    # Its end is not awaited: the second image stops it. The first shows all
    # its memory.
    job = start(node, program, undisturbed, 0.02, times=40)
    wait_until(lambda: b"iteration 1/" in node.output(job),
               "the first iteration", 30)
    images = []
    for flags in ((), ("--stop",)):
        taken = checkpoint(node, job, *flags)
        expect(taken is not None, "the job ended too early")
        images.append(taken["image"])
    first, second = images
    same = node.cli("images", "diff", first, first)
    expect_equal(same["changed_bytes"], 0, "bytes changed to itself")
    expect_equal(same["differences"], [], "differences to itself")
    both = node.cli("images", "diff", first, second)
    expect(both["same_bytes"] > 0, f"nothing is the same: {both}")
    total = both["same_bytes"] + both["changed_bytes"]
    expect_equal(total + both["only_a_bytes"],
                 same["same_bytes"], "bytes compared")
    node.cli_fails("images", "diff", first, "i0000000000", code="NO_SUCH")
    for image in (first, second):
        node.cli("images", "rm", image)
    packs = os.path.join(node.state, "store", "packs")
    freed = node.cli("images", "gc")
    expect_equal(os.listdir(packs), [], "packs after gc")
    expect(freed["held_back"] is None, f"held back: {freed}")
    again = node.cli("images", "gc")
    expect_equal(again["freed_bytes"], 0, "bytes freed by a second gc")
    test.check_idle(node)


def export_import(test):
    """A file is refused when it was cut or changed, and restores in a store with
    another seed."""
    node, program, undisturbed = prepare(test)
    job, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    path = test.path("image")
    exported = node.cli("images", "export", image, path)
    expect_equal(exported["bytes"], os.path.getsize(path), "bytes exported")
    node.cli_fails("images", "export", image, path, code="EXISTS")
    with open(path, "rb") as f:
        whole = f.read()
    packs = sorted(os.listdir(os.path.join(node.state, "store", "packs")))
    bad = test.path("bad")
    for _ in range(6):
        at = test.random.randrange(len(whole))
        for damaged in (whole[:at],
                        whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:]):
            with open(bad, "wb") as f:
                f.write(damaged)
            node.cli_fails("images", "import", bad,
                           code=("CORRUPT", "INCOMPATIBLE"))
    expect_equal(node.images(), [image], "images after bad imports")
    expect_equal(sorted(os.listdir(os.path.join(node.state, "store", "packs"))),
                 packs, "packs after bad imports")
    expect_equal(os.listdir(os.path.join(node.state, "store", "tmp")), [],
                 "drafts after bad imports")
    # Another store at the same place: another seed, another key.
    node.stop()
    shutil.rmtree(os.path.join(node.state, "store"))
    node.start()
    expect_equal(node.images(), [], "images of the new store")
    with open(path, "rb") as f:
        running = node.begin("images", "import", "-", stdin=f)
        imported = running.result()
    expect_equal(imported["source"], image, "source")
    expect_equal(imported["job"], job, "job")
    node.verify(imported["image"])
    restored = node.cli("restore", imported["image"])["job"]
    expect_whole(node, restored, imported["image"], undisturbed)
    node.cli("images", "rm", imported["image"])
    test.check_idle(node)


def import_is_not_for_all(test):
    """Users import what this posd exported as theirs, and nothing else."""
    node, program, undisturbed = prepare(test)
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    path = test.path("image")
    node.cli("images", "export", image, path)
    os.chmod(path, 0o644)
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
            os.path.join(node.bin, "pos-cli"), "--socket", node.socket,
            "--json", "images", "import", path]
    os.chmod(node.directory, 0o755)
    done = subprocess.run(argv, capture_output=True, timeout=30)
    expect_equal(json.loads(done.stdout)["error"]["code"], "DENIED",
                 "error for another user")
    done = subprocess.run(argv[:-2] + ["gc"], capture_output=True, timeout=30)
    expect_equal(json.loads(done.stdout)["error"]["code"], "DENIED",
                 "error of gc for a user")
    done = subprocess.run(argv[:-2] + ["export", image, "-"],
                          capture_output=True, timeout=30)
    expect(done.returncode != 0 and b"no image" in done.stdout + done.stderr,
           f"another user's export: {done}")
    expect_equal(node.images(), [image], "images")
    node.cli("images", "rm", image)
    test.check_idle(node)


def export_interrupted(test):
    """Ctrl-C, a reader that goes away, a disk that is full: no file, no rest."""
    node, program, undisturbed = prepare(test, "large_buffers")
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    place = test.path("full")
    os.makedirs(place)
    test.mount_tmpfs(place, 256 << 10)
    node.cli_fails("images", "export", image, os.path.join(place, "f"),
                   code="DISK_FULL")
    expect_equal(os.listdir(place), [], "what is left on the full disk")
    # Nobody reads standard output: the pipe fills, then Ctrl-C.
    reader, writer = os.pipe()
    running = node.begin("images", "export", image, "-", stdout=writer,
                         as_json=False)
    os.close(writer)
    wait_until(lambda: os.read(reader, 1), "the first byte")
    running.kill(2)
    expect_equal(running.status(), 130, "status after Ctrl-C")
    os.close(reader)
    # A reader that ends early.
    reader, writer = os.pipe()
    running = node.begin("images", "export", image, "-", stdout=writer,
                         as_json=False)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    expect(running.status() not in (0, None), "success without a reader")
    node.cli("images", "rm", image)  # nothing holds it
    test.check_idle(node)


def periodic(test):
    """posd's own checkpoints: kept as many as asked for, over posd's death,
    until the job ends; each restores."""
    node, program, undisturbed = prepare(test, "symbols", 4, keep_jobs=True)
    job = start(node, program, undisturbed, 0.02)
    tagged = checkpoint(node, job, "--tag", "mine")["image"]
    node.cli("checkpoint", job, "--every", "300ms", "--keep", "2")
    series = node.job(job)["series"]
    expect_equal(series["every_ms"], 300, "every_ms")
    expect_equal(series["keep"], 2, "keep")

    def made():
        return set(node.images()) - {tagged}
    seen = set()

    def at_least(count):
        seen.update(made())
        return len(seen) >= count or node.calls(job) is None
    wait_until(lambda: at_least(3), "three images of the series", 30)
    expect(len(made()) <= 3, f"images {made()}")  # one may just have come
    node.kill()
    seen.update(os.listdir(os.path.join(node.state, "store", "images")))
    before = len(seen)
    node.start()
    expect_equal(node.job(job)["series"]["every_ms"], 300, "after a restart")
    wait_until(lambda: at_least(before + 1), "an image of the next posd", 30)
    expect(len(seen) > before, "no image after the restart")
    expect(node.calls(job) is not None, "the job ended too early")
    node.cli("checkpoint", job, "--every", "0")
    expect_equal(node.job(job)["series"], None, "series after --every 0")
    wait_until(lambda: node.state_of(job) != "checkpointing", "the last one")
    images = made()
    expect(1 <= len(images) <= 3, f"images {images}")
    expect(tagged in node.images(), "an image that is not of the series")
    node.cli("stop", job)
    last = sorted(images)[-1]
    node.verify(last)
    restored = node.cli("restore", last, "--name", node.name())["job"]
    expect_equal(node.job(restored)["series"], None, "of a restored job")
    expect_whole(node, restored, last, undisturbed)
    for image in node.images():
        node.cli("images", "rm", image)
    test.check_idle(node)


def periodic_refused(test):
    needs_root()
    node = test.node()
    node.cli_fails("checkpoint", "nobody", "--every", "1m", code="NO_SUCH")
    program = Program(test, "vector_add")
    job = node.run(*program.command(3))
    node.wait(job)
    node.cli_fails("checkpoint", job, "--every", "1m", code="NOT_READY")
    test.check_idle(node)


def periodic_not_written(test):
    """Where what is asked for cannot be written down, what was asked for before
    goes on."""
    needs_root()
    node = test.node(jobs_tmpfs_bytes=1 << 20)
    job = node.run("/bin/sleep", "100")
    node.cli("checkpoint", job, "--every", "1h", "--keep", "3")
    before = node.job(job)["series"]
    ballast = fill_up(os.path.join(node.state, "jobs"))
    for every in ("2h", "0"):
        node.cli_fails("checkpoint", job, "--every", every, "--keep", "1",
                       code="DISK_FULL")
        expect_equal(node.job(job)["series"], before, "the series")
    os.unlink(ballast)
    node.kill()
    node.start()
    expect_equal(node.job(job)["series"], before, "the series after a restart")
    node.cli("stop", job)
    test.check_idle(node)


def periodic_changed(test):
    """What is kept is what is asked for when a checkpoint is done, not when it
    began."""
    switch, held = test.path("hold"), test.path("held")
    criu = criu_script(
        test, f"if [ \"$1\" = swrk ]; then\n  [ -e {switch} ] && : > {held}\n"
        f"  while [ -e {switch} ]; do sleep 0.02; done\nfi\n")
    node, program, undisturbed = prepare(
        test, "symbols", 4, keep_jobs=True, options={"criu.path": criu})
    job = start(node, program, undisturbed, 0.02, times=50)
    first = checkpoint(node, job, "--tag", "mine")["image"]
    open(switch, "w").close()
    node.cli("checkpoint", job, "--every", "100ms", "--keep", "1")
    # Of the series: one, and the next, at which CRIU is held.
    os.unlink(switch)
    wait_until(lambda: len(node.images()) >= 2, "an image of the series")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(held)
    open(switch, "w").close()
    wait_until(lambda: os.path.exists(held), "a checkpoint that is held")
    kept = set(node.images()) - {first}
    expect_equal(len(kept), 1, "images kept")
    node.cli("checkpoint", job, "--every", "1h", "--keep", "9")
    os.unlink(switch)
    wait_until(lambda: node.job(job)["series"]["last_image"] not in kept,
               "the held checkpoint")
    wait_until(lambda: node.state_of(job) == "running", "its end")
    expect(kept < set(node.images()), f"{kept} is not among {node.images()}")
    node.cli("checkpoint", job, "--every", "0")
    node.cli("stop", job)
    for image in node.images():
        node.cli("images", "rm", image)
    test.check_idle(node)


def trace(test):
    """A trace has the phases, one after the other, and each session's steps."""
    node, program, undisturbed = prepare(test)
    job = start(node, program, undisturbed, 0.2)
    path = test.path("trace.json")
    taken = checkpoint(node, job, "--stop", "--trace", path)
    expect(taken is not None, "the job ended too early")
    names = check_trace(path, taken["total_ms"])
    for name in ("quiesce", "copy", "seal", "gate and drain",
                 "copy device memory", "CRIU"):
        expect(name in names, f"no {name} in {names}")
    other = test.path("restore.json")
    result = node.cli("restore", taken["image"], "--trace", other)
    names = check_trace(other, None)
    for name in ("preflight", "load", "CRIU", "admit"):
        expect(name in names, f"no {name} in {names}")
    expect_whole(node, result["job"], taken["image"], undisturbed)
    node.cli_fails("restore", taken["image"], "--trace", "/nonexistent/t",
                   code="NO_SUCH")
    node.cli("images", "rm", taken["image"])
    test.check_idle(node)


def check_trace(path, total_ms):
    with open(path) as f:
        events = json.load(f)["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    phases = sorted((e for e in spans if e["tid"] == 0 and e["name"] != "CRIU"),
                    key=lambda e: e["ts"])
    for a, b in zip(phases, phases[1:]):
        expect(a["ts"] + a["dur"] <= b["ts"] + 2,
               f"phases {a} and {b} overlap")
    if total_ms is not None:
        end = max(e["ts"] + e["dur"] for e in spans)
        expect(end <= total_ms * 1000 * 1.5 + 100_000,
               f"the trace ends at {end} us of {total_ms} ms")
    named = {e["tid"] for e in events if e["name"] == "thread_name"}
    expect_equal(named, {e["tid"] for e in spans}, "rows with a name")
    return {e["name"] for e in spans}


TESTS = {f.__name__: f for f in (
    show, diff_and_gc, export_import, import_is_not_for_all,
    export_interrupted, periodic, periodic_refused,
    periodic_not_written, periodic_changed, trace)}

if __name__ == "__main__":
    main(TESTS)
