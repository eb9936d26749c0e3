#include "client/ctl/text.h"

#include <array>
#include <cstdint>
#include <cstdio>

namespace corpusd::ctl {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint8_t Byte(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

bool IsContinuation(std::string_view text, size_t at) {
  return at < text.size() && (Byte(text, at) & 0xC0) == 0x80;
}

// The length that a lead byte announces, or 0 for a byte that leads nothing.
size_t AnnouncedBytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Whether text is the start of one sequence that wants more bytes. REQUIRES: !text.empty().
bool IsCutOff(std::string_view text) {
  if (AnnouncedBytes(Byte(text, 0)) <= text.size()) return false;
  for (size_t i = 1; i < text.size(); ++i) {
    if (!IsContinuation(text, i)) return false;
  }
  return true;
}

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
    const size_t bytes = Utf8SequenceBytes(text);
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

size_t Utf8SequenceBytes(std::string_view text) {
  const uint8_t lead = Byte(text, 0);
  const size_t bytes = AnnouncedBytes(lead);
  for (size_t i = 1; i < bytes; ++i) {
    if (!IsContinuation(text, i)) return 0;
  }
  if (bytes >= 3) {
    const uint8_t second = Byte(text, 1);
    if (lead == 0xE0 && second < 0xA0) return 0;   // overlong
    if (lead == 0xED && second >= 0xA0) return 0;  // surrogate
    if (lead == 0xF0 && second < 0x90) return 0;   // overlong
    if (lead == 0xF4 && second >= 0x90) return 0;  // beyond U+10FFFF
  }
  return bytes;
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = Utf8SequenceBytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t bytes = Utf8SequenceBytes(text);
    out += bytes == 0 ? kReplacement : text.substr(0, bytes);
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return out;
}

std::string EscapeForCell(std::string_view text) { return Escape(text, false); }

std::string EscapeForTerminal(std::string_view text) { return Escape(text, true); }

size_t DisplayWidth(std::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    const size_t bytes = Utf8SequenceBytes(text);
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
    const size_t bytes = Utf8SequenceBytes(rest);
    columns += bytes == 0 ? 1 : WidthOf(CodePoint(rest, bytes));
    if (columns > width) break;
    used += bytes == 0 ? 1 : bytes;
  }
  return std::string(text.substr(0, used));
}

bool LooksBinary(std::string_view sample) {
  if (sample.find('\0') != std::string_view::npos) return true;
  const size_t sample_bytes = sample.size();
  size_t invalid_bytes = 0;
  while (!sample.empty()) {
    const size_t bytes = Utf8SequenceBytes(sample);
    if (bytes == 0) {
      // A character that the end of the sample cuts in two says nothing.
      if (IsCutOff(sample)) break;
      ++invalid_bytes;
    }
    sample.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return invalid_bytes * 10 > sample_bytes;
}

}  // namespace corpusd::ctl
