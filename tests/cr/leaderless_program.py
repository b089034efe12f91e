"""A program of the driver API whose main thread ends while another goes on.

Usage: leaderless_program.py FILE. Prints "alone" when that has happened, uses
the device until FILE is there, and prints PASS.
"""
import ctypes
import os
import sys
import threading
import time

SYS_EXIT = 60  # of one thread; x86-64
SIZE = 4096


def state_of_main():
    with open(f"/proc/{os.getpid()}/stat", "rb") as f:
        return f.read().rsplit(b")", 1)[1].split()[0]


def work(end):
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *args):
        result = getattr(cuda, name)(*args)
        if result != 0:
            print(f"FAIL: {name}: {result}", flush=True)
            os._exit(1)

    device = ctypes.c_int()
    context = ctypes.c_void_p()
    memory = ctypes.c_uint64()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(SIZE))
    found = (ctypes.c_uint8 * SIZE)()
    alone = False
    value = 0
    while not os.path.exists(end):
        value = value % 255 + 1
        call("cuMemsetD8_v2", memory, ctypes.c_ubyte(value),
             ctypes.c_size_t(SIZE))
        call("cuMemcpyDtoH_v2", found, memory, ctypes.c_size_t(SIZE))
        if bytes(found) != bytes([value]) * SIZE:
            print("FAIL: wrong bytes", flush=True)
            os._exit(1)
        if not alone and state_of_main() == b"Z":
            alone = True
            print("alone", flush=True)
        time.sleep(0.001)
    print("PASS", flush=True)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=work, args=(sys.argv[1],)).start()
    ctypes.CDLL(None).syscall(SYS_EXIT, 0)
