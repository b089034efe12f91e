#!/usr/bin/env python3
"""What libcuda.so.1 is as a file: its exports against the table of driver
symbols, what it needs, how it is marked.

It is loaded into foreign processes: it exports the driver's symbols and nothing
else, leans on the C library alone, and binds its own calls to itself.

usage: library_test.py LIBRARY SYMBOLS_DEF [STUB_LIBRARY]
"""
import re
import subprocess
import sys

ALLOWED_NEEDED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2",
                  "librt.so.1", "ld-linux-x86-64.so.2"}
# NVIDIA's CUDA 13.0 stub library exports as many.
SYMBOL_COUNT = 637


def tool(*command):
    return subprocess.run(command, check=True, capture_output=True,
                          text=True).stdout


def defined(library):
    """Exported name -> nm's type letter."""
    rows = (line.split() for line in
            tool("nm", "-D", "--defined-only", library).splitlines())
    return {row[2].split("@")[0]: row[1] for row in rows if len(row) == 3}


def main():
    library, table_path = sys.argv[1:3]
    problems = []

    table = re.findall(r"^POS_CU_SYMBOL\((\w+), .*, (kServed|kRefused)\)$",
                       open(table_path).read(), re.M)
    names = [symbol for symbol, _ in table]
    if len(names) != SYMBOL_COUNT:
        problems.append(f"the table has {len(names)} symbols, "
                        f"wanted {SYMBOL_COUNT}")
    if len(set(names)) != len(names):
        problems.append("the table names a symbol twice")
    exports = defined(library)
    for name in sorted(set(names) - set(exports)):
        problems.append(f"not exported: {name}")
    for name in sorted(set(exports) - set(names)):
        problems.append(f"exported, but not in the table: {name}")
    for name, letter in exports.items():
        if letter != "T":
            problems.append(f"exported as '{letter}', not as a function: {name}")
    if len(sys.argv) > 3:
        stub = {n for n, letter in defined(sys.argv[3]).items()
                if letter == "T"}
        for name in sorted(stub ^ set(names)):
            problems.append(f"toolkit's stub library and table differ: {name}")

    dynamic = tool("readelf", "-dW", library)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic))
    for name in sorted(needed - ALLOWED_NEEDED):
        problems.append(f"needs {name}")
    soname = re.findall(r"\(SONAME\).*\[(.*?)\]", dynamic)
    if soname != ["libcuda.so.1"]:
        problems.append(f"soname is {soname}")
    if "(TEXTREL)" in dynamic:
        problems.append("has relocations in its text")
    for mark in ("NODELETE", "SYMBOLIC"):
        if mark not in dynamic:
            problems.append(f"is not marked {mark}")
    if "(RUNPATH)" in dynamic or "(RPATH)" in dynamic:
        problems.append("has a run path")
    notes = tool("readelf", "-nW", library)
    if "Build ID:" not in notes:
        problems.append("has no build id")
    # Versioned symbols of the C library only.
    undefined = tool("nm", "-D", "--undefined-only", library)
    for line in undefined.splitlines():
        kind, symbol = line.split()[-2:]
        if "@GLIBC_" not in symbol and kind not in ("w", "v"):
            problems.append(f"undefined: {symbol}")

    for problem in problems:
        print(problem)
    print(f"{len(exports)} exports, needs {' '.join(sorted(needed))}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
