#include "spellings.h"

#include <algorithm>
#include <random>
#include <set>

#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"

namespace pos::ptx::testing {
namespace {

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end != 0) parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

std::string Spell(std::string_view base,
                  const std::vector<std::vector<std::string_view>>& choices,
                  const std::vector<std::size_t>& picked) {
  std::string opcode(base);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const std::string_view word = choices[i][picked[i]];
    if (!word.empty()) opcode.append(".").append(word);
  }
  return opcode;
}

bool Belongs(const std::string& opcode, std::size_t row) {
  const OpcodeInfo info = ParseOpcode(opcode);
  return info.row == row && Exists(info);
}

}  // namespace

std::vector<std::vector<std::string_view>> Choices(std::size_t row) {
  std::vector<std::vector<std::string_view>> choices;
  for (std::string_view word : Split(GetOpcodeRow(row).pattern, ' ')) {
    const bool optional = word.back() == '?';
    if (optional) word.remove_suffix(1);
    choices.push_back(Split(word, '|'));
    if (optional) choices.back().push_back("");
  }
  return choices;
}

std::vector<std::string> Spellings(std::size_t row, std::size_t most) {
  const std::string_view base = GetOpcodeRow(row).base;
  const auto choices = Choices(row);
  std::size_t combinations = 1;
  for (const auto& word : choices) combinations *= word.size();
  std::vector<std::string> found;
  std::set<std::string> seen;
  const auto consider = [&](const std::vector<std::size_t>& picked) {
    std::string opcode = Spell(base, choices, picked);
    if (!Belongs(opcode, row) || !seen.insert(opcode).second) return false;
    found.push_back(std::move(opcode));
    return true;
  };
  if (combinations <= most) {
    for (std::size_t n = 0; n < combinations; ++n) {
      std::vector<std::size_t> picked;
      std::size_t rest = n;
      for (const auto& word : choices) {
        picked.push_back(rest % word.size());
        rest /= word.size();
      }
      consider(picked);
    }
    return found;
  }
  std::mt19937 random(static_cast<unsigned>(row));
  const auto any = [&](std::size_t fixed, std::size_t choice) {
    std::vector<std::size_t> picked;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      picked.push_back(i == fixed ? choice : random() % choices[i].size());
    }
    return consider(picked);
  };
  for (std::size_t i = 0; i < choices.size(); ++i) {
    for (std::size_t c = 0; c < choices[i].size(); ++c) {
      for (int tries = 0; tries < 2000 && !any(i, c); ++tries) {
      }
    }
  }
  for (std::size_t n = 0; n < 20 * most && found.size() < most; ++n) {
    any(choices.size(), 0);
  }
  return found;
}

std::string RowName(std::size_t row) {
  const auto choices = Choices(row);
  std::string name(GetOpcodeRow(row).base);
  if (!choices.empty()) name.append("_").append(choices.back().front());
  for (char& c : name) {
    if (c == ':' || c == '.') c = '_';
  }
  return name + "_" + std::to_string(row);
}

}  // namespace pos::ptx::testing
