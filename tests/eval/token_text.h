// tests/eval/token_text.h -- where a line of a document stands among its tokens, found in the text
// that the tokens give, so that it does not matter what else was tokenized with it. Pure; any
// thread.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/prefix_hash.h"

namespace corpusd {

// A tokenizer as far as these tests need one.
struct TokenCoder {
  std::function<std::vector<TokenId>(std::string_view)> encode;
  std::function<std::string_view(TokenId)> piece;

  std::string Decode(std::span<const TokenId> tokens) const;
};

struct TokenSpan {
  size_t first = 0, end = 0;
  bool operator==(const TokenSpan&) const = default;
};

struct LinePlace {
  TokenSpan line;    // tokens that hold any byte of the line
  TokenSpan answer;  // of its last occurrence of the answer
};

// Nothing if the tokens' text lacks the line, or the line the answer.
std::optional<LinePlace> FindLine(const TokenCoder& coder, std::span<const TokenId> tokens,
                                  std::string_view line, std::string_view answer);

}  // namespace corpusd
