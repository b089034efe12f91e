"""Steps with PyTorch, NVIDIA's libraries and CuPy, unchanged: natively, under
posd, restored."""
import glob
import importlib.util
import os
import sys
import time

from session import NotRun, StepFailed, refusals

HERE = os.path.dirname(os.path.abspath(__file__))
CUPY = os.path.join(HERE, "../../tests/cr/cupy_program.py")
LIBRARY = os.path.join(HERE, "library_program.py")
TORCH = os.path.join(HERE, "torch_program.py")


def needs_module(name):
    if importlib.util.find_spec(name) is None:
        raise NotRun(f"no {name} for {sys.executable}")


def comparable(output):
    """What may not differ: everything but times."""
    return [line for line in output.splitlines()
            if not line.startswith(("time ", "device "))]


def stages(output):
    return [line[6:] for line in output.splitlines()
            if line.startswith("stage ")]


def times(output):
    return {name: float(seconds) for word, name, seconds in (
        line.split() for line in output.splitlines()
        if line.startswith("time ")) if word == "time"}


def first_difference(a, b):
    for x, y in zip(a, b):
        if x != y:
            return f"{x!r} against {y!r}"
    return f"{len(a)} lines against {len(b)}"


def under_pos(session, node, argv, data, timeout_s, env=None):
    """A run as a job; a failure names the calls that were refused."""
    done = session.either(argv, node, timeout_s, env)
    from processes import read_text
    refused = refusals(done.err, read_text(node.log))
    if refused:
        data["refused_calls"] = refused
    if not done.ok:
        came = stages(done.out)
        at = f" in stage {came[-1]!r}" if came else ""
        errors = [line for line in done.err.strip().splitlines()
                  if "Error" in line or "CUDA" in line][-2:]
        raise StepFailed(f"under POS{at}: {done.why()}; {' '.join(errors)[:400]}"
                         f"; refused: {'; '.join(refused) or 'none logged'}")
    return done


def interrupted(session, node, argv, want, mark, data, env=None):
    """Checkpointed in the middle with --stop, restored: the same output. The
    rest of the step counts also where that cannot be."""
    if session.criu is not None:
        data["restored_output"] = f"not run: no CRIU here: {session.criu}"
        return
    job = session.pos_json(node, "run", "--detach", "--name", "middle", "--",
                           *argv, env=env)["job"]
    log = os.path.join(node.state, "jobs", job, "output.log")
    from processes import read_text
    until = time.monotonic() + min(90, session.left() - 2)
    while mark not in read_text(log):
        if time.monotonic() > until:
            raise StepFailed(f"the job did not get to {mark!r}: "
                             f"{read_text(log)[-300:]}")
        time.sleep(0.01)
    taken = session.pos_json(node, "checkpoint", job, "--stop", timeout_s=90)
    data["checkpoint"] = taken
    data["restored"] = session.pos_json(node, "restore", taken["image"],
                                        timeout_s=90)
    again = data["restored"]["job"]
    before = read_text(log)
    ended = session.pos(node, "wait", again, timeout_s=120)
    log_again = os.path.join(node.state, "jobs", again, "output.log")
    output = read_text(log_again)
    if log_again != log:
        output = before + output
    if not ended.ok:
        raise StepFailed(f"restored, it ended with {ended.why()}; "
                         f"{output[-400:]}")
    # The log holds standard error, too: only what was compared before counts.
    words = ("step ", "matmul ", "iteration ", "digest ", "PASS")
    got, expected = ([line for line in comparable(text)
                      if line.startswith(words)] for text in (output, want))
    if got != expected:
        raise StepFailed("restored, another output: "
                         + first_difference(got, expected))
    data["restored_output"] = "same"


def by_stage(output):
    """Stage -> what it printed that may not differ, and whether it failed."""
    found, lines = {}, []
    for line in output.splitlines():
        if line.startswith("stage "):
            lines = found.setdefault(line[6:], [])
        elif line.startswith(("digest ", "step ", "failed ")):
            lines.append(line)
    return found


