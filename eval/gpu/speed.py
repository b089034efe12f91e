"""Steps that measure: calls and copies, checkpoints by size, and the driver's
own checkpoints as the baseline."""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time

from session import END_S, NotRun, StepFailed

GIB = 1 << 30


def bench(session, node, data, where):
    program = os.path.join(session.build, "bench", "driver_bench")
    if not os.path.exists(program):
        raise NotRun("driver_bench was not built")
    arguments = ["0.01", "1"] if session.quick else ["0.5", "256"]
    done = session.either([program, *arguments], node, 40)
    if not done.ok:
        raise StepFailed(f"{where}: {done.why()}")
    data[where] = json.loads(done.out)
    return data[where]


def overhead(session, data):
    """Launches and copies, natively and under posd, in turn."""
    node = session.node()
    rounds = 1 if session.quick or session.native is not None else 2
    natives, ours = [], []
    for i in range(rounds):
        if session.native is None:
            natives.append(bench(session, None, data, f"native_{i + 1}"))
        ours.append(bench(session, node, data, f"pos_{i + 1}"))
    if not natives:
        data["note"] = f"no native driver here: {session.native}"
        return
    best = (min(natives, key=lambda r: r["launch_ns"]["median"]),
            min(ours, key=lambda r: r["launch_ns"]["median"]))
    native, pos = best
    data["ratios"] = {name: round(
        pos[name]["median"] / native[name]["median"], 3)
        for name in ("launch_ns", "launch_and_wait_us")}
    for a, b in zip(native["copies"], pos["copies"]):
        name = f"{a['direction']} {a['memory']} {a['bytes']} B"
        data["ratios"][name] = round(b["us"]["median"] / a["us"]["median"], 3)
    for way in ("DtoH", "HtoD"):
        session.values["pinned_" + way] = max(
            c["gb_per_s"] for c in native["copies"]
            if c["memory"] == "pinned" and c["direction"] == way)


def sizes(session):
    if session.gib:
        return session.gib
    if session.quick:
        return [0.03125]
    return [0.25, 1] if session.kind != "cuda" else [1, 8, 32]


def wait_lines(path, count, alive, seconds):
    until = time.monotonic() + seconds
    while True:
        try:
            with open(path, "rb") as log:
                if log.read().count(b"\n") >= count:
                    return
        except FileNotFoundError:
            pass
        if not alive() or time.monotonic() > until:
            raise StepFailed(f"resident did not get to iteration {count}")
        time.sleep(0.01)


def resident(gib):
    return {"RESIDENT_MIB": str(int(gib * 1024)), "RESIDENT_PERCENT": "1",
            "RESIDENT_MS": "50"}


def room(session, gib):
    free = shutil.disk_usage(session.directory).free
    if free < (gib + 1) * GIB:
        raise NotRun(f"{gib:g} GiB live need as much disk; "
                     f"{free / GIB:.1f} GiB are free")


def checkpoint(session, data):
    """By live bytes: stall, total, rate; restore; against pinned copies."""
    session.needs_criu()
    rows = data["sizes"] = []
    for gib in sizes(session):
        row = {"gib": gib}
        rows.append(row)
        try:
            room(session, gib)
            if session.left() < 5 + 2 * gib:
                raise NotRun(f"{session.left():.0f} s left")
            one_checkpoint(session, gib, row)
        except NotRun as reason:
            row["not_run"] = str(reason)
    late = [f"{r['gib']:g} GiB: {r['not_run']}" for r in rows if "not_run" in r]
    if len(late) == len(rows):
        raise NotRun("; ".join(late))
    data["not_run"] = late


