// posd describes an image as one JSON object; a newer posd may say more than
// is known here, so it is shown as it comes.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/cli/show.h"
#include "pos/cli/text.h"

namespace pos::cli {
namespace {

using Json = nlohmann::ordered_json;

// A scalar by what its field's name says of its unit.
std::string Scalar(std::string_view name, const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return Printable(value.get<std::string>());
  if (value.is_number()) {
    if (name.ends_with("_bytes") || name == "bytes") {
      return FormatBytes(value.get<std::uint64_t>());
    }
    if (name.ends_with("_ms")) {
      return FormatDuration(
          static_cast<std::uint64_t>(value.get<double>() * 1000));
    }
    if (name.ends_with("_at")) return FormatTime(value.get<std::uint64_t>());
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool IsTable(const Json& value) {
  if (!value.is_array() || value.empty()) return false;
  for (const Json& row : value) {
    if (!row.is_object() || row.size() != value.front().size()) return false;
  }
  return true;
}

std::string RenderTable(const Json& rows) {
  std::vector<Table::Column> columns;
  for (const auto& [name, value] : rows.front().items()) {
    columns.push_back(
        {name, value.is_number() ? Table::Align::kRight : Table::Align::kLeft});
  }
  Table table(columns);
  std::size_t shown = 0;
  for (const Json& row : rows) {
    if (shown++ == kShownTableRows) break;
    std::vector<std::string> cells;
    for (const Table::Column& column : columns) {
      const auto cell = row.find(column.title);
      cells.push_back(cell == row.end() ? "" : Scalar(column.title, *cell));
    }
    table.AddRow(std::move(cells));
  }
  std::string text = table.Render();
  if (rows.size() > kShownTableRows) {
    text += "and " + std::to_string(rows.size() - kShownTableRows) +
            " more (--json has all)\n";
  }
  return text;
}

std::string Words(const Json& array) {
  std::string text;
  for (const Json& value : array) {
    text += (text.empty() ? "" : " ") + Scalar("", value);
  }
  return text.empty() ? "-" : text;
}

// "  " before every line.
std::string Indented(const std::string& text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    const std::size_t next = end == std::string::npos ? text.size() : end + 1;
    result += "  " + text.substr(at, next - at);
    at = next;
  }
  return result;
}

void AddFields(const std::string& prefix, const Json& object,
               std::vector<std::pair<std::string, std::string>>* lines,
               std::string* tables) {
  for (const auto& [name, value] : object.items()) {
    if (IsTable(value)) {
      *tables += "\n" + prefix + name + "\n" + Indented(RenderTable(value));
    } else if (value.is_object()) {
      AddFields(prefix + name + " ", value, lines, tables);
    } else {
      lines->emplace_back(
          prefix + name, value.is_array() ? Words(value) : Scalar(name, value));
    }
  }
}

}  // namespace

Result<std::string> Show(const v1::ShowImageReply& reply) {
  const Json json = Json::parse(reply.json(), nullptr, false);
  if (!json.is_object()) {
    return Proto("posd's description of the image is no JSON object");
  }
  std::vector<std::pair<std::string, std::string>> lines;
  std::string tables;
  AddFields("", json, &lines, &tables);
  std::size_t width = 0;
  for (const auto& [name, value] : lines) {
    width = std::max(width, TextWidth(name));
  }
  std::string text;
  for (const auto& [name, value] : lines) {
    text += Printable(name) + std::string(width - TextWidth(name) + 2, ' ') +
            value + "\n";
  }
  return text + tables;
}

}  // namespace pos::cli
