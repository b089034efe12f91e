// vprintf, malloc, free and __assertfail: what device code expects the driver
// to have.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "pos/cuda_impl/ptx/block.h"
#include "pos/cuda_impl/ptx/control.h"

namespace pos::ptx::builtin {
namespace {

constexpr std::size_t kMaxText = 1u << 16;

template <typename T>
T Argument(const Warp& warp, const Inst& inst, std::uint32_t index,
           std::uint32_t lane) {
  T value{};
  std::memcpy(&value,
              warp.frame->params + std::size_t{lane} * warp.frame->param_bytes +
                  warp.lists[inst.e + index],
              sizeof(T));
  return value;
}

template <typename T>
void SetResult(const Warp& warp, const Inst& inst, std::uint32_t lane,
               T value) {
  std::memcpy(warp.frame->params + std::size_t{lane} * warp.frame->param_bytes +
                  warp.lists[inst.e],
              &value, sizeof(T));
}

// The arguments of a printf as the compiler stores them: each aligned to its
// size, in memory that `address` points to.
class ArgumentReader {
 public:
  ArgumentReader(Warp* warp, std::uint32_t lane, std::uint64_t address)
      : warp_(warp), lane_(lane), address_(address) {}

  template <typename T>
  bool Next(T* value) {
    offset_ = (offset_ + sizeof(T) - 1) & ~std::uint64_t{sizeof(T) - 1};
    const bool ok =
        ReadGeneric(warp_, lane_, address_ + offset_, value, sizeof(T));
    offset_ += sizeof(T);
    ++count_;
    return ok;
  }
  [[nodiscard]] int count() const { return count_; }

