// tests/support/safetensors_writer.h -- puts a safetensors file together, sound or deliberately
// not. Nothing is checked: a test decides what is right. One thread per object.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd {

class SafetensorsWriter {
 public:
  // data goes behind the tensor before it.
  void Add(std::string_view name, std::string_view dtype, const std::vector<uint64_t>& shape,
           std::string_view data);
  // A member of the header, such as "\"x\":{...}", without data.
  void AddRaw(std::string_view member);
  std::string Finish() const;
  // Length, header and data as they are.
  static std::string File(std::string_view header, std::string_view data);

 private:
  std::string members_;
  std::string data_;
};

}  // namespace corpusd
