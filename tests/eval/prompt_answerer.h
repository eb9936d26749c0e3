// tests/eval/prompt_answerer.h -- a model that reads a text anew for each question, as a program
// without stored blocks does. One thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/eval/model_session.h"

namespace corpusd {

struct PromptAnswer {
  std::string text;
  uint64_t prompt_tokens = 0;  // chat template, text and question
  double first_token_ms = 0, total_ms = 0;
};

class PromptAnswerer {
 public:
  virtual ~PromptAnswerer() = default;
  // kInvalidArgument if prompt and answer exceed the context.
  virtual Result<PromptAnswer> Answer(std::string_view text, std::string_view question,
                                      uint32_t answer_tokens) = 0;
};

// Keys and values in bf16, the most likely token each time. The session must outlive it.
Result<std::unique_ptr<PromptAnswerer>> MakePromptAnswerer(ModelSession& session);

}  // namespace corpusd
