// The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include "engine/model/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace corpusd {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are read little-endian");

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;
// Limits beyond any published file; they bound what a hostile one can make us allocate.
constexpr uint64_t kKeysMax = 65536;
constexpr uint64_t kTensorsMax = 65536;
constexpr uint64_t kKeyBytesMax = 65535;  // the format's own limit
constexpr uint64_t kTensorNameBytesMax = 1024;
constexpr uint32_t kDimsMax = 4;  // the format's own limit
constexpr uint64_t kAlignmentMax = uint64_t{1} << 20;
constexpr int kArrayDepthMax = 4;
// The least bytes that an item of each list can take; a count beyond what is left is a lie.
constexpr uint64_t kKeyBytesMin = 8 + 1 + 4 + 1;
constexpr uint64_t kTensorInfoBytesMin = 8 + 1 + 4 + 8 + 4 + 8;

// RETURNS 0 for strings, arrays and unknown types.
uint64_t FixedBytes(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

std::string Quoted(std::string_view name) { return "'" + std::string(name) + "'"; }

// Names go into messages and logs, where control characters would be a nuisance.
bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

bool IsGgufUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto at = [&](size_t k) { return static_cast<uint8_t>(text[k]); };
    const uint8_t lead = at(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < length) return false;
    uint32_t code = lead & (0x7f >> length);
    for (size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return false;
      code = code << 6 | (at(i + k) & 0x3f);
    }
    const uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += length;
  }
  return true;
}

Status GgufParser::Malformed(const std::string& what) const {
  return InvalidArgumentError(file_.path() + ": " + what);
}

Status GgufParser::CutShort(std::string_view what) const {
  return Malformed("ends at byte " + std::to_string(bytes_.size()) + " inside " +
                   std::string(what) + ": is the download complete?");
}

template <typename T>
Status GgufParser::ReadNumber(std::string_view what, T* value) {
  if (remaining() < sizeof(T)) return CutShort(what);
  std::memcpy(value, bytes_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return OkStatus();
}

Status GgufParser::ReadString(const std::string& what, uint64_t length_max,
                              std::string_view* text) {
  uint64_t length = 0;
  RETURN_IF_ERROR(ReadNumber("the length of " + what, &length));
  if (length > length_max) {
    return Malformed(what + " is said to be " + std::to_string(length) + " bytes long, beyond " +
                     std::to_string(length_max));
  }
  if (length > remaining()) return CutShort(what);
  *text = {reinterpret_cast<const char*>(bytes_.data() + position_), length};
  position_ += length;
  return OkStatus();
}

Status GgufParser::ReadName(const std::string& what, uint64_t length_max, std::string_view* text) {
  RETURN_IF_ERROR(ReadString(what, length_max, text));
  if (text->empty()) return Malformed(what + " is empty");
  if (!IsGgufUtf8(*text) || HasControl(*text)) return Malformed(what + " is not printable UTF-8");
  return OkStatus();
}

Status GgufParser::Parse() {
  uint64_t tensors = 0;
  uint64_t keys = 0;
  RETURN_IF_ERROR(ReadHeader(&tensors, &keys));
  RETURN_IF_ERROR(ReadKeys(keys));
  RETURN_IF_ERROR(ReadAlignment());
  RETURN_IF_ERROR(ReadTensorInfos(tensors));
  return PlaceTensors();
}

Status GgufParser::ReadHeader(uint64_t* tensors, uint64_t* keys) {
  const uint64_t magic_bytes = std::min<uint64_t>(bytes_.size(), kMagic.size());
  if (bytes_.empty()) return Malformed("is empty, not a GGUF model");
  if (std::memcmp(bytes_.data(), kMagic.data(), magic_bytes) != 0) {
    return Malformed("is not a GGUF model: it does not begin with 'GGUF'");
  }
  if (magic_bytes < kMagic.size()) return CutShort("the header");
  position_ = kMagic.size();
  uint32_t version = 0;
  RETURN_IF_ERROR(ReadNumber("the header", &version));
  if (__builtin_bswap32(version) == kVersion) {
    return UnimplementedError(file_.path() +
                              ": is a big-endian GGUF file; only little-endian ones "
                              "are supported");
  }
  if (version != kVersion) {
    return UnimplementedError(file_.path() + ": is GGUF version " + std::to_string(version) +
                              "; only version " + std::to_string(kVersion) + " is supported");
  }
  RETURN_IF_ERROR(ReadNumber("the header", tensors));
  RETURN_IF_ERROR(ReadNumber("the header", keys));
  if (*tensors > kTensorsMax || *keys > kKeysMax) {
    return Malformed("claims " + std::to_string(*tensors) + " tensors and " +
                     std::to_string(*keys) + " keys, beyond " + std::to_string(kTensorsMax) +
                     " and " + std::to_string(kKeysMax));
  }
  if (*keys * kKeyBytesMin + *tensors * kTensorInfoBytesMin > remaining()) {
    return Malformed("claims " + std::to_string(*tensors) + " tensors and " +
                     std::to_string(*keys) + " keys, more than its " +
                     std::to_string(bytes_.size()) + " bytes can hold: is the download complete?");
  }
  return OkStatus();
}

Status GgufParser::ReadKeys(uint64_t count) {
  file_.values_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view key;
    RETURN_IF_ERROR(ReadName("metadata key " + std::to_string(i), kKeyBytesMax, &key));
    GgufValue value;
    RETURN_IF_ERROR(ReadValue("the value of key " + Quoted(key), &value));
    if (!file_.values_.emplace(key, value).second) {
      return Malformed("has key " + Quoted(key) + " twice");
    }
  }
  return OkStatus();
}

