#include "engine/decode/question_runner.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "engine/decode/utf8_stream.h"

namespace corpusd {
namespace {

using Clock = std::chrono::steady_clock;

double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// State of one generation between its steps.
class Generation {
 public:
  Generation(const ComputeContext& context, DecodeBatcher& batcher, KvSequence& kv,
             const GenerationRequest& request)
      : context_(context),
        batcher_(batcher),
        kv_(kv),
        request_(request),
        sampler_(request.sampler) {}

  // Computes the prompt in chunks and samples the first token.
  Result<TokenId> Start(const std::stop_token& stop, GenerationReport* report) {
    const auto rows = static_cast<uint32_t>(std::min<size_t>(request_.prompt.size(), kRunTokens));
    ASSIGN_OR_RETURN(scratch_,
                     ForwardScratch::Create(context_.backend, context_.model.config(), rows));
    ASSIGN_OR_RETURN(logits_, context_.backend.AllocateShared(
                                  context_.model.config().vocabulary * sizeof(float), "logits"));
    uint32_t last_rows = 0;
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
    }
    const MatrixView logits = Logits();
    {
      const ComputeGate::Turn turn(context_.gate, ComputePriority::kQuestion);
      RETURN_IF_ERROR(context_.model.Logits(*scratch_, last_rows - 1, logits));
    }
    RETURN_IF_ERROR(AfterPass());
    member_.emplace(batcher_);
    return sampler_.Next({logits.data, logits.cols});
  }

  Result<TokenId> Next(TokenId previous) {
    const MatrixView logits = Logits();
    RETURN_IF_ERROR(batcher_.Step(previous, kv_, logits, Tap()));
    RETURN_IF_ERROR(AfterPass());
    return sampler_.Next({logits.data, logits.cols});
  }

 private:
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
  MatrixView Logits() { return logits_->Matrix(1, context_.model.config().vocabulary); }

  const ComputeContext& context_;
  DecodeBatcher& batcher_;
  KvSequence& kv_;
  const GenerationRequest& request_;
  Sampler sampler_;
  std::unique_ptr<ForwardScratch> scratch_;
  std::unique_ptr<Buffer> logits_;
  std::optional<DecodeBatcher::Member> member_;  // from the first token on
};

}  // namespace

Result<GenerationReport> Generate(const ComputeContext& context, DecodeBatcher& batcher,
                                  const Tokenizer& tokenizer, const ChatTemplate& chat,
                                  KvSequence& kv, const GenerationRequest& request,
                                  const std::function<bool(std::string_view)>& sink,
                                  const std::stop_token& stop) {
  const auto start = Clock::now();
  GenerationReport report;
  Generation generation(context, batcher, kv, request);
  Utf8Stream utf8;
  bool wanted = true;
  const auto emit = [&](std::string piece) {
    if (piece.empty() || !wanted) return;
    report.text += piece;
    wanted = sink(piece);
  };
  auto token = generation.Start(stop, &report);
  report.first_token_ms = MsSince(start);
  const auto first_token = Clock::now();
  while (true) {
    if (!token.ok()) {
      if (token.status().code() != StatusCode::kCancelled) return token.status();
      report.finish_reason = "cancelled";
      break;
    }
    if (chat.IsStop(*token)) {
      report.finish_reason = "stop";
      break;
    }
    ++report.tokens;
    const TokenId id = *token;
    emit(utf8.Append(tokenizer.Decode({&id, 1})));
    if (report.tokens == request.max_tokens) {
      report.finish_reason = "length";
      break;
    }
    if (!wanted || stop.stop_requested()) {
      report.finish_reason = "cancelled";
      break;
    }
    token = generation.Next(id);
  }
  emit(utf8.Finish());
  report.decode_seconds = std::chrono::duration<double>(Clock::now() - first_token).count();
  return report;
}

}  // namespace corpusd
