// engine/tokenizer/unicode_classes.h -- the three Unicode classes that pre-tokenizers ask for.
// Tables are built once from unicode_ranges.inc, which make_unicode_ranges.py writes. Pure; any
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace corpusd {

enum class CharClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

class UnicodeClasses {
 public:
  static const UnicodeClasses& Get();

  // Anything beyond U+10FFFF is kOther.
  CharClass Of(uint32_t code_point) const {
    const uint32_t page = code_point >> kPageBits;
    if (page >= page_index_.size()) return CharClass::kOther;
    return pages_[size_t{page_index_[page]} << kPageBits | (code_point & (kPageSize - 1))];
  }
  CharClass OfAscii(uint8_t byte) const { return pages_[byte]; }

 private:
  static constexpr uint32_t kPageBits = 8;
  static constexpr uint32_t kPageSize = 1 << kPageBits;

  UnicodeClasses();

  // Page 0 of the code points is always page 0 of the table.
  std::array<uint16_t, 0x110000 / kPageSize> page_index_{};
  std::vector<CharClass> pages_;
};

}  // namespace corpusd
