"""Steps about how and where a session comes back: the same addresses again and
again, another posd on the same GPU, other modes of copying."""
import json
import os
import re
import shutil
import time

from session import END_S, NotRun, StepFailed


def program_of(session, name):
    path = os.path.join(session.build, "programs", name)
    if not os.path.exists(path):
        raise NotRun(f"{name} was not built")
    return path


def job_log(node, job):
    return os.path.join(node.state, "jobs", job, "output.log")


def begin(session, node, name, program, iterations, env=None):
    """A detached job that has printed its first iterations."""
    from processes import read_text
    job = session.pos_json(node, "run", "--detach", "--name", name, "--",
                           program, str(iterations), env=env)["job"]
    until = time.monotonic() + min(60, session.left())
    while "iteration 2/" not in read_text(job_log(node, job)):
        if time.monotonic() > until:
            raise StepFailed(f"{name} did not get to its second iteration: "
                             f"{read_text(job_log(node, job))[-300:]}")
        time.sleep(0.01)
    return job


def wait_more(session, node, job, seconds=30):
    """Until a job that goes on has printed one more iteration."""
    from processes import read_text
    log = job_log(node, job)
    before = read_text(log).count("iteration ")
    until = time.monotonic() + min(seconds, session.left())
    while read_text(log).count("iteration ") <= before:
        if time.monotonic() > until:
            raise StepFailed(f"{job} does not go on: {read_text(log)[-300:]}")
        time.sleep(0.01)


def again(session, data):
    """One image restored again and again, each time by a runner of its own: how
    often device addresses (the arena, the variables of modules, which the
    driver places itself) were granted at the place where they were."""
    session.needs_criu()
    program = program_of(session, "symbols")
    node = session.node()
    job = begin(session, node, "symbols", program, 100000)
    taken = session.pos_json(node, "checkpoint", job, timeout_s=60)
    session.pos(node, "stop", job)
    tries = 2 if session.quick else 20
    data.update(restored=0, tries=0, failures=[], restore_ms=[])
    for _ in range(tries):
        if session.left() < 3:
            break
        data["tries"] += 1
        done = session.pos(node, "--json", "restore", taken["image"],
                           timeout_s=30)
        if not done.ok:
            data["failures"].append(re.sub(
                r"\s+", " ", done.out or done.why())[:400])
            continue
        restored = json.loads(done.out)
        data["restored"] += 1
        data["restore_ms"].append(round(restored["restore_ms"], 1))
        # It goes on, with the right values: a wrong one would end it.
        wait_more(session, node, restored["job"])
        session.pos(node, "stop", restored["job"])
    data["arena_refused"] = sum("does not grant" in why
                                for why in data["failures"])
    if data["tries"] < tries:
        data["note"] = f"time for {data['tries']} of {tries}"
    if data["restored"] == 0:
        raise StepFailed(f"none of {data['tries']}: {data['failures'][:1]}")
    if data["failures"]:
        raise StepFailed(f"{data['restored']} of {data['tries']} restored; "
                         f"first failure: {data['failures'][0]}")


def two_posds(session, data):
    """Two services on one GPU, a job on each; one of them goes on under the
    other, from a copy of the image store, while that one's own job runs."""
    session.needs_criu()
    from processes import read_text
    program = program_of(session, "resident")
    # Pauses, so that a checkpoint comes before its end.
    memory = {"RESIDENT_MIB": "16", "RESIDENT_MS": "20"}
    here = session.node()
    stays = begin(session, here, "stays", program, 1000000, memory)
    for steps in (75, 300):  # more where pos-cli took too long to start
        want = session.pos(here, "run", "--", program, str(steps), timeout_s=60,
                           env=memory)
        if not want.ok:
            raise StepFailed(f"on the first: {want.why()}")
        job = begin(session, here, f"mover-{steps}", program, steps, memory)
        done = session.pos(here, "--json", "checkpoint", job, "--stop",
                           timeout_s=60)
        if done.ok or "is exited" not in done.out:
            break
    if not done.ok:
        raise StepFailed(f"checkpoint: {done.why()}")
    taken = data["checkpoint"] = json.loads(done.out)
    before = read_text(job_log(here, job))
    there = session.node()
    # A store is read when posd starts.
    there.process.terminate()
    there.process.wait(END_S)
    there.process.stdout.close()
    store = os.path.join(there.state, "store")
    shutil.rmtree(store)
    shutil.copytree(os.path.join(here.state, "store"), store)
    there.start()
    own = begin(session, there, "own", program, 1000000, memory)
    restored = data["restored"] = session.pos_json(
        there, "restore", taken["image"], timeout_s=60)
    ended = session.pos(there, "wait", restored["job"], timeout_s=60)
    if not ended.ok:
        raise StepFailed(f"on the second it ended with {ended.why()}: "
                         f"{read_text(job_log(there, restored['job']))[-400:]}")
    after = read_text(job_log(there, restored["job"]))
    if not want.out.endswith(after) or not after or (
            before[:len(want.out) - len(after)] + after != want.out):
        raise StepFailed("on the second posd it printed something else: "
                         f"{after[-300:]!r}")
    data["output"] = "same"
    wait_more(session, here, stays)  # neither hurt the other's
    wait_more(session, there, own)
    session.pos(here, "stop", stays)
    session.pos(there, "stop", own)


def resident_job(session):
    """Little of its memory changes; all of it is checked again and again."""
    gib = 0.0625 if session.quick or session.kind != "cuda" else 4
    node = session.node()
    return node, begin(session, node, "resident",
                       program_of(session, "resident"), 1000000,
                       {"RESIDENT_MIB": str(int(gib * 1024)),
                        "RESIDENT_PERCENT": "5", "RESIDENT_MS": "20"})


def in_this_pos(done, word):
    """Of a command that failed: does pos-cli or posd not know `word` at all?"""
    text = done.out + done.err
    if "INVALID" in text and word in text:
        raise NotRun(f"this POS has no {word}")
    raise StepFailed(f"{word}: {done.why()} {text[-400:]}")


def checkpoint_mode(mode):
    """A step: a checkpoint that copies while the job goes on, restored."""
    def run(session, data):
        session.needs_criu()
        node, job = resident_job(session)
        stop = data["stop"] = session.pos_json(node, "checkpoint", job,
                                               "--mode", "stop", timeout_s=60)
        done = session.pos(node, "--json", "checkpoint", job, "--mode", mode,
                           timeout_s=90)
        if not done.ok:
            in_this_pos(done, mode)
        taken = data[mode] = json.loads(done.out)
        data["stall_of_stop"] = round(
            taken["stall_ms"] / max(stop["stall_ms"], 1e-3), 3)
        wait_more(session, node, job)
        session.pos(node, "stop", job)
        restored = data["restore"] = session.pos_json(
            node, "restore", taken["image"], timeout_s=60)
        wait_more(session, node, restored["job"])
        session.pos(node, "stop", restored["job"])
    return run


def lazy(session, data):
    """A restore whose job runs before its memory is there, beside one that
    waits for it."""
    session.needs_criu()
    node, job = resident_job(session)
    taken = session.pos_json(node, "checkpoint", job, timeout_s=60)
    session.pos(node, "stop", job)
    for name, flags in (("eager", ()), ("lazy", ("--lazy",))):
        done = session.pos(node, "--json", "restore", taken["image"], *flags,
                           timeout_s=60)
        if not done.ok:
            in_this_pos(done, "--lazy" if flags else "restore")
        data[name] = json.loads(done.out)
        wait_more(session, node, data[name]["job"])
        session.pos(node, "stop", data[name]["job"])
