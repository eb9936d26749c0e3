#include "tests/support/safetensors_writer.h"

namespace corpusd {

void SafetensorsWriter::Add(std::string_view name, std::string_view dtype,
                            const std::vector<uint64_t>& shape, std::string_view data) {
  std::string member =
      "\"" + std::string(name) + "\":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":[";
  for (size_t i = 0; i < shape.size(); ++i) {
    member += (i == 0 ? "" : ",") + std::to_string(shape[i]);
  }
  member += "],\"data_offsets\":[" + std::to_string(data_.size()) + "," +
            std::to_string(data_.size() + data.size()) + "]}";
  data_ += data;
  AddRaw(member);
}

void SafetensorsWriter::AddRaw(std::string_view member) {
  if (!members_.empty()) members_ += ",";
  members_ += member;
}

std::string SafetensorsWriter::Finish() const {
  std::string header = "{" + members_ + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // as the format's own library aligns the data
  return File(header, data_);
}

std::string SafetensorsWriter::File(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  return file.append(header).append(data);
}

}  // namespace corpusd
