#include "engine/jinja/template.h"

#include "engine/jinja/evaluator.h"
#include "engine/jinja/parser.h"

namespace corpusd::jinja {

Result<Template> Template::Parse(std::string_view source) {
  ASSIGN_OR_RETURN(Block block, ParseTemplate(source));
  return Template(std::move(block));
}

Result<std::string> Template::Render(const std::vector<Entry>& variables,
                                     uint64_t steps_max) const {
  Evaluator evaluator(steps_max);
  for (const Entry& variable : variables) evaluator.Set(variable.first, variable.second);
  return evaluator.Run(*block_);
}

}  // namespace corpusd::jinja
