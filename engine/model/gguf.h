// engine/model/gguf.h -- reads a GGUF version 3 model file over a read-only mapping: metadata by
// key, tensors by name. Everything that later reads rely on is checked at Open, so a malformed file
// is refused with one sentence that names it and never crashes a reader. Not a writer, and knows
// nothing of any model. Immutable after Open; any thread. Owns the mapping: views and spans must
// not outlive the object.
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
#include "kernels/weight_types.h"
#include "store/base/result.h"

namespace corpusd {

struct GgufTensor {
  std::string_view name;
  WeightType type = WeightType::kF32;
  std::vector<uint64_t> dims;  // dims[0] varies fastest: the length of a row, whole blocks of type
  std::span<const std::byte> bytes;
};

// The value types of metadata; numbers as in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Where a value lies in the file, already checked to lie there whole.
struct GgufValue {
  GgufType type = GgufType::kUint8;  // of the value, or of an array's elements
  bool is_array = false;
  uint64_t count = 1;                  // of an array's elements
  std::span<const std::byte> payload;  // of a string or element list, lengths included
};

class GgufFile {
 public:
  // kNotFound, kPermissionDenied or kIoError from the file system; kInvalidArgument if the file is
  // malformed or cut short; kUnimplemented for another version, byte order or tensor type.
  static Result<std::unique_ptr<GgufFile>> Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  bool Has(std::string_view key) const { return values_.contains(key); }

  // Each RETURNS kNotFound if the key is missing and kInvalidArgument if its value is of another
  // kind. Any integer type that holds a value in range.
  Result<uint64_t> GetUint(std::string_view key) const;
  Result<int64_t> GetInt(std::string_view key) const;
  // Any floating-point or integer type.
  Result<double> GetFloat(std::string_view key) const;
  Result<bool> GetBool(std::string_view key) const;
  // Valid UTF-8, unlike the elements of a string array, which may be any bytes.
  Result<std::string> GetString(std::string_view key) const;
  Result<std::vector<std::string_view>> GetStringArray(std::string_view key) const;
  Result<std::vector<int64_t>> GetIntArray(std::string_view key) const;
  Result<std::vector<float>> GetFloatArray(std::string_view key) const;

  // RETURNS nullptr if there is none of that name.
  const GgufTensor* FindTensor(std::string_view name) const;
  // In file order.
  std::span<const GgufTensor> tensors() const { return tensors_; }

 private:
  friend class GgufParser;
  explicit GgufFile(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}
  Result<GgufValue> Find(std::string_view key, bool is_array) const;

  const std::unique_ptr<MappedFile> file_;
  std::unordered_map<std::string_view, GgufValue> values_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace corpusd
