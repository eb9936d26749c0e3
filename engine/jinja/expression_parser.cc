// Jinja 3's grammar of expressions, from the loosest operator to the tightest.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "engine/jinja/parser.h"
#include "engine/jinja/text.h"

namespace corpusd::jinja {
namespace {

// Nesting of one expression's parser calls.
constexpr uint32_t kNestingMax = 60;

}  // namespace

bool ExpressionParser::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Next();
  return true;
}

bool ExpressionParser::SkipName(std::string_view text) {
  if (!IsName(text)) return false;
  Next();
  return true;
}

Status ExpressionParser::Unexpected(std::string_view wanted) const {
  const Token& token = current();
  std::string found = "'" + token.text + "'";
  if (token.kind == TokenKind::kBlockClose || token.kind == TokenKind::kPrintClose) {
    found = "the tag's end";
  } else if (token.kind == TokenKind::kEnd) {
    found = "the template's end";
  } else if (token.kind == TokenKind::kString) {
    found = "the string " + QuotedText(token.text.substr(0, 40));
  }
  return TemplateError(token.line, "expected " + std::string(wanted) + ", found " + found);
}

Status ExpressionParser::Expect(std::string_view operator_text) {
  if (SkipOperator(operator_text)) return OkStatus();
  return Unexpected("'" + std::string(operator_text) + "'");
}

Result<std::string> ExpressionParser::TakeName() {
  if (current().kind != TokenKind::kName) return Unexpected("a name");
  return Next().text;
}

ExpressionPtr ExpressionParser::Make(ExpressionKind kind, std::string text) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = current().line;
  node->text = std::move(text);
  return node;
}

Result<ExpressionPtr> ExpressionParser::Finish(ExpressionPtr node) const {
  for (const ExpressionPtr& part : node->parts) {
    if (part != nullptr) node->height = std::max(node->height, part->height + 1);
  }
  for (const auto& [name, part] : node->named) {
    node->height = std::max(node->height, part->height + 1);
  }
  if (node->height > kHeightMax) {
    return TemplateError(node->line, "an expression is nested deeper than " +
                                         std::to_string(kHeightMax) + " levels");
  }
  return node;
}

Result<ExpressionPtr> ExpressionParser::Join(ExpressionKind kind, std::string text,
                                             ExpressionPtr left,
                                             Result<ExpressionPtr> right) const {
  if (!right.ok()) return right.status();
  ExpressionPtr node = Make(kind, std::move(text));
  node->parts.push_back(std::move(left));
  node->parts.push_back(std::move(*right));
  return Finish(std::move(node));
}

Status ExpressionParser::Enter() {
  if (depth_ >= kNestingMax) {
    return TemplateError(current().line, "an expression is nested deeper than " +
                                             std::to_string(kNestingMax) + " levels");
  }
  ++depth_;
  return OkStatus();
}

Result<ExpressionPtr> ExpressionParser::ParseExpression() {
  RETURN_IF_ERROR(Enter());
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (SkipName("if")) {
    ExpressionPtr node = Make(ExpressionKind::kConditional);
    ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    node->parts.push_back(std::move(value));
    node->parts.push_back(std::move(condition));
    node->parts.push_back(std::move(otherwise));
    ASSIGN_OR_RETURN(value, Finish(std::move(node)));
  }
  --depth_;
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseWithoutConditional() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  if (!IsOperator(",")) return value;
  ExpressionPtr list = Make(ExpressionKind::kList);
  list->parts.push_back(std::move(value));
  while (SkipOperator(",")) {
    ASSIGN_OR_RETURN(ExpressionPtr part, ParseOr());
    list->parts.push_back(std::move(part));
  }
  return Finish(std::move(list));
}

Result<ExpressionPtr> ExpressionParser::ParseTuple() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
  if (!IsOperator(",")) return value;
  ExpressionPtr list = Make(ExpressionKind::kList);
  list->parts.push_back(std::move(value));
  while (SkipOperator(",")) {
    const TokenKind kind = current().kind;
    if (kind == TokenKind::kBlockClose || kind == TokenKind::kPrintClose || IsOperator(")") ||
        IsOperator("]")) {
      break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr part, ParseExpression());
    list->parts.push_back(std::move(part));
  }
  return Finish(std::move(list));
}

