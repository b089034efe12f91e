"""Images that are damaged, disks that are full, a CRIU that fails: refused with
the contract's code and the reason, nothing harmed, nothing left behind.
"""
import os
import shutil
import time

from harness import (LONG, CliError, Failure, criu_script, expect,
                     expect_equal, fill_up, main, needs_criu, needs_root,
                     wait_until)
from programs import (Program, Undisturbed, checkpoint, expect_whole, start,
                      start_and_checkpoint)


def prepare(test, name, target_s=1.0, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(node, program, target_s)


def files_of(node, image):
    """All that an image consists of: its directory and the packs."""
    store = os.path.join(node.state, "store")
    found = []
    for top in (os.path.join(store, "images", image),
                os.path.join(store, "packs")):
        for path, _, names in os.walk(top):
            found += [os.path.join(path, name) for name in names]
    return sorted(found)


def truncate(data, random):
    return data[:random.randrange(len(data))]


def flip(data, random):
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1:]


def later_version(data, _random):
    """Record files and packs: u16 at 12, after magic and kind."""
    return data[:12] + (999).to_bytes(2, "little") + data[14:]


def damaged(test):
    """Whatever is done to whichever file: verify and restore refuse."""
    node, program, undisturbed = prepare(test, "symbols")
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    node.verify(image)
    files = files_of(node, image)
    expect(len(files) > 5, f"files {files}")
    checked = 0
    for path in files:
        with open(path, "rb") as f:
            whole = f.read()
        if not whole:
            continue
        names = os.path.basename(path)
        own = whole[:4] == b"\x89POS"
        damages = [truncate, flip] + ([later_version] if own else [])
        for damage in damages if LONG or own else [test.random.choice(damages)]:
            bad = damage(whole, test.random)
            if bad == whole:
                continue
            with open(path, "wb") as f:
                f.write(bad)
            code = ("INCOMPATIBLE", "CORRUPT") if damage is later_version \
                else ("CORRUPT",)
            what = f"{damage.__name__} of {names}"
            for command in (("images", "verify"), ("restore",)):
                error = node.cli_fails(*command, image)
                expect(error.code in code, f"{what}: {command}: {error}")
                text = f"{error.message} {error.error}"
                expect(names in text or names.split(".")[0] in text or
                       image in text, f"{what}: not named: {text}")
            checked += 1
            with open(path, "wb") as f:
                f.write(whole)
    test.note(f"{checked} damages of {len(files)} files")
    node.verify(image)
    restored = node.cli("restore", image)["job"]
    expect_whole(node, restored, image, undisturbed)
    node.cli("images", "rm", image)
    test.check_idle(node)


def missing(test):
    """A file that is gone, a manifest that is gone, an image that never was."""
    node, program, undisturbed = prepare(test, "symbols")
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    for path in files_of(node, image):
        os.rename(path, path + ".away")
        node.cli_fails("restore", image, code=("CORRUPT", "NO_SUCH"))
        os.rename(path + ".away", path)
    node.cli_fails("restore", "i0000000000", code="NO_SUCH")
    node.cli_fails("images", "show", "i0000000000", code="NO_SUCH")
    node.cli_fails("images", "rm", "../../etc", code=("NO_SUCH", "INVALID"))
    restored = node.cli("restore", image)["job"]
    expect_whole(node, restored, image, undisturbed)
    node.cli("images", "rm", image)
    test.check_idle(node)


