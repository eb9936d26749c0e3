#include "tests/eval/prompt_answerer.h"

#include <chrono>

#include "engine/decode/question_runner.h"

namespace corpusd {
namespace {

class ModelPromptAnswerer final : public PromptAnswerer {
 public:
  ModelPromptAnswerer(ModelSession& session, ChatTemplate chat)
      : session_(session), chat_(std::move(chat)) {}

  Result<PromptAnswer> Answer(std::string_view text, std::string_view question,
                              uint32_t answer_tokens) override {
    const auto start = std::chrono::steady_clock::now();
    std::vector<TokenId> prompt = chat_.CorpusPrefix("");
    session_.tokenizer().Encode(text, false, &prompt);
    const std::vector<TokenId> suffix = chat_.QuestionSuffix(question);
    prompt.insert(prompt.end(), suffix.begin(), suffix.end());
    const uint64_t context_tokens = session_.model().config().context_tokens;
    if (prompt.size() + answer_tokens > context_tokens) {
      return InvalidArgumentError("a prompt of " + std::to_string(prompt.size()) +
                                  " tokens leaves no room for an answer in a context of " +
                                  std::to_string(context_tokens));
    }
    ASSIGN_OR_RETURN(const auto kv, session_.NewSequence("bf16"));
    GenerationRequest request;
    request.prompt = prompt;
    request.max_tokens = answer_tokens;
    const ComputeContext context = Context();
    const double encode_ms = MsSince(start);
    ASSIGN_OR_RETURN(const GenerationReport report,
                     Generate(context, batcher_, session_.tokenizer(), chat_, *kv, request,
                              [](std::string_view) { return true; }, {}));
    return PromptAnswer{report.answers.front().text, prompt.size(),
                        encode_ms + report.first_token_ms, MsSince(start)};
  }

 private:
  static double MsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
  }
  ComputeContext Context() { return {session_.model(), session_.backend(), gate_}; }

  ModelSession& session_;
  const ChatTemplate chat_;
  ComputeGate gate_;
  DecodeBatcher batcher_{Context()};
};

}  // namespace

Result<std::unique_ptr<PromptAnswerer>> MakePromptAnswerer(ModelSession& session) {
  ASSIGN_OR_RETURN(auto chat, session.source().LoadChatTemplate(session.tokenizer()));
  return std::make_unique<ModelPromptAnswerer>(session, std::move(chat));
}

}  // namespace corpusd
