#include "tests/support/fake_engine.h"

#include <chrono>
#include <thread>
#include <utility>

#include "daemon/corpus_update.h"
#include "engine/segment/companions.h"

namespace corpusd {
namespace {

class ByteTokenizer : public CorpusTokenizer {
 public:
  explicit ByteTokenizer(uint64_t first_token) : next_token_(first_token) {}
  void BeginSource(std::string_view path) override {
    sources_.push_back({std::string(path), next_token_, 0, 0, ""});
  }
  void Append(std::string_view bytes) override {
    if (bytes == "no memory") tokens_.reserve(tokens_.max_size() + 1);
    for (unsigned char byte : bytes) tokens_.push_back(byte);
    next_token_ += bytes.size();
    sources_.back().bytes += bytes.size();
  }
  void EndSource() override { sources_.back().tokens = sources_.back().bytes; }
  uint64_t tokens() const override { return next_token_; }
  void NameDocuments() override {}
  std::vector<TokenId> TakeTokens() override { return std::move(tokens_); }
  std::vector<CorpusSource> TakeSources() override { return std::move(sources_); }

 private:
  uint64_t next_token_;
  std::vector<TokenId> tokens_;
  std::vector<CorpusSource> sources_;
};

}  // namespace

void FakeEngineControls::HoldPrefill() {
  std::lock_guard lock(mutex_);
  permits_ = 0;
}

void FakeEngineControls::PermitRuns(int permitted) {
  std::lock_guard lock(mutex_);
  permits_ += permitted;
  changed_.notify_all();
}

void FakeEngineControls::ReleasePrefill() { PermitRuns(1 << 20); }

void FakeEngineControls::HoldTokenizers() {
  std::lock_guard lock(mutex_);
  tokenizers_held_ = true;
}

void FakeEngineControls::ReleaseTokenizers() {
  std::lock_guard lock(mutex_);
  tokenizers_held_ = false;
  changed_.notify_all();
}

void FakeEngineControls::WaitForTokenizer() {
  std::unique_lock lock(mutex_);
  ++tokenizers_waiting;
  changed_.wait(lock, [&] { return !tokenizers_held_; });
  --tokenizers_waiting;
}

void FakeEngineControls::KeepQuestion(const QuestionRequest& request) {
  std::lock_guard lock(mutex_);
  last_question = request;
  last_question.on_prompt = nullptr;  // refers to a call that ends
}

bool FakeEngineControls::TakePermit(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, stop, [&] { return permits_ > 0; })) return false;
  --permits_;
  ++runs;
  return !stop.stop_requested();
}

FakeEngine::FakeEngine(BlockStore& store, FakeEngineControls& controls)
    : store_(store), controls_(controls) {
  model_.name = "fake";
  model_.digest = "00ff";
  model_.architecture = "none";
  model_.backend = "cpu-fake";
  model_.context_tokens = FakeEngineControls::kContextTokens;
  model_.segmented_tokens_max = 64 * model_.context_tokens;
}

Status FakeEngine::CheckFits(uint64_t tokens) const {
  if (tokens <= model_.context_tokens) return OkStatus();
  return InvalidArgumentError("the corpus has " + std::to_string(tokens) +
                              " tokens, the limit is " + std::to_string(model_.context_tokens));
}

std::vector<TokenId> FakeEngine::Tokenize(std::string_view text, bool /*parse_special*/) const {
  return {reinterpret_cast<const unsigned char*>(text.data()),
          reinterpret_cast<const unsigned char*>(text.data()) + text.size()};
}

Result<std::string> FakeEngine::Detokenize(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) {
    if (id > 255) return InvalidArgumentError("no such token");
    text.push_back(static_cast<char>(id));
  }
  return text;
}

Result<std::unique_ptr<CorpusTokenizer>> FakeEngine::NewCorpusTokenizer(
    std::string_view /*preamble*/, bool /*appending*/, uint64_t first_token) {
  controls_.WaitForTokenizer();
  return std::make_unique<ByteTokenizer>(first_token);
}