Status GgufParser::ReadValue(const std::string& what, GgufValue* value) {
  uint32_t type = 0;
  RETURN_IF_ERROR(ReadNumber(what, &type));
  if (type == static_cast<uint32_t>(GgufType::kArray)) {
    value->is_array = true;
    RETURN_IF_ERROR(ReadNumber(what, &type));
    RETURN_IF_ERROR(ReadNumber(what, &value->count));
  }
  const uint64_t start = position_;
  RETURN_IF_ERROR(SkipElements(what, type, value->count, value->is_array ? 1 : 0));
  value->type = static_cast<GgufType>(type);
  value->payload = bytes_.subspan(start, position_ - start);
  return OkStatus();
}

// Moves past `count` elements of `type`, each checked to lie inside the file.
Status GgufParser::SkipElements(const std::string& what, uint32_t type, uint64_t count, int depth) {
  if (type > static_cast<uint32_t>(GgufType::kFloat64)) {
    return Malformed(what + " has the unknown type " + std::to_string(type));
  }
  const uint64_t fixed_bytes = FixedBytes(type);
  if (fixed_bytes != 0) {
    if (count > remaining() / fixed_bytes) return CutShort(what);
    position_ += count * fixed_bytes;
    return OkStatus();
  }
  if (type == static_cast<uint32_t>(GgufType::kString)) return SkipStrings(what, count);
  if (depth >= kArrayDepthMax) {
    return Malformed(what + " nests arrays deeper than " + std::to_string(kArrayDepthMax));
  }
  // An inner array takes 12 bytes even when empty, so the loop is bounded by the file's size.
  for (uint64_t i = 0; i < count; ++i) {
    uint32_t inner_type = 0;
    uint64_t inner_count = 0;
    RETURN_IF_ERROR(ReadNumber(what, &inner_type));
    RETURN_IF_ERROR(ReadNumber(what, &inner_count));
    RETURN_IF_ERROR(SkipElements(what, inner_type, inner_count, depth + 1));
  }
  return OkStatus();
}

Status GgufParser::SkipStrings(const std::string& what, uint64_t count) {
  if (count > remaining() / sizeof(uint64_t)) return CutShort(what);
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view text;
    RETURN_IF_ERROR(ReadString(what, std::numeric_limits<uint64_t>::max(), &text));
  }
  return OkStatus();
}

Status GgufParser::ReadAlignment() {
  constexpr std::string_view kKey = "general.alignment";
  if (!file_.Has(kKey)) return OkStatus();
  ASSIGN_OR_RETURN(alignment_, file_.GetUint(kKey));
  if (!std::has_single_bit(alignment_) || alignment_ < 8 || alignment_ > kAlignmentMax) {
    return Malformed(std::string(kKey) + " is " + std::to_string(alignment_) +
                     ", not a power of two from 8 to " + std::to_string(kAlignmentMax));
  }
  return OkStatus();
}

