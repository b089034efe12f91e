#!/usr/bin/env python3
"""How long a job stands still in each checkpoint mode, by its memory.

For each size: the stall of stop, cow and recopy without the CPU dump, the time
that reading (digesting) all memory takes, and what the standstill would have to
be for cow to be worth it: at most 1.3 times the digest, at most 35 % of stop's.

    eval/ckpt/modes_bench.py [--build DIR] [--mib 64,256,1024] [--rounds 3]

Prints a table of medians and, with --json, every measurement. Needs root, CRIU
and nvcc's programs; the program is tests/programs/resident.cu. Times are
pos-cli's (ms). Run it on a machine that does nothing else.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import tempfile

from job_bench import Node

MODES = ("stop", "cow", "recopy")


def measure(build, mib):
    directory = tempfile.mkdtemp(prefix="pos-bench-")
    node = Node(build, directory, mib)
    try:
        job = node.cli("run", "--detach", "--json", "--name", "resident", "--",
                       str(build / "programs/resident"), "100000",
                       env={"RESIDENT_MIB": str(mib), "RESIDENT_PERCENT": "1",
                            "RESIDENT_MS": "100"})["job"]
        node.wait_lines(job, 2)
        taken = {}
        for mode in MODES:
            taken[mode] = node.cli("checkpoint", job, "--mode", mode)
            # Else the next one finds its chunks in the store.
            node.cli("images", "rm", taken[mode]["image"])
            node.wait_lines(job, node.lines(job) + 2)
        node.cli("stop", job)
        return {"mib": mib, **taken}
    finally:
        node.close()
        shutil.rmtree(directory)


def stall(taken):
    return taken["stall_ms"] - taken["cpu_dump_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", type=pathlib.Path)
    parser.add_argument("--mib", default="64,256,1024")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    build = options.build.resolve()
    sizes = [int(size) for size in options.mib.split(",")]
    runs = [measure(build, size) for _ in range(options.rounds)
            for size in sizes]
    if options.json:
        print(json.dumps({"runs": runs}))
        return
    columns = (("stop", lambda r: stall(r["stop"])),
               ("cow", lambda r: stall(r["cow"])),
               ("recopy", lambda r: stall(r["recopy"])),
               ("digest", lambda r: r["cow"]["digest_ms"]),
               ("cow/digest", lambda r: stall(r["cow"]) / r["cow"]["digest_ms"]),
               ("cow/stop", lambda r: stall(r["cow"]) / stall(r["stop"])),
               ("cow total", lambda r: r["cow"]["total_ms"]))
    print("live MiB".rjust(8), *(name.rjust(12) for name, _ in columns))
    for size in sizes:
        print(str(size).rjust(8), *(
            f"{statistics.median(get(r) for r in runs if r['mib'] == size):.2f}"
            .rjust(12) for _, get in columns))


if __name__ == "__main__":
    main()
