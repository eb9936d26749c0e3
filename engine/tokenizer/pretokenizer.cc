#include "engine/tokenizer/pretokenizer.h"

#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {

Pretokenizer::Pretokenizer() : classes_(UnicodeClasses::Get()), ascii_() {
  for (size_t i = 0; i < ascii_.size(); ++i) {
    ascii_[i] = classes_.OfAscii(static_cast<uint8_t>(i));
  }
}

Pretokenizer::Char Pretokenizer::At(std::string_view text, size_t at) const {
  if (at >= text.size()) return {CharClass::kOther, 0};
  const auto byte = static_cast<uint8_t>(text[at]);
  if (byte < 0x80) return {ascii_[byte], 1};
  const CodePoint point = DecodeAt(text, at);
  return {classes_.Of(point.value), point.bytes};
}

// The end of the run of one class that goes on at `at`; runs stop at kWordBytesMax.
size_t Pretokenizer::RunEnd(std::string_view text, size_t at, CharClass char_class) const {
  text = text.substr(0, kWordBytesMax + 4);  // a last character may begin before the limit
  while (at < text.size() && at < kWordBytesMax) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte < 0x80) {
      if (ascii_[byte] != char_class) return at;
      ++at;
      continue;
    }
    const CodePoint point = DecodeAt(text, at);
    if (classes_.Of(point.value) != char_class) return at;
    at += point.bytes;
  }
  return at;
}

// RETURNS the bytes of 's, 't, 'm, 'd, 're, 've or 'll at the front of text, or 0.
size_t Pretokenizer::ContractionBytes(std::string_view text, bool last, bool* undecided) const {
  *undecided = !last && text.size() < 2;
  if (text.size() < 2) return 0;
  const char first = text[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (first != 'r' && first != 'v' && first != 'l') return 0;
  *undecided = !last && text.size() < 3;
  if (text.size() < 3) return 0;
  return text[2] == (first == 'l' ? 'l' : 'e') ? 3 : 0;
}

size_t Pretokenizer::SpaceWord(std::string_view text, bool last) const {
  const size_t end = RunEnd(text, 0, CharClass::kSpace);
  if (end >= kWordBytesMax) return end;
  const Char after = At(text, end);
  if (after.bytes == 0) return last ? end : 0;
  // The last space of a run goes with the word after it; numbers take none.
  size_t last_char = end - 1;
  while ((static_cast<uint8_t>(text[last_char]) & 0xc0) == 0x80) --last_char;
  return last_char == 0 || after.char_class == CharClass::kNumber ? end : last_char;
}

size_t Pretokenizer::FirstWord(std::string_view text, bool last) const {
  if (text[0] == '\'') {
    bool undecided = false;
    const size_t bytes = ContractionBytes(text, last, &undecided);
    if (undecided) return 0;
    if (bytes > 0) return bytes;
  }
  Char first = At(text, 0);
  size_t start = 0;
  if (text[0] == ' ') {
    start = 1;
    first = At(text, 1);
    if (first.bytes == 0) return last ? 1 : 0;
    if (first.char_class == CharClass::kNumber) return 1;
  }
  if (first.char_class == CharClass::kNumber) return first.bytes;
  if (first.char_class == CharClass::kSpace) return SpaceWord(text, last);
  const size_t end = RunEnd(text, start + first.bytes, first.char_class);
  return end == text.size() && end < kWordBytesMax && !last ? 0 : end;
}

}  // namespace corpusd
