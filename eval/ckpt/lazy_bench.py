#!/usr/bin/env python3
"""How much sooner a job is back when its memory is loaded behind it.

The same image, restored eagerly and lazily in turn, by the bytes of device
memory. Aimed at: the first call of a 1 GiB job after at most 20 % of the eager
time. The program is tests/programs/resident.cu: its data does not compress, and
its kernels need all of it, so its first kernel shows what lazy costs whoever
gains nothing by it.

    eval/ckpt/lazy_bench.py [--build DIR] [--mib 64,256,1024] [--rounds 3]

Prints medians in ms: to the first call let in, eager and lazy, and their ratio;
to the last chunk; to the first iteration that is through. With --json, one
object with every measurement. Needs root, CRIU and nvcc's programs. Run it on a
machine that does nothing else.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import tempfile
import time

from job_bench import Node


def restore(node, image, *flags):
    name = f"again{time.monotonic_ns()}"
    began = time.monotonic()
    result = node.cli("restore", image, "--name", name, *flags)
    node.wait_lines(name, 1)
    result["first_line_ms"] = (time.monotonic() - began) * 1000
    node.cli("stop", name)
    return result


def measure(build, mib, rounds):
    directory = tempfile.mkdtemp(prefix="pos-bench-")
    node = Node(build, directory, mib)
    try:
        environment = {"RESIDENT_MIB": str(mib), "RESIDENT_PERCENT": "1",
                       "RESIDENT_MS": "100"}
        job = node.cli("run", "--detach", "--json", "--name", "resident", "--",
                       str(build / "programs/resident"), "100000",
                       env=environment)["job"]
        node.wait_lines(job, 2)
        image = node.cli("checkpoint", job, "--stop")["image"]
        runs = [{"eager": restore(node, image),
                 "lazy": restore(node, image, "--lazy")}
                for _ in range(rounds)]
    finally:
        node.close()
        shutil.rmtree(directory)
    return runs


def median(runs, kind, field):
    return statistics.median(run[kind][field] for run in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", type=pathlib.Path)
    parser.add_argument("--mib", default="64,256,1024")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    build = options.build.resolve()
    sizes = [int(size) for size in options.mib.split(",")]
    found = {size: measure(build, size, options.rounds) for size in sizes}
    if options.json:
        print(json.dumps(found))
        return
    print(*(name.rjust(13) for name in (
        "MiB", "eager call", "lazy call", "ratio", "eager loaded",
        "lazy loaded", "eager line", "lazy line")))
    for size, runs in found.items():
        eager = median(runs, "eager", "restore_ms")
        lazy = median(runs, "lazy", "restore_ms")
        print(str(size).rjust(13), f"{eager:13.1f} {lazy:13.1f}",
              f"{100 * lazy / eager:12.0f}%",
              *(f"{median(runs, kind, field):13.1f}"
                for field in ("loaded_ms", "first_line_ms")
                for kind in ("eager", "lazy")))


if __name__ == "__main__":
    main()
