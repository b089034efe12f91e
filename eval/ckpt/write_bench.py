#!/usr/bin/env python3
"""How fast is a checkpoint written, against what the disk can do?

Question   Does digesting, packing and writing a session's memory keep up with
           the disk?
Unit       MB/s of device memory, wall clock, fsync included.
Baseline   fio with the same engine (io_uring), O_DIRECT, block size (2 MiB),
           depth, size and fsync, on the same directory, in the same run.
Method     --runs rounds (default 5); each round does fio and every variant
           once, one after the other, so that drift of the disk hits all. The
           table shows medians, spread, and the median of the rounds' ratios.
Target     incompressible data at 80 % of fio or more.

Reading back (as an eager restore does, digests checked) is shown beside it,
against fio's sequential read of the same file size.

  eval/ckpt/write_bench.py [--dir DIR] [--size GIB] [--runs N] [--json FILE]
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

VARIANTS = [  # name, data, compression
    ("noise, none", "noise", "none"),
    ("noise, auto", "noise", "auto"),
    ("noise, zstd", "noise", "zstd"),
    ("floats, auto", "floats", "auto"),
    ("text, auto", "text", "auto"),
    ("text, zstd", "text", "zstd"),
]


def fio(directory, size, depth, rw):
    out = subprocess.run(
        ["fio", "--name=raw", f"--directory={directory}", f"--rw={rw}",
         "--bs=2M", f"--size={size}", "--ioengine=io_uring",
         f"--iodepth={depth}", "--direct=1", "--fallocate=posix",
         "--end_fsync=1", "--output-format=json"],
        check=True, capture_output=True, text=True).stdout
    job = json.loads(out[out.index("{"):])["jobs"][0]
    side = job[rw]
    # Wall clock with the fsync in it, as ours.
    return size / 1e6 / (job["job_runtime"] / 1000.0), side["bw_bytes"] / 1e6


def ours(bench, directory, size, data, compress, depth, threads):
    out = subprocess.run(
        [bench, directory, str(size), data, compress, str(depth),
         str(threads)],
        check=True, capture_output=True, text=True).stdout
    result = json.loads(out)
    result["write_mb_s"] = result["bytes"] / 1e6 / result["write_s"]
    result["read_mb_s"] = result["bytes"] / 1e6 / result["read_s"]
    return result


def spread(values):
    middle = statistics.median(values)
    return (f"{middle:7.0f}  {100 * (min(values) / middle - 1):+4.0f}/"
            f"{100 * (max(values) / middle - 1):+.0f} %")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=os.path.join(here, "../../build"))
    parser.add_argument("--dir", help="where to write (default: a temporary "
                        "directory beside the build)")
    parser.add_argument("--size", type=float, default=2, help="GiB per run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", help="write the figures there")
    args = parser.parse_args()
    bench = os.path.join(args.build, "bench/ckpt_write_bench")
    if not os.path.exists(bench):
        sys.exit(f"{bench} is missing: ninja -C build ckpt_write_bench")
    if shutil.which("fio") is None:
        sys.exit("fio is missing: apt-get install fio")
    directory = args.dir or tempfile.mkdtemp(prefix="bench", dir=args.build)
    size = int(args.size * (1 << 30)) // (2 << 20) * (2 << 20)
    raw_write, raw_read = [], []
    results = {name: [] for name, _, _ in VARIANTS}
    try:
        for run in range(args.runs):
            write, _ = fio(directory, size, args.depth, "write")
            read, _ = fio(directory, size, args.depth, "read")
            os.remove(os.path.join(directory, "raw.0.0"))
            raw_write.append(write)
            raw_read.append(read)
            for name, data, compress in VARIANTS:
                results[name].append(ours(bench, directory, size, data,
                                          compress, args.depth, args.threads))
            print(f"round {run + 1} of {args.runs}", file=sys.stderr)
    finally:
        if not args.dir:
            shutil.rmtree(directory, ignore_errors=True)

    print(f"{args.runs} interleaved rounds of {size / (1 << 30):.2f} GiB, "
          f"depth {args.depth}; MB/s, median and spread")
    print(f"{'':16}{'write':>8}{'':14}{'of fio':>8}  {'read':>8}{'':12}"
          f"{'of fio':>8}  stored")
    print(f"{'fio':16} {spread(raw_write):22}{'100 %':>7}  "
          f"{spread(raw_read):22}{'100 %':>7}")
    report = {"runs": args.runs, "bytes": size, "depth": args.depth,
              "fio_write_mb_s": raw_write, "fio_read_mb_s": raw_read,
              "variants": {}}
    for name, rounds in results.items():
        writes = [r["write_mb_s"] for r in rounds]
        reads = [r["read_mb_s"] for r in rounds]
        of_write = statistics.median(w / f for w, f in zip(writes, raw_write))
        of_read = statistics.median(r / f for r, f in zip(reads, raw_read))
        stored = statistics.median(r["stored_bytes"] / r["bytes"]
                                   for r in rounds)
        print(f"{name:16} {spread(writes):22}{100 * of_write:5.0f} %  "
              f"{spread(reads):22}{100 * of_read:5.0f} %  {100 * stored:4.0f} %")
        report["variants"][name] = {
            "write_mb_s": writes, "read_mb_s": reads, "write_of_fio": of_write,
            "read_of_fio": of_read, "stored": stored,
            "io_uring": rounds[0]["io_uring"], "direct": rounds[0]["direct"]}
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
