// engine/jinja/syntax.h -- a parsed template: statements and expressions as trees. Plain data,
// immutable once parsed; any thread. Trees are at most kHeightMax high, so walking them may
// recurse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/value.h"

namespace corpusd::jinja {

inline constexpr uint32_t kHeightMax = 100;
// What a block printed goes to its filters under this name, which no template can write.
inline constexpr const char* kPrintedName = " printed";

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind : uint8_t {
  kLiteral,      // literal
  kName,         // text
  kList,         // parts
  kDict,         // parts: key, value, key, value, ...
  kAttribute,    // parts[0].text
  kItem,         // parts[0][parts[1]]
  kSlice,        // parts[0][parts[1]:parts[2]:parts[3]], each may be null
  kCall,         // parts[0](parts[1...], named)
  kFilter,       // parts[0] | text(parts[1...], named)
  kTest,         // parts[0] is text(parts[1...])
  kNot,          // not parts[0]
  kMinus,        // -parts[0]
  kPlus,         // +parts[0]
  kBinary,       // parts[0] text parts[1]
  kAnd,          // parts[0] and parts[1]
  kOr,           // parts[0] or parts[1]
  kCompare,      // parts[0] operators[0] parts[1] operators[1] parts[2] ...
  kConditional,  // parts[0] if parts[1] else parts[2], which may be null
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kLiteral;
  uint32_t line = 0;
  uint32_t height = 1;
  std::string text;
  Value literal;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> operators;
};

struct Statement;
using Block = std::vector<Statement>;

enum class StatementKind : uint8_t {
  kText,      // text
  kPrint,     // value
  kIf,        // branches; a condition of null is 'else'
  kFor,       // names in value, if condition: body; otherwise
  kSet,       // names = value, or text.names[0] = value
  kSetBlock,  // names[0] = what body prints, through filters
  kFilter,    // what body prints, through filters
  kMacro,     // text(names with defaults): body
  kBreak,
  kContinue,
  kBlock,  // body
};

struct Branch {
  ExpressionPtr condition;
  Block body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  uint32_t line = 0;
  std::string text;
  std::vector<std::string> names;
  ExpressionPtr value;      // of kSetBlock and kFilter: filters on kPrintedName, null for none
  ExpressionPtr condition;  // of kFor
  std::vector<Branch> branches;
  std::vector<ExpressionPtr> defaults;  // of kMacro, one a name, null for none
  Block body;
  Block otherwise;
};

}  // namespace corpusd::jinja
