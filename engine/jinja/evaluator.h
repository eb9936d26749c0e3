// engine/jinja/evaluator.h -- runs a parsed template over variables. Lives for one rendering; one
// thread. Steps, depth, output and values are limited, since templates come from model files.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/jinja/budget.h"
#include "engine/jinja/functions.h"
#include "engine/jinja/syntax.h"
#include "engine/jinja/value.h"
#include "store/base/result.h"

namespace corpusd::jinja {

class Evaluator {
 public:
  static constexpr size_t kOutputBytesMax = size_t{4} << 20;

  explicit Evaluator(uint64_t steps) : budget_(steps) { frames_.emplace_back(); }

  void Set(const std::string& name, Value value) { frames_.front()[name] = std::move(value); }
  Result<std::string> Run(const Block& block);

 private:
  using Frame = std::map<std::string, Value, std::less<>>;
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  class Deeper;

  Result<Flow> RunBlock(const Block& block);
  Result<Flow> RunStatement(const Statement& statement);
  Result<Flow> RunIf(const Statement& statement);
  Result<Flow> RunFor(const Statement& statement);
  Status RunSet(const Statement& statement);
  Result<Value> Captured(const Statement& statement);
  Status BindTargets(const Statement& statement, const Value& value, Frame* frame);
  Result<std::vector<Value>> LoopItems(const Statement& statement);
  static Value LoopState(const std::vector<Value>& items, size_t index);
  Status Print(std::string_view text, uint32_t line);

  Result<Value> Evaluate(const Expression& expression);
  Result<Value> EvaluateKind(const Expression& expression);
  Result<Value> EvaluateName(const Expression& expression);
  Result<Value> EvaluateContainer(const Expression& expression);
  Result<Value> EvaluateAttribute(const Value& object, const Expression& expression);
  Result<Value> EvaluateSlice(const Expression& expression);
  Result<Value> EvaluateLogic(const Expression& expression);
  Result<Value> EvaluateCompare(const Expression& expression);
  Result<Value> EvaluateSign(const Expression& expression);
  Result<Value> EvaluateApplied(const Expression& expression);
  Result<Value> EvaluateCall(const Expression& expression);
  Result<Value> CallMacro(const Statement& macro, const Arguments& arguments);
  Result<Arguments> EvaluateArguments(const Expression& expression);

  Budget budget_;
  std::vector<Frame> frames_;  // the first holds the template's own names
  size_t visible_from_ = 0;    // frames before belong to a macro's caller, but for the first
  std::deque<Namespace> namespaces_;
  std::string* out_ = nullptr;
  uint32_t depth_ = 0;
};

}  // namespace corpusd::jinja