# Before the first stage, and whatever comes first.
PREPARATION = ("import", "device")


def torch_run(session, node, steps, timeout_s, data, where):
    """The output of all stages. One that takes the process along is left out, and
    the others run in another process: (output, stage -> how it ended)."""
    import torch_stages
    left = list(torch_stages.NAMES)
    output, ends = "", {}
    while left and session.left() > 5:
        done = session.either([sys.executable, TORCH, str(steps), *left], node,
                              min(timeout_s, session.left() - 2), ok=(0, 1))
        output += done.out + "\n"
        refused = refusals(done.err)
        if refused:
            data.setdefault("refused_calls", []).extend(refused)
        came = [name for name in stages(done.out) if name not in PREPARATION]
        whole = done.status in (0, 1) and not done.timed_out and (
            came[-1:] == left[-1:])
        if whole:
            break
        if not came:
            raise StepFailed(
                f"{where}: did not get to its first stage: {done.why()} "
                f"{' '.join(done.err.split())[-400:]}")
        ends[came[-1]] = f"took the process along: {done.why()}"
        left = left[left.index(came[-1]) + 1:]
    return output, ends


def compare_stages(native, pos):
    """Stage -> "same", or what is different under POS."""
    verdicts = {}
    for name, want in native[0].items():
        if name in PREPARATION:
            continue
        got = pos[0].get(name)
        bad = [line for line in want if line.startswith("failed ")]
        if bad or name in native[1]:
            verdicts[name] = f"fails natively: {native[1].get(name) or bad[0]}"
        elif name in pos[1]:
            verdicts[name] = pos[1][name]
        elif got is None:
            verdicts[name] = "did not run under POS"
        elif any(line.startswith("failed ") for line in got):
            verdicts[name] = [line for line in got
                              if line.startswith("failed ")][0]
        elif got != want:
            verdicts[name] = "other results: " + first_difference(want, got)
        else:
            verdicts[name] = "same"
    return verdicts


def notes(output):
    return [line[5:] for line in output.splitlines() if line.startswith("note ")]


def torch(session, data):
    """All stages natively and under POS; then the transformer, interrupted."""
    if session.kind == "sim":
        raise NotRun("PyTorch's kernels are machine code of GPUs")
    session.needs_native()
    needs_module("torch")
    steps = 12 if session.quick else 60
    native_out, native_ends = torch_run(session, None, steps, 90, data, "natively")
    data["native_step_s"] = times(native_out)
    node = session.node()
    pos_out, pos_ends = torch_run(session, node, steps, 120, data, "under POS")
    from processes import read_text
    data.setdefault("refused_calls", []).extend(refusals(read_text(node.log)))
    data["pos_step_s"] = times(pos_out)
    data["step_time_ratio"] = {
        name: round(data["pos_step_s"][name] / s, 4)
        for name, s in data["native_step_s"].items()
        if name in data["pos_step_s"] and s > 0}
    data["notes"] = {"native": notes(native_out), "pos": notes(pos_out)}
    verdicts = data["stages"] = compare_stages(
        (by_stage(native_out), native_ends), (by_stage(pos_out), pos_ends))
    bad = {name: v for name, v in verdicts.items()
           if v != "same" and not v.startswith("fails natively")}
    if any(v.startswith("other results") for v in bad.values()):
        again, _ = torch_run(session, None, steps, 60, data, "natively again")
        data["native_repeats"] = by_stage(again) == by_stage(native_out)
    if verdicts.get("transformer") == "same":
        try:
            want = "\n".join(by_stage(pos_out)["transformer"] + ["PASS"])
            interrupted(session, node,
                        [sys.executable, TORCH, str(steps), "transformer"], want,
                        f"step transformer {steps // 4}/", data,
                        {"POS_STEP_PAUSE_S": "0.05"})
        except StepFailed as error:
            bad["transformer, restored"] = str(error)
    if bad:
        raise StepFailed("; ".join(f"{n}: {v[:300]}" for n, v in bad.items()))
    if "same" not in verdicts.values():
        raise NotRun("; ".join(f"{n}: {v[:200]}" for n, v in verdicts.items()))


