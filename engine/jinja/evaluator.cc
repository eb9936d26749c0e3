#include "engine/jinja/evaluator.h"

#include <algorithm>
#include <utility>

namespace corpusd::jinja {
namespace {

// Calls of one another, of statements, expressions and macros together. Each takes under 1 KiB of
// stack (4 KiB with sanitizers).
constexpr uint32_t kDepthMax = 600;

}  // namespace

class Evaluator::Deeper {
 public:
  explicit Deeper(uint32_t* depth) : depth_(*depth) { ++depth_; }
  ~Deeper() { --depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
  Status Check(uint32_t line) const {
    if (depth_ <= kDepthMax) return OkStatus();
    return ResourceExhaustedError("line " + std::to_string(line) +
                                  ": the template calls itself too deep");
  }

 private:
  uint32_t& depth_;
};

Result<std::string> Evaluator::Run(const Block& block) {
  std::string out;
  out_ = &out;
  const auto flow = RunBlock(block);
  if (!flow.ok()) return flow.status();
  return out;
}

Status Evaluator::Print(std::string_view text, uint32_t line) {
  if (out_->size() + text.size() > kOutputBytesMax) {
    return ResourceExhaustedError("line " + std::to_string(line) + ": the template prints over " +
                                  std::to_string(kOutputBytesMax) + " bytes");
  }
  out_->append(text);
  return budget_.Spend(line, text.size() / 64);
}

Result<Evaluator::Flow> Evaluator::RunBlock(const Block& block) {
  for (const Statement& statement : block) {
    ASSIGN_OR_RETURN(const Flow flow, RunStatement(statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Evaluator::Flow> Evaluator::RunStatement(const Statement& statement) {
  const Deeper deeper(&depth_);
  RETURN_IF_ERROR(deeper.Check(statement.line));
  RETURN_IF_ERROR(budget_.Spend(statement.line, 1));
  switch (statement.kind) {
    case StatementKind::kText:
      RETURN_IF_ERROR(Print(statement.text, statement.line));
      return Flow::kNext;
    case StatementKind::kPrint: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.value));
      RETURN_IF_ERROR(budget_.Spend(statement.line, value.size()));
      RETURN_IF_ERROR(Print(value.ToText(), statement.line));
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return RunIf(statement);
    case StatementKind::kFor:
      return RunFor(statement);
    case StatementKind::kSet:
      RETURN_IF_ERROR(RunSet(statement));
      return Flow::kNext;
    case StatementKind::kSetBlock: {
      ASSIGN_OR_RETURN(Value value, Captured(statement));
      frames_.back()[statement.names[0]] = std::move(value);
      return Flow::kNext;
    }
    case StatementKind::kFilter: {
      ASSIGN_OR_RETURN(const Value value, Captured(statement));
      RETURN_IF_ERROR(Print(value.ToText(), statement.line));
      return Flow::kNext;
    }
    case StatementKind::kMacro: {
      auto function = std::make_shared<Function>();
      function->name = statement.text;
      function->macro = &statement;
      frames_.back()[statement.text] = Value(std::shared_ptr<const Function>(std::move(function)));
      return Flow::kNext;
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
    case StatementKind::kBlock:
      return RunBlock(statement.body);
  }
  return Flow::kNext;
}

Result<Evaluator::Flow> Evaluator::RunIf(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition != nullptr) {
      ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
      if (!condition.IsTrue()) continue;
    }
    return RunBlock(branch.body);
  }
  return Flow::kNext;
}

Status Evaluator::BindTargets(const Statement& statement, const Value& value, Frame* frame) {
  if (statement.names.size() == 1) {
    (*frame)[statement.names[0]] = value;
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const auto items, Iterate(value, statement.line, &budget_));
  if (items.size() != statement.names.size()) {
    return TemplateError(statement.line, std::to_string(statement.names.size()) + " names for " +
                                             std::to_string(items.size()) + " values");
  }
  for (size_t i = 0; i < items.size(); ++i) (*frame)[statement.names[i]] = items[i];
  return OkStatus();
}

// What the loop goes over: the items that its condition lets pass.
Result<std::vector<Value>> Evaluator::LoopItems(const Statement& statement) {
  ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.value));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(iterable, statement.line, &budget_));
  if (statement.condition == nullptr) return items;
  std::vector<Value> passed;
  for (Value& item : items) {
    frames_.emplace_back();
    const Status bound = BindTargets(statement, item, &frames_.back());
    Result<Value> condition = bound.ok() ? Evaluate(*statement.condition) : Result<Value>(bound);
    frames_.pop_back();
    if (!condition.ok()) return condition.status();
    if (condition->IsTrue()) passed.push_back(std::move(item));
  }
  return passed;
}

