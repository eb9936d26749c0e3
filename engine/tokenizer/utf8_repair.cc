#include "engine/tokenizer/utf8_repair.h"

#include <cstring>

namespace corpusd {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";
constexpr uint32_t kBroken = 0xffffffff;
constexpr uint32_t kIncomplete = 0xfffffffe;

// The length that a lead byte promises, or 0.
uint32_t SequenceBytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc0) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf8 ? 4 : 0;
}

size_t AsciiBytes(std::string_view text) {
  size_t i = 0;
  uint64_t eight = 0;
  for (; i + sizeof eight <= text.size(); i += sizeof eight) {
    std::memcpy(&eight, text.data() + i, sizeof eight);
    if ((eight & 0x8080808080808080) != 0) break;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i;
}

// The code point at the front, kBroken, or kIncomplete if text ends too soon to tell.
uint32_t Front(std::string_view text, bool last) {
  const uint32_t length = SequenceBytes(static_cast<uint8_t>(text[0]));
  if (length == 0) return kBroken;
  for (uint32_t i = 1; i < length; ++i) {
    if (i >= text.size()) return last ? kBroken : kIncomplete;
    if ((static_cast<uint8_t>(text[i]) & 0xc0) != 0x80) return kBroken;
  }
  const uint32_t value = DecodeAt(text, 0).value;
  return value > 0x10ffff ? kBroken : value;
}

void AppendShortest(uint32_t value, std::string* out) {
  const auto tail = [&](uint32_t shift) {
    out->push_back(static_cast<char>(0x80 | ((value >> shift) & 0x3f)));
  };
  if (value < 0x80) {
    out->push_back(static_cast<char>(value));
  } else if (value < 0x800) {
    out->push_back(static_cast<char>(0xc0 | value >> 6));
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xe0 | value >> 12));
    tail(6);
    tail(0);
  }
}

bool IsOverlong(uint32_t value, uint32_t length) {
  return value < (length == 2 ? 0x80U : length == 3 ? 0x800U : length == 4 ? 0x10000U : 0U);
}

}  // namespace

size_t RepairUtf8(std::string_view text, bool last, std::string* out) {
  size_t copied = 0;  // everything before is in *out
  size_t at = 0;      // what lies between is sound and waits to be copied whole
  const auto flush = [&] { out->append(text.substr(copied, at - copied)); };
  while (at < text.size()) {
    at += AsciiBytes(text.substr(at));
    if (at == text.size()) break;
    const uint32_t value = Front(text.substr(at), last);
    if (value == kIncomplete) break;
    const uint32_t length = value == kBroken ? 1 : SequenceBytes(static_cast<uint8_t>(text[at]));
    if (value == kBroken || IsOverlong(value, length)) {
      flush();
      if (value == kBroken) {
        out->append(kReplacement);
      } else {
        AppendShortest(value, out);
      }
      copied = at + length;
    }
    at += length;
  }
  flush();
  return at;
}

}  // namespace corpusd
