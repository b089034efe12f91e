#include "ckpt/criu/images.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <span>

#include "ckpt/criu/wire.h"
#include "pos/base/bytes.h"
#include "pos/base/files.h"

namespace pos {
namespace {

constexpr std::uint64_t kLimitBytes = 256ull << 20;
constexpr std::uint32_t kImageMagic = 0x54564319;
constexpr std::uint32_t kServiceMagic = 0x55105940;
constexpr std::uint32_t kTreeMagic = 0x50273030;
constexpr std::uint32_t kFilesMagic = 0x56303138;
constexpr std::uint32_t kRemapMagic = 0x59133954;
constexpr std::uint32_t kStatsMagic = 0x57093306;

// file_entry
constexpr std::uint32_t kEntryRegular = 3;
// reg_file_entry
constexpr std::uint32_t kFileId = 1;
constexpr std::uint32_t kFileFlags = 2;
constexpr std::uint32_t kFileName = 6;
constexpr std::uint32_t kFileSize = 8;
constexpr std::uint32_t kFileBuildId = 11;

// Checks both magic numbers and calls `visit` with each entry, in order.
Status ForEachEntry(std::string_view content, std::uint32_t magic,
                    std::uint32_t type_magic,
                    const std::function<Status(std::string_view)>& visit) {
  ByteReader reader(std::as_bytes(std::span(content)));
  const auto found_magic = reader.Get<std::uint32_t>();
  const auto found_type = reader.Get<std::uint32_t>();
  if (!reader.ok() || found_magic != magic || found_type != type_magic) {
    return Corrupt("CRIU image: wrong magic number");
  }
  while (reader.left() > 0) {
    const auto size = reader.Get<std::uint32_t>();
    const std::span<const std::byte> raw = reader.GetRaw(size);
    if (!reader.ok()) return Corrupt("CRIU image: ends inside an entry");
    POS_RETURN_IF_ERROR(
        visit({reinterpret_cast<const char*>(raw.data()), raw.size()}));
  }
  return {};
}

Result<std::string> ReadImage(const std::string& directory,
                              std::string_view name) {
  return ReadWholeFile(JoinPath(directory, name), kLimitBytes);
}

Status DecodeFile(std::string_view message, CriuFile* file) {
  *file = {};
  WireReader reader(message);
  while (reader.Next()) {
    switch (reader.field()) {
      case kFileId:
        file->id = static_cast<std::uint32_t>(reader.number());
        break;
      case kFileFlags:
        file->flags = static_cast<std::uint32_t>(reader.number());
        break;
      case kFileName:
        file->path = reader.bytes();
        break;
      case kFileSize:
        file->size_bytes = reader.number();
        break;
      case kFileBuildId:
        file->has_build_id = true;
        break;
      default:
        break;
    }
  }
  return reader.ok() ? Status() : Corrupt("CRIU image: malformed file entry");
}

// The message again, with path and size taken from `file`.
std::string EncodeFile(std::string_view message, const CriuFile& file) {
  WireWriter writer;
  WireReader reader(message);
  while (reader.Next()) {
    if (reader.field() == kFileName) {
      writer.PutBytes(kFileName, file.path);
    } else if (reader.field() == kFileSize && file.size_bytes) {
      writer.PutNumber(kFileSize, *file.size_bytes);
    } else {
      writer.PutRaw(reader.raw());
    }
  }
  return writer.message();
}

// The regular-file message of a file_entry; empty when it is of another kind.
Result<std::string_view> RegularPart(std::string_view entry) {
  std::string_view regular;
  WireReader reader(entry);
  while (reader.Next()) {
    if (reader.field() == kEntryRegular) regular = reader.bytes();
  }
  if (!reader.ok()) return Corrupt("CRIU image: malformed entry");
  return regular;
}

// remap-fpath.img: ids of files that were removed while open, and of the files
// that CRIU's temporary links are.
struct Remaps {
  std::set<std::uint32_t> removed;
  std::set<std::uint32_t> links;
};

Result<Remaps> ReadRemaps(const std::string& directory) {
  Remaps remaps;
  const Result<std::string> content = ReadImage(directory, "remap-fpath.img");
  if (!content.ok()) {
    if (content.status().code() == Code::kNoSuch) return remaps;
    return content.status();
  }
  POS_RETURN_IF_ERROR(ForEachEntry(
      *content, kImageMagic, kRemapMagic, [&remaps](std::string_view entry) {
        std::uint32_t original = 0;
        std::uint32_t remap = 0;
        std::uint64_t type = 0;  // 0: linked, 1: ghost, 2: procfs
        WireReader reader(entry);
        while (reader.Next()) {
          const auto id = static_cast<std::uint32_t>(reader.number());
          if (reader.field() == 1) original = id;
          if (reader.field() == 2) remap = id;
          if (reader.field() == 3) type = reader.number();
        }
        if (!reader.ok()) return Corrupt("CRIU image: malformed remap entry");
        remaps.removed.insert(original);
        if (type == 0) remaps.links.insert(remap);
        return Status();
      }));
  return remaps;
}

void AppendEntry(std::string_view entry, std::string* out) {
  const auto size = static_cast<std::uint32_t>(entry.size());
  std::array<char, sizeof(size)> raw;
  std::memcpy(raw.data(), &size, sizeof(size));
  out->append(raw.data(), raw.size());
  *out += entry;
}

Status AdjustEntry(std::string_view entry,
                   const std::function<void(CriuFile* file)>& adjust,
                   std::size_t* changed, std::string* out) {
  POS_ASSIGN_OR_RETURN(const std::string_view regular, RegularPart(entry));
  CriuFile file;
  if (!regular.empty()) POS_RETURN_IF_ERROR(DecodeFile(regular, &file));
  const CriuFile before = file;
  if (!regular.empty()) adjust(&file);
  if (file.path == before.path && file.size_bytes == before.size_bytes) {
    AppendEntry(entry, out);
    return {};
  }
  ++*changed;
  WireWriter writer;
  WireReader reader(entry);
  while (reader.Next()) {
    if (reader.field() == kEntryRegular) {
      writer.PutBytes(kEntryRegular, EncodeFile(regular, file));
    } else {
      writer.PutRaw(reader.raw());
    }
  }
  AppendEntry(writer.message(), out);
  return {};
}

}  // namespace

Result<std::vector<CriuTask>> DecodeCriuTree(std::string_view content) {
  std::vector<CriuTask> tree;
  POS_RETURN_IF_ERROR(ForEachEntry(
      content, kImageMagic, kTreeMagic, [&tree](std::string_view entry) {
        CriuTask task;
        WireReader reader(entry);
        while (reader.Next()) {
          const auto number = static_cast<pid_t>(reader.number());
          switch (reader.field()) {
            case 1:
              task.pid = number;
              break;
            case 2:
              task.parent = number;
              break;
            case 3:
              task.group = number;
              break;
            case 4:
              task.session = number;
              break;
            case 5:
              task.threads.push_back(number);
              break;
            default:
              break;
          }
        }
        if (!reader.ok() || task.pid <= 0) {
          return Corrupt("CRIU image: malformed process entry");
        }
        tree.push_back(std::move(task));
        return Status();
      }));
  if (tree.empty()) return Corrupt("CRIU image: no process in it");
  return tree;
}

Result<std::vector<CriuTask>> ReadCriuTree(const std::string& directory) {
  POS_ASSIGN_OR_RETURN(const std::string content,
                       ReadImage(directory, "pstree.img"));
  return DecodeCriuTree(content);
}

std::vector<pid_t> CriuIds(const std::vector<CriuTask>& tree) {
  std::set<pid_t> ids;
  for (const CriuTask& task : tree) {
    ids.insert({task.pid, task.group, task.session});
    ids.insert(task.threads.begin(), task.threads.end());
  }
  ids.erase(0);
  return {ids.begin(), ids.end()};
}

Result<std::vector<CriuFile>> DecodeCriuFiles(std::string_view content) {
  std::vector<CriuFile> files;
  POS_RETURN_IF_ERROR(ForEachEntry(content, kImageMagic, kFilesMagic,
                                   [&files](std::string_view entry) -> Status {
                                     POS_ASSIGN_OR_RETURN(
                                         const std::string_view regular,
                                         RegularPart(entry));
                                     if (regular.empty()) return {};
                                     files.emplace_back();
                                     return DecodeFile(regular, &files.back());
                                   }));
  return files;
}

Result<std::string> AdjustCriuFilesContent(
    std::string_view content, const std::function<void(CriuFile* file)>& adjust,
    std::size_t* changed) {
  *changed = 0;
  std::string out;
  POS_RETURN_IF_ERROR(ForEachEntry(
      content, kImageMagic, kFilesMagic, [&](std::string_view entry) {
        return AdjustEntry(entry, adjust, changed, &out);
      }));
  out.insert(0, content.substr(0, 2 * sizeof(std::uint32_t)));
  return out;
}

Result<std::string> AdjustCriuFiles(
    const std::string& directory,
    const std::function<void(CriuFile* file)>& adjust, std::size_t* changed) {
  POS_ASSIGN_OR_RETURN(const std::string content,
                       ReadImage(directory, "files.img"));
  return AdjustCriuFilesContent(content, adjust, changed);
}

Result<std::vector<CriuFile>> ReadCriuFiles(const std::string& directory) {
  POS_ASSIGN_OR_RETURN(const std::string content,
                       ReadImage(directory, "files.img"));
  POS_ASSIGN_OR_RETURN(std::vector<CriuFile> files, DecodeCriuFiles(content));
  POS_ASSIGN_OR_RETURN(const Remaps remaps, ReadRemaps(directory));
  for (CriuFile& file : files) {
    file.removed =
        remaps.removed.count(file.id) != 0 || remaps.links.count(file.id) != 0;
  }
  return files;
}

Result<std::vector<std::string>> ReadCriuLinkRemaps(
    const std::string& directory) {
  POS_ASSIGN_OR_RETURN(const Remaps remaps, ReadRemaps(directory));
  std::vector<std::string> paths;
  if (remaps.links.empty()) return paths;
  POS_ASSIGN_OR_RETURN(const std::string content,
                       ReadImage(directory, "files.img"));
  POS_ASSIGN_OR_RETURN(const std::vector<CriuFile> files,
                       DecodeCriuFiles(content));
  for (const CriuFile& file : files) {
    if (remaps.links.count(file.id) != 0) paths.push_back(file.path);
  }
  return paths;
}

CriuDumpStats ReadCriuDumpStats(const std::string& directory) {
  CriuDumpStats stats;
  const Result<std::string> content = ReadImage(directory, "stats-dump");
  if (!content.ok()) return stats;
  ForEachEntry(*content, kServiceMagic, kStatsMagic,
               [&stats](std::string_view entry) {
                 WireReader outer(entry);
                 while (outer.Next()) {
                   if (outer.field() != 1) continue;
                   WireReader dump(outer.bytes());
                   while (dump.Next()) {
                     if (dump.field() == 1) stats.freezing_us = dump.number();
                     if (dump.field() == 2) stats.frozen_us = dump.number();
                     if (dump.field() == 7) stats.pages_written = dump.number();
                   }
                 }
                 return Status();
               })
      .IgnoreError();
  return stats;
}

}  // namespace pos