def one_checkpoint(session, gib, row):
    from processes import read_text
    more = {}
    if session.kind == "sim":
        more = {"sim.memory": f"{int(2 * gib * 1024) + 512}MiB"}
    node = session.node(**more)
    try:
        program = os.path.join(session.build, "programs", "resident")
        job = session.pos_json(
            node, "run", "--detach", "--name", "resident", "--", program,
            "1000000", env=resident(gib))["job"]
        log = os.path.join(node.state, "jobs", job, "output.log")
        wait_lines(log, 2, lambda: True, min(60, session.left()))
        taken = row["checkpoint"] = session.pos_json(
            node, "checkpoint", job, timeout_s=240)
        lines = read_text(log).count("\n")
        wait_lines(log, lines + 1, lambda: True, 30)
        session.pos(node, "stop", job)
        restored = row["restore"] = session.pos_json(
            node, "restore", taken["image"], timeout_s=240)
        session.pos(node, "stop", restored["job"])
    finally:
        node.process.terminate()  # its memory and its image make room
        try:
            node.process.wait(END_S)
        except subprocess.TimeoutExpired:
            node.process.kill()
        shutil.rmtree(node.state, ignore_errors=True)
    stall_s = (taken["stall_ms"] - (taken["cpu_dump_ms"] or 0)) / 1e3
    row["stall_without_cpu_dump_ms"] = round(stall_s * 1e3, 3)
    row["stall_gb_per_s"] = round(taken["live_bytes"] / max(stall_s, 1e-6) / 1e9,
                                  3)
    row["total_gb_per_s"] = round(
        taken["live_bytes"] / max(taken["total_ms"], 1e-3) / 1e6, 3)
    row["restore_gb_per_s"] = round(
        taken["live_bytes"] / max(restored["loaded_ms"] or
                                  restored["restore_ms"], 1e-3) / 1e6, 3)
    for name, rate, way in (("stall", "stall_gb_per_s", "DtoH"),
                            ("restore", "restore_gb_per_s", "HtoD")):
        pinned = session.values.get("pinned_" + way)
        if pinned:
            row[f"{name}_of_pinned_copy"] = round(row[rate] / pinned, 3)


class LockArguments(ctypes.Structure):
    """CUcheckpointLockArgs of cuda.h 13.0."""
    _fields_ = [("timeout_ms", ctypes.c_uint), ("reserved0", ctypes.c_uint),
                ("reserved1", ctypes.c_uint64 * 7)]


# One object on standard output. In a process of its own: a driver that hangs
# must not hang run_all.
DRIVER_CHECKPOINT = """
import ctypes, json, sys, time
sys.path.insert(0, sys.argv[3])
from speed import LockArguments
l = ctypes.CDLL(sys.argv[1] or "libcuda.so.1"); pid = int(sys.argv[2])
l.cuInit(0)
out = {}
for name in ("Lock", "Checkpoint", "Restore", "Unlock"):
    f = getattr(l, "cuCheckpointProcess" + name, None)
    if f is None:
        out["error"] = "the driver has no cuCheckpointProcess" + name; break
    args = LockArguments(timeout_ms=10000) if name == "Lock" else None
    t = time.monotonic()
    r = f(pid, ctypes.byref(args) if args is not None else None)
    out[name + "_s"] = round(time.monotonic() - t, 6)
    if r:
        out["error"] = "cuCheckpointProcess%s: error %d" % (name, r); break
print(json.dumps(out))
"""


def driver_checkpoint(session, data):
    """The GPU driver's own checkpoint of a native process: host memory only,
    no disk."""
    session.needs_native()
    rows = data["sizes"] = []
    for gib in sizes(session):
        if session.left() < 10 + gib:
            rows.append({"gib": gib, "not_run": f"{session.left():.0f} s left"})
            continue
        rows.append({"gib": gib, **one_driver_checkpoint(session, gib)})
    bad = [f"{r['gib']:g} GiB: {r['error']}" for r in rows if "error" in r]
    if bad:
        # The baseline's, not POS's, failure.
        raise NotRun("; ".join(bad))


def one_driver_checkpoint(session, gib):
    program = os.path.join(session.build, "programs", "resident")
    if not os.path.exists(program):
        raise NotRun("resident was not built")
    log = os.path.join(session.directory, "resident.log")
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [program, "1000000"], stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **resident(gib)})
    try:
        wait_lines(log, 2, lambda: process.poll() is None,
                   min(60, session.left()))
        done = session.run(
            [sys.executable, "-c", DRIVER_CHECKPOINT,
             os.environ.get("POS_CHECKPOINT_DRIVER") or
             session.posd_options.get("cuda.driver_library", ""), process.pid,
             os.path.dirname(os.path.abspath(__file__))], 90)
        if not done.ok:
            return {"error": done.why()}
        row = json.loads(done.out)
        if "error" not in row:
            row["stall_s"] = round(sum(
                row[n + "_s"] for n in ("Lock", "Checkpoint")), 6)
            with open(log, "rb") as lines:
                before = lines.read().count(b"\n")
            wait_lines(log, before + 2, lambda: process.poll() is None, 10)
            row["goes_on"] = True
        return row
    finally:
        process.kill()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            pass
