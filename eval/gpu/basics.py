"""Steps that say whether POS works here: check, conformance, programs, restore."""
import concurrent.futures
import json
import os
import re
import statistics
import sys

from session import NotRun, StepFailed, with_runtime

# In this process a library that hangs would hang everything: a child asks.
PROBE = """
import ctypes, sys
l = ctypes.CDLL(sys.argv[1] or "libcuda.so.1")
r = l.cuInit(0)
if r: sys.exit("cuInit: error %d" % r)
n = ctypes.c_int(); v = ctypes.c_int(); d = ctypes.c_int()
l.cuDeviceGetCount(ctypes.byref(n))
if not n.value: sys.exit("the driver has no device")
l.cuDriverGetVersion(ctypes.byref(v)); l.cuDeviceGet(ctypes.byref(d), 0)
name = ctypes.create_string_buffer(128); l.cuDeviceGetName(name, 128, d)
m = ctypes.c_size_t(); l.cuDeviceTotalMem_v2(ctypes.byref(m), d)
print(name.value.decode(), v.value, m.value, sep="|")
"""
# Run with argument 1, for a second each natively; restored ones cover streams,
# pinned memory, pools, modules, much memory, a whole model.
RESTORED = ("vector_add", "pinned", "gpt", "streams_events", "malloc_async",
            "resident", "symbols", "virtual_memory", "host_threads",
            "two_modules", "wmma_gemm")
WORKERS = 4  # restore tests at once; each has a posd of its own


def probe_driver(session, library):
    """Name, version and memory by the native driver, or why there is none."""
    done = session.run([sys.executable, "-c", PROBE, library or ""], 60)
    if not done.ok:
        session.native = done.why()
        return {"native_driver": None, "why": session.native}
    name, version, memory = done.out.strip().split("|")
    return {"native_driver": library or "libcuda.so.1", "gpu": name,
            "cuda": f"{int(version) // 1000}.{int(version) % 1000 // 10}",
            "memory_bytes": int(memory)}


def check(session, data):
    """pos-cli check and devices: is the device found, and if not, why."""
    try:
        node = session.node()
    except Exception as error:
        if session.kind == "cuda":  # the GPU's trouble, or this machine's?
            try:
                session.node(devices="sim")
                data["posd_with_the_simulated_device"] = "starts"
            except Exception as other:
                data["posd_with_the_simulated_device"] = str(other)[-1500:]
        raise StepFailed(str(error))
    data["devices"] = session.pos_json(node, "devices")["devices"]
    done = session.pos(node, "--json", "check", ok=(0, 1))
    try:
        data["checks"] = json.loads(done.out).get("checks", [])
    except ValueError:
        raise StepFailed(f"check printed no JSON object: {done.why()}")
    for one in data["checks"]:
        if one["name"] == "criu" and not one["ok"]:
            session.criu = one["detail"]
        if one["name"] == "kernel for criu" and not one["ok"]:
            session.criu = session.criu or one["detail"]
    want = "sim" if session.kind == "sim" else "cuda"
    found = [d for d in data["devices"] if d["kind"] == want]
    wrong = [f"{c['name']}: {c['detail']}" for c in data["checks"]
             if not c["ok"]]
    if not found:
        raise StepFailed(f"no {want} device: {'; '.join(wrong) or 'none listed'}")
    if wrong:
        raise StepFailed("; ".join(wrong))


def conformance(session, data):
    """The device suite: against the GPU's driver, or the simulated device."""
    env = {}
    name = "device_conformance_sim_test"
    if session.kind != "sim":
        session.needs_native()
        name = "device_conformance_nested_test"
        if session.kind == "cuda":
            env["POS_CONFORMANCE_DRIVER"] = (
                session.posd_options.get("cuda.driver_library") or "default")
    program = os.path.join(session.build, "test-bin", name)
    if not os.path.exists(program):
        raise NotRun(f"{name} was not built")
    arguments = ["--gtest_filter=*Affine*:*Memory*"] if session.quick else []
    # One test needs nearly all memory, so not several at once.
    done = session.run([program, *arguments], session.left() - 1, env)
    data["passed"] = re.findall(r"^\[       OK \] (\S+)", done.out, re.M)
    data["failed"] = sorted(set(
        re.findall(r"^\[  FAILED  \] ([\w/]+\.[\w/]+)", done.out, re.M)))
    data["skipped"] = sorted(set(
        re.findall(r"^\[  SKIPPED \] ([\w/]+\.[\w/]+)", done.out, re.M)))
    if not done.ok or data["failed"]:
        started = re.findall(r"^\[ RUN      \] (\S+)", done.out, re.M)
        last = started[-1] if started else "none"
        raise StepFailed(f"{len(data['passed'])} passed, failed: "
                         f"{', '.join(data['failed'])}; {done.why()}; "
                         f"the last one begun: {last}")
    if not data["passed"]:
        raise StepFailed("no test ran")


