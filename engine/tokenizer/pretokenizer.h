// engine/tokenizer/pretokenizer.h -- cuts text into the words that BPE merges inside: the "smollm"
// rule. Every number character stands alone; between them GPT-2's rule, which is this regular
// expression:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// (Radford et al. 2019), written as a scanner. Immutable; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "engine/tokenizer/unicode_classes.h"

namespace corpusd {

class Pretokenizer {
 public:
  // A longer run of one class is cut here (at a character), so that memory stays bounded whatever
  // the text.
  static constexpr size_t kWordBytesMax = size_t{1} << 20;

  Pretokenizer();

  // RETURNS the bytes of the first word of text; 0 if more text could still change it, which is
  // only if !last. REQUIRES: a nonempty text as RepairUtf8 leaves it, which begins where a word
  // begins.
  size_t FirstWord(std::string_view text, bool last) const;

 private:
  struct Char {
    CharClass char_class;
    uint32_t bytes;  // 0: the text ends here
  };
  Char At(std::string_view text, size_t at) const;
  size_t RunEnd(std::string_view text, size_t at, CharClass char_class) const;
  size_t ContractionBytes(std::string_view text, bool last, bool* undecided) const;
  size_t SpaceWord(std::string_view text, bool last) const;

  const UnicodeClasses& classes_;
  std::array<CharClass, 128> ascii_;
};

}  // namespace corpusd
