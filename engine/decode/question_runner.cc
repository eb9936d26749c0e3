#include "engine/decode/question_runner.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/decode/answer_writer.h"
#include "engine/decode/sampler.h"
#include "engine/decode/token_logprobs.h"

namespace corpusd {
namespace {

using Clock = std::chrono::steady_clock;

double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

SamplingOptions OptionsOf(const AnswerOptions& options, uint32_t answer) {
  SamplingOptions sampling = options.sampling;
  sampling.seed = SeedOfAnswer(sampling.seed, answer);
  return sampling;
}

// One answer between its steps.
class Choice {
 public:
  // own_kv: null for the answer that has the question's sequence, kv.
  Choice(uint32_t index, const GenerationRequest& request, const AnswerSink& sink,
         DecodeBatcher& batcher, KvSequence* kv, std::unique_ptr<KvSequence> own_kv,
         std::unique_ptr<Buffer> logits)
      : request_(request),
        sampler_(OptionsOf(request.answers, index), request.question),
        writer_(index, request.answers, sink),
        own_kv_(std::move(own_kv)),
        kv_(own_kv_ == nullptr ? kv : own_kv_.get()),
        logits_(std::move(logits)),
        member_(std::in_place, batcher) {}

  // Samples a token of [vocabulary] logits; ends the answer if it is the last.
  void Take(std::span<const float> logits, const Tokenizer& tokenizer, const ChatTemplate& chat) {
    token_ = sampler_.Next(logits);
    if (chat.IsStop(token_)) return End("stop");
    std::optional<TokenLogprob> logprob;
    if (request_.answers.top_logprobs) {
      logprob = LogprobOf(logits, token_, *request_.answers.top_logprobs, tokenizer);
    }
    writer_.Add(tokenizer.Decode({&token_, 1}), logprob ? &*logprob : nullptr);
    if (writer_.stopped()) return End("stop");
    if (++tokens_ == request_.max_tokens) End("length");
  }

  void End(std::string_view reason) {
    if (!live()) return;
    member_.reset();
    writer_.Finish(reason);
  }

  bool live() const { return member_.has_value(); }
  bool refused() const { return writer_.refused(); }
  KvSequence& kv() { return *kv_; }
  // [1, vocabulary], of the token after the last one taken.
  MatrixView Logits(uint32_t vocabulary) { return logits_->Matrix(1, vocabulary); }
  DecodeStep Step(uint32_t vocabulary, QueryTap* tap) {
    return {token_, kv_, Logits(vocabulary), tap};
  }
  GeneratedAnswer TakeAnswer() { return writer_.Take(); }

 private:
  const GenerationRequest& request_;
  Sampler sampler_;
  AnswerWriter writer_;
  const std::unique_ptr<KvSequence> own_kv_;
  KvSequence* const kv_;
  const std::unique_ptr<Buffer> logits_;
  std::optional<DecodeBatcher::Member> member_;  // until the end
  TokenId token_ = 0;
  uint32_t tokens_ = 0;
};

// The state of a question between its passes.
class Generation {
 public:
  Generation(const ComputeContext& context, DecodeBatcher& batcher, const Tokenizer& tokenizer,
             const ChatTemplate& chat, KvSequence& kv, const GenerationRequest& request)
      : context_(context),
        batcher_(batcher),
        tokenizer_(tokenizer),
        chat_(chat),
        kv_(kv),
        request_(request) {}

  // Computes the prompt in chunks and takes the first token of every answer.
  Status Start(const AnswerSink& sink, const std::stop_token& stop, GenerationReport* report) {
    ASSIGN_OR_RETURN(auto logits, NewLogits());
    const MatrixView first = logits->Matrix(1, vocabulary());
    RETURN_IF_ERROR(ComputePrompt(first, stop, report));
    RETURN_IF_ERROR(AfterPass());
    for (uint32_t i = 0; i < request_.answers.count; ++i) {
      std::unique_ptr<KvSequence> own;
      std::unique_ptr<Buffer> row;
      if (i == 0) {
        row = std::move(logits);
      } else {
        ASSIGN_OR_RETURN(own, kv_.Fork(context_.backend));
        ASSIGN_OR_RETURN(row, NewLogits());
      }
      choices_.push_back(std::make_unique<Choice>(i, request_, sink, batcher_, &kv_, std::move(own),
                                                  std::move(row)));
    }
    for (const auto& choice : choices_) choice->Take({first.data, first.cols}, tokenizer_, chat_);
    return OkStatus();
  }

  // One more token of every answer that goes on.
  Status Next() {
    std::vector<DecodeStep> steps;
    std::vector<Choice*> live;
    for (const auto& choice : choices_) {
      if (!choice->live()) continue;
      live.push_back(choice.get());
      steps.push_back(choice->Step(vocabulary(), choice == choices_.front() ? Tap() : nullptr));
    }
    RETURN_IF_ERROR(batcher_.Step(steps));
    if (choices_.front()->live()) RETURN_IF_ERROR(AfterPass());
    for (Choice* const choice : live) {
      const MatrixView logits = choice->Logits(vocabulary());
      choice->Take({logits.data, logits.cols}, tokenizer_, chat_);
    }
    return OkStatus();
  }

