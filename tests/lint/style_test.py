#!/usr/bin/env python3
"""What CONTRIBUTING.md asks of a file and a compiler does not: its length, its
include guard, and what is not written in it.

usage: style_test.py ROOT
"""
import pathlib
import re
import sys

MAX_LINES = 400
# A test file is a list of cases of one subject.
MAX_TEST_LINES = 600
# Longer files: how long they may be and why they are not cut in two. One that
# fits again must leave the list.
LONG = {
    "ckpt/format/chunk_index.cc":
        (450, "writer and reader of one record, side by side"),
    "ckpt/format/manifest.cc":
        (450, "one JSON document, field by field, both ways"),
    "pos/cuda_impl/ptx/grid_run.cc":
        (450, "one launch's state and the lock that guards all of it"),
    "pos/cuda_impl/ptx/isa/cvt.cc": (500, "one table of conversions"),
    "pos/cuda_impl/ptx/isa/load_store.cc":
        (450, "one table of loads and stores"),
    "remoting/shim/api_context.cc": (550, "one function of the driver each"),
    "remoting/shim/api_module.cc": (500, "one function of the driver each"),
    "remoting/shim/client_control.cc":
        (550, "attach, detach and coming back share the connection's steps"),
}

TOPS = ["pos", "remoting", "ckpt", "conf", "eval", "tests", "scripts", "cmake",
        "docs", ".github"]
CODE = {".h", ".cc", ".c", ".cu"}
TEXT = CODE | {".py", ".md", ".txt", ".cmake", ".proto", ".def", ".yaml",
               ".yml", ".json", ".sh", ".map", ""}

# A path into somebody's build tree.
TREE = re.compile(r"/[\w./-]+/build/(bin|lib)\b")

WORDS = [
    (re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b"),
     "an unfinished thing is finished or written down as a limitation"),
    (re.compile(r"\b(issue|bug|PR) #?\d+", re.I),
     "the project explains itself, without a tracker"),
]
CODE_WORDS = [
    (re.compile(r"(?<!asm )\bvolatile\b"), "use atomics"),
    (re.compile(r"\busing namespace std\b"), "names its namespace"),
    (re.compile(r"\bstd::(format|expected|ranges::views?)\b"),
     "g++ 12 and clang 14 do not both have it"),
    (re.compile(r"\bcatch\s*\(\s*\.\.\.\s*\)"), "no exception is swallowed"),
]
TEST_WORDS = [
    (re.compile(r"\b(SleepNs|usleep|nanosleep|sleep_for|sleep)\s*\("),
     "no test sleeps to wait for something"),
]
# (file, what it may hold, why)
ALLOWED = [
    ("tests/ckpt/store/crash_test.cc", "SleepNs(",
     "kills a writer at a random moment"),
    ("tests/pos/cuda_impl/device_sim/engine/allocation_test.cc", "SleepNs(",
     "lets others come first; passes either way"),
    ("tests/pos/cuda_impl/device_sim/engine/engine_test.cc", "SleepNs(",
     "processor time used in an interval"),
    ("tests/pos/runner/session_watch_test.cc", "SleepNs(",
     "processor time used in an interval; time for what must not happen"),
    ("tests/pos/daemon/runner_pool_test.cc", "SleepNs(",
     "between looks at processes, with a bound"),
    ("tests/pos/daemon/latest_sender_test.cc", "SleepNs(",
     "inside a poll for a flag"),
    ("tests/pos/job/dump_test.cc", "SleepNs(",
     "nothing may happen for that long"),
    ("tests/pos/job/unit_test.cc", "SleepNs(",
     "a rate limit of one attempt a second"),
    ("tests/pos/cuda_impl/ptx/reference_cvt.cc", "volatile",
     "no folding of what has to be rounded at run time"),
    ("tests/pos/cuda_impl/ptx/reference_float.cc", "volatile",
     "no folding of what has to be rounded at run time"),
    ("tests/remoting/shim/client_managed.cc", "volatile",
     "memory that a device writes"),
    ("tests/pos/job/victim.cc", "volatile", "written by a signal handler"),
]


def strip(text):
    """Code without comments and string literals, lines kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"',
                  blank, text, flags=re.S)


def files(root):
    for top in TOPS:
        for path in sorted(pathlib.Path(root, top).rglob("*")):
            parts = path.relative_to(root).parts
            if (path.is_file() and path.suffix in TEXT
                    and not {"corpus", "golden", "__pycache__"} & set(parts)):
                yield path, "/".join(parts)


def check_length(name, text, problems):
    lines = text.count("\n")
    usual = MAX_TEST_LINES if name.startswith("tests/") else MAX_LINES
    limit, _ = LONG.get(name, (usual, ""))
    if name in LONG and lines <= usual:
        problems.append(f"{name}: {lines} lines; no longer an exception "
                        "(tests/lint/style_test.py)")
    elif lines > limit:
        problems.append(f"{name}: {lines} lines, more than {limit}")


def check_guard(name, text, problems):
    guard = re.sub(r"\W", "_", name).upper() + "_"
    if not re.search(rf"^#ifndef ((?:POS_)?{guard})\n#define \1\n", text,
                     re.M):
        problems.append(f"{name}: include guard is not {guard}")


def check_words(name, text, rules, problems):
    for pattern, why in rules:
        for match in pattern.finditer(text):
            if any(name == n and match.group(0) == what
                   for n, what, _ in ALLOWED):
                continue
            line = text.count("\n", 0, match.start()) + 1
            problems.append(f"{name}:{line}: '{match.group(0)}': {why}")


def check_paths(name, text, problems):
    for match in TREE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        problems.append(f"{name}:{line}: {match.group(0)}: a build tree of one "
                        "machine")


def check(root):
    problems = []
    for path, name in files(root):
        text = path.read_text(errors="replace")
        if path.suffix in CODE | {".py"}:
            check_length(name, text, problems)
        if path.suffix == ".h":
            check_guard(name, text, problems)
        check_words(name, text, WORDS, problems)
        check_paths(name, text, problems)
        if path.suffix in CODE:
            code = strip(text)
            if path.suffix != ".cu":
                check_words(name, code, CODE_WORDS, problems)
            if name.endswith("_test.cc"):
                check_words(name, code, TEST_WORDS, problems)
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]))
    print("\n".join(found))
    sys.exit(1 if found else 0)
