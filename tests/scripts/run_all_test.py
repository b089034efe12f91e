#!/usr/bin/env python3
"""eval/gpu/run_all on the simulated device: that it reports what ran, what did
not and what failed, and says so with its exit status.

run_all_test.py SOURCE BUILD           without a native driver
run_all_test.py SOURCE BUILD nested    through the nested stack, all of it
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

SOURCE, BUILD = sys.argv[1:3]
NESTED = sys.argv[3:] == ["nested"]
STEPS = ["check", "conformance", "programs", "restore", "torch", "libraries",
         "overhead", "checkpoint", "driver_checkpoint", "again", "two_posds",
         "mode_cow", "mode_recopy", "lazy", "cupy"]


# A driver that can checkpoint a process, as far as run_all can tell.
STAND_IN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int told(const char* what, int pid, unsigned argument) {
  FILE* file = fopen(getenv("STAND_IN_LOG"), "a");
  fprintf(file, "%s %d %u\n", what, pid > 1, argument);
  usleep(10000);
  return fclose(file);
}
int cuInit(unsigned flags) { return flags; }
#define ENTRY(name) \
  int cuCheckpointProcess##name(int pid, unsigned* args) { \
    return told(#name, pid, args == NULL ? 0 : *args); \
  }
ENTRY(Lock) ENTRY(Checkpoint) ENTRY(Restore) ENTRY(Unlock)
"""


def stand_in(directory):
    """That library, or None without a compiler."""
    library = os.path.join(directory, "stand_in.so")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-o", library, "-"],
                   input=STAND_IN, text=True, check=True, timeout=60)
    return library