Value Evaluator::LoopState(const std::vector<Value>& items, size_t index) {
  const auto number = [](size_t value) { return Value(static_cast<int64_t>(value)); };
  const size_t count = items.size();
  const auto neighbour = [&](bool there, size_t at) {
    return there ? items[at] : Value::MakeUndefined("there is no such item in the loop");
  };
  return Value::MakeDict({{"index", number(index + 1)},
                          {"index0", number(index)},
                          {"first", Value(index == 0)},
                          {"last", Value(index + 1 == count)},
                          {"length", number(count)},
                          {"revindex", number(count - index)},
                          {"revindex0", number(count - index - 1)},
                          {"previtem", neighbour(index > 0, index - 1)},
                          {"nextitem", neighbour(index + 1 < count, index + 1)}});
}

Result<Evaluator::Flow> Evaluator::RunFor(const Statement& statement) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, LoopItems(statement));
  if (items.empty()) return RunBlock(statement.otherwise);
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(budget_.Spend(statement.line, 4));
    ASSIGN_OR_RETURN(Value state, budget_.Keep(LoopState(items, i), statement.line));
    frames_.emplace_back();
    frames_.back()["loop"] = std::move(state);
    const Status bound = BindTargets(statement, items[i], &frames_.back());
    const Result<Flow> flow = bound.ok() ? RunBlock(statement.body) : Result<Flow>(bound);
    frames_.pop_back();
    if (!flow.ok()) return flow.status();
    if (*flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Status Evaluator::RunSet(const Statement& statement) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.value));
  if (statement.text.empty()) return BindTargets(statement, value, &frames_.back());
  Expression name;
  name.kind = ExpressionKind::kName;
  name.line = statement.line;
  name.text = statement.text;
  ASSIGN_OR_RETURN(const Value names, EvaluateName(name));
  if (!names.is_namespace()) {
    return TemplateError(statement.line, "'" + statement.text + "' is not a namespace()");
  }
  auto& entries = names.names()->entries;
  RETURN_IF_ERROR(budget_.Spend(statement.line, 1 + entries.size() / 8));
  for (Entry& entry : entries) {
    if (entry.first != statement.names[0]) continue;
    entry.second = value;
    return OkStatus();
  }
  entries.emplace_back(statement.names[0], value);
  return OkStatus();
}

// What the body prints, through the filters.
Result<Value> Evaluator::Captured(const Statement& statement) {
  std::string printed;
  std::string* const outer = out_;
  out_ = &printed;
  frames_.emplace_back();
  const Result<Flow> flow = RunBlock(statement.body);
  frames_.pop_back();
  out_ = outer;
  if (!flow.ok()) return flow.status();
  ASSIGN_OR_RETURN(const Value text, budget_.Keep(Value(std::move(printed)), statement.line));
  if (statement.value == nullptr) return text;
  frames_.emplace_back();
  frames_.back()[kPrintedName] = text;
  Result<Value> filtered = Evaluate(*statement.value);
  frames_.pop_back();
  return filtered;
}

Result<Value> Evaluator::Evaluate(const Expression& expression) {
  const Deeper deeper(&depth_);
  RETURN_IF_ERROR(deeper.Check(expression.line));
  RETURN_IF_ERROR(budget_.Spend(expression.line, 1));
  return EvaluateKind(expression);
}