def program_names(session):
    directory = os.path.join(session.build, "programs")
    if not os.path.isdir(directory):
        raise NotRun("no programs were built (no nvcc)")
    # endless ends by being stopped; cg_groups_sm100 is for another GPU.
    names = [n for n in sorted(os.listdir(directory))
             if n not in ("endless", "cg_groups_sm100")]
    if session.quick:
        names = [n for n in names if n in ("vector_add", "driver_api")]
    return directory, names


def programs(session, data):
    """Every program natively and under posd: what they print is the same."""
    directory, names = program_names(session)
    node = session.node()
    rows = data["programs"] = []
    for i, name in enumerate(names):
        if session.left() < 3:
            data["not_run"] = names[i:]
            break
        rows.append(one_program(session, node, directory, name))
    both = [r for r in rows if r.get("native_s") and r["verdict"] == "same"]
    if both:
        data["median_time_ratio"] = round(statistics.median(
            r["pos_s"] / r["native_s"] for r in both), 3)
    bad = [f"{r['program']}: {r['verdict']}" for r in rows
           if r["verdict"] not in ("same", "runs", "fails natively, too")]
    if bad or data.get("not_run"):
        late = data.get("not_run", [])
        raise StepFailed("; ".join(bad) + (
            f" out of time for {len(late)}: {' '.join(late)}" if late else ""))


def one_program(session, node, directory, name):
    path = os.path.join(directory, name)
    argv = ([sys.executable] if name.endswith(".py") else []) + [path, "2"]
    row = {"program": name}
    files = os.path.join(session.directory, "files-" + name)
    outputs = {}
    for where, on in (("native", None), ("pos", node)):
        if on is None and session.native is not None:
            continue
        os.makedirs(f"{files}-{where}", exist_ok=True)
        done = session.either([*argv, f"{files}-{where}"], on, 25,
                              with_runtime())
        row[where + "_s"] = round(done.seconds, 3)
        outputs[where] = done
        if where == "pos":
            row["refused"] = [line for line in done.err.splitlines()
                              if "not supported" in line]
    pos, native = outputs["pos"], outputs.get("native")
    if native is not None and not native.ok:
        row["verdict"] = ("fails natively, too" if not pos.ok else
                          f"fails natively only: {native.why()}")
    elif not pos.ok or "PASS" not in pos.out:
        row["verdict"] = f"fails under POS: {pos.why()}"
    elif native is None:
        row["verdict"] = "runs"
    elif native.out == pos.out:
        row["verdict"] = "same"
    else:
        row["verdict"] = "another output than natively"
        row["native_output"] = native.out[-1000:]
        row["pos_output"] = pos.out[-1000:]
    return row


def restore(session, data):
    """tests/cr: checkpointed at random points, everything killed, restored."""
    session.needs_criu()
    directory, names = program_names(session)
    if session.kind == "nested":
        raise NotRun("e2e_nested_programs_restore_… are the tests of this")
    wanted = [n for n in RESTORED if n in names]
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))), "tests", "cr", "programs_test.py")
    env = {"POS_BUILD": str(session.build), "POS_TEST_SET": "\n".join(
        f"{name}={value}" for name, value in session.posd_options.items())}

    def one(name):
        if session.left() < 5:
            return {"program": name, "verdict": "out of time"}
        done = session.run([sys.executable, script, "restore_" + name],
                           min(80, session.left()), env, ok=(0,))
        notes = [line.strip() for line in done.out.splitlines()
                 if line.startswith("  ")]
        if done.status == 77:
            return {"program": name, "verdict": "skipped", "notes": [
                line for line in done.out.splitlines() if "SKIP" in line]}
        return {"program": name, "seconds": round(done.seconds, 1),
                "verdict": "ok" if done.ok else done.why(), "notes": notes}

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        data["programs"] = list(pool.map(one, wanted))
    skipped = [r for r in data["programs"] if r["verdict"] == "skipped"]
    if wanted and len(skipped) == len(wanted):
        raise NotRun(" ".join(skipped[0]["notes"]))
    bad = [f"{r['program']}: {r['verdict']}" for r in data["programs"]
           if r["verdict"] != "ok"]
    if bad:
        raise StepFailed("; ".join(bad))