def run_all(out, *arguments, **more):
    environment = {**os.environ, "POS_BUILD": BUILD, **more}
    kind = "nested" if NESTED else "sim"
    around = [os.path.join(SOURCE, "scripts/nested"), "--around", "--"]
    done = subprocess.run(
        [*(around if NESTED else []), sys.executable,
         os.path.join(SOURCE, "eval/gpu/run_all"), "--kind", kind, "--quick",
         "--out", out, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        env=environment)
    with open(os.path.join(out, "result.md")) as f:
        page = f.read()
    with open(os.path.join(out, "result.json")) as f:
        return done, json.load(f), page


def expect(condition, *what):
    if not condition:
        print("FAIL:", *what)
        sys.exit(1)


def whole(out):
    done, result, page = run_all(out)
    expect(done.returncode == 0, "exit status", done.returncode, done.stdout,
           done.stderr, page[-3000:])
    expect(result["verdict"] == "ok" and result["kind"] == "sim", result["verdict"])
    for field in ("machine", "date", "pos_commit", "cpus", "kernel"):
        expect(result["machine"].get(field), "no", field, result["machine"])
    steps = {s["step"]: s for s in result["steps"]}
    expect(list(steps) == STEPS, list(steps))
    for name in ("check", "conformance", "programs", "overhead"):
        expect(steps[name]["status"] == "ok", steps[name])
    expect(steps["check"]["data"]["devices"][0]["kind"] == "sim", steps["check"])
    expect(len(steps["conformance"]["data"]["passed"]) > 3, steps["conformance"])
    programs = steps["programs"]["data"]["programs"]
    expect({p["program"] for p in programs} == {"vector_add", "driver_api"} and
           all(p["pos_s"] > 0 for p in programs), programs)
    calls = steps["overhead"]["data"]["pos_1"]
    expect(calls["launch_ns"]["median"] > 0 and len(calls["copies"]) == 8, calls)
    expect(steps["restore"]["status"] == "not run" and steps["restore"]["why"],
           steps["restore"])
    # Without CRIU there is nothing to measure, but a reason.
    checkpoint = steps["checkpoint"]
    if checkpoint["status"] == "ok":
        row, = checkpoint["data"]["sizes"]
        expect(row["checkpoint"]["live_bytes"] >= 32 << 20 and
               row["restore"]["restore_ms"] > 0, row)
    else:
        expect(checkpoint["status"] == "not run" and "CRIU" in checkpoint["why"],
               checkpoint)
    # The rest of what needs CRIU, likewise; modes that are not there yet.
    for name in ("again", "two_posds", "mode_cow", "mode_recopy", "lazy"):
        expect(steps[name]["status"] == "ok" or
               steps[name]["status"] == "not run" and
               ("CRIU" in steps[name]["why"] or
                "this POS has no" in steps[name]["why"]), steps[name])
    if steps["again"]["status"] == "ok":
        again = steps["again"]["data"]
        expect(again["restored"] == again["tries"] == 2, again)
        expect(steps["two_posds"]["data"]["output"] == "same", steps)
    told = {r["library"]: r["verdict"]
            for r in steps["libraries"]["data"].get("libraries", [])}
    expect(told.get("nvrtc") == "runs" or "not here" in told.get("nvrtc", ""),
           told)
    commands = [" ".join(c["command"]) for c in result["commands"]]
    expect(any("run -- " in c and "vector_add" in c for c in commands), commands)
    for words in ("The project's targets", "| programs | ok |", "| torch | "):
        expect(words in page, words, "is not in", page)


def failures(out):
    done, result, page = run_all(out, "check", "self_test_fail",
                                 "self_test_hang")
    expect(done.returncode == 1, "exit status", done.returncode, done.stdout)
    steps = {s["step"]: s for s in result["steps"]}
    expect(steps["check"]["status"] == "ok", steps["check"])
    expect(steps["self_test_fail"]["status"] == "failed" and
           steps["self_test_fail"]["why"] == "as asked for", steps)
    expect(steps["self_test_hang"]["data"]["timed_out"] and
           steps["self_test_hang"]["seconds"] < 10, steps["self_test_hang"])
    expect(result["verdict"] == "failed", result["verdict"])
    told = [c for c in result["commands"] if c["status"] == 7]
    expect(told and told[0]["output_tail"] == "told\n", told)
    expect("| self_test_fail | failed |" in page and "told" in page, page)
    expect(steps["programs"]["why"] == "not asked for", steps["programs"])


def nested(out):
    """All steps with a native driver to compare with, and a planted failure: a
    whole report that says so."""
    library = stand_in(os.path.dirname(out))
    log = os.path.join(os.path.dirname(out), "stand_in.log")
    more = {} if library is None else {"POS_CHECKPOINT_DRIVER": library,
                                       "STAND_IN_LOG": log}
    done, result, page = run_all(out, *STEPS, "self_test_fail", **more)
    steps = {s["step"]: s for s in result["steps"]}
    expect(list(steps) == [*STEPS, "self_test_fail"], list(steps), done.stdout,
           done.stderr)
    failed = [s for s in result["steps"] if s["status"] == "failed"]
    expect([s["step"] for s in failed] == ["self_test_fail"], failed)
    expect(done.returncode == 1 and result["verdict"] == "failed",
           done.returncode, result["verdict"])
    expect("| self_test_fail | failed |" in page and "told" in page, page)
    for name in ("check", "conformance", "programs", "overhead"):
        expect(steps[name]["status"] == "ok", steps[name])
    programs = steps["programs"]["data"]["programs"]
    expect(len(programs) == 2 and
           all(p["verdict"] == "same" and p["native_s"] > 0 for p in programs),
           programs)
    ratios = steps["overhead"]["data"]["ratios"]
    expect(ratios["launch_ns"] > 0 and len(ratios) == 10, ratios)
    told = {r["library"]: r["verdict"]
            for r in steps["libraries"]["data"].get("libraries", [])}
    expect(told.get("nvrtc") == "same" or "not here" in told.get("nvrtc", ""),
           told)
    if steps["two_posds"]["status"] == "ok":
        expect(steps["checkpoint"]["data"]["sizes"][0]["restore"], steps)
        expect(steps["two_posds"]["data"]["output"] == "same", steps)
    else:
        expect("CRIU" in steps["two_posds"]["why"], steps["two_posds"])
    own = steps["driver_checkpoint"]
    if library is None:
        # The inner posd's client library refuses them: no failure of POS's.
        expect(own["status"] == "not run" and "801" in own["why"], own)
    else:
        row, = own["data"]["sizes"]
        expect(own["status"] == "ok" and row["goes_on"] and
               0.02 <= row["stall_s"] == round(row["Lock_s"] +
                                               row["Checkpoint_s"], 6), own)
        with open(log) as f:
            expect(f.read().splitlines() == ["Lock 1 10000", "Checkpoint 1 0",
                                             "Restore 1 0", "Unlock 1 0"], log)
    expect("launch-bound loop, time against native | ≤ 1.10 |" in page, page)


def out_of_time(out):
    done, result, _ = run_all(out, "--budget", "1", "programs", "restore")
    expect(done.returncode == 3, "exit status", done.returncode, done.stdout)
    steps = {s["step"]: s for s in result["steps"]}
    expect(steps["programs"]["status"] == "not run" and
           "of the budget left" in steps["programs"]["why"], steps["programs"])


def main():
    if os.geteuid() != 0:
        print("SKIP: needs root")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="pos-run-all-") as directory:
        for test in (nested,) if NESTED else (whole, failures, out_of_time):
            test(os.path.join(directory, test.__name__))
    print("PASS")


main()