  bool live() const {
    return std::any_of(choices_.begin(), choices_.end(), [](const auto& c) { return c->live(); });
  }
  bool refused() const {
    return std::any_of(choices_.begin(), choices_.end(),
                       [](const auto& c) { return c->refused(); });
  }
  void Cancel() {
    for (const auto& choice : choices_) choice->End("cancelled");
  }
  std::vector<GeneratedAnswer> TakeAnswers() {
    std::vector<GeneratedAnswer> answers;
    for (const auto& choice : choices_) answers.push_back(choice->TakeAnswer());
    return answers;
  }

 private:
  // logits: [1, vocabulary], of the token after the prompt.
  Status ComputePrompt(MatrixView logits, const std::stop_token& stop, GenerationReport* report) {
    const auto rows = static_cast<uint32_t>(std::min<size_t>(request_.prompt.size(), kRunTokens));
    ASSIGN_OR_RETURN(scratch_,
                     ForwardScratch::Create(context_.backend, context_.model.config(), rows));
    uint32_t last_rows = 0;
    const auto start = Clock::now();
    const uint64_t cached = kv_.tokens();
    const auto tell = [&](size_t done) {
      if (!request_.on_prompt) return;
      request_.on_prompt({cached + request_.prompt.size(), cached, cached + done, MsSince(start)});
    };
    tell(0);
    for (size_t first = 0; first < request_.prompt.size(); first += rows) {
      const auto chunk =
          request_.prompt.subspan(first, std::min<size_t>(rows, request_.prompt.size() - first));
      // Not in its own turn: others compute while the first layer is read.
      if (first == 0) RETURN_IF_ERROR(kv_.WaitLayer(0));
      const auto waiting = Clock::now();
      ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
      if (first == 0) report->queue_ms = MsSince(waiting);
      RETURN_IF_ERROR(Forward(chunk, turn, stop));
      last_rows = static_cast<uint32_t>(chunk.size());
      tell(first + chunk.size());
    }
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
    return context_.model.Logits(*scratch_, last_rows - 1, logits);
  }

  Status Forward(std::span<const TokenId> tokens, ComputeGate::Turn& turn,
                 const std::stop_token& stop) {
    uint32_t layer = 0;
    const auto rows = static_cast<uint32_t>(tokens.size());
    if (Tap() != nullptr) Tap()->Begin(rows);
    return context_.model.Forward(tokens, kv_, *scratch_, [&] {
      if (Tap() != nullptr &&
          !Tap()->Take(context_.backend, layer, scratch_->Qkv(rows, context_.model.config()), 0)) {
        return false;
      }
      AwaitLayer(kv_, ++layer, turn);
      return !stop.stop_requested();
    });
  }

  QueryTap* Tap() { return request_.watcher == nullptr ? nullptr : &request_.watcher->tap(); }
  Status AfterPass() {
    return request_.watcher == nullptr ? OkStatus() : request_.watcher->AfterPass(kv_);
  }
  uint32_t vocabulary() const { return context_.model.config().vocabulary; }
  Result<std::unique_ptr<Buffer>> NewLogits() {
    return context_.backend.AllocateShared(uint64_t{vocabulary()} * sizeof(float), "logits");
  }

  const ComputeContext& context_;
  DecodeBatcher& batcher_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_;
  KvSequence& kv_;
  const GenerationRequest& request_;
  std::unique_ptr<ForwardScratch> scratch_;
  std::vector<std::unique_ptr<Choice>> choices_;
};

}  // namespace

Result<GenerationReport> Generate(const ComputeContext& context, DecodeBatcher& batcher,
                                  const Tokenizer& tokenizer, const ChatTemplate& chat,
                                  KvSequence& kv, const GenerationRequest& request,
                                  const AnswerSink& sink, const std::stop_token& stop) {
  const auto start = Clock::now();
  GenerationReport report;
  Generation generation(context, batcher, tokenizer, chat, kv, request);
  Status status = generation.Start(sink, stop, &report);
  report.first_token_ms = MsSince(start);
  const auto first_token = Clock::now();
  while (status.ok() && generation.live()) {
    if (generation.refused() || stop.stop_requested()) {
      generation.Cancel();
    } else {
      status = generation.Next();
    }
  }
  if (!status.ok() && status.code() != StatusCode::kCancelled) return status;
  generation.Cancel();
  report.answers = generation.TakeAnswers();
  GeneratedAnswer none;  // cancelled before there was any
  none.finish_reason = "cancelled";
  report.answers.resize(request.answers.count, none);
  report.decode_seconds = std::chrono::duration<double>(Clock::now() - first_token).count();
  return report;
}

}  // namespace corpusd
