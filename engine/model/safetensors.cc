#include "engine/model/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "engine/model/json_text.h"

namespace corpusd {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

// Limits beyond any published file; they bound what a hostile one can make us allocate. The first
// is the format's own.
constexpr uint64_t kHeaderBytesMax = 100'000'000;
constexpr size_t kTensorsMax = 1u << 20;
constexpr size_t kNameBytesMax = 1024;
constexpr size_t kDimsMax = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

struct ElementType {
  std::string_view name;
  uint32_t bits;
};
constexpr std::array<ElementType, 22> kElementTypes = {{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"F64", 64},    {"I64", 64},
    {"U64", 64},        {"C64", 64},
}};

const ElementType* FindElementType(std::string_view name) {
  for (const ElementType& type : kElementTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

bool IsPrintable(std::string_view name) {
  return !name.empty() && std::none_of(name.begin(), name.end(), [](char c) {
    return static_cast<uint8_t>(c) < 0x20 || c == 0x7f;
  });
}

}  // namespace

// One pass over a file's header; lives for one Open.
class SafetensorsParser {
 public:
  explicit SafetensorsParser(SafetensorsFile& file) : file_(file), bytes_(file.file_->bytes()) {}

  Status Parse() {
    std::string_view header;
    RETURN_IF_ERROR(ReadHeader(&header));
    ASSIGN_OR_RETURN(const nlohmann::json object,
                     ParseJsonObject(header, file_.path() + ": its header"));
    if (object.size() > kTensorsMax) {
      return Malformed("lists " + std::to_string(object.size()) + " tensors, beyond " +
                       std::to_string(kTensorsMax));
    }
    for (const auto& [name, entry] : object.items()) {
      if (name != kMetadataKey) RETURN_IF_ERROR(ReadTensor(name, entry));
    }
    return PlaceTensors();
  }

 private:
  Status Malformed(const std::string& what) const {
    return InvalidArgumentError(file_.path() + ": " + what);
  }

  Status ReadHeader(std::string_view* header) {
    uint64_t length = 0;
    if (bytes_.size() < sizeof length) {
      return Malformed("is too short to be a safetensors file");
    }
    std::memcpy(&length, bytes_.data(), sizeof length);
    const uint64_t rest = bytes_.size() - sizeof length;
    const auto* const text = reinterpret_cast<const char*>(bytes_.data()) + sizeof length;
    if (length > kHeaderBytesMax || rest == 0 || *text != '{') {
      return Malformed("is not a safetensors file: it does not begin with a length and '{'");
    }
    if (length > rest) {
      return Malformed("ends at byte " + std::to_string(bytes_.size()) +
                       " inside the header: is the download complete?");
    }
    *header = {text, length};
    data_ = bytes_.subspan(sizeof length + length);
    return OkStatus();
  }

  Status ReadTensor(const std::string& name, const nlohmann::json& entry) {
    if (name.size() > kNameBytesMax || !IsPrintable(name)) {
      return Malformed("has a tensor whose name is not printable text of at most " +
                       std::to_string(kNameBytesMax) + " bytes");
    }
    const std::string what = "tensor '" + name + "'";
    SafeTensor tensor;
    tensor.name = name;
    const nlohmann::json* const dtype = FindMember(entry, "dtype");
    if (dtype == nullptr || !dtype->is_string()) return Malformed(what + " has no dtype");
    tensor.dtype = dtype->get<std::string>();
    const ElementType* const type = FindElementType(tensor.dtype);
    if (type == nullptr) {
      return UnimplementedError(file_.path() + ": " + what + " is of an unknown dtype");
    }
    uint64_t bits = type->bits;
    RETURN_IF_ERROR(ReadShape(what, FindMember(entry, "shape"), &tensor, &bits));
    Extent extent{};
    RETURN_IF_ERROR(ReadOffsets(what, FindMember(entry, "data_offsets"), &extent));
    if (bits % 8 != 0 || extent.end - extent.begin != bits / 8) {
      return Malformed(what + " has " + std::to_string(extent.end - extent.begin) +
                       " bytes, its shape and dtype need " + std::to_string((bits + 7) / 8));
    }
    tensor.bytes = data_.subspan(extent.begin, extent.end - extent.begin);
    extents_.push_back(extent);
    file_.tensors_.push_back(std::move(tensor));
    return OkStatus();
  }

  Status ReadShape(const std::string& what, const nlohmann::json* shape, SafeTensor* tensor,
                   uint64_t* bits) {
    if (shape == nullptr || !shape->is_array() || shape->size() > kDimsMax) {
      return Malformed(what + " has no shape of at most " + std::to_string(kDimsMax) +
                       " dimensions");
    }
    for (const nlohmann::json& value : *shape) {
      uint64_t dim = 0;
      if (!ReadWholeNumber(value, &dim)) {
        return Malformed(what + " has a dimension that is not a whole number");
      }
      if (__builtin_mul_overflow(*bits, dim, bits)) {
        return Malformed(what + " has more bits than 64 bits can count");
      }
      tensor->dims.push_back(dim);
    }
    return OkStatus();
  }

  struct Extent {
    uint64_t begin, end;
  };
  Status ReadOffsets(const std::string& what, const nlohmann::json* offsets, Extent* extent) {
    if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2 ||
        !ReadWholeNumber((*offsets)[0], &extent->begin) ||
        !ReadWholeNumber((*offsets)[1], &extent->end) || extent->begin > extent->end) {
      return Malformed(what + " has no data_offsets [begin, end]");
    }
    if (extent->end > data_.size()) {
      return Malformed(what + " ends at byte " + std::to_string(extent->end) +
                       " of the data, beyond its " + std::to_string(data_.size()) +
                       ": is the download complete?");
    }
    return OkStatus();
  }

  // The format allows neither gaps nor overlaps, so the tensors fill the file.
  Status PlaceTensors() {
    std::vector<size_t> order(extents_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::pair(extents_[a].begin, extents_[a].end) <
             std::pair(extents_[b].begin, extents_[b].end);
    });
    std::vector<SafeTensor> sorted;
    sorted.reserve(order.size());
    uint64_t end = 0;
    for (const size_t i : order) {
      if (extents_[i].begin != end) {
        return Malformed("tensor '" + file_.tensors_[i].name + "' begins at byte " +
                         std::to_string(extents_[i].begin) + " of the data, the one before ends " +
                         "at " + std::to_string(end));
      }
      end = extents_[i].end;
      sorted.push_back(std::move(file_.tensors_[i]));
    }
    if (end != data_.size()) {
      return Malformed("holds " + std::to_string(data_.size()) + " bytes of data, its tensors " +
                       std::to_string(end));
    }
    file_.tensors_ = std::move(sorted);
    for (size_t i = 0; i < file_.tensors_.size(); ++i) {
      file_.index_.emplace(file_.tensors_[i].name, i);
    }
    return OkStatus();
  }

  SafetensorsFile& file_;
  const std::span<const std::byte> bytes_;
  std::span<const std::byte> data_;
  std::vector<Extent> extents_;  // of the tensor of the same index
};

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::unique_ptr<SafetensorsFile> file;
  file.reset(new SafetensorsFile(std::move(mapped)));
  RETURN_IF_ERROR(SafetensorsParser(*file).Parse());
  return file;
}

const SafeTensor* SafetensorsFile::Find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace corpusd