Result<CorpusRecord> FakeEngine::CreateCorpus(const CorpusRequest& request,
                                              std::unique_ptr<CorpusTokenizer> tokenizer) {
  CorpusRecord record;
  record.name = request.name;
  record.mode = "exact";
  record.tokens = tokenizer->tokens();
  RETURN_IF_ERROR(CheckFits(record.tokens));
  record.kv_format = request.kv_format;
  record.sources = tokenizer->TakeSources();
  record.expires_at_ms = request.expires_at_ms;
  record.priority = request.priority;
  record.pin = request.pin;
  record.block_bytes = record.tokens;
  record.whole_blocks = 1;
  record.skipped_files = request.skipped_files;
  record.roots = request.roots;
  if (request.update) {
    record.name = UpdateName(request.name);
    record.replaces = request.name;
  }
  return store_.CreateCorpus(record, tokenizer->TakeTokens());
}

Result<CorpusRecord> FakeEngine::AppendCorpus(std::string_view name,
                                              std::unique_ptr<CorpusTokenizer> tokenizer) {
  return UpdateCorpusRecord(store_, name, [&](CorpusRecord& record) {
    RETURN_IF_ERROR(CheckFits(tokenizer->tokens()));
    record.tokens = tokenizer->tokens();
    record.state = CorpusState::kQueued;
    for (CorpusSource& source : tokenizer->TakeSources()) record.sources.push_back(source);
    return OkStatus();
  });
}

Status FakeEngine::Prefill(std::string_view name,
                           const std::function<void(const PrefillProgress&)>& progress,
                           std::stop_token stop) {
  for (;;) {
    ASSIGN_OR_RETURN(CorpusRecord record, store_.GetCorpus(name));
    if (record.durable_tokens == record.tokens) {
      RETURN_IF_ERROR(UpdateCorpusRecord(store_, name, [](CorpusRecord& ready) {
                        ready.state = CorpusState::kReady;
                        return OkStatus();
                      }).status());
      if (record.replaces.empty()) return OkStatus();
      return store_.ReplaceCorpus(name, record.replaces, PreviousName(record.replaces), 0).status();
    }
    if (!controls_.TakePermit(stop)) return CancelledError("prefill stopped");
    const auto updated = UpdateCorpusRecord(store_, name, [](CorpusRecord& grown) {
      grown.state = CorpusState::kPrefilling;
      grown.durable_tokens =
          std::min(grown.durable_tokens + FakeEngineControls::kRunTokens, grown.tokens);
      return OkStatus();
    });
    RETURN_IF_ERROR(updated.status());
    progress({updated->durable_tokens, updated->tokens, 0, updated->durable_tokens * 2, {}});
    if (!controls_.prefill_error.empty()) {
      return {controls_.prefill_code, controls_.prefill_error};
    }
  }
}