def disk_full(test):
    """The store is full while an image is written: DISK_FULL, the job goes on,
    the space comes back, and with room the same checkpoint succeeds."""
    needs_root()
    node, program, undisturbed = prepare(
        test, "vector_add", 2.5, store_tmpfs_bytes=24 << 20)
    store = os.path.join(node.state, "store")
    ballast = os.path.join(store, "ballast")
    job = start(node, program, undisturbed, 0.02)

    def free_bytes():
        s = os.statvfs(store)
        return s.f_bavail * s.f_frsize
    empty = free_bytes()
    failed = 0
    for room in (0, 64 << 10, 500 << 10, 1 << 20):
        if node.state_of(job) != "running":
            job = start(node, program, undisturbed, 0.02)
        with open(ballast, "wb") as f:
            left = max(0, empty - room)
            f.write(b"x" * left)
        before = free_bytes()
        try:
            node.cli("images", "rm", node.cli("checkpoint", job)["image"])
        except CliError as error:
            # Or the job has ended in the meantime.
            expect(error.code == "DISK_FULL" or error.code == "NOT_READY" and
                   node.state_of(job) == "exited",
                   f"with {room} bytes: {error}")
            failed += error.code == "DISK_FULL"
            wait_until(lambda: free_bytes() >= before,
                       "the space of a failed checkpoint")
        os.unlink(ballast)
    expect(failed >= 2, f"{failed} checkpoints failed")
    taken = checkpoint(node, job)
    node.finish_job(job, undisturbed.output)
    if taken:
        node.verify(taken["image"])
        restored = node.cli("restore", taken["image"])["job"]
        expect_whole(node, restored, taken["image"], undisturbed)
        node.cli("images", "rm", taken["image"])
    test.note(f"{failed} checkpoints met a full disk")
    test.check_idle(node)


def journal_full(test):
    """A job that cannot be written down is not started: posd's successor would
    not know of it."""
    needs_root()
    node = test.node(jobs_tmpfs_bytes=1 << 20)
    program = Program(test, "vector_add")
    ballast = fill_up(os.path.join(node.state, "jobs"))
    for _ in range(2):
        try:
            node.run(*program.command(3))
        except CliError as error:
            expect_equal(error.code, "DISK_FULL", f"code of {error}")
        else:
            raise Failure("a job without a journal was started")
        expect_equal(node.cli("ps")["jobs"], [], "jobs")
        test.check_idle(node)
    os.unlink(ballast)
    job = node.run(*program.command(3))
    expect_equal(node.wait(job), 0, "exit status")
    test.check_idle(node)


def criu_fails(test):
    """What CRIU says is shown as it is; the job goes on."""
    needs_root()
    switch = test.path("fail")
    program_path = criu_script(
        test, f"if [ \"$1\" = swrk -a -e {switch} ]; then\n"
        "  echo 'Error (test): the moon is in the wrong house' >&2\n"
        "  exit 1\nfi\n")
    node, program, undisturbed = prepare(
        test, "vector_add", 2.0, options={"criu.path": program_path})
    job = start(node, program, undisturbed, 0.05)
    image = checkpoint(node, job)["image"]
    open(switch, "w").close()
    error = node.cli_fails("checkpoint", job, code="CRIU")
    expect("the moon is in the wrong house" in str(error.error), f"{error}")
    error = node.cli_fails("restore", image, "--name", node.name(), code="CRIU")
    expect("the moon is in the wrong house" in str(error.error), f"{error}")
    os.unlink(switch)
    expect_equal(node.images(), [image], "images")
    again = checkpoint(node, job)
    node.finish_job(job, undisturbed.output)
    for one in [image] + ([again["image"]] if again else []):
        restored = node.cli("restore", one, "--name", node.name())["job"]
        expect_whole(node, restored, one, undisturbed)
        node.cli("images", "rm", one)
    test.check_idle(node)


def space_comes_back(test):
    """Images that are removed free their space without anybody's help."""
    node, program, undisturbed = prepare(test, "large_buffers", 1.5)
    _, image = start_and_checkpoint(node, program, undisturbed, "--stop")
    packs = os.path.join(node.state, "store", "packs")
    expect(os.listdir(packs), "no packs")
    node.cli("images", "rm", image)
    wait_until(lambda: not os.listdir(packs), "packs to be removed")
    test.check_idle(node)


TESTS = {f.__name__: f for f in (damaged, missing, disk_full,
                                 journal_full, criu_fails, space_comes_back)}

if __name__ == "__main__":
    main(TESTS)
