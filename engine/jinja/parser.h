// engine/jinja/parser.h -- tokens to trees. Lives for one parse; one thread. Every error is one
// sentence with the line and the construct.
#pragma once

#include <string_view>
#include <vector>

#include "engine/jinja/lexer.h"
#include "engine/jinja/syntax.h"
#include "store/base/result.h"

namespace corpusd::jinja {

// Reads expressions off a list of tokens.
class ExpressionParser {
 public:
  explicit ExpressionParser(const std::vector<Token>& tokens) : tokens_(tokens) {}

  // One expression; with commas a tuple, which is a list here.
  Result<ExpressionPtr> ParseTuple();
  Result<ExpressionPtr> ParseExpression();
  // The same without 'if': of a loop's iterable.
  Result<ExpressionPtr> ParseWithoutConditional();
  // The filters after a value, applied to it.
  Result<ExpressionPtr> ParseFilters(ExpressionPtr value);
  Result<ExpressionPtr> ParseFilter(ExpressionPtr value);  // one, after its '|'

  const Token& current() const { return tokens_[at_]; }
  bool IsOperator(std::string_view text) const {
    return current().kind == TokenKind::kOperator && current().text == text;
  }
  bool IsName(std::string_view text) const {
    return current().kind == TokenKind::kName && current().text == text;
  }
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  Status Expect(std::string_view operator_text);
  Result<std::string> TakeName();
  const Token& Next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  Status Unexpected(std::string_view wanted) const;

 private:
  Result<ExpressionPtr> ParseOr();
  Result<ExpressionPtr> ParseAnd();
  Result<ExpressionPtr> ParseNot();
  Result<ExpressionPtr> ParseCompare();
  Result<ExpressionPtr> ParseSum();
  Result<ExpressionPtr> ParseConcat();
  Result<ExpressionPtr> ParseProduct();
  Result<ExpressionPtr> ParsePower();
  Result<ExpressionPtr> ParseUnary(bool with_filters);
  Result<ExpressionPtr> ParsePrimary();
  Result<ExpressionPtr> ParseLiteral();
  Result<ExpressionPtr> ParseNumber();
  Result<ExpressionPtr> ParseParentheses();
  Result<ExpressionPtr> ParseList();
  Result<ExpressionPtr> ParseDict();
  Result<ExpressionPtr> ParsePostfix(ExpressionPtr value);
  Result<ExpressionPtr> ParseBrackets(ExpressionPtr value);
  Result<ExpressionPtr> ParseTest(ExpressionPtr value);
  Status ParseArguments(Expression* call);
  Result<std::string> ParseDottedName();

  ExpressionPtr Make(ExpressionKind kind, std::string text = "") const;
  // Takes the node's height from its parts. kInvalidArgument beyond kHeightMax.
  Result<ExpressionPtr> Finish(ExpressionPtr node) const;
  Result<ExpressionPtr> Join(ExpressionKind kind, std::string text, ExpressionPtr left,
                             Result<ExpressionPtr> right) const;
  Status Enter();

  const std::vector<Token>& tokens_;
  size_t at_ = 0;
  uint32_t depth_ = 0;
};

// kInvalidArgument for a malformed template, kUnimplemented for a tag that is not known.
Result<Block> ParseTemplate(std::string_view source);

}  // namespace corpusd::jinja