Status GgufParser::ReadTensorInfos(uint64_t count) {
  file_.tensors_.reserve(count);
  file_.tensor_index_.reserve(count);
  extents_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) RETURN_IF_ERROR(ReadTensorInfo(i));
  return OkStatus();
}

Status GgufParser::ReadTensorInfo(uint64_t index) {
  GgufTensor tensor;
  RETURN_IF_ERROR(
      ReadName("the name of tensor " + std::to_string(index), kTensorNameBytesMax, &tensor.name));
  const std::string what = "tensor " + Quoted(tensor.name);
  RETURN_IF_ERROR(ReadDims(what, &tensor));
  uint32_t type = 0;
  Extent extent{};
  RETURN_IF_ERROR(ReadNumber(what, &type));
  RETURN_IF_ERROR(ReadNumber(what, &extent.offset));
  const WeightTypeInfo* const info = FindWeightType(type);
  if (info == nullptr) {
    return UnimplementedError(file_.path() + ": " + what + " is of type " + std::to_string(type) +
                              ", which is not supported");
  }
  tensor.type = static_cast<WeightType>(type);
  if (tensor.dims[0] % info->block_elements != 0) {
    return Malformed(what + " has rows of " + std::to_string(tensor.dims[0]) +
                     " elements, not a multiple of the " + std::to_string(info->block_elements) +
                     " that " + std::string(info->name) + " packs together");
  }
  extent.size = WeightRowBytes(tensor.type, static_cast<uint32_t>(tensor.dims[0]));
  for (size_t d = 1; d < tensor.dims.size(); ++d) {
    if (__builtin_mul_overflow(extent.size, tensor.dims[d], &extent.size)) {
      return Malformed(what + " has more bytes than 64 bits can count");
    }
  }
  if (extent.offset % alignment_ != 0) {
    return Malformed(what + " is at offset " + std::to_string(extent.offset) +
                     ", not a multiple of the alignment " + std::to_string(alignment_));
  }
  if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second) {
    return Malformed("has " + what + " twice");
  }
  file_.tensors_.push_back(std::move(tensor));
  extents_.push_back(extent);
  return OkStatus();
}

Status GgufParser::ReadDims(const std::string& what, GgufTensor* tensor) {
  uint32_t count = 0;
  RETURN_IF_ERROR(ReadNumber(what, &count));
  if (count < 1 || count > kDimsMax) {
    return Malformed(what + " has " + std::to_string(count) + " dimensions, expected 1 to " +
                     std::to_string(kDimsMax));
  }
  tensor->dims.resize(count);
  for (uint64_t& dim : tensor->dims) {
    RETURN_IF_ERROR(ReadNumber(what, &dim));
    if (dim < 1 || dim > std::numeric_limits<uint32_t>::max()) {
      return Malformed(what + " has a dimension of " + std::to_string(dim) +
                       ", expected 1 to 4294967295");
    }
  }
  return OkStatus();
}

// Offsets count from the first aligned byte after the tensor list.
Status GgufParser::PlaceTensors() {
  const uint64_t data_start = (position_ + alignment_ - 1) / alignment_ * alignment_;
  for (size_t i = 0; i < extents_.size(); ++i) {
    GgufTensor& tensor = file_.tensors_[i];
    uint64_t start = 0;
    uint64_t end = 0;
    if (__builtin_add_overflow(data_start, extents_[i].offset, &start) ||
        __builtin_add_overflow(start, extents_[i].size, &end)) {
      return Malformed("tensor " + Quoted(tensor.name) + " ends beyond what 64 bits can count");
    }
    if (end > bytes_.size()) {
      return Malformed("tensor " + Quoted(tensor.name) + " ends at byte " + std::to_string(end) +
                       ", beyond the file's " + std::to_string(bytes_.size()) +
                       ": is the download complete?");
    }
    tensor.bytes = bytes_.subspan(start, extents_[i].size);
  }
  return OkStatus();
}

}  // namespace corpusd
