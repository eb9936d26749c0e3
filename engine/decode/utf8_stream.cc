#include "engine/decode/utf8_stream.h"

#include <cstdint>

namespace corpusd {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// Length of the sequence a lead byte starts, 0 if it starts none (RFC 3629).
size_t LengthOf(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

// Whether `next` may follow as byte `index` of a sequence with this lead: no overlong forms, no
// surrogates, nothing above U+10FFFF.
bool MayFollow(uint8_t lead, size_t index, uint8_t next) {
  if ((next & 0xc0) != 0x80) return false;
  if (index != 1) return true;
  if (lead == 0xe0) return next >= 0xa0;
  if (lead == 0xed) return next <= 0x9f;
  if (lead == 0xf0) return next >= 0x90;
  if (lead == 0xf4) return next <= 0x8f;
  return true;
}

}  // namespace

std::string Utf8Stream::Append(std::string_view bytes) {
  held_.append(bytes);
  std::string out;
  size_t i = 0;
  while (i < held_.size()) {
    const auto lead = static_cast<uint8_t>(held_[i]);
    const size_t length = LengthOf(lead);
    if (length == 0) {
      out.append(kReplacement);
      ++i;
      continue;
    }
    size_t have = 1;
    while (have < length && i + have < held_.size() &&
           MayFollow(lead, have, static_cast<uint8_t>(held_[i + have]))) {
      ++have;
    }
    if (have == length) {
      out.append(held_, i, length);
      i += length;
    } else if (i + have == held_.size()) {
      break;  // may still become whole
    } else {
      out.append(kReplacement);
      i += have;
    }
  }
  held_.erase(0, i);
  return out;
}

std::string Utf8Stream::Finish() {
  if (held_.empty()) return {};
  held_.clear();
  return std::string(kReplacement);
}

}  // namespace corpusd
