// engine/model/safetensors.h -- reads one safetensors file over a read-only mapping: tensors by
// name. Everything that later reads rely on is checked at Open, so a malformed file is refused with
// one sentence that names it and never crashes a reader. Not a writer; knows nothing of shards or
// models. Immutable after Open; any thread. Owns the mapping: views and spans must not outlive the
// object. The format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length,
// a JSON header, then the tensors' bytes without gaps).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/model/mapped_file.h"
#include "store/base/result.h"

namespace corpusd {

struct SafeTensor {
  std::string name;
  std::string dtype;           // as in the file: "F32", "BF16", ...
  std::vector<uint64_t> dims;  // the last varies fastest; none for a single number
  std::span<const std::byte> bytes;
};

class SafetensorsFile {
 public:
  // kNotFound, kPermissionDenied or kIoError from the file system; kInvalidArgument if the file is
  // malformed or cut short; kUnimplemented for an element type that is not known.
  static Result<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  // RETURNS nullptr if there is none of that name.
  const SafeTensor* Find(std::string_view name) const;
  // In the order of their bytes.
  std::span<const SafeTensor> tensors() const { return tensors_; }

 private:
  friend class SafetensorsParser;
  explicit SafetensorsFile(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

  const std::unique_ptr<MappedFile> file_;
  std::vector<SafeTensor> tensors_;
  std::unordered_map<std::string_view, size_t> index_;  // views into tensors_
};

}  // namespace corpusd
