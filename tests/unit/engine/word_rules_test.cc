// The newer pre-tokenizers against Hugging Face's tokenizers library (make_word_rules.py), and
// their independence of how a text arrives.
#include "engine/tokenizer/word_rules.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/pretokenizer.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

struct Case {
  WordRule rule;
  std::string text;
  std::vector<size_t> ends;
};

std::vector<Case> Cases() {
  std::ifstream file(GoldenPath("word_rules.jsonl"));
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    cases.push_back({*FindWordRule(record["rule"].get<std::string>()),
                     record["text"].get<std::string>(), record["ends"].get<std::vector<size_t>>()});
  }
  EXPECT_GT(cases.size(), 300U);
  return cases;
}

TEST(WordRules, WordsAreThoseOfTheTokenizersLibrary) {
  for (const Case& c : Cases()) {
    const WordScanner scanner(c.rule);
    std::vector<size_t> ends;
    size_t at = 0;
    while (at < c.text.size()) {
      const size_t bytes = scanner.FirstWord(std::string_view(c.text).substr(at), true);
      ASSERT_GT(bytes, 0U) << c.text;
      at += bytes;
      ends.push_back(at);
    }
    EXPECT_EQ(ends, c.ends) << WordRuleName(c.rule) << ": " << nlohmann::json(c.text).dump();
  }
}

// A word that is given before the text has ended is the word of every longer text.
TEST(WordRules, WhatComesLaterChangesNoWordThatWasGiven) {
  for (const Case& c : Cases()) {
    const WordScanner scanner(c.rule);
    size_t at = 0;
    for (const size_t end : c.ends) {
      const std::string_view rest = std::string_view(c.text).substr(at);
      for (size_t size = 1; size <= rest.size(); ++size) {
        // Whole characters arrive.
        if (size < rest.size() && (static_cast<uint8_t>(rest[size]) & 0xc0) == 0x80) continue;
        const size_t given = scanner.FirstWord(rest.substr(0, size), false);
        if (given == 0) continue;
        ASSERT_EQ(given, end - at) << nlohmann::json(c.text).dump() << " " << at;
      }
      at = end;
    }
  }
}

TEST(WordRules, RunsAreCutAtTheLimit) {
  for (const WordRule rule : {WordRule::kLlama3, WordRule::kQwen2, WordRule::kO200k}) {
    const WordScanner scanner(rule);
    for (const char c : {'a', '!', ' '}) {
      const std::string text(Pretokenizer::kWordBytesMax + 100, c);
      EXPECT_EQ(scanner.FirstWord(text, false), Pretokenizer::kWordBytesMax) << c;
    }
  }
}

TEST(WordRules, ExpressionsAreKnownByTheirText) {
  EXPECT_EQ(FindWordRule("llama4"), WordRule::kO200k);
  EXPECT_EQ(FindWordRule("unknown"), std::nullopt);
  EXPECT_EQ(FindWordRuleByPattern(""), std::nullopt);
  EXPECT_EQ(FindWordRuleByPattern("\\p{L}+"), std::nullopt);
  EXPECT_EQ(FindWordRuleByPattern(
                "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
            WordRule::kLlama3);
}

}  // namespace
}  // namespace corpusd
