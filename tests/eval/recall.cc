#include "tests/eval/recall.h"

#include <algorithm>

#include "engine/decode/question_runner.h"

namespace corpusd {
namespace {

// A question, the frame of the chat template around it and the answer's first words.
constexpr uint32_t kQuestionTokens = 256;
// Beyond the value's own tokens: for a model that says a word or two first.
constexpr uint32_t kSpareAnswerTokens = 6;
constexpr uint32_t kAnswerTokens = 20;

class ModelAnswerer final : public RecallAnswerer {
 public:
  ModelAnswerer(ModelSession& session, ChatTemplate chat, RecallPromptSink sink)
      : session_(session),
        chat_(std::move(chat)),
        prefix_(chat_.CorpusPrefix("")),
        sink_(std::move(sink)) {}

  uint32_t context_tokens() const override { return session_.model().config().context_tokens; }
  uint32_t frame_tokens() const override {
    return static_cast<uint32_t>(prefix_.size()) + kQuestionTokens + kAnswerTokens;
  }
  size_t CountTokens(std::string_view text) const override {
    std::vector<TokenId> ids;
    session_.tokenizer().Encode(text, false, &ids);
    return ids.size();
  }
  Status CheckFormat(const std::string& format) const override {
    return session_.model().Format(format).status();
  }

  Result<std::vector<std::string>> Answer(const RecallCase& recall,
                                          const std::string& format) override {
    std::vector<TokenId> ids = prefix_;
    session_.tokenizer().Encode(recall.haystack, false, &ids);
    ASSIGN_OR_RETURN(KvLayout layout, session_.Layout(format));
    if (layout.calibration != nullptr) {
      ASSIGN_OR_RETURN(layout.sinks,
                       ComputeSinks(Context(), ids, layout, ComputePriority::kQuestion, {}));
    }
    KvSequence corpus(layout.OfBlocks());
    RETURN_IF_ERROR(session_.Run(ids, corpus, nullptr));
    RecallPrompts prompts;
    prompts.haystack = std::move(ids);
    std::vector<std::string> answers;
    for (const RecallQuestion& question : recall.questions) {
      const std::string& value = recall.values[question.needle];
      prompts.questions.push_back(
          {.ids = chat_.QuestionSuffix(question.text),
           .answer_tokens =
               std::min<uint32_t>(kAnswerTokens, static_cast<uint32_t>(CountTokens(" " + value)) +
                                                     kSpareAnswerTokens)});
      RecallPrompts::Question& asked = prompts.questions.back();
      session_.tokenizer().Encode(question.answer_start, false, &asked.ids);
      ASSIGN_OR_RETURN(answers.emplace_back(), AnswerOne(layout, corpus, asked));
    }
    if (sink_ != nullptr) sink_(recall, format, prompts);
    return answers;
  }

 private:
  ComputeContext Context() { return {session_.model(), session_.backend(), gate_}; }

  Result<std::string> AnswerOne(const KvLayout& layout, const KvSequence& corpus,
                                const RecallPrompts::Question& question) {
    KvSequence kv(layout);
    for (const auto& block : corpus.OwnBlocks()) kv.AddShared(block.bytes.data(), block.tokens);
    CHECK(question.ids.size() <= kQuestionTokens) << question.ids.size();
    GenerationRequest request;
    request.prompt = question.ids;
    request.max_tokens = question.answer_tokens;
    const ComputeContext context = Context();
    ASSIGN_OR_RETURN(const GenerationReport report,
                     Generate(context, batcher_, session_.tokenizer(), chat_, kv, request,
                              [](std::string_view) { return true; }, {}));
    return report.answers.front().text;
  }

  ModelSession& session_;
  const ChatTemplate chat_;
  const std::vector<TokenId> prefix_;
  const RecallPromptSink sink_;
  ComputeGate gate_;
  DecodeBatcher batcher_{Context()};
};

Status CheckOptions(const RecallAnswerer& answerer, const RecallOptions& options) {
  if (options.tasks.empty() || options.formats.empty() || options.samples == 0) {
    return InvalidArgumentError("recall needs a task, a format and a sample at least");
  }
  for (const std::string& format : options.formats) RETURN_IF_ERROR(answerer.CheckFormat(format));
  for (const uint32_t length : options.lengths) {
    if (length > answerer.frame_tokens() && length <= answerer.context_tokens()) continue;
    return InvalidArgumentError(
        "a prompt of " + std::to_string(length) + " tokens: --lengths must be above " +
        std::to_string(answerer.frame_tokens()) + ", which the question takes, and at most the " +
        "model's context of " + std::to_string(answerer.context_tokens()));
  }
  return OkStatus();
}

// Asks one case in every format and counts.
Status Ask(RecallAnswerer& answerer, const RecallCase& recall, RecallStatistics* statistics,
           std::vector<std::vector<std::string>>* answers) {
  std::vector<std::vector<RecallOutcome>> outcomes;
  answers->clear();
  for (const std::string& format : statistics->formats()) {
    ASSIGN_OR_RETURN(answers->emplace_back(), answerer.Answer(recall, format));
    CHECK(answers->back().size() == recall.questions.size()) << answers->back().size();
    outcomes.emplace_back();
    for (size_t i = 0; i < recall.questions.size(); ++i) {
      outcomes.back().push_back(ClassifyAnswer(recall, recall.questions[i], answers->back()[i]));
    }
  }
  statistics->Add(recall, outcomes);
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<RecallAnswerer>> MakeModelAnswerer(ModelSession& session,
                                                          RecallPromptSink sink) {
  ASSIGN_OR_RETURN(auto chat, session.source().LoadChatTemplate(session.tokenizer()));
  return std::make_unique<ModelAnswerer>(session, std::move(chat), std::move(sink));
}

std::vector<uint32_t> DefaultRecallLengths(uint32_t context_tokens) {
  std::vector<uint32_t> lengths;
  for (uint64_t length = 1024; length < context_tokens; length *= 2) {
    lengths.push_back(static_cast<uint32_t>(length));
  }
  lengths.push_back(context_tokens);
  return lengths;
}

Result<RecallStatistics> MeasureRecall(RecallAnswerer& answerer, const RecallOptions& given,
                                       const RecallProgress& progress) {
  RecallOptions options = given;
  if (options.lengths.empty()) options.lengths = DefaultRecallLengths(answerer.context_tokens());
  RETURN_IF_ERROR(CheckOptions(answerer, options));
  RecallStatistics statistics(options.formats);
  std::vector<std::vector<std::string>> answers;
  for (const RecallTask task : options.tasks) {
    for (const uint32_t length : options.lengths) {
      for (uint32_t sample = 0; sample < options.samples; ++sample) {
        ASSIGN_OR_RETURN(
            const RecallCase recall,
            MakeRecallCase({task, length, sample, options.seed, length - answerer.frame_tokens(),
                            options.filler,
                            [&](std::string_view text) { return answerer.CountTokens(text); }}));
        RETURN_IF_ERROR(Ask(answerer, recall, &statistics, &answers));
        progress(recall, statistics, answers);
      }
    }
  }
  return statistics;
}

}  // namespace corpusd