 private:
  Warp* warp_;
  std::uint32_t lane_;
  std::uint64_t address_;
  std::uint64_t offset_ = 0;
  int count_ = 0;
};

template <typename T>
void Print(const std::string& spec, T value, std::string* out) {
  std::array<char, 512> buffer;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  const int length =
      std::snprintf(buffer.data(), buffer.size(), spec.c_str(), value);
  if (length <= 0) return;
  const auto bytes = static_cast<std::size_t>(length);
  if (bytes < buffer.size()) {
    out->append(buffer.data(), bytes);
    return;
  }
  // A long string, or a large number written out.
  const std::size_t before = out->size();
  out->resize(before + bytes + 1);
  std::snprintf(out->data() + before, bytes + 1, spec.c_str(), value);
#pragma GCC diagnostic pop
  out->resize(before + bytes);
}

// One conversion: flags, width, precision, length and the letter.
struct Conversion {
  std::string flags;  // with width and precision, as written
  int longs = 0;      // l, ll, j, z, t
  int shorts = 0;     // h, hh
  char letter = '\0';
};

// Widths and precisions, bounded: nobody waits for 2,000,000,000 blanks.
void AddNumber(std::int64_t value, Conversion* out) {
  constexpr std::int64_t kMost = 400;
  const bool precision = !out->flags.empty() && out->flags.back() == '.';
  if (precision && value < 0) {  // as if there were none
    out->flags.pop_back();
    return;
  }
  out->flags += std::to_string(std::min(std::max(value, -kMost), kMost));
}

// Flags, width and precision.
bool ParseFlags(std::string_view format, std::size_t* at,
                ArgumentReader* arguments, Conversion* out) {
  constexpr std::size_t kMostFlags = 32;
  for (; *at < format.size() && out->flags.size() < kMostFlags; ++*at) {
    const char c = format[*at];
    if (c == '*') {
      std::int32_t value = 0;
      if (!arguments->Next(&value)) return false;
      AddNumber(value, out);
    } else if (c >= '1' && c <= '9') {
      std::int64_t value = 0;
      for (; *at < format.size() && format[*at] >= '0' && format[*at] <= '9';
           ++*at) {
        value = std::min<std::int64_t>(10 * value + (format[*at] - '0'), 1000);
      }
      --*at;
      AddNumber(value, out);
    } else if (std::string_view("-+ #0.").find(c) != std::string_view::npos) {
      out->flags += c;
    } else {
      break;
    }
  }
  return true;
}

bool ParseConversion(std::string_view format, std::size_t* at,
                     ArgumentReader* arguments, Conversion* out) {
  if (!ParseFlags(format, at, arguments, out)) return false;
  for (; *at < format.size(); ++*at) {
    const char c = format[*at];
    if (c == 'l' || c == 'j' || c == 'z' || c == 't') {
      ++out->longs;
    } else if (c == 'h') {
      ++out->shorts;
    } else {
      out->letter = c;
      ++*at;
      return true;
    }
  }
  return false;
}

bool FormatInteger(const Conversion& c, ArgumentReader* arguments,
                   std::string* out) {
  const bool is_signed = c.letter == 'd' || c.letter == 'i';
  std::int64_t value = 0;
  if (c.longs > 0) {
    if (!arguments->Next(&value)) return false;
  } else {
    std::int32_t narrow = 0;
    if (!arguments->Next(&narrow)) return false;
    if (c.shorts == 1) narrow = static_cast<std::int16_t>(narrow);
    if (c.shorts >= 2) narrow = static_cast<std::int8_t>(narrow);
    value = narrow;
    if (!is_signed) {
      value &= c.shorts == 0 ? 0xffffffff : c.shorts == 1 ? 0xffff : 0xff;
    }
  }
  if (is_signed) {
    Print("%" + c.flags + "lld", static_cast<long long>(value), out);
  } else {
    Print("%" + c.flags + "ll" + c.letter,
          static_cast<unsigned long long>(value), out);
  }
  return true;
}

bool FormatOne(Warp* warp, std::uint32_t lane, const Conversion& c,
               ArgumentReader* arguments, std::string* out) {
  const std::string_view letter(&c.letter, 1);
  if (std::string_view("diuoxX").find(c.letter) != std::string_view::npos) {
    return FormatInteger(c, arguments, out);
  }
  if (std::string_view("fFeEgGaA").find(c.letter) != std::string_view::npos) {
    double value = 0;
    if (!arguments->Next(&value)) return false;
    Print("%" + c.flags + std::string(letter), value, out);
    return true;
  }
  if (c.letter == 'c') {
    std::int32_t value = 0;
    if (!arguments->Next(&value)) return false;
    Print("%" + c.flags + "c", static_cast<int>(value), out);
    return true;
  }
  std::uint64_t address = 0;
  if (c.letter == 'p') {
    if (!arguments->Next(&address)) return false;
    Print("%" + c.flags + "p", reinterpret_cast<void*>(address), out);
    return true;
  }
  if (c.letter != 's') {  // unknown: as it stands
    *out += "%" + c.flags + std::string(letter);
    return true;
  }
  std::string text;
  if (!arguments->Next(&address)) return false;
  if (address == 0) {
    text = "(null)";
  } else if (!ReadString(warp, lane, address, kMaxText, &text)) {
    return false;
  }
  if (c.flags.empty()) {
    *out += text;
  } else {
    Print("%" + c.flags + "s", text.c_str(), out);
  }
  return true;
}

// The text, or false when format or arguments cannot be read.
bool Format(Warp* warp, std::uint32_t lane, std::string_view format,
            ArgumentReader* arguments, std::string* out) {
  std::size_t at = 0;
  while (at < format.size() && out->size() < kMaxText) {
    if (format[at] != '%') {
      out->push_back(format[at++]);
      continue;
    }
    ++at;
    if (at < format.size() && format[at] == '%') {
      out->push_back('%');
      ++at;
      continue;
    }
    Conversion conversion;
    if (!ParseConversion(format, &at, arguments, &conversion) ||
        !FormatOne(warp, lane, conversion, arguments, out)) {
      return false;
    }
  }
  return true;
}

struct Builtin {
  std::string_view name;
  std::size_t operands;
  Handler handler;
};
constexpr Builtin kBuiltins[] = {
    {"vprintf", 3, &Vprintf},
    {"malloc", 2, &Malloc},
    {"free", 1, &Free},
    {"__assertfail", 5, &AssertFail},
};

const Builtin* FindRow(std::string_view name) {
  for (const Builtin& row : kBuiltins) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace

Handler Find(std::string_view name) {
  const Builtin* row = FindRow(name);
  return row == nullptr ? nullptr : row->handler;
}

std::size_t Operands(std::string_view name) {
  const Builtin* row = FindRow(name);
  return row == nullptr ? 0 : row->operands;
}

// (int) vprintf(format, arguments)
const Inst* Vprintf(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const auto format_at = Argument<std::uint64_t>(*warp, *inst, 1, lane);
    const auto buffer = Argument<std::uint64_t>(*warp, *inst, 2, lane);
    if (format_at == 0) {  // as CUDA's printf
      SetResult<std::int32_t>(*warp, *inst, lane, -1);
      continue;
    }
    std::string format;
    std::string text;
    ArgumentReader arguments(warp, lane, buffer);
    if (!ReadString(warp, lane, format_at, kMaxText, &format) ||
        !Format(warp, lane, format, &arguments, &text)) {
      return RaiseFault(warp, inst, lane, kErrorIllegalAddress, format_at,
                        "printf with a format or an argument outside of every "
                        "allocation");
    }
    warp->block->launch->output->Print(text);
    SetResult<std::int32_t>(*warp, *inst, lane, arguments.count());
  }
  return inst + 1;
}

// (pointer) malloc(bytes)
const Inst* Malloc(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const auto bytes = Argument<std::uint64_t>(*warp, *inst, 1, lane);
    SetResult<std::uint64_t>(*warp, *inst, lane,
                             warp->worker->memory->Malloc(bytes));
  }
  return inst + 1;
}

// free(pointer)
const Inst* Free(Warp* warp, const Inst* inst) {
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    const auto address = Argument<std::uint64_t>(*warp, *inst, 0, lane);
    if (address != 0 && !warp->worker->memory->Free(address)) {
      return RaiseFault(warp, inst, lane, kErrorIllegalAddress, address,
                        "free of what malloc did not return");
    }
  }
  return inst + 1;
}