Result<Value> Evaluator::EvaluateKind(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kLiteral:
      return expression.literal;
    case ExpressionKind::kName:
      return EvaluateName(expression);
    case ExpressionKind::kList:
    case ExpressionKind::kDict:
      return EvaluateContainer(expression);
    case ExpressionKind::kAttribute: {
      ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.parts[0]));
      return EvaluateAttribute(object, expression);
    }
    case ExpressionKind::kItem: {
      ASSIGN_OR_RETURN(const Value object, Evaluate(*expression.parts[0]));
      ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.parts[1]));
      return GetItem(object, key, expression.line, &budget_);
    }
    case ExpressionKind::kSlice:
      return EvaluateSlice(expression);
    case ExpressionKind::kCall:
      return EvaluateCall(expression);
    case ExpressionKind::kFilter:
    case ExpressionKind::kTest:
      return EvaluateApplied(expression);
    case ExpressionKind::kNot:
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
    case ExpressionKind::kConditional:
      return EvaluateLogic(expression);
    case ExpressionKind::kMinus:
    case ExpressionKind::kPlus:
      return EvaluateSign(expression);
    case ExpressionKind::kBinary: {
      ASSIGN_OR_RETURN(const Value left, Evaluate(*expression.parts[0]));
      ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.parts[1]));
      return ApplyBinary(expression.text, left, right, expression.line, &budget_);
    }
    case ExpressionKind::kCompare:
      return EvaluateCompare(expression);
  }
  return Value();
}

Result<Value> Evaluator::EvaluateName(const Expression& expression) {
  for (size_t i = frames_.size(); i-- > visible_from_;) {
    const auto found = frames_[i].find(expression.text);
    if (found != frames_[i].end()) return found->second;
  }
  const auto found = frames_.front().find(expression.text);
  if (found != frames_.front().end()) return found->second;
  if (IsFunction(expression.text) || expression.text == "namespace") {
    auto function = std::make_shared<Function>();
    function->name = expression.text;
    return Value(std::shared_ptr<const Function>(std::move(function)));
  }
  return Value::MakeUndefined("'" + expression.text + "' is undefined");
}

Result<Value> Evaluator::EvaluateContainer(const Expression& expression) {
  std::vector<Value> values;
  for (const ExpressionPtr& part : expression.parts) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*part));
    values.push_back(std::move(value));
  }
  if (expression.kind == ExpressionKind::kList) {
    return budget_.Keep(Value::MakeList(std::move(values)), expression.line);
  }
  std::vector<Entry> entries;
  for (size_t i = 0; i < values.size(); i += 2) {
    if (!values[i].is_string()) {
      return TemplateError(expression.line, "a dictionary's key is " +
                                                std::string(values[i].KindName()) +
                                                "; only text is supported");
    }
    entries.emplace_back(values[i].text(), std::move(values[i + 1]));
  }
  RETURN_IF_ERROR(budget_.Spend(expression.line, entries.size() * entries.size() / 4));
  return budget_.Keep(Value::MakeDict(std::move(entries)), expression.line);
}

// Methods come before a dictionary's entries, as in Jinja.
Result<Value> Evaluator::EvaluateAttribute(const Value& object, const Expression& expression) {
  if (HasMethod(object, expression.text)) {
    auto method = std::make_shared<Function>();
    method->name = expression.text;
    method->self = object;
    return Value(std::shared_ptr<const Function>(std::move(method)));
  }
  return GetItem(object, Value(expression.text), expression.line, &budget_);
}

Result<Value> Evaluator::EvaluateSlice(const Expression& expression) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i) {
    if (expression.parts[i] == nullptr) continue;
    ASSIGN_OR_RETURN(parts[i], Evaluate(*expression.parts[i]));
  }
  return GetSlice(parts[0], parts[1], parts[2], parts[3], expression.line, &budget_);
}

Result<Value> Evaluator::EvaluateLogic(const Expression& expression) {
  const auto& parts = expression.parts;
  if (expression.kind == ExpressionKind::kConditional) {
    ASSIGN_OR_RETURN(const Value condition, Evaluate(*parts[1]));
    if (condition.IsTrue()) return Evaluate(*parts[0]);
    if (parts[2] != nullptr) return Evaluate(*parts[2]);
    return Value::MakeUndefined("an 'if' without 'else' has no value here");
  }
  ASSIGN_OR_RETURN(Value left, Evaluate(*parts[0]));
  if (expression.kind == ExpressionKind::kNot) return Value(!left.IsTrue());
  const bool decided = left.IsTrue() == (expression.kind == ExpressionKind::kOr);
  if (decided) return left;
  return Evaluate(*parts[1]);
}

