#!/usr/bin/env python3
"""The arrows of docs/architecture.md, in the targets and in the includes.

An arrow is a link dependency. An #include must follow arrows that there are;
arrows must point downwards in ORDER; some parts must not reach others at all.

usage: layering_test.py ROOT
"""
import pathlib
import re
import sys

import targets as build

TOPS = ["pos", "remoting", "ckpt", "conf"]

# Bottom to top: a target may link what stands above it here, or its own
# directory. Executables come after all libraries.
ORDER = [
    "pos/base",
    "pos/queue",
    "ckpt/format",
    "pos/device",
    "remoting/wire",
    "remoting/control",
    "conf",
    "pos/call",
    "pos/graph",
    "pos/parser",
    "pos/worker",
    "remoting/transport/shm",
    "remoting/frontend",
    "pos/cuda_impl/fatbin",
    "pos/cuda_impl/ptx",
    "pos/cuda_impl/access",
    "pos/cuda_impl/api",
    "pos/cuda_impl/handles",
    "pos/cuda_impl/parser",
    "pos/cuda_impl/worker",
    "pos/cuda_impl/device_cuda",
    "pos/cuda_impl/device_sim/engine",
    "pos/cuda_impl/device_sim",
    "pos/runner",
    "remoting/shim",
    "ckpt/crypt",
    "ckpt/pack",
    "ckpt/store",
    "ckpt/engine",
    "ckpt/criu",
    "ckpt/criu/compat",
    "pos/job",
    "pos/daemon",
    "pos/cli",
]

# The device-neutral core: knows nothing of CUDA.
CORE = ["pos/base", "pos/queue", "pos/call", "pos/graph", "pos/parser",
        "pos/worker", "pos/device", "remoting/wire", "remoting/control",
        "remoting/transport", "remoting/frontend"]
# Where CUDA's headers may be included.
CUDA = ["pos/cuda_impl", "remoting/shim"]
CUDA_HEADER = re.compile(r"(cuda\w*|cublas\w*|cudnn\w*|nvrtc|nvml|"
                         r"driver_types|vector_types|fatbinary_section)\.h")

# (who, what it must not reach by any arrows, why)
FORBIDDEN = [
    (r"pos_shim(_objects)?", r"pos_(graph|parser|worker|device|runner|frontend)"
     r"\w*|pos_cuda_(parser|worker|handles)", "the client library is a client"),
    (r"pos_shim(_objects)?", r"(?!Threads::).*::.*|yaml.*|protobuf.*|gRPC.*|spdlog.*",
     "the client library links no third party"),
    (r"posd|pos_supervisor|pos_daemon\w*", r"pos_(transport|frontend|parser|"
     r"worker|runner_core)\w*|pos_cuda_\w+|pos_device_sim",
     "posd never reads a frame and never touches a device"),
    (r"pos-cli|pos_cli\w*", r"pos_(supervisor|job|runner\w*|ckpt_\w+|cuda_\w+)",
     "pos-cli talks to posd and does nothing else"),
    (r"pos_(base|queue|call|graph|parser|worker|device|wire|control|frontend|"
     r"transport_shm)", r"pos_(cuda_\w+|device_sim|sim_engine|ptx|fatbin)",
     "the core knows nothing of CUDA"),
    (r"(?!posd$|pos_daemon|pos_supervisor|pos_api|pos-cli|pos_cli).*",
     r"gRPC::.*|pos_api_proto", "gRPC is the control plane's"),
]


def includes(text):
    for kind, name in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text,
                                 re.M):
        yield kind, name


def check_targets(targets):
    problems = []
    rank = {directory: i for i, directory in enumerate(ORDER)}
    for target in targets.values():
        if target.directory not in rank:
            problems.append(f"{target.directory}: not in the order of layers "
                            "(tests/lint/layering_test.py)")
            continue
        is_program = "-" in target.name or target.name == "posd"
        for link in target.links & set(targets):
            below = targets[link].directory
            if (not is_program and below != target.directory
                    and rank.get(below, 0) > rank[target.directory]):
                problems.append(f"{target.name} links {link}: "
                                f"{target.directory} lies below {below}")
        reached = build.closure(targets, target.name) - {target.name}
        for who, what, why in FORBIDDEN:
            if not re.fullmatch(who, target.name):
                continue
            for name in sorted(reached):
                if re.fullmatch(what, name):
                    problems.append(f"{target.name} reaches {name}: {why}")
    return problems


def check_includes(root, targets):
    problems = []
    files = [p for top in TOPS for p in sorted(pathlib.Path(root, top).rglob("*"))
             if p.suffix in (".h", ".cc", ".def")]
    reach = {name: build.closure(targets, name) for name in targets}
    for path in files:
        name = path.relative_to(root).as_posix()
        core = any(name.startswith(d + "/") for d in CORE)
        cuda = any(name.startswith(d + "/") for d in CUDA)
        mine = build.owners(targets, name)
        for kind, header in includes(path.read_text()):
            if CUDA_HEADER.fullmatch(pathlib.PurePosixPath(header).name):
                if kind == "<" and not cuda:
                    problems.append(f"{name}: includes <{header}>")
                    continue
            if kind == "<" or "/" not in header:
                if kind == '"' and not header.endswith(".inc"):
                    problems.append(f'{name}: "{header}" is no path from the '
                                    "root")
                continue
            if header.startswith(("tests/", "eval/")):
                problems.append(f"{name}: includes {header}")
                continue
            if core and header.startswith(tuple(d + "/" for d in CUDA)):
                problems.append(f"{name}: core includes {header}")
                continue
            theirs = {t.name for t in build.owners(targets, header)}
            if not theirs:
                problems.append(f"{name}: {header} belongs to no target")
            elif not any(theirs & reach[t.name] for t in mine):
                problems.append(
                    f"{name}: includes {header}, but "
                    f"{' and '.join(sorted(t.name for t in mine)) or 'nothing'}"
                    f" does not link {' or '.join(sorted(theirs))}")
    return problems


def check(root):
    targets = build.read(root, TOPS)
    return check_targets(targets) + check_includes(root, targets)


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]))
    print("\n".join(found))
    sys.exit(1 if found else 0)