// __assertfail(message, file, line, function, character size)
const Inst* AssertFail(Warp* warp, const Inst* inst) {
  std::string text;
  for (std::uint32_t left = warp->active; left != 0; left &= left - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(left));
    std::string message;
    std::string file;
    std::string function;
    const bool ok =
        ReadString(warp, lane, Argument<std::uint64_t>(*warp, *inst, 0, lane),
                   kMaxText, &message) &&
        ReadString(warp, lane, Argument<std::uint64_t>(*warp, *inst, 1, lane),
                   kMaxText, &file) &&
        ReadString(warp, lane, Argument<std::uint64_t>(*warp, *inst, 3, lane),
                   kMaxText, &function);
    if (!ok) message = "(unreadable)";
    const auto thread = ThreadIndex(*warp, lane);
    const auto& block = warp->block->index;
    text += file + ":" +
            std::to_string(Argument<std::uint32_t>(*warp, *inst, 2, lane)) +
            ": " + function + ": block: [" + std::to_string(block[0]) + "," +
            std::to_string(block[1]) + "," + std::to_string(block[2]) +
            "], thread: [" + std::to_string(thread[0]) + "," +
            std::to_string(thread[1]) + "," + std::to_string(thread[2]) +
            "] Assertion `" + message + "` failed.\n";
  }
  warp->block->launch->output->PrintFailure(text);
  return RaiseFault(warp, inst,
                    static_cast<std::uint32_t>(std::countr_zero(warp->active)),
                    kErrorAssert, 0, "an assertion failed");
}

}  // namespace pos::ptx::builtin