Result<QuestionReport> FakeEngine::Ask(const QuestionRequest& request, const AnswerSink& sink,
                                       std::stop_token stop) {
  CorpusRecord record;
  if (!request.corpus.empty()) {
    ASSIGN_OR_RETURN(record, store_.GetCorpus(request.corpus));
    if (record.state != CorpusState::kReady) return NotReadyError("corpus is not ready");
  }
  if (request.question == "fail") return CorruptionError("scripted");
  const bool forever = request.question == "forever";
  const std::string piece = request.question == "big" ? std::string(256 << 10, 'x') : "w ";
  if (request.question == "options" || request.corpus.empty()) controls_.KeepQuestion(request);
  const uint64_t prompt_tokens = record.tokens + request.question.size();
  if (request.on_prompt) request.on_prompt({prompt_tokens, record.tokens, record.tokens, 0});
  if (request.on_prompt) request.on_prompt({prompt_tokens, record.tokens, prompt_tokens, 0.5});
  ++controls_.asks_running;
  const uint32_t pieces = request.max_tokens == 0 ? kAnswerTokensDefault : request.max_tokens;
  QuestionReport report;
  for (uint32_t choice = 0; choice < request.answers.count; ++choice) {
    GeneratedAnswer& answer = report.answers.emplace_back();
    answer.finish_reason = "length";
    for (uint32_t i = 0; forever || i < pieces; ++i) {
      if (request.answers.top_logprobs) {
        answer.logprobs.push_back({'w', piece, -0.5, {{'w', piece, -0.5, {}}}});
      }
      const auto logprobs = std::span(answer.logprobs);
      if (stop.stop_requested() ||
          !sink({choice, piece, logprobs.last(std::min<size_t>(1, logprobs.size()))})) {
        answer.finish_reason = "cancelled";
        ++controls_.asks_stopped;
        break;
      }
      if (piece.size() < 16) answer.text += piece;
      ++answer.tokens;
      if (forever) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    report.completion_tokens += answer.tokens;
  }
  report.answer = report.answers.front().text;
  report.finish_reason = report.answers.front().finish_reason;
  --controls_.asks_running;
  report.cached_tokens = record.tokens;
  report.prompt_tokens = record.tokens;
  for (const ChatMessage& message : request.messages) {
    report.prompt_tokens += message.content.size();
  }
  if (request.messages.empty()) report.prompt_tokens += request.question.size();
  if (request.question != "cite") return report;
  report.citations.push_back({"docs/a.txt", 10, 20, 3, 5, 0.5});
  report.selection.emplace();
  report.selection->candidate_blocks = 9;
  report.selection->blocks = {4, 7};
  return report;
}

Result<Engine::VerifyOutcome> FakeEngine::Verify(
    std::string_view name, bool repair, const std::function<bool(uint64_t, uint64_t)>& progress) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_.GetCorpus(name));
  for (uint64_t done = 1; done <= 3; ++done) {
    if (!progress(done, 3)) return CancelledError("verify was stopped");
  }
  VerifyOutcome outcome;
  outcome.report.blocks = 3;
  outcome.report.bytes = record.tokens;
  outcome.report.damaged.resize(1);
  outcome.repaired = repair ? 1 : 0;
  return outcome;
}

Result<uint64_t> FakeEngine::Repair(std::string_view name) {
  return store_.GetCorpus(name).ok() ? 1 : 0;
}

Result<CorpusShape> FakeEngine::ShapeOf(std::string_view kv_format, const SegmentRule& /*rule*/,
                                        std::string_view tenant) const {
  CorpusShape shape;
  shape.identity = {{"weights", model_.digest}};
  if (!tenant.empty()) shape.identity.push_back({"tenant", std::string(tenant)});
  shape.root = ChainRoot(shape.identity);
  shape.kv_format = kv_format.empty() ? controls_.kv_format : kv_format;
  shape.block_tokens = 8;
  shape.sections = 4;
  shape.block_bytes = 64 * 1024;
  shape.tokens_max = model_.context_tokens;
  shape.vocabulary = 50000;
  return shape;
}

Result<uint64_t> FakeEngine::LoadIndexes(const std::stop_token& stop) {
  ++controls_.indexes_loading;
  while (controls_.hold_indexes && !stop.stop_requested()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (!stop.stop_requested()) return 2;
  ++controls_.indexes_stopped;
  return CancelledError("scripted");
}

Result<FetchStats> FakeEngine::Warm(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_.GetCorpus(name));
  FetchStats stats;
  stats.disk_bytes = record.tokens;
  return stats;
}

Result<Engine::DeviceWarming> FakeEngine::WarmDevice(std::string_view name) {
  ASSIGN_OR_RETURN(const FetchStats loaded, Warm(name));
  return DeviceWarming{loaded, loaded.disk_bytes};
}

}  // namespace corpusd
