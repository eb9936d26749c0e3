// engine/retrieval/lexical_terms.h -- the terms that a text is found by: parts of words, and every
// two parts that follow each other, which tell near-identical records apart. Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace corpusd {

// Bits of a term's number: two different terms share one in a corpus of 10M tokens about once in
// fifty.
inline constexpr uint32_t kTermBits = 28;

// The terms of a text in order, one time each time: words split into runs of letters and of digits,
// where a lower-case letter meets a capital and before the last of several capitals ("readHTTPPage"
// is read, http, page), in lower case; and pairs of neighbours. Each character of a script without
// spaces (Chinese, Japanese, Thai and others) is a part. Bytes that are not UTF-8 separate words.
std::vector<uint32_t> TermsOf(std::string_view text);

}  // namespace corpusd
