#include "engine/tokenizer/word_rules.h"

#include <algorithm>

#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {
namespace {

struct NamedRule {
  WordRule rule;
  std::string_view name;
  std::string_view pattern;
};

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array kRules = {
    NamedRule{WordRule::kSmolLm, "smollm", ""},
    NamedRule{WordRule::kSmolLm, "starcoder", ""},
    NamedRule{WordRule::kSmolLm, "refact", ""},
    NamedRule{WordRule::kLlama3, "llama-bpe", kLlama3Pattern},
    NamedRule{WordRule::kQwen2, "qwen2", kQwen2Pattern},
    NamedRule{WordRule::kO200k, "llama4", kO200kPattern},
    NamedRule{WordRule::kO200k, "gpt-4o", kO200kPattern},
};

}  // namespace

std::optional<WordRule> FindWordRule(std::string_view name) {
  for (const NamedRule& rule : kRules) {
    if (rule.name == name) return rule.rule;
  }
  return std::nullopt;
}

std::optional<WordRule> FindWordRuleByPattern(std::string_view pattern) {
  for (const NamedRule& rule : kRules) {
    if (!rule.pattern.empty() && rule.pattern == pattern) return rule.rule;
  }
  return std::nullopt;
}

std::string_view WordRuleName(WordRule rule) {
  for (const NamedRule& named : kRules) {
    if (named.rule == rule) return named.name;
  }
  return "";
}

// One word. Notes when a decision asked for what is behind the text: more text could change it.
class WordScanner::Scan {
 public:
  Scan(std::string_view text, WordRule rule) : text_(text), rule_(rule) {}

  bool asked_behind() const { return asked_behind_; }

  size_t Word() {
    const Char first = At(0);
    const bool o200k = rule_ == WordRule::kO200k;
    if (!o200k && first.value == '\'') {
      if (const size_t bytes = Contraction(0)) return bytes;
    }
    const bool prefix = first.kind != CharClass::kLetter && first.kind != CharClass::kNumber &&
                        first.value != '\r' && first.value != '\n';
    if (const size_t end = o200k ? CasedWord(first, prefix) : Letters(first, prefix)) return end;
    if (first.kind == CharClass::kNumber) return Digits();
    if (const size_t end = Symbols(first)) return end;
    return Spaces();
  }

 private:
  struct Char {
    CharClass kind = CharClass::kOther;
    uint32_t value = 0;
    uint32_t bytes = 0;  // 0: the text ends here
  };

  Char At(size_t at) {
    if (at >= text_.size()) {
      asked_behind_ = true;
      return {};
    }
    const CodePoint point = DecodeAt(text_, at);
    return {UnicodeClasses::Get().Of(point.value), point.value, point.bytes};
  }

  // The end of the characters from `at` on for which `in` holds.
  template <typename In>
  size_t RunEnd(size_t at, const In& in) {
    while (at < Pretokenizer::kWordBytesMax) {
      const Char c = At(at);
      if (c.bytes == 0 || !in(c)) return at;
      at += c.bytes;
    }
    return at;
  }

  // Letters and marks of words before their lower-case part, and of that part.
  static bool IsUpperPart(const Char& c) {
    const LetterCase letter_case = LetterCases::Get().Of(c.value);
    return letter_case == LetterCase::kUpper || letter_case == LetterCase::kMark ||
           (c.kind == CharClass::kLetter && letter_case == LetterCase::kNone);
  }
  static bool IsLowerPart(const Char& c) {
    const LetterCase letter_case = LetterCases::Get().Of(c.value);
    return letter_case == LetterCase::kLower || letter_case == LetterCase::kMark ||
           (c.kind == CharClass::kLetter && letter_case == LetterCase::kNone);
  }

