// engine/jinja/template.h -- a chat template: the part of Jinja that the templates of language
// models use, with the settings of transformers (trim_blocks, lstrip_blocks, loop controls, the
// 'generation' tag, its tojson). Not a general Jinja: no inheritance, includes, calls with bodies,
// recursive loops. strftime_now() gives a fixed day. Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/jinja/syntax.h"
#include "engine/jinja/value.h"
#include "store/base/result.h"

namespace corpusd::jinja {

class Template {
 public:
  static constexpr uint64_t kStepsMax = 2'000'000;

  // kInvalidArgument for a malformed template, kUnimplemented for a construct that is not known;
  // the message begins with the line.
  static Result<Template> Parse(std::string_view source);

  // RETURNS what the template prints. kFailedPrecondition if it refuses the conversation
  // (raise_exception); kResourceExhausted beyond the limits; else as Parse.
  Result<std::string> Render(const std::vector<Entry>& variables,
                             uint64_t steps_max = kStepsMax) const;

 private:
  explicit Template(Block block) : block_(std::make_shared<const Block>(std::move(block))) {}

  std::shared_ptr<const Block> block_;
};

}  // namespace corpusd::jinja
