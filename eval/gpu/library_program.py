"""NVIDIA's libraries as programs use them, through ctypes alone.

    library_program.py cublas|cudnn|cufft|curand|nvrtc

Prints a digest of every result, "SKIP …" (status 77) where the library is not
on this machine, and PASS. Inputs are small whole numbers, so that what is
summed is exact and can be checked here as well.
"""
import ctypes
import hashlib
import struct
import sys
from ctypes import byref, c_float, c_int, c_size_t, c_uint64, c_void_p

N = 64  # of N × N matrices


def library(*names):
    for name in names:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            why = error
    print(f"SKIP {why}")
    sys.exit(77)


def check(status, what):
    if status != 0:
        print(f"FAIL {what}: error {status}")
        sys.exit(1)


class Device:
    """Device memory through the runtime."""

    def __init__(self):
        self.rt = library("libcudart.so.13", "libcudart.so")

    def alloc(self, count):
        pointer = c_void_p()
        check(self.rt.cudaMalloc(byref(pointer), c_size_t(4 * count)),
              "cudaMalloc")
        return pointer

    def put(self, values):
        pointer = self.alloc(len(values))
        data = struct.pack(f"{len(values)}f", *values)
        check(self.rt.cudaMemcpy(pointer, data, c_size_t(len(data)), 1),
              "cudaMemcpy")
        return pointer

    def get(self, pointer, count):
        data = ctypes.create_string_buffer(4 * count)
        check(self.rt.cudaMemcpy(data, pointer, c_size_t(4 * count), 2),
              "cudaMemcpy")
        return data.raw

    def floats(self, pointer, count):
        return list(struct.unpack(f"{count}f", self.get(pointer, count)))


def told(name, data):
    print(f"digest {name} {hashlib.sha256(data).hexdigest()[:16]}", flush=True)


def expect(condition, what):
    if not condition:
        print(f"FAIL {what}")
        sys.exit(1)


def matrix(salt):
    return [float((i * 7 + salt) % 5 - 2) for i in range(N * N)]


def product(a, b):
    """Of two matrices whose columns follow each other."""
    return [sum(a[k * N + i] * b[j * N + k] for k in range(N))
            for j in range(N) for i in range(N)]


