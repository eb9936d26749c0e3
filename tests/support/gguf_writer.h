// tests/support/gguf_writer.h -- puts a GGUF version 3 file together, sound or deliberately not.
// Nothing is checked: a test decides what is right. One thread per object.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd {

class GgufWriter {
 public:
  void AddUint(std::string_view key, uint32_t value);
  void AddFloat(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, const std::vector<std::string>& values);
  void AddInts(std::string_view key, const std::vector<int32_t>& values);
  void AddFloats(std::string_view key, const std::vector<float>& values);
  // Any value: its type's number and its bytes as in the file.
  void AddRaw(std::string_view key, uint32_t type, std::string_view bytes);

  // data goes behind the tensor before it, aligned. The size is not compared with type and dims.
  void AddTensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims,
                 std::string_view data);
  // The same with an offset of the caller's choice and no data.
  void AddTensorAt(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims,
                   uint64_t offset);

  // alignment: of the data; written as general.alignment only by AddUint.
  std::string Finish(uint32_t alignment = 32) const;

 private:
  struct Tensor {
    std::string info;  // name, dimensions and type
    uint64_t offset = 0;
    bool placed = false;  // offset is the caller's
    std::string data;
  };

  uint64_t keys_ = 0;
  std::string metadata_;
  std::vector<Tensor> tensors_;
};

// A number as its little-endian bytes, and a string as its length and bytes, for AddRaw.
template <typename T>
std::string RawBytes(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string RawString(std::string_view text);

}  // namespace corpusd
