#include "pos/daemon/api_text.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <utility>
#include <vector>

namespace pos {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD
constexpr std::string_view kEllipsis = "\xe2\x80\xa6";     // U+2026

bool IsContinuation(char c) {
  return (static_cast<unsigned char>(c) & 0xc0u) == 0x80u;
}

// Length of the character that `text` begins with; 0: none. RFC 3629: no
// overlong forms, no surrogates, nothing above U+10FFFF.
std::size_t CharacterBytes(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const std::size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  const auto second = static_cast<unsigned char>(text[1]);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  return size;
}

void MakeFieldUtf8(google::protobuf::Message* message,
                   const google::protobuf::FieldDescriptor* field) {
  using google::protobuf::FieldDescriptor;
  const google::protobuf::Reflection* reflection = message->GetReflection();
  const int count =
      field->is_repeated() ? reflection->FieldSize(*message, field) : 1;
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    for (int i = 0; i < count; ++i) {
      MakeUtf8(field->is_repeated()
                   ? reflection->MutableRepeatedMessage(message, field, i)
                   : reflection->MutableMessage(message, field));
    }
    return;
  }
  if (field->type() != FieldDescriptor::TYPE_STRING) return;
  for (int i = 0; i < count; ++i) {
    std::string text = field->is_repeated()
                           ? reflection->GetRepeatedString(*message, field, i)
                           : reflection->GetString(*message, field);
    if (IsUtf8(text)) continue;
    text = ToUtf8(text);
    if (field->is_repeated()) {
      reflection->SetRepeatedString(message, field, i, std::move(text));
    } else {
      reflection->SetString(message, field, std::move(text));
    }
  }
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t size = CharacterBytes(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::string ToUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t size = CharacterBytes(text);
    if (size == 0) {
      result += kReplacement;
      text.remove_prefix(1);
    } else {
      result += text.substr(0, size);
      text.remove_prefix(size);
    }
  }
  return result;
}

std::string Shorten(std::string text, std::size_t limit) {
  if (text.size() <= limit) return text;
  std::size_t keep = limit - kEllipsis.size();
  while (keep > 0 && IsContinuation(text[keep])) --keep;
  text.resize(keep);
  text += kEllipsis;
  return text;
}

void MakeUtf8(google::protobuf::Message* message) {
  // Only fields that are set.
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  message->GetReflection()->ListFields(*message, &fields);
  for (const auto* field : fields) MakeFieldUtf8(message, field);
}

v1::Error ToError(const Status& status) {
  v1::Error error;
  error.set_code(std::string(CodeName(status.code())));
  error.set_message(Shorten(ToUtf8(status.message()), kMaxErrorMessageBytes));
  error.set_hint(Shorten(ToUtf8(status.hint()), kMaxErrorHintBytes));
  return error;
}

Status FromError(const v1::Error& error) {
  const Code code = CodeFromName(error.code());
  return {code == Code::kOk ? Code::kInternal : code, error.message(),
          error.hint()};
}

}  // namespace pos
