// Keys in files: 32 bytes, or 64 hexadecimal digits and perhaps a line end.
//
// Threads:  any.
// Blocking: reads a small file.
// Errors:   kNoSuch, kDenied for a file that others than its owner (root, or
//           who runs posd) may read or write, kInvalid for any other content.
//           The file's content is in no message.
//
// Test: tests/ckpt/crypt/crypt_test.cc
#ifndef CKPT_CRYPT_KEY_FILE_H_
#define CKPT_CRYPT_KEY_FILE_H_

#include <string>

#include "ckpt/crypt/secret.h"
#include "pos/base/status.h"

namespace pos::ckpt {

Result<Secret> ReadKeyFile(const std::string& path);

}  // namespace pos::ckpt

#endif  // CKPT_CRYPT_KEY_FILE_H_
