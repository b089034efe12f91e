"""What a run of run_all leaves: one JSON object and one Markdown page."""
import datetime
import json
import os
import platform
import shutil
import socket
import subprocess

FORMAT = 1


def output_of(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20,
                              check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def commit(root):
    """Of the bundle, else of the tree; "-dirty" when that was changed."""
    path = os.path.join(root, "COMMIT")
    if os.path.exists(path):
        with open(path) as f:
            return f.read().strip()
    return output_of("git", "-C", root, "describe", "--always", "--abbrev=40",
                     "--dirty", "--exclude=*") or "unknown"


def machine(root):
    facts = {
        "machine": socket.gethostname(), "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)), "pos_commit": commit(root),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"),
        "python": platform.python_version(),
        "scratch_free_bytes": shutil.disk_usage("/tmp").free,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    listed = output_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total",
                       "--format=csv,noheader")
    facts["nvidia_smi"] = listed.splitlines() if listed else None
    return facts


def find(steps, name):
    for step in steps:
        if step["step"] == name:
            return step["data"]
    return {}


def most(values):
    values = [v for v in values if v is not None]
    return max(values) if values else None


def beside(steps, step, part, field):
    """What was measured instead of a target, with less memory."""
    value = find(steps, step).get(part, {}).get(field)
    return (f"{step} did not run" if value is None else
            f"with the memory of step {step}: {value:.0f} ms")


def targets(steps):
    """The project's targets on a GPU: (what, target, measured, verdict)."""
    rows = []

    def row(what, target, value, met, note="", unit=""):
        if value is None:
            rows.append((what, target, note or "not measured", "–"))
        else:
            rows.append((what, target, f"{value:g}{unit}",
                         "met" if met(value) else "short"))

    ratios = find(steps, "torch").get("step_time_ratio", {})
    row("PyTorch training step, time against native", "≤ 1.03",
        most(ratios.values()), lambda v: v <= 1.03)
    calls = find(steps, "overhead").get("ratios", {})
    row("launch-bound loop, time against native", "≤ 1.10",
        calls.get("launch_ns"), lambda v: v <= 1.10)
    sizes = find(steps, "checkpoint").get("sizes", [])
    row("device-to-host checkpoint copy, of pinned copies", "≥ 0.85",
        most(r.get("stall_of_pinned_copy") for r in sizes), lambda v: v >= 0.85)
    row("digest of device memory", "≥ 1.5 TB/s", None, None,
        "not measured: digests are the CPU's")
    row("stall, copying while the job goes on, 70 GB live", "≤ 100 ms", None,
        None, "not measured: " + beside(steps, "mode_cow", "cow", "stall_ms"))
    row("lazy restore, first kernel", "≤ 500 ms", None, None,
        "not measured: " + beside(steps, "lazy", "lazy", "restore_ms"))
    row("eager restore, of pinned copies", "≥ 0.85",
        most(r.get("restore_of_pinned_copy") for r in sizes),
        lambda v: v >= 0.85)
    row("migration downtime, 26 GB of static weights", "≤ 500 ms", None, None,
        "not measured: no migration yet")
    return rows


def checkpoint_table(steps):
    lines = []
    own = {r["gib"]: r for r in find(steps, "driver_checkpoint").get("sizes", [])}
    for r in find(steps, "checkpoint").get("sizes", []):
        driver = own.get(r["gib"], {})
        if "not_run" in r or "restore" not in r:
            lines.append(f"| {r['gib']:g} | {r.get('not_run', 'failed')} "
                         "| | | | |")
            continue
        lines.append(
            f"| {r['gib']:g} | {r['stall_without_cpu_dump_ms']:.0f} "
            f"| {r['checkpoint']['cpu_dump_ms']:.0f} "
            f"| {r['checkpoint']['total_ms']:.0f} "
            f"| {r['restore']['restore_ms']:.0f} "
            f"| {driver.get('stall_s', driver.get('error', '–'))} |")
    if lines:
        lines[:0] = ["", "Checkpoints (ms; the driver's own: seconds of lock and "
                     "checkpoint, to host memory, without its CPU side):", "",
                     "| GiB live | stall, CPU dump excluded | CPU dump | total "
                     "| restore | driver's own, s |", "|---|---|---|---|---|---|"]
    return lines


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def markdown(result):
    facts = result["machine"]
    lines = [f"# POS on {facts.get('gpu') or 'no GPU'}", ""]
    lines += [f"* {name}: {cell(value)}" for name, value in facts.items()]
    lines += ["", f"Kind of device: {result['kind']}. Whole run: "
              f"{result['seconds']:.0f} s of {result['budget_s']} s. "
              f"Verdict: **{result['verdict']}**.", "",
              "| step | result | s | why |", "|---|---|---|---|"]
    lines += [f"| {s['step']} | {s['status']} | {s['seconds']:.1f} "
              f"| {cell(s['why'])} |" for s in result["steps"]]
    lines += ["", *(f"{s['step']}, restored in the middle: "
                    + cell(s["data"]["restored_output"]) + "  "
                    for s in result["steps"] if "restored_output" in s["data"])]
    lines += ["", "The project's targets:", "",
              "| what | target | measured | |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(map(cell, row)) + " |"
              for row in targets(result["steps"])]
    lines += checkpoint_table(result["steps"])
    for step in result["steps"]:
        refused = step.get("refused", []) + step["data"].get("refused_calls", [])
        if refused:
            lines += ["", f"Refused in {step['step']}:", ""]
            lines += [f"    {line[:300]}" for line in sorted(set(refused))]
        if step["data"]:
            lines += ["", f"## {step['step']}", "", "```json",
                      json.dumps(step["data"], indent=1)[:20000], "```"]
    failed = [c for c in result["commands"] if "output_tail" in c]
    if failed:
        lines += ["", "## Commands that failed", ""]
    for c in failed:
        how = "timed out" if c["timed_out"] else f"status {c['status']}"
        lines += [f"{c['step']}: {how} after {c['seconds']:.1f} s", ""]
        lines += ["    " + line for line in
                  [" ".join(map(repr, c["command"]))[:500]]
                  + c["output_tail"].splitlines()[-30:]] + [""]
    return "\n".join(lines) + "\n"


def write(directory, result):
    """result.json and result.md, each whole or not there. Where POS lies on
    that machine is of no use elsewhere: it is called BUILD."""
    os.makedirs(directory, exist_ok=True)
    for name, text in (("result.json", json.dumps(result, indent=1) + "\n"),
                       ("result.md", markdown(result))):
        text = text.replace(result["build"], "BUILD")
        path = os.path.join(directory, name)
        with open(path + ".partial", "w") as f:
            f.write(text)
        os.replace(path + ".partial", path)
