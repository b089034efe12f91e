#include "pos/cuda_impl/ptx/opcodes.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace pos::ptx {
namespace {

constexpr OpcodeRow kRows[] = {
#define POS_PTX_OP(base, pattern, shape, operands, pick) \
  {#base, pattern, Shape::shape, operands},
#include "pos/cuda_impl/ptx/opcodes.def"
#undef POS_PTX_OP
};

// What a modifier means to the choice of handlers and to Inst::flags.
struct WordMeaning {
  std::string_view word;
  void (*apply)(PickKey* key);
};

template <Compare kCompare>
void SetCompare(PickKey* key) {
  key->compare = kCompare;
}
template <Space kSpace>
void SetSpace(PickKey* key) {
  key->space = kSpace;
}
template <std::uint32_t kRounding>
void SetRounding(PickKey* key) {
  key->flags = (key->flags & ~kRoundMask) | kRounding;
  key->words |= kRound;
}
template <std::uint32_t kRounding>
void SetIntegral(PickKey* key) {
  key->flags = (key->flags & ~kRoundMask) | kRounding;
  key->words |= kIntegral;
}
template <std::uint32_t kFlags>
void AddFlags(PickKey* key) {
  key->flags |= kFlags;
}
template <std::uint32_t kWords>
void AddWords(PickKey* key) {
  key->words |= kWords;
}
template <std::uint8_t kCount>
void SetVector(PickKey* key) {
  key->vector = kCount;
}
template <MemoryOp kOp>
void SetMemory(PickKey* key) {
  key->memory = kOp;
}
// "and" combines predicates in setp, is the operation of atom and redux.
template <BoolOp kBool, MemoryOp kOp>
void SetLogic(PickKey* key) {
  key->boolean = kBool;
  key->memory = kOp;
}

constexpr WordMeaning kMeanings[] = {
    {"eq", SetCompare<Compare::kEq>},
    {"ne", SetCompare<Compare::kNe>},
    {"lt", SetCompare<Compare::kLt>},
    {"le", SetCompare<Compare::kLe>},
    {"gt", SetCompare<Compare::kGt>},
    {"ge", SetCompare<Compare::kGe>},
    {"ls", SetCompare<Compare::kLs>},
    {"hs", SetCompare<Compare::kHs>},
    {"equ", SetCompare<Compare::kEqu>},
    {"neu", SetCompare<Compare::kNeu>},
    {"ltu", SetCompare<Compare::kLtu>},
    {"leu", SetCompare<Compare::kLeu>},
    {"gtu", SetCompare<Compare::kGtu>},
    {"geu", SetCompare<Compare::kGeu>},
    {"num", SetCompare<Compare::kNum>},
    {"nan", SetCompare<Compare::kNan>},
    {"global", SetSpace<Space::kGlobal>},
    {"const", SetSpace<Space::kConst>},
    {"shared", SetSpace<Space::kShared>},
    {"shared::cta", SetSpace<Space::kShared>},
    {"shared::cluster", SetSpace<Space::kShared>},
    {"local", SetSpace<Space::kLocal>},
    {"param", SetSpace<Space::kParam>},
    {"param::entry", SetSpace<Space::kParam>},
    {"param::func", SetSpace<Space::kParam>},
    {"rn", SetRounding<kRoundNearest>},
    {"rz", SetRounding<kRoundZero>},
    {"rm", SetRounding<kRoundDown>},
    {"rp", SetRounding<kRoundUp>},
    {"rni", SetIntegral<kRoundNearest>},
    {"rzi", SetIntegral<kRoundZero>},
    {"rmi", SetIntegral<kRoundDown>},
    {"rpi", SetIntegral<kRoundUp>},
    {"rna", AddWords<kRoundAway>},
    {"ftz", AddFlags<kFtz>},
    {"noftz", AddWords<kNoFtz>},
    {"sat", AddFlags<kSat>},
    {"satfinite", AddWords<kSatFinite>},
    {"relu", AddFlags<kRelu>},
    {"NaN", AddFlags<kNanFlag>},
    {"xorsign", AddFlags<kXorSign>},
    {"abs", AddWords<kAbs>},
    {"wide", AddWords<kWide>},
    {"approx", AddWords<kApprox>},
    {"full", AddWords<kFull>},
    {"cc", AddWords<kCarryOut>},
    {"l", AddWords<kLeft>},
    {"wrap", AddWords<kWrap>},
    {"shiftamt", AddWords<kShiftAmount>},
    {"v2", SetVector<2>},
    {"v4", SetVector<4>},
    {"v8", SetVector<8>},
    {"volatile", AddWords<kSync>},
    {"relaxed", AddWords<kSync>},
    {"acquire", AddWords<kSync>},
    {"release", AddWords<kSync | kRelease>},
    {"acq_rel", AddWords<kSync | kRelease>},
    {"mmio", AddWords<kSync>},
    {"sc", AddWords<kSync | kFence>},
    {"and", SetLogic<BoolOp::kAnd, MemoryOp::kAnd>},
    {"or", SetLogic<BoolOp::kOr, MemoryOp::kOr>},
    {"xor", SetLogic<BoolOp::kXor, MemoryOp::kXor>},
    {"cas", SetMemory<MemoryOp::kCas>},
    {"exch", SetMemory<MemoryOp::kExch>},
    {"add", SetMemory<MemoryOp::kAdd>},
    {"inc", SetMemory<MemoryOp::kInc>},
    {"dec", SetMemory<MemoryOp::kDec>},
    {"min", SetMemory<MemoryOp::kMin>},
    {"max", SetMemory<MemoryOp::kMax>},
    {"popc", SetMemory<MemoryOp::kPopc>},
    {"up", AddWords<kUp>},
    {"down", AddWords<kDown>},
    {"bfly", AddWords<kButterfly>},
    {"idx", AddWords<kIdx>},
    {"all", AddWords<kAll>},
    {"any", AddWords<kAny>},
    {"uni", AddWords<kUni>},
    {"ballot", AddWords<kBallot>},
};

void ApplyWord(std::string_view base, std::string_view word, PickKey* key) {
  const bool compares = base == "setp" || base == "set";
  if (word == "lo" || word == "hi") {  // halves of a product, or comparisons
    const bool low = word == "lo";
    if (compares) key->compare = low ? Compare::kLo : Compare::kHi;
    if (!compares) key->words |= low ? kLo : kHi;
    return;
  }
  const Type type = TypeFromName(word);
  if (type != Type::kNone) {
    if (key->types < 4) key->type[key->types++] = type;
    return;
  }
  for (const WordMeaning& meaning : kMeanings) {
    if (meaning.word == word) return meaning.apply(key);
  }
}

// Whether the choice "a|b|c" has `word`.
bool Offers(std::string_view choice, std::string_view word) {
  while (!choice.empty()) {
    const std::size_t bar = std::min(choice.find('|'), choice.size());
    if (choice.substr(0, bar) == word) return true;
    choice.remove_prefix(std::min(bar + 1, choice.size()));
  }
  return false;
}

bool Fits(const OpcodeRow& row, const std::vector<std::string_view>& words) {
  constexpr std::size_t kMaxWords = 32;
  if (words.size() > kMaxWords) return false;
  std::array<bool, kMaxWords> fitted{};
  std::string_view rest = row.pattern;
  std::size_t fits = 0;
  while (!rest.empty()) {
    const std::size_t blank = std::min(rest.find(' '), rest.size());
    std::string_view choice = rest.substr(0, blank);
    rest.remove_prefix(std::min(blank + 1, rest.size()));
    if (choice.empty()) continue;
    const bool optional = choice.back() == '?';
    if (optional) choice.remove_suffix(1);
    bool found = false;
    for (std::size_t i = 0; i < words.size() && !found; ++i) {
      if (fitted[i] || !Offers(choice, words[i])) continue;
      fitted[i] = true;
      found = true;
      ++fits;
    }
    if (!found && !optional) return false;
  }
  return fits == words.size();
}

using RowsOfBases =
    std::unordered_map<std::string_view, std::vector<std::uint32_t>>;

const RowsOfBases& RowsByBase() {
  static const auto* const kByBase = [] {
    auto* rows = new RowsOfBases;
    for (std::uint32_t i = 0; i < std::size(kRows); ++i) {
      (*rows)[kRows[i].base].push_back(i);
    }
    return rows;
  }();
  return *kByBase;
}

}  // namespace

std::size_t OpcodeRowCount() { return std::size(kRows); }
const OpcodeRow& GetOpcodeRow(std::size_t row) { return kRows[row]; }

bool OpcodeInfo::Has(std::string_view word) const {
  return std::find(words.begin(), words.end(), word) != words.end();
}

OpcodeInfo ParseOpcode(std::string_view opcode) {
  OpcodeInfo info;
  std::size_t dot = std::min(opcode.find('.'), opcode.size());
  info.base = opcode.substr(0, dot);
  while (dot < opcode.size()) {
    const std::size_t next = std::min(opcode.find('.', dot + 1), opcode.size());
    info.words.push_back(opcode.substr(dot + 1, next - dot - 1));
    dot = next;
  }
  for (const std::string_view word : info.words) {
    ApplyWord(info.base, word, &info.key);
  }
  if (info.base == "addc" || info.base == "subc" || info.base == "madc") {
    info.key.words |= kCarryIn;
  }
  const auto rows = RowsByBase().find(info.base);
  if (rows == RowsByBase().end()) return info;
  for (const std::uint32_t row : rows->second) {
    if (Fits(kRows[row], info.words)) {
      info.row = row;
      break;
    }
  }
  return info;
}

bool IsSupported(std::string_view opcode) {
  return ParseOpcode(opcode).row != OpcodeInfo::kNoRow;
}

bool IsBuiltin(std::string_view function) {
  for (const std::string_view name :
       {"vprintf", "malloc", "free", "__assertfail"}) {
    if (function == name) return true;
  }
  return false;
}

}  // namespace pos::ptx
