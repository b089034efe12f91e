// Kernel names, parameter layouts and resource use from a cubin (an ELF file
// for the GPU). The code itself is not looked at.
//
// Input is not trusted: every offset is checked. Threads: no state.
//
// Where things are (read off ptxas 13.0.88 output for sm_75 to sm_120 and
// compared with what `ptxas -v` prints; samples in the test's data folder):
//   symbols of type FUNC and binding GLOBAL or WEAK with a .nv.info.<name>
//     section: the kernels (device functions kept by -rdc=true have a section
//     too, but no 0x17/0x19 records and no constant bank 0 of their own)
//   .nv.info.<kernel>: records {u8 format, u8 attribute, u16 size-or-value,
//     size bytes when format is 4}
//       0x17 one parameter: u32, u16 ordinal, u16 offset, u32 w; bytes = w>>18
//       0x19 bytes of all parameters (format 3: in the record head)
//       0x05 maximum threads per block, x y z (.maxntid)
//       0x10 required threads per block, x y z (.reqntid)
//   .nv.info: records with a symbol index first
//       0x2f {symbol, registers per thread}   0x11 {symbol, stack frame bytes}
//   .nv.shared.<kernel>: its size is the static shared memory, from sm_90 on
//     plus 1024 bytes that the system takes (.nv.shared.reserved.0 is there)
//   .nv.constant3: the module's __constant__ variables
// ELF flags: SM in bits 8-15 for ABI version 8, in bits 0-7 before.
#ifndef POS_CUDA_IMPL_FATBIN_CUBIN_H_
#define POS_CUDA_IMPL_FATBIN_CUBIN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos::fatbin {

struct CubinParam {
  std::uint32_t offset = 0;  // in the parameter block
  std::uint32_t bytes = 0;
};

struct CubinKernel {
  std::string name;
  std::vector<CubinParam> params;  // by ordinal
  std::uint32_t params_bytes = 0;
  std::uint32_t registers = 0;     // per thread
  std::uint32_t shared_bytes = 0;  // static, without what the system takes
  std::uint32_t frame_bytes = 0;   // stack (local memory) per thread
  std::uint32_t max_threads = 0;   // 0: not limited by the kernel
};

struct Cubin {
  std::uint32_t sm = 0;
  std::uint32_t constant_bytes = 0;
  std::vector<CubinKernel> kernels;  // in symbol order
};

Result<Cubin> ReadCubin(std::span<const std::byte> elf);

}  // namespace pos::fatbin

#endif  // POS_CUDA_IMPL_FATBIN_CUBIN_H_
