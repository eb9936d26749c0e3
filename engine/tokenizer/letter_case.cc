#include "engine/tokenizer/letter_case.h"

#include <algorithm>
#include <span>

namespace corpusd {
namespace {

struct CaseRange {
  uint32_t first, last;
};

#include "engine/tokenizer/unicode_cases.inc"

}  // namespace

const LetterCases& LetterCases::Get() {
  static const LetterCases kCases;
  return kCases;
}

LetterCases::LetterCases() {
  const auto mark = [&](std::span<const CaseRange> ranges, LetterCase letter_case) {
    cases_.resize(std::max<size_t>(cases_.size(), ranges.back().last + 1));
    for (const CaseRange& range : ranges) {
      std::fill(cases_.begin() + range.first, cases_.begin() + range.last + 1, letter_case);
    }
  };
  mark(kUpperRanges, LetterCase::kUpper);
  mark(kLowerRanges, LetterCase::kLower);
  mark(kMarkRanges, LetterCase::kMark);
}

}  // namespace corpusd
