#!/usr/bin/env python3
"""The driver API from Python through ctypes: PTX text, launches, copies.

Usage: python_driver.py [iterations]. Prints a digest and PASS like the compiled
programs beside it (see check.h); needs nothing but libcuda.so.1.
"""
import array
import ctypes
import sys

PTX = b"""
.version 7.0
.target sm_75
.address_size 64

.visible .entry collatz(.param .u64 data, .param .u32 n, .param .u32 steps)
{
  .reg .pred %p<4>;
  .reg .b32 %r<12>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [data];
  ld.param.u32 %r1, [n];
  ld.param.u32 %r2, [steps];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.u32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra done;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r6, 4;
  add.u64 %rd2, %rd2, %rd3;
  ld.global.u32 %r7, [%rd2];
loop:
  setp.eq.u32 %p2, %r2, 0;
  @%p2 bra store;
  and.b32 %r8, %r7, 1;
  setp.eq.u32 %p3, %r8, 0;
  shr.u32 %r9, %r7, 1;
  mad.lo.u32 %r10, %r7, 3, 1;
  selp.b32 %r7, %r9, %r10, %p3;
  sub.u32 %r2, %r2, 1;
  bra loop;
store:
  st.global.u32 [%rd2], %r7;
done:
  ret;
}
"""


def step(value, steps):
    for _ in range(steps):
        value = (value // 2 if value % 2 == 0 else value * 3 + 1) & 0xffffffff
    return value


def fnv1a(state, data):
    for byte in data:
        state = ((state ^ byte) * 1099511628211) & 0xffffffffffffffff
    return state


def main():
    iterations = max(1, int(sys.argv[1])) if len(sys.argv) > 1 else 4
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *args):
        result = getattr(cuda, name)(*args)
        if result != 0:
            print("FAIL: %s: %d" % (name, result), flush=True)
            sys.exit(1)

    def expect(condition, what):
        if not condition:
            print("FAIL: " + what, flush=True)
            sys.exit(1)

    device = ctypes.c_int()
    context, module, function, stream = (ctypes.c_void_p() for _ in range(4))
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX))
    call("cuModuleGetFunction", ctypes.byref(function), module, b"collatz")
    call("cuStreamCreate", ctypes.byref(stream), 0)
    count = 500
    want = array.array("I", (i * 7919 + 1 for i in range(count)))
    got = array.array("I", [0] * count)
    data = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(data), ctypes.c_size_t(4 * count))
    call("cuMemcpyHtoD_v2", data, ctypes.c_void_p(want.buffer_info()[0]),
         ctypes.c_size_t(4 * count))
    digest = 1469598103934665603
    for it in range(iterations):
        steps = it % 5 + 1
        values = (data, ctypes.c_uint(count), ctypes.c_uint(steps))
        params = (ctypes.c_void_p * 3)(
            *(ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values))
        call("cuLaunchKernel", function, (count + 63) // 64, 1, 1, 64, 1, 1, 0,
             stream, params, None)
        call("cuStreamSynchronize", stream)
        call("cuMemcpyDtoH_v2", ctypes.c_void_p(got.buffer_info()[0]), data,
             ctypes.c_size_t(4 * count))
        want = array.array("I", (step(v, steps) for v in want))
        expect(got == want, "results differ in iteration %d" % it)
        digest = fnv1a(digest, got.tobytes())
        print("iteration %d/%d" % (it + 1, iterations), flush=True)
    call("cuMemFree_v2", data)
    call("cuModuleUnload", module)
    call("cuDevicePrimaryCtxRelease_v2", device)
    print("digest %016x\nPASS" % digest, flush=True)


if __name__ == "__main__":
    main()