def cublas():
    lib = library("libcublas.so.13", "libcublas.so")
    device = Device()
    handle = c_void_p()
    check(lib.cublasCreate_v2(byref(handle)), "cublasCreate")
    one, zero = c_float(1), c_float(0)
    a, b = matrix(1), matrix(3)
    x, y, z = device.put(a), device.put(b), device.alloc(N * N)
    check(lib.cublasSgemm_v2(handle, 0, 0, N, N, N, byref(one), x, N, y, N,
                             byref(zero), z, N), "cublasSgemm")
    expect(device.floats(z, N * N) == product(a, b), "the product is wrong")
    told("sgemm", device.get(z, N * N))
    check(lib.cublasSaxpy_v2(handle, N * N, byref(one), x, 1, z, 1),
          "cublasSaxpy")
    told("saxpy", device.get(z, N * N))
    # bfloat16: the upper half of each float, exact for these.
    half = b"".join(struct.pack("f", v)[2:] for v in a)
    h = device.alloc(N * N // 2)
    check(device.rt.cudaMemcpy(h, half, c_size_t(len(half)), 1), "cudaMemcpy")
    check(lib.cublasGemmEx(handle, 0, 0, N, N, N, byref(one), h, 14, N, h, 14, N,
                           byref(zero), z, 0, N, 68, -1), "cublasGemmEx")
    expect(device.floats(z, N * N) == product(a, a), "GemmEx: wrong product")
    told("gemm_bf16", device.get(z, N * N))
    check(lib.cublasDestroy_v2(handle), "cublasDestroy")


def cudnn():
    lib = library("libcudnn.so.9", "libcudnn.so")
    device = Device()
    handle = c_void_p()
    check(lib.cudnnCreate(byref(handle)), "cudnnCreate")
    one, zero = c_float(1), c_float(0)

    def tensor(n, c, h, w):
        made = c_void_p()
        check(lib.cudnnCreateTensorDescriptor(byref(made)), "descriptor")
        check(lib.cudnnSetTensor4dDescriptor(made, 0, 0, n, c, h, w),
              "cudnnSetTensor4dDescriptor")
        return made

    values = [float(i % 9 - 4) for i in range(8 * 16 * 16)]
    x = device.put(values)
    shape = tensor(1, 8, 16, 16)
    y = device.alloc(len(values))
    check(lib.cudnnSoftmaxForward(handle, 1, 1, byref(one), shape, x,
                                  byref(zero), shape, y),
          "cudnnSoftmaxForward")
    told("softmax", device.get(y, len(values)))
    weights = [float(i % 3 - 1) for i in range(4 * 8 * 3 * 3)]
    w = device.put(weights)
    kernels, how = c_void_p(), c_void_p()
    check(lib.cudnnCreateFilterDescriptor(byref(kernels)), "filter")
    check(lib.cudnnSetFilter4dDescriptor(kernels, 0, 0, 4, 8, 3, 3),
          "cudnnSetFilter4dDescriptor")
    check(lib.cudnnCreateConvolutionDescriptor(byref(how)), "convolution")
    check(lib.cudnnSetConvolution2dDescriptor(how, 1, 1, 1, 1, 1, 1, 1, 0),
          "cudnnSetConvolution2dDescriptor")
    out = device.alloc(4 * 16 * 16)
    check(lib.cudnnConvolutionForward(
        handle, byref(one), shape, x, kernels, w, how, 0, None, c_size_t(0),
        byref(zero), tensor(1, 4, 16, 16), out), "cudnnConvolutionForward")
    got = device.floats(out, 4 * 16 * 16)
    want = sum(values[c * 256 + (7 + i) * 16 + 7 + j] *
               weights[c * 9 + (i + 1) * 3 + j + 1]
               for c in range(8) for i in (-1, 0, 1) for j in (-1, 0, 1))
    expect(got[7 * 16 + 7] == want, f"{got[7 * 16 + 7]}, wanted {want}")
    told("convolution", device.get(out, 4 * 16 * 16))


def cufft():
    lib = library("libcufft.so.12", "libcufft.so")
    device = Device()
    plan = c_int()
    check(lib.cufftPlan1d(byref(plan), 1024, 0x29, 2), "cufftPlan1d")
    values = [0.0] * 4096
    values[0] = 1.0  # an impulse, whose spectrum is 1 everywhere
    values[2048 + 6] = 2.0
    x, y = device.put(values), device.alloc(4096)
    check(lib.cufftExecC2C(plan, x, y, -1), "cufftExecC2C")
    check(device.rt.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
    got = device.floats(y, 4096)
    expect(all(abs(v - (1 - i % 2)) < 1e-5 for i, v in enumerate(got[:2048])),
           "the spectrum of an impulse is wrong")
    told("c2c", device.get(y, 4096))


def curand():
    lib = library("libcurand.so.10", "libcurand.so")
    device = Device()
    for name, kind in (("xorwow", 101), ("philox", 161), ("sobol32", 201)):
        generator = c_void_p()
        check(lib.curandCreateGenerator(byref(generator), kind),
              "curandCreateGenerator")
        if kind < 200:
            check(lib.curandSetPseudoRandomGeneratorSeed(generator, c_uint64(7)),
                  "curandSetPseudoRandomGeneratorSeed")
        x = device.alloc(10000)
        check(lib.curandGenerateUniform(generator, x, c_size_t(10000)),
              "curandGenerateUniform")
        check(device.rt.cudaDeviceSynchronize(), "cudaDeviceSynchronize")
        got = device.floats(x, 10000)
        expect(all(0 <= v <= 1 for v in got) and 0.45 < sum(got) / 10000 < 0.55,
               f"{name}: not uniform")
        told(name, device.get(x, 10000))


SOURCE = b"""
extern "C" __global__ void step(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = x[i] * 3.0f + i;
}
"""


def nvrtc():
    lib = library("libnvrtc.so.13", "libnvrtc.so")
    driver = library("libcuda.so.1")
    program = c_void_p()
    check(lib.nvrtcCreateProgram(byref(program), SOURCE, b"step.cu", 0, None,
                                 None), "nvrtcCreateProgram")
    options = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_80")
    check(lib.nvrtcCompileProgram(program, 1, options), "nvrtcCompileProgram")
    size = c_size_t()
    check(lib.nvrtcGetPTXSize(program, byref(size)), "nvrtcGetPTXSize")
    ptx = ctypes.create_string_buffer(size.value)
    check(lib.nvrtcGetPTX(program, ptx), "nvrtcGetPTX")
    context, module, function = c_void_p(), c_void_p(), c_void_p()
    check(driver.cuInit(0), "cuInit")
    check(driver.cuDevicePrimaryCtxRetain(byref(context), 0), "context")
    check(driver.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    check(driver.cuModuleLoadData(byref(module), ptx), "cuModuleLoadData")
    check(driver.cuModuleGetFunction(byref(function), module, b"step"),
          "cuModuleGetFunction")
    device = Device()
    values = [float(i % 11) for i in range(1000)]
    x, count = device.put(values), c_int(1000)
    arguments = (c_void_p * 2)(ctypes.cast(byref(x), c_void_p),
                               ctypes.cast(byref(count), c_void_p))
    check(driver.cuLaunchKernel(function, 4, 1, 1, 256, 1, 1, 0, None, arguments,
                                None), "cuLaunchKernel")
    expect(device.floats(x, 1000) == [v * 3 + i for i, v in enumerate(values)],
           "the kernel's result is wrong")
    told("kernel", device.get(x, 1000))


if __name__ == "__main__":
    {"cublas": cublas, "cudnn": cudnn, "cufft": cufft, "curand": curand,
     "nvrtc": nvrtc}[sys.argv[1]]()
    print("PASS", flush=True)
