// engine/jinja/lexer.h -- cuts a template into tokens, with Jinja's rules for white space around
// tags as transformers sets them: trim_blocks, lstrip_blocks, one newline at the end dropped. Pure;
// any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace corpusd::jinja {

enum class TokenKind : uint8_t {
  kText,       // outside of tags
  kBlockOpen,  // {%
  kBlockClose,
  kPrintOpen,  // {{
  kPrintClose,
  kName,
  kString,  // text: without quotes, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  uint32_t line = 0;
};

inline constexpr size_t kTemplateBytesMax = size_t{1} << 20;

// kInvalidArgument with the line, for tags and strings that do not end, and unknown characters.
Result<std::vector<Token>> Tokenize(std::string_view source);

// "line 12: WHAT".
Status TemplateError(uint32_t line, const std::string& what);

}  // namespace corpusd::jinja
