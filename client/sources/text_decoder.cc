#include "client/sources/text_decoder.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

constexpr uint32_t kReplacementCharacter = 0xFFFD;
constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";
constexpr std::string_view kUtf16LittleMark = "\xFF\xFE";
constexpr std::string_view kUtf16BigMark = "\xFE\xFF";

// 0x80 to 0x9F of Windows-1252; 0: not assigned.
constexpr std::array<uint16_t, 32> kHighControls = {
    0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};

// How much of text is ASCII at its front, eight bytes at a time.
size_t AsciiBytes(std::string_view text) {
  size_t at = 0;
  uint64_t word = 0;
  while (text.size() - at >= sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & 0x8080808080808080) != 0) break;
    at += sizeof word;
  }
  while (at < text.size() && static_cast<uint8_t>(text[at]) < 0x80) ++at;
  return at;
}

// Text in UTF-16 has no NUL character either, and hardly a text is without any ASCII: at least its
// lines end. low: where the low byte of each unit is.
bool HoldsUtf16(std::string_view sample, size_t low) {
  bool has_ascii = sample.size() < 2;
  for (size_t i = 0; i + 1 < sample.size(); i += 2) {
    if (sample[i] == '\0' && sample[i + 1] == '\0') return false;
    has_ascii |= sample[i + 1 - low] == '\0' && static_cast<uint8_t>(sample[i + low]) < 0x80;
  }
  return has_ascii;
}

}  // namespace

uint32_t FromWindows1252(uint8_t byte) {
  if (byte < 0x80 || byte >= 0xA0) return byte;
  const uint16_t code_point = kHighControls[byte - 0x80];
  return code_point == 0 ? byte : code_point;
}

bool LooksBinary(std::string_view sample) {
  if (sample.starts_with(kUtf16LittleMark) || sample.starts_with(kUtf16BigMark)) {
    return !HoldsUtf16(sample.substr(2), sample[0] == '\xFF' ? 0 : 1);
  }
  if (sample.find('\0') != std::string_view::npos) return true;
  const size_t sample_bytes = sample.size();
  size_t invalid_bytes = 0;
  while (!sample.empty()) {
    const size_t bytes = Utf8CharacterBytes(sample);
    if (bytes == 0) {
      // A character that the end of the sample cuts in two says nothing.
      if (IsUtf8CutOff(sample)) break;
      ++invalid_bytes;
    }
    sample.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return invalid_bytes * 10 > sample_bytes;
}

bool TextDecoder::FindForm(bool at_end) {
  for (const std::string_view mark : {kUtf8Mark, kUtf16LittleMark, kUtf16BigMark}) {
    const bool is_prefix = mark.starts_with(pending_) && pending_.size() < mark.size();
    if (is_prefix && !at_end) return false;
  }
  form_ = Form::kUtf8;
  size_t mark_bytes = 0;
  if (pending_.starts_with(kUtf8Mark)) {
    mark_bytes = kUtf8Mark.size();
  } else if (pending_.starts_with(kUtf16LittleMark) || pending_.starts_with(kUtf16BigMark)) {
    form_ = pending_[0] == '\xFF' ? Form::kUtf16Little : Form::kUtf16Big;
    mark_bytes = kUtf16BigMark.size();
    converted_ = true;
  }
  pending_.erase(0, mark_bytes);
  return true;
}

bool TextDecoder::Write(std::string_view piece) {
  if (form_ == Form::kUnknown) {
    const size_t taken = std::min(kUtf8Mark.size() - pending_.size(), piece.size());
    pending_ += piece.substr(0, taken);
    piece.remove_prefix(taken);
    if (!FindForm(false)) return true;
  }
  if (pending_.empty()) return Decode(piece, false);
  // At most three bytes wait; the next few complete them, and the bulk is decoded in place.
  while (!pending_.empty() && !piece.empty()) {
    pending_ += piece[0];
    piece.remove_prefix(1);
    const std::string bytes = std::move(pending_);
    pending_.clear();
    if (!Decode(bytes, false)) return false;
  }
  return piece.empty() || Decode(piece, false);
}

bool TextDecoder::Finish() {
  if (form_ == Form::kUnknown) FindForm(true);
  const std::string bytes = std::move(pending_);
  pending_.clear();
  return Decode(bytes, true) && next_.Finish();
}

bool TextDecoder::Decode(std::string_view bytes, bool at_end) {
  return form_ == Form::kUtf8 ? DecodeUtf8(bytes, at_end) : DecodeUtf16(bytes, at_end);
}

bool TextDecoder::DecodeUtf8(std::string_view bytes, bool at_end) {
  size_t good = 0;  // bytes at the front that are fine as they are
  while (good < bytes.size()) {
    good += AsciiBytes(bytes.substr(good));
    if (good == bytes.size()) break;
    const std::string_view rest = bytes.substr(good);
    const size_t character = Utf8CharacterBytes(rest);
    if (character > 0) {
      good += character;
      continue;
    }
    if (!at_end && IsUtf8CutOff(rest)) {
      pending_ = rest;
      break;
    }
    std::string converted;
    AppendUtf8(FromWindows1252(static_cast<uint8_t>(rest[0])), &converted);
    converted_ = true;
    if (good > 0 && !next_.Write(bytes.substr(0, good))) return false;
    if (!next_.Write(converted)) return false;
    bytes.remove_prefix(good + 1);
    good = 0;
  }
  return good == 0 || next_.Write(bytes.substr(0, good));
}

void TextDecoder::TakeUnit(uint16_t unit, std::string* text) {
  const bool is_low = unit >= 0xDC00 && unit < 0xE000;
  if (high_surrogate_ != 0) {
    const uint32_t high = high_surrogate_;
    high_surrogate_ = 0;
    if (is_low) {
      AppendUtf8(0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00u), text);
      return;
    }
    AppendUtf8(kReplacementCharacter, text);
  }
  if (unit >= 0xD800 && unit < 0xDC00) {
    high_surrogate_ = unit;
  } else {
    AppendUtf8(is_low ? kReplacementCharacter : unit, text);
  }
}

bool TextDecoder::DecodeUtf16(std::string_view bytes, bool at_end) {
  const size_t low = form_ == Form::kUtf16Little ? 0 : 1;
  std::string text;
  size_t at = 0;
  for (; at + 1 < bytes.size(); at += 2) {
    const auto low_byte = static_cast<uint8_t>(bytes[at + low]);
    const auto high_byte = static_cast<uint8_t>(bytes[at + 1 - low]);
    TakeUnit(static_cast<uint16_t>(high_byte << 8 | low_byte), &text);
  }
  pending_ = bytes.substr(at);
  if (at_end && (!pending_.empty() || high_surrogate_ != 0)) {
    AppendUtf8(kReplacementCharacter, &text);
    pending_.clear();
  }
  return text.empty() || next_.Write(text);
}

}  // namespace corpusd::sources
