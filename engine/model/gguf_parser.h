// engine/model/gguf_parser.h -- one pass over the bytes of a GGUF file that checks every count,
// length, offset and name before use and fills a GgufFile. Only gguf.cc uses it; lives for one
// Open.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"
#include "store/base/status.h"

namespace corpusd {

class GgufParser {
 public:
  explicit GgufParser(GgufFile& file) : file_(file), bytes_(file.file_->bytes()) {}
  Status Parse();

 private:
  template <typename T>
  Status ReadNumber(std::string_view what, T* value);
  Status ReadString(const std::string& what, uint64_t length_max, std::string_view* text);
  Status ReadName(const std::string& what, uint64_t length_max, std::string_view* text);
  Status ReadHeader(uint64_t* tensors, uint64_t* keys);
  Status ReadKeys(uint64_t count);
  Status ReadValue(const std::string& what, GgufValue* value);
  Status SkipElements(const std::string& what, uint32_t type, uint64_t count, int depth);
  Status SkipStrings(const std::string& what, uint64_t count);
  Status ReadAlignment();
  Status ReadTensorInfos(uint64_t count);
  Status ReadTensorInfo(uint64_t index);
  Status ReadDims(const std::string& what, GgufTensor* tensor);
  Status PlaceTensors();

  uint64_t remaining() const { return bytes_.size() - position_; }
  Status Malformed(const std::string& what) const;
  Status CutShort(std::string_view what) const;

  // Of the tensor of the same index in file_.
  struct Extent {
    uint64_t offset, size;
  };

  GgufFile& file_;
  const std::span<const std::byte> bytes_;
  uint64_t position_ = 0;  // always <= bytes_.size()
  uint64_t alignment_ = 32;
  std::vector<Extent> extents_;
};

// True if the bytes are UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, up to U+10FFFF.
bool IsGgufUtf8(std::string_view text);

}  // namespace corpusd
