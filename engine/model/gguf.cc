#include "engine/model/gguf.h"

#include <cstring>
#include <limits>

#include "engine/model/gguf_parser.h"

namespace corpusd {
namespace {

template <typename T>
T Load(const std::byte* bytes) {
  T value{};
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// An integer of any GGUF type: its sign apart, so that both ends of the range fit.
struct Integer {
  bool negative = false;
  uint64_t bits = 0;  // two's complement if negative
};

Integer Signed(int64_t value) { return {value < 0, static_cast<uint64_t>(value)}; }

// RETURNS false, leaving the outputs alone, if the type is not an integer.
bool LoadInteger(GgufType type, const std::byte* bytes, Integer* value, size_t* width) {
  const auto set = [&](Integer loaded, size_t size) {
    *value = loaded;
    *width = size;
    return true;
  };
  switch (type) {
    case GgufType::kUint8:
      return set({false, Load<uint8_t>(bytes)}, 1);
    case GgufType::kInt8:
      return set(Signed(Load<int8_t>(bytes)), 1);
    case GgufType::kUint16:
      return set({false, Load<uint16_t>(bytes)}, 2);
    case GgufType::kInt16:
      return set(Signed(Load<int16_t>(bytes)), 2);
    case GgufType::kUint32:
      return set({false, Load<uint32_t>(bytes)}, 4);
    case GgufType::kInt32:
      return set(Signed(Load<int32_t>(bytes)), 4);
    case GgufType::kUint64:
      return set({false, Load<uint64_t>(bytes)}, 8);
    case GgufType::kInt64:
      return set(Signed(Load<int64_t>(bytes)), 8);
    default:
      return false;
  }
}

bool FitsInt64(const Integer& value) {
  return value.negative || value.bits <= uint64_t{std::numeric_limits<int64_t>::max()};
}

Status WrongKind(const std::string& path, std::string_view key, std::string_view expected) {
  return InvalidArgumentError(path + ": key '" + std::string(key) + "' is not " +
                              std::string(expected));
}

}  // namespace

Result<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::unique_ptr<GgufFile> file;
  file.reset(new GgufFile(std::move(mapped)));
  RETURN_IF_ERROR(GgufParser(*file).Parse());
  return file;
}

Result<GgufValue> GgufFile::Find(std::string_view key, bool is_array) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    return NotFoundError(path() + ": has no key '" + std::string(key) + "'");
  }
  if (found->second.is_array != is_array) {
    return WrongKind(path(), key, is_array ? "an array" : "a single value");
  }
  return found->second;
}

Result<uint64_t> GgufFile::GetUint(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, false));
  Integer integer;
  size_t width = 0;
  if (!LoadInteger(value.type, value.payload.data(), &integer, &width) || integer.negative) {
    return WrongKind(path(), key, "a whole number of 0 or more");
  }
  return integer.bits;
}

Result<int64_t> GgufFile::GetInt(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, false));
  Integer integer;
  size_t width = 0;
  if (!LoadInteger(value.type, value.payload.data(), &integer, &width) || !FitsInt64(integer)) {
    return WrongKind(path(), key, "a whole number of 64 bits");
  }
  return static_cast<int64_t>(integer.bits);
}

Result<double> GgufFile::GetFloat(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, false));
  const std::byte* const bytes = value.payload.data();
  if (value.type == GgufType::kFloat32) return static_cast<double>(Load<float>(bytes));
  if (value.type == GgufType::kFloat64) return Load<double>(bytes);
  Integer integer;
  size_t width = 0;
  if (!LoadInteger(value.type, bytes, &integer, &width)) return WrongKind(path(), key, "a number");
  return integer.negative ? static_cast<double>(static_cast<int64_t>(integer.bits))
                          : static_cast<double>(integer.bits);
}

Result<bool> GgufFile::GetBool(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, false));
  const auto byte = static_cast<uint8_t>(value.payload.empty() ? std::byte{2} : value.payload[0]);
  if (value.type != GgufType::kBool || byte > 1) return WrongKind(path(), key, "a truth value");
  return byte == 1;
}

Result<std::string> GgufFile::GetString(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, false));
  if (value.type != GgufType::kString) return WrongKind(path(), key, "a string");
  const auto* const text = reinterpret_cast<const char*>(value.payload.data()) + sizeof(uint64_t);
  std::string result(text, value.payload.size() - sizeof(uint64_t));
  if (!IsGgufUtf8(result)) return WrongKind(path(), key, "valid UTF-8");
  return result;
}

Result<std::vector<std::string_view>> GgufFile::GetStringArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, true));
  if (value.type != GgufType::kString) return WrongKind(path(), key, "an array of strings");
  std::vector<std::string_view> strings;
  strings.reserve(value.count);
  const std::byte* at = value.payload.data();
  for (uint64_t i = 0; i < value.count; ++i) {
    const auto length = Load<uint64_t>(at);
    at += sizeof length;
    strings.emplace_back(reinterpret_cast<const char*>(at), length);
    at += length;
  }
  return strings;
}

Result<std::vector<int64_t>> GgufFile::GetIntArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, true));
  std::vector<int64_t> integers;
  const std::byte* at = value.payload.data();
  for (uint64_t i = 0; i < value.count; ++i) {
    Integer integer;
    size_t width = 0;
    if (!LoadInteger(value.type, at, &integer, &width) || !FitsInt64(integer)) {
      return WrongKind(path(), key, "an array of whole numbers of 64 bits");
    }
    integers.push_back(static_cast<int64_t>(integer.bits));
    at += width;
  }
  return integers;
}

Result<std::vector<float>> GgufFile::GetFloatArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Find(key, true));
  if (value.type != GgufType::kFloat32) return WrongKind(path(), key, "an array of float32");
  std::vector<float> numbers(value.count);
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), value.payload.data(), value.payload.size());
  }
  return numbers;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace corpusd