LIBRARIES = ("nvrtc", "cublas", "cudnn", "cufft", "curand")


def library_path():
    """Where the toolkit and Python packages have NVIDIA's libraries."""
    from node import cuda_runtime  # reads POS_BUILD when imported
    found = [os.environ.get("LD_LIBRARY_PATH"), cuda_runtime()]
    for directory in sys.path:
        found += sorted(glob.glob(os.path.join(directory, "nvidia/*/lib")))
    return {"LD_LIBRARY_PATH": ":".join(filter(None, found))}


def one_library(session, node, name):
    """A row: what it printed natively and under POS, or why it did not run."""
    argv = [sys.executable, LIBRARY, name]
    row = {"library": name}
    outputs = {}
    for where, on in (("native", None), ("pos", node)):
        if on is None and session.native is not None:
            continue
        done = session.either(argv, on, 40, library_path(), ok=(0, 77))
        if done.status == 77:
            row["verdict"] = "not here: " + done.out.strip()[:200]
            return row
        outputs[where] = done
        row[where + "_s"] = round(done.seconds, 3)
    pos, native = outputs["pos"], outputs.get("native")
    told = pos.out.strip().splitlines()[-1:] or [""]
    if not pos.ok:
        row["refused"] = refusals(pos.err)
    if native is not None and not native.ok:
        row["verdict"] = "fails natively, too" if not pos.ok else (
            f"fails natively only: {native.why()}")
        row["native_output"] = native.out[-500:]
    elif not pos.ok and session.kind == "sim" and name != "nvrtc":
        row["verdict"] = f"machine code of GPUs: {told[0]}"
    elif not pos.ok:
        row["verdict"] = f"fails under POS: {pos.why()} {told[0]}"
    elif native is None:
        row["verdict"] = "runs"
    elif native.out != pos.out:
        row["verdict"] = "other results than natively"
        row["outputs"] = [native.out[-500:], pos.out[-500:]]
    else:
        row["verdict"] = "same"
    return row


def libraries(session, data):
    """NVIDIA's libraries, each in a process of its own."""
    node = session.node()
    rows = data["libraries"] = [one_library(session, node, name)
                                for name in LIBRARIES]
    bad = [f"{r['library']}: {r['verdict']}" for r in rows
           if r["verdict"].startswith(("fails under POS", "other"))]
    if bad:
        raise StepFailed("; ".join(bad))
    if not any(r["verdict"] in ("same", "runs") for r in rows):
        raise NotRun("; ".join(f"{r['library']}: {r['verdict']}" for r in rows))


def cupy(session, data):
    if session.kind != "sim":
        session.needs_native()
    needs_module("cupy")
    cache = os.path.join(session.directory, "cupy")
    os.makedirs(cache, exist_ok=True)
    argv = [sys.executable, CUPY, "40", cache]
    native = None
    if session.native is None:
        native = session.run(argv, 60)  # fills the cache of kernels
        if native.ok:
            native = session.run(argv, 60)
        if not native.ok:
            raise StepFailed(f"natively: {native.why()}")
        data["native_s"] = round(native.seconds, 3)
    node = session.node()
    done = under_pos(session, node, argv, data, 90)
    data["pos_s"] = round(done.seconds, 3)
    if native is not None:
        data["time_ratio"] = round(data["pos_s"] / data["native_s"], 3)
        a, b = comparable(native.out), comparable(done.out)
        if a != b:
            raise StepFailed("other results than natively: "
                             + first_difference(a, b))
        data["results"] = "same"
    interrupted(session, node, argv, done.out, "iteration 10/", data)
