"""Every C++ file is as clang-format leaves it.

format_test.py CLANG_FORMAT SOURCE_DIR
"""
import pathlib
import re
import subprocess
import sys

TOPS = ("pos", "remoting", "ckpt", "conf", "eval", "tests")
VERSION = 14  # formats of other versions differ


def main():
    program, root = sys.argv[1], pathlib.Path(sys.argv[2])
    told = subprocess.run([program, "--version"], capture_output=True,
                          text=True, check=True).stdout
    version = int(re.search(r"version (\d+)", told).group(1))
    if version != VERSION:
        print(f"SKIP: clang-format {version}, not {VERSION}")
        return 77
    files = sorted(str(path) for top in TOPS
                   for path in (root / top).rglob("*")
                   if path.suffix in (".h", ".cc"))
    if len(files) < 100:
        print(f"only {len(files)} files below {root}")
        return 1
    return subprocess.run([program, "--dry-run", "--Werror", *files],
                          check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
