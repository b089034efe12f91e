#include "conf/options.h"

#include <algorithm>
#include <limits>

namespace pos::conf {
namespace {

constexpr bool kReload = true;
constexpr bool kRestart = false;

// --- Values as YAML writes them ---

// Plain where YAML allows it and it cannot be taken for something else.
std::string Quoted(const std::string& text) {
  const bool plain =
      !text.empty() &&
      text.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY"
          "Z0123456789_./+-") == std::string::npos &&
      text.find_first_not_of("0123456789.+-") != std::string::npos &&
      text != "true" && text != "false" && text != "null" && text[0] != '-';
  if (plain) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < ' ') {
      constexpr std::string_view kDigits = "0123456789abcdef";
      out += "\\x";
      out += kDigits[static_cast<unsigned char>(c) >> 4];
      out += kDigits[static_cast<unsigned char>(c) & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

template <typename E>
std::string WordList() {
  std::string words;
  for (const std::string_view word : kWords<E>) {
    words += (words.empty() ? "" : ", ") + std::string(word);
  }
  return words;
}

// --- From text ---

std::string NotScalar(const Given& given) {
  return given.shape == Given::Shape::kScalar
             ? ""
             : "takes one value, not a list or a group";
}

std::string SetBool(bool* value, const Given& given) {
  if (std::string wrong = NotScalar(given); !wrong.empty()) return wrong;
  if (given.quoted || (given.scalar != "true" && given.scalar != "false")) {
    return "must be true or false, not '" + given.scalar + "'";
  }
  *value = given.scalar == "true";
  return "";
}

// How numbers of one kind are read, written and bounded.
struct NumberKind {
  std::optional<std::uint64_t> (*parse)(std::string_view);
  std::string (*format)(std::uint64_t);
  std::string_view wanted;
};

std::string FormatNumber(std::uint64_t value) { return std::to_string(value); }
std::optional<std::uint64_t> ParseTimeOrMs(std::string_view text) {
  const auto bare = ParseNumber(text);
  return bare.has_value() ? bare : ParseTimeMs(text);
}

constexpr NumberKind kPlain = {ParseNumber, FormatNumber, "a whole number"};
constexpr NumberKind kSize = {ParseBytes, FormatBytes, "a size such as 64MiB"};
constexpr NumberKind kDuration = {ParseTimeMs, FormatTimeMs,
                                  "a duration such as 30s or 250ms"};
// Options named …_ms take a bare number too.
constexpr NumberKind kDurationMs = {ParseTimeOrMs, FormatTimeMs,
                                    "a duration such as 30s or 250ms"};
constexpr NumberKind kAddress = {ParseNumber, FormatAddress,
                                 "an address such as 0x200000000000"};

std::string AllowedRange(const NumberKind& kind, std::uint64_t min,
                         std::uint64_t max, std::uint64_t step) {
  std::string text = kind.format(min) + " to " + kind.format(max);
  if (step == 0) text += ", a power of two";
  if (step > 1) text += ", a multiple of " + FormatBytes(step);
  return text;
}

std::string SetNumber(const NumberKind& kind, std::uint64_t min,
                      std::uint64_t max, std::uint64_t step,
                      std::uint64_t* value, const Given& given) {
  if (std::string wrong = NotScalar(given); !wrong.empty()) return wrong;
  const std::optional<std::uint64_t> number = kind.parse(given.scalar);
  if (!number.has_value()) {
    return "must be " + std::string(kind.wanted) + ", not '" + given.scalar +
           "'";
  }
  const bool fits =
      *number >= min && *number <= max &&
      (step == 0 ? (*number & (*number - 1)) == 0 : *number % step == 0);
  if (!fits) {
    return "must be " + AllowedRange(kind, min, max, step) + ", not " +
           given.scalar;
  }
  *value = *number;
  return "";
}

std::string SetText(std::string* value, const Given& given) {
  if (std::string wrong = NotScalar(given); !wrong.empty()) return wrong;
  if (given.scalar.find('\0') != std::string::npos) return "holds a NUL";
  *value = given.scalar;
  return "";
}

template <typename E>
std::string SetWord(E* value, const std::string& text) {
  for (std::size_t i = 0; i < kWords<E>.size(); ++i) {
    if (kWords<E>[i] == text) {
      *value = static_cast<E>(i);
      return "";
    }
  }
  return "must be one of " + WordList<E>() + ", not '" + text + "'";
}

template <typename E>
std::string SetChoice(E* value, const Given& given) {
  if (std::string wrong = NotScalar(given); !wrong.empty()) return wrong;
  return SetWord(value, given.scalar);
}

template <typename E>
std::string SetChoices(std::vector<E>* value, const Given& given) {
  if (given.shape == Given::Shape::kGroup) return "takes a list";
  std::vector<std::string> words = given.list;
  if (given.shape == Given::Shape::kScalar) words = {given.scalar};
  std::vector<E> chosen;
  for (const std::string& word : words) {
    if (std::string wrong = SetWord(&chosen.emplace_back(), word);
        !wrong.empty()) {
      return wrong;
    }
    if (std::count(chosen.begin(), chosen.end(), chosen.back()) > 1) {
      return "names '" + word + "' twice";
    }
  }
  if (chosen.empty()) return "must not be empty";
  *value = std::move(chosen);
  return "";
}

template <typename E>
std::string GetChoices(const std::vector<E>& value) {
  std::string out = "[";
  for (const E choice : value) {
    out += (out.size() == 1 ? "" : ", ") + std::string(Word(choice));
  }
  return out + "]";
}

// --- The table ---

std::vector<Group> MakeGroups() {
  std::vector<Group> groups;
  [[maybe_unused]] const auto add =
      [&groups](std::string_view name, std::string_view type, bool reloadable,
                std::string_view help, std::string allowed, auto set,
                auto get) {
        groups.back().options.push_back({name, type, reloadable, help,
                                         std::move(allowed), get(Values()), set,
                                         get});
      };
#define POS_CONF_GROUP(prefix, help) groups.push_back({prefix, help, {}});
#define POS_CONF_BOOL(id, name, value, reload, help)                \
  add(                                                              \
      name, "bool", reload, help, "true or false",                  \
      [](Values* v, const Given& g) { return SetBool(&v->id, g); }, \
      [](const Values& v) { return std::string(v.id ? "true" : "false"); });
#define POS_CONF_NUMBER(kind, type, id, name, min, max, step, reload, help) \
  add(                                                                      \
      name, type, reload, help, AllowedRange(kind, min, max, step),         \
      [](Values* v, const Given& g) {                                       \
        return SetNumber(kind, min, max, step, &v->id, g);                  \
      },                                                                    \
      [](const Values& v) { return (kind).format(v.id); });
#define POS_CONF_INT(id, name, value, min, max, reload, help) \
  POS_CONF_NUMBER(kPlain, "number", id, name, min, max, 1, reload, help)
#define POS_CONF_TIME(id, name, value, min, max, reload, help)              \
  if (std::string_view(name).ends_with("_ms")) {                            \
    POS_CONF_NUMBER(kDurationMs, "duration", id, name, min, max, 1, reload, \
                    help)                                                   \
  } else {                                                                  \
    POS_CONF_NUMBER(kDuration, "duration", id, name, min, max, 1, reload,   \
                    help)                                                   \
  }
#define POS_CONF_BYTES(id, name, value, min, max, step, reload, help) \
  POS_CONF_NUMBER(kSize, "size", id, name, min, max, step, reload, help)
#define POS_CONF_ADDRESS(id, name, value, min, max, step, reload, help) \
  POS_CONF_NUMBER(kAddress, "address", id, name, min, max, step, reload, help)
#define POS_CONF_TEXT(id, name, value, reload, help)                \
  add(                                                              \
      name, "text", reload, help, "",                               \
      [](Values* v, const Given& g) { return SetText(&v->id, g); }, \
      [](const Values& v) { return Quoted(v.id); });
#define POS_CONF_CHOICE(id, name, type, value, reload, help)          \
  add(                                                                \
      name, "word", reload, help, WordList<type>(),                   \
      [](Values* v, const Given& g) { return SetChoice(&v->id, g); }, \
      [](const Values& v) { return std::string(Word(v.id)); });
#define POS_CONF_CHOICES(id, name, type, value, reload, help)          \
  add(                                                                 \
      name, "list of words", reload, help, WordList<type>(),           \
      [](Values* v, const Given& g) { return SetChoices(&v->id, g); }, \
      [](const Values& v) { return GetChoices(v.id); });
#include "conf/options.def"
#undef POS_CONF_NUMBER
  return groups;
}

// Edit distance with swaps of neighbours (optimal string alignment).
std::size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(
      a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

std::string_view LastPart(std::string_view name) {
  return name.substr(name.rfind('.') + 1);  // npos + 1 is 0
}

}  // namespace

const std::vector<Group>& Groups() {
  static const std::vector<Group>* const kGroups =
      new std::vector<Group>(MakeGroups());
  return *kGroups;
}

const Option* FindOption(std::string_view name) {
  for (const Group& group : Groups()) {
    for (const Option& option : group.options) {
      if (option.name == name) return &option;
    }
  }
  return nullptr;
}

std::string_view NearestName(std::string_view name) {
  constexpr std::size_t kLongestName = 64;
  if (name.size() > kLongestName) return "";
  std::string_view nearest;
  std::size_t best = std::max<std::size_t>(2, name.size() / 3) + 1;
  const auto consider = [&](std::string_view known) {
    std::size_t distance = Distance(name, known);
    // The right word in the wrong group is near too.
    if (LastPart(name) == LastPart(known)) {
      distance = std::min<std::size_t>(distance, 2);
    }
    if (distance < best) {
      best = distance;
      nearest = known;
    }
  };
  for (const Group& group : Groups()) {
    if (!group.prefix.empty()) consider(group.prefix);
    for (const Option& option : group.options) consider(option.name);
  }
  return nearest;
}

}  // namespace pos::conf