Result<Value> Evaluator::EvaluateCompare(const Expression& expression) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expression.parts[0]));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*expression.parts[i + 1]));
    ASSIGN_OR_RETURN(const bool holds,
                     ApplyCompare(expression.operators[i], left, right, expression.line, &budget_));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Result<Value> Evaluator::EvaluateSign(const Expression& expression) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.parts[0]));
  const bool minus = expression.kind == ExpressionKind::kMinus;
  return ApplyBinary(minus ? "-" : "+", Value(int64_t{0}), value, expression.line, &budget_);
}

Result<Arguments> Evaluator::EvaluateArguments(const Expression& expression) {
  Arguments arguments;
  arguments.line = expression.line;
  for (size_t i = 1; i < expression.parts.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expression.parts[i]));
    arguments.values.push_back(std::move(value));
  }
  for (const auto& [name, part] : expression.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*part));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

Result<Value> Evaluator::EvaluateApplied(const Expression& expression) {
  ASSIGN_OR_RETURN(const Value input, Evaluate(*expression.parts[0]));
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression));
  if (expression.kind == ExpressionKind::kFilter) {
    return ApplyFilter(expression.text, input, arguments, &budget_);
  }
  ASSIGN_OR_RETURN(const bool holds, ApplyTest(expression.text, input, arguments, &budget_));
  return Value(holds);
}

Result<Value> Evaluator::EvaluateCall(const Expression& expression) {
  ASSIGN_OR_RETURN(const Value callee, Evaluate(*expression.parts[0]));
  if (!callee.is_function()) {
    if (callee.is_undefined()) return TemplateError(expression.line, callee.undefined_text());
    return TemplateError(expression.line, std::string(callee.KindName()) + " cannot be called");
  }
  ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression));
  const Function& function = callee.function();
  if (function.macro != nullptr) return CallMacro(*function.macro, arguments);
  if (!function.self.is_none()) {
    return CallMethod(function.self, function.name, arguments, &budget_);
  }
  if (function.name != "namespace") return CallFunction(function.name, arguments, &budget_);
  ASSIGN_OR_RETURN(const Value names, CallFunction("dict", arguments, &budget_));
  namespaces_.push_back({names.entries()});
  return Value(&namespaces_.back());
}

Result<Value> Evaluator::CallMacro(const Statement& macro, const Arguments& arguments) {
  if (arguments.values.size() > macro.names.size()) {
    return TemplateError(arguments.line, "the macro '" + macro.text + "' takes " +
                                             std::to_string(macro.names.size()) + " arguments");
  }
  for (const Entry& entry : arguments.named) {
    if (std::find(macro.names.begin(), macro.names.end(), entry.first) == macro.names.end()) {
      return TemplateError(arguments.line,
                           "the macro '" + macro.text + "' has no argument '" + entry.first + "'");
    }
  }
  // A macro sees its own names and the template's, not its caller's.
  const size_t outer_visible = std::exchange(visible_from_, frames_.size());
  std::string* const outer = out_;
  std::string printed;
  out_ = &printed;
  frames_.emplace_back();
  Status status;
  for (size_t i = 0; i < macro.names.size() && status.ok(); ++i) {
    const Value* const given = arguments.Get(i, macro.names[i]);
    Value value = Value::MakeUndefined("the argument '" + macro.names[i] + "' is not given");
    if (given != nullptr) {
      value = *given;
    } else if (macro.defaults[i] != nullptr) {
      Result<Value> otherwise = Evaluate(*macro.defaults[i]);
      status = otherwise.status();
      if (otherwise.ok()) value = std::move(*otherwise);
    }
    frames_.back()[macro.names[i]] = std::move(value);
  }
  if (status.ok()) status = RunBlock(macro.body).status();
  frames_.pop_back();
  visible_from_ = outer_visible;
  out_ = outer;
  RETURN_IF_ERROR(status);
  return budget_.Keep(Value(std::move(printed)), macro.line);
}

}  // namespace corpusd::jinja
