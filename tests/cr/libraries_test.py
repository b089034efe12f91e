"""Libraries from PyPI, unchanged: checkpointed in the middle, killed, restored.

libraries_test.py cupy       CuPy: element-wise, reductions, raw kernels, streams
libraries_test.py cuda_core  cuda-python: cuda.core on top of cuda.bindings
libraries_test.py cudart_13_2, cudart_13_5
                             a program of ours with later CUDA runtimes, which ask
                             the driver for more than the one it was built with

They are installed by pip into virtual environments below the build directory,
once. Skipped, saying why, where that cannot be: without root, without a package
index, CuPy and cuda-python without the toolkit's libnvrtc.
"""
import fcntl
import glob
import os
import subprocess
import sys

from harness import (BUILD, Skip, cuda_runtime, descendants, expect,
                     expect_equal, main, needs_criu, needs_program, needs_root,
                     read_text, tail)
from programs import Program, Undisturbed
from programs_test import POINTS, disturbed

HERE = os.path.dirname(os.path.abspath(__file__))
INSTALL_S = 240  # at most


class PythonProgram:
    """A script of this directory, run by a virtual environment's Python."""

    def __init__(self, test, python, script):
        self.name = script
        self.python = python
        self.script = os.path.join(HERE, script)
        self.files = test.path("files")
        os.makedirs(self.files, exist_ok=True)

    def command(self, iterations):
        return [self.python, self.script, str(iterations), self.files]


def installed(name, packages):
    """The Python of a virtual environment with these packages."""
    home = os.path.join(BUILD, "python", name)
    python = os.path.join(home, "bin", "python")
    mark = os.path.join(home, "installed")
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        have = ""
        if os.path.exists(mark):
            with open(mark) as f:
                have = f.read()
        if have == " ".join(packages):
            return python
        for command in ([sys.executable, "-m", "venv", home],
                        [python, "-m", "pip", "install", "--quiet",
                         "--disable-pip-version-check", "--retries", "1",
                         *packages]):
            try:
                done = subprocess.run(command, capture_output=True,
                                      timeout=INSTALL_S)
            except (subprocess.TimeoutExpired, OSError) as error:
                raise Skip(f"{' '.join(command)}: {error}")
            if done.returncode != 0:
                why = done.stderr.decode(errors="replace").strip()
                raise Skip(f"{' '.join(command)}: {why[-300:]}")
        with open(mark, "w") as f:
            f.write(" ".join(packages))
    return python


# Script, iterations that take about a second, packages.
LIBRARIES = {
    "cupy": ("cupy_program.py", 40, ["cupy-cuda13x==14.*"]),
    "cuda_core": ("cuda_core_program.py", 2000,
                  ["cuda-core==1.2.*", "cuda-bindings==13.*", "numpy"]),
}


def library(test):
    script, iterations, packages = LIBRARIES[test.name]
    needs_root()
    runtime = cuda_runtime()
    if runtime is None or not any(name.startswith("libnvrtc.so")
                                  for name in os.listdir(runtime)):
        raise Skip("no libnvrtc in the CUDA toolkit")
    python = installed(test.name, packages)
    node = test.node()
    needs_criu(node)
    program = PythonProgram(test, python, script)
    # Compiles the kernels, for the later runs as well.
    compiled = node.begin("run", "--", *program.command(1), as_json=False)
    expect_equal(compiled.status(180), 0, "exit status: " +
                 tail(compiled.output + compiled.errors))
    undisturbed = Undisturbed(node, program, iterations=iterations)
    for i in range(POINTS):
        disturbed(test, node, program, undisturbed, stop=i % 2 == 0,
                  kernel_running=False)
    test.check_idle(node)


class WithRuntime(Program):
    """A program of tests/programs with a libcudart.so.13 from `directory`."""

    def __init__(self, test, name, directory):
        super().__init__(test, name)
        self.directory = directory

    def command(self, iterations=None):
        # Last in the job, or pos-cli and posd's own would see it, too.
        return ["/bin/sh", "-c",
                'LD_LIBRARY_PATH="$0:$LD_LIBRARY_PATH" exec "$@"',
                self.directory, *super().command(iterations)]


RUNTIMES = {"cudart_13_2": "13.2.*", "cudart_13_5": "13.5.*"}


def later_runtime(test):
    """Start, results, and a checkpoint of what asks for private functions that
    the runtime of the toolkit does without."""
    needs_root()
    needs_program("vector_add_shared")
    python = installed(test.name,
                       [f"nvidia-cuda-runtime=={RUNTIMES[test.name]}"])
    found = glob.glob(os.path.join(os.path.dirname(os.path.dirname(python)),
                                   "lib/python3*/site-packages/nvidia/cu13/lib"))
    expect_equal(len(found), 1, f"directories of the runtime: {found}")
    node = test.node()
    needs_criu(node)
    program = WithRuntime(test, "vector_add_shared", found[0])
    undisturbed = Undisturbed(node, program)
    job = node.run(*program.command(undisturbed.iterations))
    mapped = [read_text(f"/proc/{pid}/maps") for pid, name in
              descendants().items() if name.startswith("vector_add")]
    expect(any(found[0] in text for text in mapped), "another runtime is loaded")
    node.finish_job(job, undisturbed.output)
    disturbed(test, node, program, undisturbed, stop=True, kernel_running=False)
    test.check_idle(node)


TESTS = {name: library for name in LIBRARIES}
TESTS.update({name: later_runtime for name in RUNTIMES})

if __name__ == "__main__":
    main(TESTS, limit_s=400)
