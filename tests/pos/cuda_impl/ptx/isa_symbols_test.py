#!/usr/bin/env python3
"""Objects of an instruction-set level define symbols of that level only.

A function that the linker may merge with one of ordinary code would bring
instructions into it that the machine may lack.

    isa_symbols_test.py NAMESPACE OBJECT...
"""
import subprocess
import sys


def foreign_symbols(namespace, objects):
    listed = subprocess.run(
        ["nm", "-C", "--defined-only", "--format=posix", *objects],
        check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        fields = line.rsplit(None, 3)
        if len(fields) < 4 or not fields[1].isalpha() or len(fields[1]) != 1:
            continue
        name, kind = fields[0], fields[1]
        # Lower-case kinds but for weak and unique ones are local.
        if kind.islower() and kind not in "uvw":
            continue
        if f"::{namespace}::" not in name:
            yield f"{kind} {name}"


def main():
    namespace, objects = sys.argv[1], sys.argv[2:]
    if not objects:
        sys.exit("no objects")
    found = list(foreign_symbols(namespace, objects))
    for symbol in found:
        print(symbol)
    sys.exit(1 if found else 0)


main()
