"""cuda-python (cuda.core and cuda.bindings) on a GPU, against NumPy.

Usage: cuda_core_program.py ITERATIONS DIRECTORY. Prints lines of progress, a
digest and PASS like the programs of tests/programs (see check.h there).
"""
import hashlib
import sys

import numpy as np
from cuda.bindings import driver
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch

ITERATIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
SIZE = 2000
SOURCE = """
template <typename T> __global__ void step(T* x, T salt, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = x[i] * static_cast<T>(2654435761u) + salt + i;
}
"""


def checked(result):
    if result[0] != driver.CUresult.CUDA_SUCCESS:
        print(f"FAIL: {result[0]}")
        sys.exit(1)


def main():
    device = Device()
    device.set_current()
    stream = device.create_stream()
    options = ProgramOptions(std="c++17", arch="compute_80")
    module = Program(SOURCE, "c++", options).compile(
        "ptx", name_expressions=("step<unsigned long long>",))
    kernel = module.get_kernel("step<unsigned long long>")
    want = np.arange(SIZE, dtype=np.uint64)
    got = np.empty_like(want)
    buffer = device.allocate(want.nbytes, stream=stream)
    stream.sync()
    checked(driver.cuMemcpyHtoD(int(buffer.handle), want.ctypes.data,
                                want.nbytes))
    index = np.arange(SIZE, dtype=np.uint64)
    digest = hashlib.blake2b(digest_size=8)
    for it in range(ITERATIONS):
        launch(stream, LaunchConfig(grid=(SIZE + 127) // 128, block=128),
               kernel, buffer, np.uint64(it), np.int32(SIZE))
        stream.sync()
        checked(driver.cuMemcpyDtoH(got.ctypes.data, int(buffer.handle),
                                    got.nbytes))
        want = want * np.uint64(2654435761) + np.uint64(it) + index
        if not np.array_equal(got, want):
            print(f"FAIL: iteration {it}")
            sys.exit(1)
        digest.update(got.tobytes())
        print(f"iteration {it + 1}/{ITERATIONS}", flush=True)
    print(f"digest {digest.hexdigest()}\nPASS", flush=True)


main()
