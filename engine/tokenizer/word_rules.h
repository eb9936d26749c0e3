// engine/tokenizer/word_rules.h -- cuts text into the words that BPE merges inside, by the rules of
// newer vocabularies than pretokenizer.h's; each is a regular expression (WordRulePattern), written
// as a scanner. Immutable; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/tokenizer/letter_case.h"
#include "engine/tokenizer/unicode_classes.h"

namespace corpusd {

enum class WordRule : uint8_t {
  kSmolLm,  // pretokenizer.h
  kLlama3,  // cl100k's with up to three digits a word
  kQwen2,   // the same, digits one by one
  kO200k,   // GPT-4o's and Llama 4's: words end before a capital
};

// The rule's name in GGUF files, such as "llama-bpe"; none: unknown.
std::optional<WordRule> FindWordRule(std::string_view name);
// The rule whose regular expression this is; none: unknown, or one that has no expression.
std::optional<WordRule> FindWordRuleByPattern(std::string_view pattern);
std::string_view WordRuleName(WordRule rule);

class WordScanner {
 public:
  // REQUIRES: not kSmolLm.
  explicit WordScanner(WordRule rule);

  // As Pretokenizer::FirstWord; runs of one class are cut at its kWordBytesMax, too.
  size_t FirstWord(std::string_view text, bool last) const;

 private:
  class Scan;
  const WordRule rule_;
};

}  // namespace corpusd
