// Matrix products written from the PTX ISA's text and, for what the ISA leaves
// open, from docs/ptx.md: with integers, element by element.
#ifndef TESTS_POS_CUDA_IMPL_PTX_REFERENCE_MATRIX_H_
#define TESTS_POS_CUDA_IMPL_PTX_REFERENCE_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/opcodes.h"
#include "pos/cuda_impl/ptx/types.h"

namespace pos::ptx::testing {

// A matrix of raw elements, row after row.
struct Matrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::vector<std::uint64_t> bits;
  Matrix() = default;
  Matrix(std::size_t r, std::size_t c) : rows(r), columns(c), bits(r * c) {}
  std::uint64_t& At(std::size_t r, std::size_t c) {
    return bits[r * columns + c];
  }
  [[nodiscard]] std::uint64_t At(std::size_t r, std::size_t c) const {
    return bits[r * columns + c];
  }
};

struct ProductSpec {
  std::size_t m = 0;
  std::size_t n = 0;
  std::size_t k = 0;
  Type d = Type::kNone;
  Type a = Type::kNone;
  Type b = Type::kNone;
  Type c = Type::kNone;
  bool saturates = false;
  bool differ = false;  // b1: xor
  int rounding = 0;     // f64: as <cfenv> has it
};

// From the words of mma and wmma.mma.
ProductSpec SpecOf(const OpcodeInfo& op);
// "m16n8k16" in the words; false when there is none.
bool ShapeIn(const OpcodeInfo& op, ProductSpec* spec);

std::size_t ElementBitsOf(Type type);

Matrix ReferenceProduct(const ProductSpec& spec, const Matrix& a,
                        const Matrix& b, const Matrix& c);

enum class Values {
  kPlain,    // around 1; integers: all
  kWide,     // every finite exponent
  kTiny,     // subnormal numbers and zeros among plain ones
  kSpecial,  // infinities and NaNs among wide ones; integers: the ends
};
Matrix RandomMatrix(std::size_t rows, std::size_t columns, Type type,
                    Values values, std::mt19937_64* random);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_REFERENCE_MATRIX_H_
