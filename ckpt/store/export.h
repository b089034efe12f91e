// An image as one stream of bytes, out of a store and into one.
// ckpt/FORMAT.md, "Export".
//
// Trust:    a restore makes processes as an image says, with root's powers: who
//           can make posd take any file can do anything. So a stream ends with
//           a MAC under a secret of posd's, and only who is trusted anyway may
//           import one without. Before the MAC is checked nothing is visible,
//           and everything is read as if an enemy had written it.
// Threads:  any; a call runs on its caller's.
// Memory:   a few chunks, one record, the manifest; for an import also what a
//           PackWriter takes. Independent of the image's size.
// Blocking: as sink, feed and disk take.
// Errors:   of an import: kCorrupt for a stream that is not whole, kDenied when
//           the caller may not import it, kDiskFull. Nothing is left behind.
//
// Test: tests/ckpt/store/export_test.cc   Fuzz: tests/fuzz/export_fuzz.cc
#ifndef CKPT_STORE_EXPORT_H_
#define CKPT_STORE_EXPORT_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ckpt/crypt/secret.h"
#include "ckpt/format/manifest.h"
#include "ckpt/format/record.h"
#include "ckpt/format/record_stream.h"
#include "ckpt/store/image.h"
#include "ckpt/store/store.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct ExportOptions {
  // Under the key, too: nobody without it reads the file.
  bool encrypt = false;
  // Called now and then with the bytes of memory and files done so far; its
  // error ends the export.
  std::function<Status(std::uint64_t)> progress;
};

// Returns the bytes written. Checks what it reads: a damaged image is not
// exported.
Result<std::uint64_t> ExportImage(const ImageHandle& image,
                                  const StoreId& store, const Secret& key,
                                  ByteSink* sink,
                                  const ExportOptions& options = {});

struct ImportOptions {
  // Those whose MACs are believed.
  std::vector<const Secret*> keys;
  // Only images of this owner, and only with a believed MAC; none: a trusted
  // caller's, of any owner and with any MAC.
  std::optional<uid_t> owner;
  // Called now and then with the bytes read so far; its error ends the import.
  std::function<Status(std::uint64_t)> progress;
};

struct ImportReport {
  Manifest manifest;   // as sealed
  std::string source;  // the image's id where it was exported
  std::uint64_t bytes = 0;
};

Result<ImportReport> ImportImage(Store* store, ByteFeed* feed,
                                 const ImportOptions& options);

}  // namespace pos::ckpt

#endif  // CKPT_STORE_EXPORT_H_
