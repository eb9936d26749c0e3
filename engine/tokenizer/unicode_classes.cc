#include "engine/tokenizer/unicode_classes.h"

#include <algorithm>
#include <span>

namespace corpusd {
namespace {

struct CodePointRange {
  uint32_t first, last;
};

#include "engine/tokenizer/unicode_ranges.inc"

}  // namespace

const UnicodeClasses& UnicodeClasses::Get() {
  static const UnicodeClasses kClasses;
  return kClasses;
}

UnicodeClasses::UnicodeClasses() {
  std::vector<CharClass> classes(page_index_.size() * kPageSize, CharClass::kOther);
  const auto mark = [&](std::span<const CodePointRange> ranges, CharClass char_class) {
    for (const CodePointRange& range : ranges) {
      std::fill(classes.begin() + range.first, classes.begin() + range.last + 1, char_class);
    }
  };
  mark(kLetterRanges, CharClass::kLetter);
  mark(kNumberRanges, CharClass::kNumber);
  mark(kSpaceRanges, CharClass::kSpace);
  // Equal pages are kept once. Most repeat the page just before them, so one look back finds those.
  for (size_t page = 0; page < page_index_.size(); ++page) {
    const auto begin = classes.begin() + static_cast<ptrdiff_t>(page * kPageSize);
    if (page > 0 && std::equal(begin, begin + kPageSize, begin - kPageSize)) {
      page_index_[page] = page_index_[page - 1];
      continue;
    }
    page_index_[page] = static_cast<uint16_t>(pages_.size() >> kPageBits);
    pages_.insert(pages_.end(), begin, begin + kPageSize);
  }
}

}  // namespace corpusd
