#!/usr/bin/env python3
"""Each function that the cuda device calls of its driver has a case for it.

driver_calls.tsv names, for each row of driver.def, a case of the conformance
suite. With a driver between device and driver in which that function alone fails,
the case must fail; so it does use the function. Where the name is followed by
"quiet", a failure changes nothing that a case could see (what is called when
things end); then it must pass.

usage: driver_calls_test.py SOURCE CONFORMANCE_BINARY FAULTY_DRIVER
"""
import os
import pathlib
import re
import subprocess
import sys

LIMIT_S = 60


def run(binary, between, case, symbol):
    """Exit status of the case with that function failing."""
    env = dict(os.environ, POS_CONFORMANCE_BETWEEN=between,
               POS_FAULTY_CALL=symbol)
    try:
        done = subprocess.run(
            [binary, f"--gtest_filter=*.{case}", "--gtest_brief=1"],
            env=env, timeout=LIMIT_S, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return "does not end"
    # Crashes are no proof: the device must fail in order.
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    return "fails" if done.returncode else "passes"


def main():
    source, binary, between = sys.argv[1:]
    source = pathlib.Path(source)
    here = source / "tests/conformance/device"
    calls = re.findall(
        r"^POS_DRIVER\(\w+,\s*(\w+)",
        (source / "pos/cuda_impl/device_cuda/driver.def").read_text(), re.M)
    cases = set(re.findall(
        r"^TEST_F\(\w+, (\w+)\)",
        "".join(p.read_text() for p in here.glob("*_suite.cc")), re.M))
    named = {}
    problems = []
    for line in (here / "driver_calls.tsv").read_text().splitlines():
        if not line.startswith("#"):
            symbol, case, *quiet = line.split("\t")
            named[symbol] = (case, quiet == ["quiet"])
    for symbol in calls:
        if symbol not in named:
            problems.append(f"{symbol}: no case names it")
    for symbol, (case, quiet) in named.items():
        if symbol not in calls:
            problems.append(f"{symbol}: not in driver.def")
        elif case not in cases:
            problems.append(f"{symbol}: there is no case {case}")
        else:
            want = "passes" if quiet else "fails"
            got = run(binary, between, case, symbol)
            if got != want:
                problems.append(f"{symbol}: {case} {got}, not {want}")
    # The sound driver.
    for case in sorted({case for case, _ in named.values()}):
        got = run(binary, between, case, "none")
        if got != "passes":
            problems.append(f"sound driver: {case} {got}")
    for problem in problems:
        print(problem)
    print(f"{len(calls)} functions")
    return 1 if problems or not calls else 0


if __name__ == "__main__":
    sys.exit(main())
