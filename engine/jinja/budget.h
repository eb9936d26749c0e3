// engine/jinja/budget.h -- what one rendering may cost: steps, and the size of what it makes. A
// template comes from a model's files, so it may be hostile. One thread.
#pragma once

#include <cstdint>

#include "engine/jinja/lexer.h"
#include "engine/jinja/value.h"
#include "store/base/result.h"

namespace corpusd::jinja {

class Budget {
 public:
  static constexpr uint64_t kStringBytesMax = uint64_t{1} << 20;

  explicit Budget(uint64_t steps) : steps_(steps) {}

  // kResourceExhausted when the steps are used up.
  Status Spend(uint32_t line, uint64_t steps) {
    if (steps > steps_) {
      return ResourceExhaustedError("line " + std::to_string(line) +
                                    ": the template takes more steps than it may");
    }
    steps_ -= steps;
    return OkStatus();
  }
  // Spends what making the value costs. RETURNS it, or kResourceExhausted if it is too large.
  Result<Value> Keep(Value value, uint32_t line) {
    const uint64_t bytes = value.is_string() ? value.text().size() : 0;
    if (bytes > kStringBytesMax || value.depth() > Value::kDepthMax ||
        value.size() > Value::kSizeMax) {
      return ResourceExhaustedError("line " + std::to_string(line) +
                                    ": the template makes too large a value");
    }
    const uint64_t items = value.is_list()   ? value.items().size()
                           : value.is_dict() ? value.entries().size()
                                             : 0;
    RETURN_IF_ERROR(Spend(line, 1 + bytes / 64 + items));
    return value;
  }

 private:
  uint64_t steps_;
};

}  // namespace corpusd::jinja
