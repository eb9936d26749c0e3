// engine/tokenizer/utf8_repair.h -- any bytes to well-formed text, the way the reference tokenizer
// of GGUF models reads broken UTF-8, so that ids agree on it. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace corpusd {

struct CodePoint {
  uint32_t value;
  uint32_t bytes;  // of its encoding
};

// REQUIRES: at < text.size() and text as RepairUtf8 leaves it.
inline CodePoint DecodeAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(text[at + i]));
  };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (lead < 0xf0) return {(lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f),
          4};
}

// Appends text to *out, with U+FFFD for every byte that begins no sequence of a lead byte and its
// continuation bytes, or one beyond U+10FFFF. Overlong forms become the short form; surrogates
// pass. last: nothing follows, so an incomplete sequence at the end is broken too. RETURNS how many
// bytes were taken: all, or all but at most 3 that may begin a sequence if !last.
size_t RepairUtf8(std::string_view text, bool last, std::string* out);

}  // namespace corpusd
