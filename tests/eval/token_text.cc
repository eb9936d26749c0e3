#include "tests/eval/token_text.h"

namespace corpusd {

std::string TokenCoder::Decode(std::span<const TokenId> tokens) const {
  std::string text;
  for (const TokenId token : tokens) text += piece(token);
  return text;
}

std::optional<LinePlace> FindLine(const TokenCoder& coder, std::span<const TokenId> tokens,
                                  std::string_view line, std::string_view answer) {
  const std::string text = coder.Decode(tokens);
  const size_t at = text.find(line);
  const size_t inside = line.rfind(answer);
  if (at == std::string::npos || inside == std::string_view::npos) return std::nullopt;
  // The tokens that hold the first byte and the last one.
  const auto span_of = [&](size_t first_byte, size_t bytes) {
    TokenSpan span;
    size_t end = 0, token = 0;
    for (; token < tokens.size() && end <= first_byte; ++token)
      end += coder.piece(tokens[token]).size();
    span.first = token - 1;
    for (; token < tokens.size() && end < first_byte + bytes; ++token) {
      end += coder.piece(tokens[token]).size();
    }
    span.end = token;
    return span;
  };
  return LinePlace{span_of(at, line.size()), span_of(at + inside, answer.size())};
}

}  // namespace corpusd