  // RETURNS the bytes of 's, 't, 'm, 'd, 're, 've or 'll at `at` in either case, or 0. The long s
  // folds to s, too.
  size_t Contraction(size_t at) {
    if (At(at).value != '\'') return 0;
    const Char first = At(at + 1);
    const uint32_t a = first.value | 0x20;
    if (first.value == 0x17f) return 1 + first.bytes;
    if (first.value >= 0x80 || first.bytes == 0) return 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (a != 'r' && a != 'v' && a != 'l') return 0;
    const Char second = At(at + 2);
    if (second.value >= 0x80 || second.bytes == 0) return 0;
    return (second.value | 0x20) == (a == 'l' ? 'l' : 'e') ? 3 : 0;
  }

  // [^\r\n\p{L}\p{N}]?\p{L}+
  size_t Letters(const Char& first, bool prefix) {
    const size_t start = prefix ? first.bytes : 0;
    const size_t end = RunEnd(start, [](const Char& c) { return c.kind == CharClass::kLetter; });
    return end > start ? end : 0;
  }

  // The two alternatives of o200k, each with the prefix and without it.
  size_t CasedWord(const Char& first, bool prefix) {
    for (const bool lower_needed : {true, false}) {
      if (prefix) {
        if (const size_t end = CasedWordFrom(first.bytes, lower_needed)) return WithSuffix(end);
      }
      if (const size_t end = CasedWordFrom(0, lower_needed)) return WithSuffix(end);
    }
    return 0;
  }
  size_t CasedWordFrom(size_t start, bool lower_needed) {
    const size_t upper_end = RunEnd(start, IsUpperPart);
    const size_t end = RunEnd(upper_end, IsLowerPart);
    if (end > upper_end) return end;
    if (!lower_needed) return upper_end > start ? upper_end : 0;
    // What the upper part gives back: its last character that may stand in the lower one.
    size_t found = 0;
    for (size_t at = start; at < upper_end;) {
      const Char c = At(at);
      at += c.bytes;
      if (IsLowerPart(c)) found = at;
    }
    return found;
  }
  size_t WithSuffix(size_t end) { return end + Contraction(end); }

  size_t Digits() {
    size_t end = 0;
    for (int count = rule_ == WordRule::kQwen2 ? 1 : 3; count > 0; --count) {
      const Char c = At(end);
      if (c.bytes == 0 || c.kind != CharClass::kNumber) break;
      end += c.bytes;
    }
    return end;
  }

  //  ?[^\s\p{L}\p{N}]+[\r\n]*, of o200k [\r\n/]*
  size_t Symbols(const Char& first) {
    const size_t start = first.value == ' ' ? 1 : 0;
    const size_t end = RunEnd(start, [](const Char& c) { return c.kind == CharClass::kOther; });
    if (end == start) return 0;
    return RunEnd(end, [&](const Char& c) {
      return c.value == '\r' || c.value == '\n' || (rule_ == WordRule::kO200k && c.value == '/');
    });
  }

  // \s*[\r\n]+|\s+(?!\S)|\s+
  size_t Spaces() {
    size_t newline_end = 0, last_char = 0;
    const size_t end = RunEnd(0, [](const Char& c) { return c.kind == CharClass::kSpace; });
    for (size_t at = 0; at < end;) {
      const Char c = At(at);
      last_char = at;
      at += c.bytes;
      if (c.value == '\r' || c.value == '\n') newline_end = at;
    }
    if (newline_end > 0) return newline_end;
    const bool text_follows = end < Pretokenizer::kWordBytesMax && At(end).bytes > 0;
    return text_follows && last_char > 0 ? last_char : end;
  }

  const std::string_view text_;
  const WordRule rule_;
  bool asked_behind_ = false;
};

WordScanner::WordScanner(WordRule rule) : rule_(rule) {}

size_t WordScanner::FirstWord(std::string_view text, bool last) const {
  Scan scan(text, rule_);
  const size_t bytes = scan.Word();
  return !last && scan.asked_behind() ? 0 : bytes;
}

}  // namespace corpusd
