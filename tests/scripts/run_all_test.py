#!/usr/bin/env python3
"""eval/gpu/run_all on the simulated device: that it reports what ran, what did
not and what failed, and says so with its exit status.

run_all_test.py SOURCE BUILD
"""
import json
import os
import subprocess
import sys
import tempfile

SOURCE, BUILD = sys.argv[1:3]


def run_all(out, *arguments):
    environment = {**os.environ, "POS_BUILD": BUILD}
    done = subprocess.run(
        [sys.executable, os.path.join(SOURCE, "eval/gpu/run_all"), "--kind",
         "sim", "--quick", "--out", out, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
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
    expect(list(steps) == ["check", "conformance", "programs", "restore",
                           "torch", "cupy", "overhead", "checkpoint",
                           "driver_checkpoint"], list(steps))
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
        for test in (whole, failures, out_of_time):
            test(os.path.join(directory, test.__name__))
    print("PASS")


main()
