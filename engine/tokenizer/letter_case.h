// engine/tokenizer/letter_case.h -- upper and lower letters and marks, which the pre-tokenizers of
// the o200k kind tell apart. Tables from unicode_cases.inc. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace corpusd {

enum class LetterCase : uint8_t {
  kNone = 0,   // neither of the others: a letter without case, or no letter
  kUpper = 1,  // \p{Lu}, \p{Lt}
  kLower = 2,  // \p{Ll}
  kMark = 3,   // \p{M}
};

class LetterCases {
 public:
  static const LetterCases& Get();
  LetterCase Of(uint32_t code_point) const {
    return code_point < cases_.size() ? cases_[code_point] : LetterCase::kNone;
  }

 private:
  LetterCases();

  std::vector<LetterCase> cases_;  // up to the last code point that has one: 918,000 bytes
};

}  // namespace corpusd
