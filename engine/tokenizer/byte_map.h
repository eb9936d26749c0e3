// engine/tokenizer/byte_map.h -- bytes as the printable characters that vocabularies of byte-level
// BPE are written in. Immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {

// GPT-2's printable stand-ins for bytes: printable Latin-1 characters stand for themselves, the
// others for the code points from U+0100 on, in order.
class ByteMap {
 public:
  ByteMap() {
    bytes_.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      code_points_[byte] = printable ? byte : next++;
      bytes_[code_points_[byte]] = static_cast<int>(byte);
    }
  }

  std::string Text(uint8_t byte) const {
    const uint32_t code_point = code_points_[byte];
    if (code_point < 0x80) return {static_cast<char>(code_point)};
    return {static_cast<char>(0xc0 | code_point >> 6),
            static_cast<char>(0x80 | (code_point & 0x3f))};
  }

  // RETURNS false if text holds another character than the stand-ins.
  bool Bytes(std::string_view text, std::string* bytes) const {
    std::string repaired;
    RepairUtf8(text, true, &repaired);
    for (size_t at = 0; at < repaired.size();) {
      const CodePoint point = DecodeAt(repaired, at);
      if (point.value >= bytes_.size() || bytes_[point.value] < 0) return false;
      bytes->push_back(static_cast<char>(bytes_[point.value]));
      at += point.bytes;
    }
    return true;
  }

 private:
  std::array<uint32_t, 256> code_points_{};
  std::array<int, 0x144> bytes_{};
};

}  // namespace corpusd