Result<ExpressionPtr> ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseAnd());
  while (SkipName("or")) {
    ASSIGN_OR_RETURN(value, Join(ExpressionKind::kOr, "or", std::move(value), ParseAnd()));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseNot());
  while (SkipName("and")) {
    ASSIGN_OR_RETURN(value, Join(ExpressionKind::kAnd, "and", std::move(value), ParseNot()));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  RETURN_IF_ERROR(Enter());
  ExpressionPtr node = Make(ExpressionKind::kNot);
  Next();
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseNot());
  node->parts.push_back(std::move(value));
  --depth_;
  return Finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseCompare() {
  constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<", "<=", ">", ">="};
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseSum());
  ExpressionPtr node = Make(ExpressionKind::kCompare);
  while (true) {
    const Token& token = current();
    const bool negated = IsName("not") && at_ + 1 < tokens_.size() &&
                         tokens_[at_ + 1].kind == TokenKind::kName && tokens_[at_ + 1].text == "in";
    if (token.kind == TokenKind::kOperator &&
        std::find(kComparisons.begin(), kComparisons.end(), token.text) != kComparisons.end()) {
      node->operators.push_back(token.text);
    } else if (IsName("in") || negated) {
      node->operators.emplace_back(negated ? "not in" : "in");
      if (negated) Next();
    } else {
      break;
    }
    Next();
    if (node->parts.empty()) node->parts.push_back(std::move(value));
    ASSIGN_OR_RETURN(ExpressionPtr part, ParseSum());
    node->parts.push_back(std::move(part));
  }
  if (node->parts.empty()) return value;
  return Finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseSum() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseConcat());
  while (IsOperator("+") || IsOperator("-")) {
    std::string op = Next().text;
    ASSIGN_OR_RETURN(value,
                     Join(ExpressionKind::kBinary, std::move(op), std::move(value), ParseConcat()));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseConcat() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseProduct());
  while (SkipOperator("~")) {
    ASSIGN_OR_RETURN(value, Join(ExpressionKind::kBinary, "~", std::move(value), ParseProduct()));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseProduct() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParsePower());
  while (IsOperator("*") || IsOperator("/") || IsOperator("//") || IsOperator("%")) {
    std::string op = Next().text;
    ASSIGN_OR_RETURN(value,
                     Join(ExpressionKind::kBinary, std::move(op), std::move(value), ParsePower()));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParsePower() {
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseUnary(true));
  while (SkipOperator("**")) {
    ASSIGN_OR_RETURN(value,
                     Join(ExpressionKind::kBinary, "**", std::move(value), ParseUnary(true)));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExpressionPtr value;
  if (IsOperator("-") || IsOperator("+")) {
    RETURN_IF_ERROR(Enter());
    value = Make(IsOperator("-") ? ExpressionKind::kMinus : ExpressionKind::kPlus);
    Next();
    ASSIGN_OR_RETURN(ExpressionPtr part, ParseUnary(false));
    value->parts.push_back(std::move(part));
    ASSIGN_OR_RETURN(value, Finish(std::move(value)));
    --depth_;
  } else {
    ASSIGN_OR_RETURN(value, ParsePrimary());
  }
  ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
  if (!with_filters) return value;
  return ParseFilters(std::move(value));
}

Result<ExpressionPtr> ExpressionParser::ParsePrimary() {
  switch (current().kind) {
    case TokenKind::kName:
    case TokenKind::kString:
      return ParseLiteral();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (IsOperator("(")) return ParseParentheses();
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  return Unexpected("an expression");
}

Result<ExpressionPtr> ExpressionParser::ParseLiteral() {
  ExpressionPtr node = Make(ExpressionKind::kLiteral);
  if (current().kind == TokenKind::kString) {
    std::string text;
    while (current().kind == TokenKind::kString) text += Next().text;
    node->literal = Value(std::move(text));
    return node;
  }
  const std::string name = Next().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->literal = Value(name == "true" || name == "True");
  } else if (name != "none" && name != "None") {
    node->kind = ExpressionKind::kName;
    node->text = name;
  }
  return node;
}

Result<ExpressionPtr> ExpressionParser::ParseNumber() {
  ExpressionPtr node = Make(ExpressionKind::kLiteral);
  const Token& token = Next();
  if (token.kind == TokenKind::kFloat) {
    node->literal = Value(std::strtod(token.text.c_str(), nullptr));
    return node;
  }
  int64_t value = 0;
  const char* const end = token.text.data() + token.text.size();
  const auto read = std::from_chars(token.text.data(), end, value);
  if (read.ec != std::errc() || read.ptr != end) {
    return TemplateError(token.line, "the number " + token.text + " is beyond 64 bits");
  }
  node->literal = Value(value);
  return node;
}

Result<ExpressionPtr> ExpressionParser::ParseParentheses() {
  ExpressionPtr empty = Make(ExpressionKind::kList);
  Next();
  if (SkipOperator(")")) return empty;
  ASSIGN_OR_RETURN(ExpressionPtr value, ParseTuple());
  RETURN_IF_ERROR(Expect(")"));
  return value;
}

Result<ExpressionPtr> ExpressionParser::ParseList() {
  ExpressionPtr node = Make(ExpressionKind::kList);
  Next();
  while (!SkipOperator("]")) {
    if (!node->parts.empty()) {
      RETURN_IF_ERROR(Expect(","));
      if (SkipOperator("]")) break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr part, ParseExpression());
    node->parts.push_back(std::move(part));
  }
  return Finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseDict() {
  ExpressionPtr node = Make(ExpressionKind::kDict);
  Next();
  while (!SkipOperator("}")) {
    if (!node->parts.empty()) {
      RETURN_IF_ERROR(Expect(","));
      if (SkipOperator("}")) break;
    }
    ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    RETURN_IF_ERROR(Expect(":"));
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    node->parts.push_back(std::move(key));
    node->parts.push_back(std::move(value));
  }
  return Finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr value) {
  while (true) {
    if (IsOperator(".")) {
      Next();
      if (current().kind == TokenKind::kInteger) {
        ASSIGN_OR_RETURN(value, Join(ExpressionKind::kItem, "", std::move(value), ParseNumber()));
        continue;
      }
      ASSIGN_OR_RETURN(std::string name, TakeName());
      ExpressionPtr node = Make(ExpressionKind::kAttribute, std::move(name));
      node->parts.push_back(std::move(value));
      ASSIGN_OR_RETURN(value, Finish(std::move(node)));
    } else if (IsOperator("[")) {
      ASSIGN_OR_RETURN(value, ParseBrackets(std::move(value)));
    } else if (IsOperator("(")) {
      ExpressionPtr node = Make(ExpressionKind::kCall);
      node->parts.push_back(std::move(value));
      RETURN_IF_ERROR(ParseArguments(node.get()));
      ASSIGN_OR_RETURN(value, Finish(std::move(node)));
    } else {
      return value;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::ParseBrackets(ExpressionPtr value) {
  ExpressionPtr node = Make(ExpressionKind::kSlice);
  Next();
  node->parts.push_back(std::move(value));
  bool slice = false;
  for (int part = 0; part < 3; ++part) {
    ExpressionPtr bound;
    if (!IsOperator(":") && !IsOperator("]")) {
      ASSIGN_OR_RETURN(bound, ParseExpression());
    }
    node->parts.push_back(std::move(bound));
    if (!SkipOperator(":")) break;
    slice = true;
  }
  RETURN_IF_ERROR(Expect("]"));
  if (slice) {
    node->parts.resize(4);
  } else {
    node->kind = ExpressionKind::kItem;
    if (node->parts[1] == nullptr) return TemplateError(node->line, "an index is missing in []");
  }
  return Finish(std::move(node));
}

Status ExpressionParser::ParseArguments(Expression* call) {
  RETURN_IF_ERROR(Expect("("));
  bool first = true;
  while (!SkipOperator(")")) {
    if (!first) {
      RETURN_IF_ERROR(Expect(","));
      if (SkipOperator(")")) break;
    }
    first = false;
    if (IsOperator("*") || IsOperator("**")) {
      return TemplateError(current().line, "unpacked arguments ('*') are not supported");
    }
    const bool is_named = current().kind == TokenKind::kName && at_ + 1 < tokens_.size() &&
                          tokens_[at_ + 1].kind == TokenKind::kOperator &&
                          tokens_[at_ + 1].text == "=";
    if (is_named) {
      std::string name = Next().text;
      Next();
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      call->named.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (!call->named.empty()) return Unexpected("a named argument");
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    call->parts.push_back(std::move(value));
  }
  return OkStatus();
}

Result<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr value) {
  while (true) {
    if (SkipOperator("|")) {
      ASSIGN_OR_RETURN(value, ParseFilter(std::move(value)));
    } else if (SkipName("is")) {
      ASSIGN_OR_RETURN(value, ParseTest(std::move(value)));
    } else if (IsOperator("(")) {  // calls what a filter gave
      ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
    } else {
      return value;
    }
  }
}

Result<std::string> ExpressionParser::ParseDottedName() {
  ASSIGN_OR_RETURN(std::string name, TakeName());
  while (SkipOperator(".")) {
    ASSIGN_OR_RETURN(const std::string part, TakeName());
    name += "." + part;
  }
  return name;
}

Result<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr value) {
  ExpressionPtr node = Make(ExpressionKind::kFilter);
  ASSIGN_OR_RETURN(node->text, ParseDottedName());
  node->parts.push_back(std::move(value));
  if (IsOperator("(")) RETURN_IF_ERROR(ParseArguments(node.get()));
  return Finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr value) {
  const bool negated = SkipName("not");
  ExpressionPtr node = Make(ExpressionKind::kTest);
  ASSIGN_OR_RETURN(node->text, ParseDottedName());
  node->parts.push_back(std::move(value));
  const TokenKind kind = current().kind;
  const bool has_value =
      (kind == TokenKind::kName && !IsName("else") && !IsName("or") && !IsName("and") &&
       !IsName("if") && !IsName("is") && !IsName("in") && !IsName("not")) ||
      kind == TokenKind::kString || kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
      IsOperator("[") || IsOperator("{");
  if (IsOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(node.get()));
  } else if (has_value) {
    ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    node->parts.push_back(std::move(argument));
  }
  ASSIGN_OR_RETURN(node, Finish(std::move(node)));
  if (!negated) return node;
  ExpressionPtr inverse = Make(ExpressionKind::kNot);
  inverse->parts.push_back(std::move(node));
  return Finish(std::move(inverse));
}

}  // namespace corpusd::jinja
