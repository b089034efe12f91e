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


def torch(session, data):
    if session.kind == "sim":
        raise NotRun("PyTorch's kernels are machine code of GPUs")
    session.needs_native()
    needs_module("torch")
    argv = [sys.executable, TORCH, "12" if session.quick else "60"]
    native = session.run(argv, 90)
    if not native.ok:
        raise StepFailed(f"natively: {native.why()}")
    data["native_step_s"] = times(native.out)
    # A checkpoint of the training needs steps that last.
    node = session.node()
    done = under_pos(session, node, argv, data, 120)
    data["pos_step_s"] = times(done.out)
    data["step_time_ratio"] = {
        name: round(data["pos_step_s"][name] / s, 4)
        for name, s in data["native_step_s"].items()
        if name in data["pos_step_s"]}
    a, b = comparable(native.out), comparable(done.out)
    if a != b:
        again = session.run(argv, 60)
        data["native_repeats"] = comparable(again.out) == a
        raise StepFailed(f"other losses than natively: {first_difference(a, b)}"
                         f" (natively they repeat: {data['native_repeats']})")
    data["losses"] = "same"
    data["steps"] = len([line for line in a if line.startswith("step ")])
    steps = argv[-1]
    interrupted(session, node, argv, done.out,
                f"step transformer {int(steps) // 4}/", data,
                {"POS_STEP_PAUSE_S": "0.05"})


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
