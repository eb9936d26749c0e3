#include "client/ctl/text.h"

#include <array>
#include <cstdint>
#include <cstdio>

#include "client/wire/utf8.h"

namespace corpusd::ctl {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint8_t Byte(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

// REQUIRES: text starts with a well-formed sequence of that many bytes.
uint32_t CodePoint(std::string_view text, size_t bytes) {
  if (bytes == 1) return Byte(text, 0);
  uint32_t value = Byte(text, 0) & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) value = (value << 6) | (Byte(text, i) & 0x3F);
  return value;
}

struct Range {
  uint32_t first;
  uint32_t last;
};

// The blocks that matter in file names, not all of Unicode's tables.
constexpr std::array kZeroWidth = {Range{0x0300, 0x036F}, Range{0x200B, 0x200F},
                                   Range{0x20D0, 0x20FF}, Range{0xFE00, 0xFE0F},
                                   Range{0xFE20, 0xFE2F}};
constexpr std::array kWide = {
    Range{0x1100, 0x115F},   Range{0x2E80, 0x303E},   Range{0x3041, 0xA4CF},
    Range{0xAC00, 0xD7A3},   Range{0xF900, 0xFAFF},   Range{0xFE30, 0xFE6F},
    Range{0xFF00, 0xFF60},   Range{0xFFE0, 0xFFE6},   Range{0x1F300, 0x1F64F},
    Range{0x1F680, 0x1F6FF}, Range{0x1F900, 0x1F9FF}, Range{0x20000, 0x3FFFD}};

template <size_t kCount>
bool IsIn(const std::array<Range, kCount>& ranges, uint32_t code_point) {
  for (const Range& range : ranges) {
    if (code_point >= range.first && code_point <= range.last) return true;
  }
  return false;
}

size_t WidthOf(uint32_t code_point) {
  if (IsIn(kZeroWidth, code_point)) return 0;
  return IsIn(kWide, code_point) ? 2 : 1;
}

std::string Escape(std::string_view text, bool keep_lines) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t bytes = Utf8CharacterBytes(text);
    if (bytes == 0) {
      out += kReplacement;
      text.remove_prefix(1);
      continue;
    }
    const uint32_t code_point = CodePoint(text, bytes);
    const bool line = keep_lines && (code_point == '\n' || code_point == '\t');
    // C0, DEL and C1: what a terminal may take for a command.
    if (!line && (code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0))) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(code_point));
      out += escaped;
    } else {
      out += text.substr(0, bytes);
    }
    text.remove_prefix(bytes);
  }
  return out;
}

}  // namespace

std::string EscapeForCell(std::string_view text) { return Escape(text, false); }

std::string EscapeForTerminal(std::string_view text) { return Escape(text, true); }

size_t DisplayWidth(std::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    const size_t bytes = Utf8CharacterBytes(text);
    width += bytes == 0 ? 1 : WidthOf(CodePoint(text, bytes));
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return width;
}

std::string TruncateToWidth(std::string_view text, size_t width) {
  size_t used = 0;
  size_t columns = 0;
  while (used < text.size()) {
    const std::string_view rest = text.substr(used);
    const size_t bytes = Utf8CharacterBytes(rest);
    columns += bytes == 0 ? 1 : WidthOf(CodePoint(rest, bytes));
    if (columns > width) break;
    used += bytes == 0 ? 1 : bytes;
  }
  return std::string(text.substr(0, used));
}

}  // namespace corpusd::ctl
