#!/usr/bin/env python3
"""Checkpoint and restore of whole jobs, through posd and pos-cli.

How long a job stands still, how long its CPU side takes, what is written, what
a second checkpoint after few changes costs, how long a restore takes, and how
much memory all of it needs, by the bytes of live device memory. The program is
tests/programs/resident.cu: its data does not compress.

    eval/ckpt/job_bench.py [--build DIR] [--mib 64,256,1024] [--rounds 3]

Prints a table of medians and, with --json, one object with every measurement.
Needs root, CRIU and nvcc's programs. Run it on a machine that does nothing
else. Times are pos-cli's (ms); memory is the sum of the proportional set sizes
of posd, pos-job, pos-runner and CRIU above that of the running job, without the
simulated device's own memory (MiB).
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

# Where sessions' device memory lies: options arena.base and arena.bytes.
ARENA = (0x200000000000, 0x200000000000 + (4 << 40))
NAMES = ("posd", "pos-job", "pos-runner", "criu")


class Node:
    def __init__(self, build, directory, mib):
        self.build, self.directory = build, directory
        self.socket = os.path.join(directory, "socket")
        self.log = open(os.path.join(directory, "log"), "w")
        self.posd = subprocess.Popen(
            [build / "bin/posd", "--state-dir", os.path.join(directory, "s"),
             "--socket", self.socket, "--set", f"sim.memory={2 * mib + 512}MiB"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        if self.posd.stdout.readline() != "posd ready\n":
            sys.exit("posd did not start: see " + self.log.name)

    def cli(self, *args, env=None):
        run = subprocess.run(
            [self.build / "bin/pos-cli", "--socket", self.socket, *args,
             "--json"] if "--" not in args else
            [self.build / "bin/pos-cli", "--socket", self.socket, *args],
            capture_output=True, text=True, check=False,
            env={**os.environ, **(env or {})})
        if run.returncode != 0:
            sys.exit(f"pos-cli {' '.join(args)}: {run.stdout}{run.stderr}")
        return json.loads(run.stdout)

    def lines(self, job):
        path = os.path.join(self.directory, "s/jobs", job, "output.log")
        try:
            with open(path, "rb") as log:
                return log.read().count(b"\n")
        except FileNotFoundError:
            return 0

    def wait_lines(self, job, count):
        until = time.monotonic() + 300
        while self.lines(job) < count:
            if time.monotonic() > until:
                sys.exit(f"{job} does not go on")
            time.sleep(0.01)

    def close(self):
        self.posd.terminate()
        self.posd.wait(60)


def proportional_kib():
    """Of everything that POS runs, the device's memory left out."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() not in NAMES:
                    continue
            with open(f"/proc/{pid}/smaps") as file:
                text = file.read()
        except OSError:
            continue
        device = False
        for line in text.splitlines():
            field = line.split()
            if "-" in field[0] and not field[0].endswith(":"):
                start = int(field[0].split("-")[0], 16)
                device = ARENA[0] <= start < ARENA[1]
            elif field[0] == "Pss:" and not device:
                total += int(field[1])
    return total


class Sampler:
    """The most memory seen while it runs."""

    def __enter__(self):
        self.most, self.ended = 0, False
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while not self.ended:
            self.most = max(self.most, proportional_kib())
            time.sleep(0.02)

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()


def measure(build, mib):
    directory = tempfile.mkdtemp(prefix="pos-bench-")
    node = Node(build, directory, mib)
    try:
        environment = {"RESIDENT_MIB": str(mib), "RESIDENT_PERCENT": "1",
                       "RESIDENT_MS": "100"}
        job = node.cli("run", "--detach", "--json", "--name", "resident", "--",
                       str(build / "programs/resident"), "100000",
                       env=environment)["job"]
        node.wait_lines(job, 2)
        idle = proportional_kib()
        with Sampler() as sampler:
            first = node.cli("checkpoint", job)
        node.wait_lines(job, node.lines(job) + 1)
        second = node.cli("checkpoint", job, "--stop")
        with Sampler() as restoring:
            restored = node.cli("restore", second["image"])
        node.wait_lines(restored["job"], node.lines(restored["job"]) + 2)
        node.cli("stop", restored["job"])
        return {"mib": mib, "first": first, "second": second,
                "restore": restored,
                "checkpoint_memory_mib": (sampler.most - idle) / 1024,
                "restore_memory_mib": (restoring.most - idle) / 1024}
    finally:
        node.close()
        shutil.rmtree(directory)


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
    columns = (("stall", lambda r: r["first"]["stall_ms"]),
               ("cpu dump", lambda r: r["first"]["cpu_dump_ms"]),
               ("total", lambda r: r["first"]["total_ms"]),
               ("MiB written", lambda r: r["first"]["written_bytes"] / 2**20),
               ("2nd total", lambda r: r["second"]["total_ms"]),
               ("2nd MiB", lambda r: r["second"]["written_bytes"] / 2**20),
               ("restore", lambda r: r["restore"]["restore_ms"]),
               ("memory", lambda r: r["checkpoint_memory_mib"]),
               ("restore memory", lambda r: r["restore_memory_mib"]))
    print("live MiB".rjust(8), *(name.rjust(14) for name, _ in columns))
    for size in sizes:
        print(str(size).rjust(8), *(
            f"{statistics.median(get(r) for r in runs if r['mib'] == size):.1f}"
            .rjust(14) for _, get in columns))


if __name__ == "__main__":
    main()
