#include "tests/support/gguf_writer.h"

namespace corpusd {
namespace {

enum : uint32_t { kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9 };

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

std::string TensorInfo(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims) {
  std::string info = RawString(name) + RawBytes(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) info += RawBytes(dim);
  return info + RawBytes(type);
}

}  // namespace

std::string RawString(std::string_view text) {
  return RawBytes(uint64_t{text.size()}) + std::string(text);
}

void GgufWriter::AddRaw(std::string_view key, uint32_t type, std::string_view bytes) {
  ++keys_;
  metadata_ += RawString(key) + RawBytes(type);
  metadata_ += bytes;
}

void GgufWriter::AddUint(std::string_view key, uint32_t value) {
  AddRaw(key, kUint32, RawBytes(value));
}

void GgufWriter::AddFloat(std::string_view key, float value) {
  AddRaw(key, kFloat32, RawBytes(value));
}

void GgufWriter::AddBool(std::string_view key, bool value) {
  AddRaw(key, kBool, RawBytes(static_cast<uint8_t>(value)));
}

void GgufWriter::AddString(std::string_view key, std::string_view value) {
  AddRaw(key, kString, RawString(value));
}

void GgufWriter::AddStrings(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = RawBytes(uint32_t{kString}) + RawBytes(uint64_t{values.size()});
  for (const std::string& value : values) bytes += RawString(value);
  AddRaw(key, kArray, bytes);
}

void GgufWriter::AddInts(std::string_view key, const std::vector<int32_t>& values) {
  std::string bytes = RawBytes(uint32_t{kInt32}) + RawBytes(uint64_t{values.size()});
  for (const int32_t value : values) bytes += RawBytes(value);
  AddRaw(key, kArray, bytes);
}

void GgufWriter::AddFloats(std::string_view key, const std::vector<float>& values) {
  std::string bytes = RawBytes(uint32_t{kFloat32}) + RawBytes(uint64_t{values.size()});
  for (const float value : values) bytes += RawBytes(value);
  AddRaw(key, kArray, bytes);
}

void GgufWriter::AddTensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims,
                           std::string_view data) {
  tensors_.push_back({TensorInfo(name, type, dims), 0, false, std::string(data)});
}

void GgufWriter::AddTensorAt(std::string_view name, uint32_t type,
                             const std::vector<uint64_t>& dims, uint64_t offset) {
  tensors_.push_back({TensorInfo(name, type, dims), offset, true, ""});
}

std::string GgufWriter::Finish(uint32_t alignment) const {
  std::string file = "GGUF" + RawBytes(uint32_t{3}) + RawBytes(uint64_t{tensors_.size()}) +
                     RawBytes(keys_) + metadata_;
  uint64_t offset = 0;
  std::string data;
  for (const Tensor& tensor : tensors_) {
    file += tensor.info + RawBytes(tensor.placed ? tensor.offset : offset);
    data += tensor.data;
    offset = AlignUp(offset + tensor.data.size(), alignment);
    data.resize(offset, '\0');
  }
  if (!tensors_.empty()) file.resize(AlignUp(file.size(), alignment), '\0');
  return file + data;
}

}  // namespace corpusd
