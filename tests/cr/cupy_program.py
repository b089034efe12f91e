"""CuPy on a GPU, computing the same as NumPy beside it.

Usage: cupy_program.py ITERATIONS DIRECTORY. Prints lines of progress, a digest
and PASS like the programs of tests/programs (see check.h there). Kernels are
compiled by NVRTC to PTX and kept in DIRECTORY; the arrays stay on the device
from iteration to iteration.
"""
import hashlib
import os
import sys

ITERATIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
os.environ["CUPY_COMPILE_WITH_PTX"] = "1"
os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels come as machine code
os.environ["OPENBLAS_NUM_THREADS"] = "1"
if len(sys.argv) > 2:
    os.environ["CUPY_CACHE_DIR"] = os.path.join(sys.argv[2], "cupy")

import cupy as cp  # noqa: E402: reads its environment
import numpy as np  # noqa: E402

SIZE = 3000

STEP = cp.RawKernel(r"""
extern "C" __global__ void step(unsigned long long* x, int n, int salt) {
  __shared__ unsigned long long tile[128];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x] = i < n ? x[i] : 0;
  __syncthreads();
  const unsigned long long other = tile[threadIdx.x ^ 1];
  if (i < n) x[i] = x[i] * 6364136223846793005ull + (other >> 7) + salt;
}
""", "step")
MODULE = cp.RawModule(code=r"""
template <typename T> __global__ void scale(T* x, T by, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = x[i] * by + static_cast<T>(1);
}
""", name_expressions=("scale<float>", "scale<int>"))
LARGER = cp.ElementwiseKernel("T x, T y", "T z", "z = x > y ? x : y * 2",
                              "larger")
SQUARES = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = a", "0",
                             "squares")


def numpy_step(x, salt):
    padded = np.zeros((SIZE + 127) // 128 * 128, np.uint64)
    padded[:SIZE] = x
    other = padded.reshape(-1, 2)[:, ::-1].reshape(-1)[:SIZE]
    return (x * np.uint64(6364136223846793005) + (other >> np.uint64(7)) +
            np.uint64(salt))


def same(name, got, want):
    got = cp.asnumpy(got)
    if not np.array_equal(got, want):
        print(f"FAIL: {name}: {got} want {want}")
        sys.exit(1)
    return got.tobytes()


def near(name, got, want):
    got = cp.asnumpy(got)
    if not np.allclose(got, want, rtol=1e-5, atol=1e-6):
        print(f"FAIL: {name}: {got} want {want}")
        sys.exit(1)
    return got.tobytes()


def main():
    digest = hashlib.blake2b(digest_size=8)
    want = np.arange(SIZE, dtype=np.uint64)
    x = cp.asarray(want)
    floats = np.linspace(0, 1, SIZE, dtype=np.float32)
    f = cp.asarray(floats)
    stream = cp.cuda.Stream(non_blocking=True)
    blocks, threads = ((SIZE + 127) // 128,), (128,)
    for it in range(ITERATIONS):
        STEP(blocks, threads, (x, np.int32(SIZE), np.int32(it)))
        want = numpy_step(want, it)
        digest.update(same("raw kernel", x, want))
        i = (x >> 40).astype(cp.int64)  # 24 bits
        j = (want >> np.uint64(40)).astype(np.int64)
        same("element-wise", LARGER(i, i[::-1]), np.where(
            j > j[::-1], j, j[::-1] * 2))
        same("sum", i.sum(), j.sum())
        same("max, argmin", cp.stack([i.max(), i.argmin()]),
             np.array([j.max(), j.argmin()]))
        same("reduction kernel", SQUARES(i % 1000), ((j % 1000) ** 2).sum())
        same("reduction over an axis", i.reshape(50, 60).sum(axis=0),
             j.reshape(50, 60).sum(axis=0))
        digest.update(same("scan", cp.cumsum(i), np.cumsum(j)))
        digest.update(same("selection", i[i % 3 == 0], j[j % 3 == 0]))
        same("take", i[i % SIZE], j[j % SIZE])
        with stream:
            g = cp.sqrt(f * f + 1) + cp.exp(-f)
            MODULE.get_function("scale<float>")(
                blocks, threads, (f, np.float32(0.5), np.int32(SIZE)))
        done = cp.cuda.Event()
        done.record(stream)
        done.synchronize()
        digest.update(near("floats", g, np.sqrt(floats * floats + 1) +
                           np.exp(-floats)))
        floats = floats * np.float32(0.5) + np.float32(1)
        near("template", f, floats)
        print(f"iteration {it + 1}/{ITERATIONS}", flush=True)
    print(f"digest {digest.hexdigest()}\nPASS", flush=True)


main()
