// engine/retrieval/case_folding.h -- lower case of the alphabets that have one, one code point to
// one (Unicode's simple case folding of Latin, Greek, Cyrillic, Armenian and full-width letters).
// Pure; any thread.
#pragma once

#include <cstdint>

namespace corpusd {

// The lower case of a code point; others as they are.
uint32_t FoldCase(uint32_t c);
inline bool IsCapital(uint32_t c) {
  return c != 0x3c2 && FoldCase(c) != c;  // the final sigma is small and folds into the other one
}

}  // namespace corpusd
