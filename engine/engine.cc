#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <mutex>

#include "engine/backend/cpu_backend.h"
#include "engine/corpus_tokenizer.h"
#include "engine/decode/question_runner.h"
#include "engine/identity.h"
#include "engine/model/file_digest.h"
#include "engine/model/gguf.h"
#include "engine/prefill/block_repair.h"
#include "engine/prefill/prefill_runner.h"
#include "store/miss_explain.h"

namespace corpusd {
namespace {

using Clock = std::chrono::steady_clock;

// Kept free beside an exact corpus for a question and its answer.
constexpr uint64_t kReservedTokens = 512;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What a prefill is about to compute is a lookup that missed: the store's counters say why.
void CountMisses(BlockStore& store, const CorpusRecord& record, std::span<const TokenId> tokens) {
  const auto report = ExplainMiss(store, {record.identity, tokens, kBlockTokens, ""});
  if (!report.ok() || report->present == report->blocks) return;
  store.misses().Count(report->reason(), report->blocks - report->present);
}

class LlamaEngine final : public Engine {
 public:
  Status Open(const EngineOptions& options, BlockStore* store) {
    options_ = options;
    store_ = store;
    if (options.device != "cpu" && options.device != "auto") {
      return InvalidArgumentError("device '" + options.device +
                                  "' is not available in this build: use 'cpu'");
    }
    ASSIGN_OR_RETURN(file_, GgufFile::Open(options.model_path));
    ASSIGN_OR_RETURN(tokenizer_, Tokenizer::FromGguf(*file_));
    ASSIGN_OR_RETURN(auto chat, ChatTemplate::FromGguf(*file_, *tokenizer_));
    chat_ = std::make_unique<ChatTemplate>(std::move(chat));
    ASSIGN_OR_RETURN(backend_, MakeCpuBackend({options.threads, options.isa}));
    ASSIGN_OR_RETURN(model_, LoadLlamaModel(*file_, *backend_));
    ASSIGN_OR_RETURN(summary_.digest, FileDigestHex(options.model_path, options.cache_dir));
    ASSIGN_OR_RETURN(const KvFormat format, model_->Format(options.kv_format));
    (void)format;  // checked early: a bad default is a start-up error, not the first corpus's
    const ModelConfig& config = model_->config();
    if (tokenizer_->vocabulary() > config.vocabulary) {
      return InvalidArgumentError("the tokenizer has " + std::to_string(tokenizer_->vocabulary()) +
                                  " tokens, the embedding only " +
                                  std::to_string(config.vocabulary));
    }
    summary_.name = config.name;
    summary_.architecture = config.architecture;
    summary_.backend = std::string(backend_->name());
    summary_.context_tokens = config.context_tokens;
    summary_.vocabulary = config.vocabulary;
    for (const GgufTensor& tensor : file_->tensors()) {
      uint64_t elements = 1;
      for (const uint64_t dim : tensor.dims) elements *= dim;
      summary_.parameters += elements;
    }
    return OkStatus();
  }

  const ModelSummary& model() const override { return summary_; }
  uint64_t reserved_tokens() const override {
    return std::min<uint64_t>(kReservedTokens, summary_.context_tokens / 4);
  }

  Result<std::unique_ptr<CorpusTokenizer>> NewCorpusTokenizer(std::string_view preamble,
                                                              bool appending,
                                                              uint64_t first_token) override {
    std::vector<TokenId> prefix;
    if (!appending) prefix = chat_->CorpusPrefix(preamble);
    return MakeExactTokenizer(*tokenizer_, std::move(prefix), first_token);
  }

  Result<CorpusRecord> CreateCorpus(const CorpusRequest& request,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override;
  Result<CorpusRecord> AppendCorpus(std::string_view name,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override;
  Status Prefill(std::string_view name, const std::function<void(const PrefillProgress&)>& progress,
                 std::stop_token stop) override;
  Result<QuestionReport> Ask(const QuestionRequest& request,
                             const std::function<bool(std::string_view)>& sink,
                             std::stop_token stop) override;
  Result<VerifyOutcome> Verify(std::string_view name, bool repair,
                               const std::function<bool(uint64_t, uint64_t)>& progress) override;
  Result<uint64_t> Repair(std::string_view name) override;
  Result<CorpusShape> ShapeOf(std::string_view kv_format) const override;
  Result<FetchStats> Warm(std::string_view name) override;
  Result<DeviceWarming> WarmDevice(std::string_view name) override;

 private:
  ComputeContext context() { return {*model_, *backend_, gate_}; }
  Status CheckFits(uint64_t tokens) const;
  std::vector<IdentityField> IdentityOf(const KvFormat& format) const;
  // kFailedPrecondition, naming the fields, if the corpus was made by another model, format or
  // tenant.
  Status CheckIdentity(const CorpusRecord& record, const KvFormat& format) const;
  Status PrefillRun(CorpusRecord* record, const KvFormat& format, std::span<const TokenId> tokens,
                    std::span<const Digest> chain, LeasedCorpus* history, PrefillProgress* progress,
                    const std::stop_token& stop);
  Status FailPrefill(CorpusRecord record, const Status& status);
  Result<std::vector<TokenId>> QuestionTokens(const CorpusRecord& record,
                                              const QuestionRequest& request,
                                              uint32_t* max_tokens) const;
  // One question on its way to an answer.
  struct Question {
    const CorpusRecord& record;
    const KvFormat& format;      // of the corpus
    const KvFormat& own_format;  // of the question's own tokens
    const GenerationRequest& generation;
    const std::function<bool(std::string_view)>& sink;
    const std::stop_token& stop;
    Clock::time_point start;
  };
  Result<GenerationReport> AnswerOver(const Question& question, KvSequence& kv,
                                      QuestionReport* report);
  Result<GenerationReport> AnswerFromScratch(const Question& question, QuestionReport* report);
  // Computes while the blocks arrive, layer by layer; repairs broken ones first.
  Result<GenerationReport> AnswerFromStore(const Question& question, QuestionReport* report);
  // All blocks of the corpus, repaired where need be.
  Result<LeasedCorpus> LeaseCorpus(const CorpusRecord& record);
  Result<std::unique_ptr<KvSequence>> Recompute(std::span<const TokenId> tokens,
                                                const KvFormat& format,
                                                const std::stop_token& stop);

  EngineOptions options_;
  BlockStore* store_ = nullptr;
  ModelSummary summary_;
  ComputeGate gate_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
};

Status LlamaEngine::CheckFits(uint64_t tokens) const {
  const uint64_t limit = summary_.context_tokens - reserved_tokens();
  if (tokens <= limit) return OkStatus();
  return InvalidArgumentError(
      "the corpus has " + std::to_string(tokens) + " tokens; an exact corpus of this model may " +
      "have at most " + std::to_string(limit) + " (context " +
      std::to_string(summary_.context_tokens) + ", less " + std::to_string(reserved_tokens()) +
      " kept for a question and its answer): ingest less text");
}

std::vector<IdentityField> LlamaEngine::IdentityOf(const KvFormat& format) const {
  return CorpusIdentity({summary_.digest, tokenizer_->DigestHex(), options_.tenant_salt},
                        model_->config(), format, "exact");
}

Status LlamaEngine::CheckIdentity(const CorpusRecord& record, const KvFormat& format) const {
  const std::string mismatch = DescribeIdentityMismatch(record.identity, IdentityOf(format));
  if (mismatch.empty()) return OkStatus();
  return FailedPreconditionError("corpus '" + record.name +
                                 "' was made with another identity and is not served: " + mismatch);
}

Result<CorpusRecord> LlamaEngine::CreateCorpus(const CorpusRequest& request,
                                               std::unique_ptr<CorpusTokenizer> tokenizer) {
  if (request.mode != "auto" && request.mode != "exact" && !request.mode.empty()) {
    return UnimplementedError("mode '" + request.mode +
                              "' is not in this version: auto and exact are");
  }
  ASSIGN_OR_RETURN(
      const KvFormat format,
      model_->Format(request.kv_format.empty() ? options_.kv_format : request.kv_format));
  RETURN_IF_ERROR(CheckFits(tokenizer->tokens()));
  CorpusRecord record;
  record.name = request.name;
  record.mode = "exact";
  record.kv_format = KvFormatName(format);
  record.block_bytes = format.BlockBytes();
  record.identity = IdentityOf(format);
  record.root = ChainRoot(record.identity);
  record.skipped_files = request.skipped_files;
  record.expires_at_ms = request.expires_at_ms;
  record.priority = request.priority;
  record.pin = request.pin;
  const std::vector<TokenId> tokens = tokenizer->TakeTokens();
  record.sources = tokenizer->TakeSources();
  ASSIGN_OR_RETURN(const KvFormat bf16, model_->Format("bf16"));
  record.whole_blocks = (tokens.size() + kBlockTokens - 1) / kBlockTokens;
  record.bf16_bytes = record.whole_blocks * bf16.BlockBytes();
  return store_->CreateCorpus(std::move(record), tokens);
}

Result<CorpusRecord> LlamaEngine::AppendCorpus(std::string_view name,
                                               std::unique_ptr<CorpusTokenizer> tokenizer) {
  ASSIGN_OR_RETURN(CorpusRecord record, store_->GetCorpus(name));
  if (record.state != CorpusState::kReady) {
    return NotReadyError("corpus '" + record.name + "' is " +
                         std::string(CorpusStateText(record.state)) +
                         ": append to it when it is ready");
  }
  ASSIGN_OR_RETURN(const KvFormat format, model_->Format(record.kv_format));
  RETURN_IF_ERROR(CheckIdentity(record, format));
  ASSIGN_OR_RETURN(std::vector<TokenId> tokens, store_->CorpusTokens(name));
  RETURN_IF_ERROR(CheckFits(tokens.size() + tokenizer->tokens()));
  const std::vector<TokenId> added = tokenizer->TakeTokens();
  // The last run is computed anew unless it is whole, so that the result is that of one ingest.
  const size_t kept_tokens = tokens.size() / kRunTokens * kRunTokens;
  record.chain.resize(kept_tokens / kBlockTokens);
  record.durable_tokens = kept_tokens;
  record.state = CorpusState::kQueued;
  for (CorpusSource& source : tokenizer->TakeSources()) record.sources.push_back(std::move(source));
  tokens.insert(tokens.end(), added.begin(), added.end());
  ASSIGN_OR_RETURN(const KvFormat bf16, model_->Format("bf16"));
  record.whole_blocks = (tokens.size() + kBlockTokens - 1) / kBlockTokens;
  record.bf16_bytes = record.whole_blocks * bf16.BlockBytes();
  return store_->ReplaceTokens(record, tokens);
}

Status LlamaEngine::FailPrefill(CorpusRecord record, const Status& status) {
  if (status.code() == StatusCode::kCancelled) return status;  // the job decides what that means
  auto current = store_->GetCorpus(record.name);
  if (!current.ok()) return status;
  current->state = CorpusState::kFailed;
  current->error = status.ToString();
  // The cause of the failure matters more than a failure to note it.
  (void)store_->UpdateCorpus(*current);
  return status;
}

Status LlamaEngine::PrefillRun(CorpusRecord* record, const KvFormat& format,
                               std::span<const TokenId> tokens, std::span<const Digest> chain,
                               LeasedCorpus* history, PrefillProgress* progress,
                               const std::stop_token& stop) {
  const size_t first_block = record->chain.size();
  const size_t last_block =
      std::min(first_block / kRunBlocks * kRunBlocks + kRunBlocks, chain.size());
  const auto run_chain = chain.subspan(first_block, last_block - first_block);
  const size_t first_token = first_block * kBlockTokens;
  const size_t last_token = std::min(last_block * kBlockTokens, tokens.size());
  const auto run_tokens = tokens.subspan(first_token, last_token - first_token);
  const auto start = Clock::now();
  ASSIGN_OR_RETURN(const size_t known, store_->LongestPrefix(run_chain, run_tokens));
  if (known == run_chain.size()) {
    ASSIGN_OR_RETURN(*record, store_->AdoptBlocks(*record, run_chain));
    progress->reused_tokens += run_tokens.size();
    return OkStatus();
  }
  // The leases of the runs before stay: only what the last run added is fetched.
  RETURN_IF_ERROR(ExtendLease(context(), *store_, *record, format, tokens,
                              ComputePriority::kPrefill, stop, history));
  const auto kv = SequenceOver(history->refs, format, format);
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(*backend_, model_->config(),
                                          static_cast<uint32_t>(run_tokens.size())));
  RETURN_IF_ERROR(
      ComputeRun(context(), run_tokens, *kv, *scratch, ComputePriority::kPrefill, stop));
  record->prefill_seconds += SecondsSince(start);
  ASSIGN_OR_RETURN(*record, store_->Publish(*record, BlockWrites(*kv, chain, tokens, first_block)));
  progress->written_bytes += run_chain.size() * format.BlockBytes();
  return OkStatus();
}

Status LlamaEngine::Prefill(std::string_view name,
                            const std::function<void(const PrefillProgress&)>& progress,
                            std::stop_token stop) {
  ASSIGN_OR_RETURN(CorpusRecord record, store_->GetCorpus(name));
  ASSIGN_OR_RETURN(const KvFormat format, model_->Format(record.kv_format));
  RETURN_IF_ERROR(CheckIdentity(record, format));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, store_->CorpusTokens(name));
  const std::vector<Digest> chain = BuildChain(record.root, tokens, kBlockTokens);
  CountMisses(*store_, record, tokens);
  if (record.state == CorpusState::kPrefilling) ++record.resumed_times;
  record.state = CorpusState::kPrefilling;
  record.error.clear();
  ASSIGN_OR_RETURN(record, store_->UpdateCorpus(record));
  LeasedCorpus history;
  PrefillProgress state;
  state.total_tokens = tokens.size();
  state.done_tokens = record.durable_tokens;
  progress(state);
  while (record.chain.size() < chain.size()) {
    if (stop.stop_requested()) {
      return CancelledError("the prefill of corpus '" + record.name + "' was stopped after " +
                            std::to_string(record.durable_tokens) + " tokens, which stay");
    }
    const Status status = PrefillRun(&record, format, tokens, chain, &history, &state, stop);
    if (status.code() == StatusCode::kAborted) {  // renamed, pinned or touched meanwhile
      ASSIGN_OR_RETURN(record, store_->GetCorpus(name));
      continue;
    }
    if (!status.ok()) return FailPrefill(record, status);
    state.done_tokens = record.durable_tokens;
    progress(state);
  }
  record.state = CorpusState::kReady;
  auto ready = store_->UpdateCorpus(record);
  while (ready.status().code() == StatusCode::kAborted) {
    ASSIGN_OR_RETURN(record, store_->GetCorpus(name));
    record.state = CorpusState::kReady;
    ready = store_->UpdateCorpus(record);
  }
  return ready.status();
}

Result<std::vector<TokenId>> LlamaEngine::QuestionTokens(const CorpusRecord& record,
                                                         const QuestionRequest& request,
                                                         uint32_t* max_tokens) const {
  std::vector<TokenId> tokens = chat_->QuestionSuffix(request.question);
  const uint64_t context = summary_.context_tokens;
  if (record.tokens + tokens.size() + 1 > context) {
    return InvalidArgumentError("the question has " + std::to_string(tokens.size()) +
                                " tokens; beside the corpus's " + std::to_string(record.tokens) +
                                " the model's context of " + std::to_string(context) +
                                " leaves room for " + std::to_string(context - record.tokens - 1));
  }
  *max_tokens = static_cast<uint32_t>(
      std::min<uint64_t>(request.max_tokens, context - record.tokens - tokens.size()));
  return tokens;
}

Result<std::unique_ptr<KvSequence>> LlamaEngine::Recompute(std::span<const TokenId> tokens,
                                                           const KvFormat& format,
                                                           const std::stop_token& stop) {
  auto kv = std::make_unique<KvSequence>(format, format);
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(*backend_, model_->config(),
                                          static_cast<uint32_t>(std::min<size_t>(
                                              kRunTokens, std::max<size_t>(tokens.size(), 1)))));
  for (size_t first = 0; first < tokens.size(); first += kRunTokens) {
    const auto run = tokens.subspan(first, std::min<size_t>(kRunTokens, tokens.size() - first));
    RETURN_IF_ERROR(ComputeRun(context(), run, *kv, *scratch, ComputePriority::kPrefill, stop));
  }
  return kv;
}

Result<GenerationReport> LlamaEngine::AnswerOver(const Question& question, KvSequence& kv,
                                                 QuestionReport* report) {
  const double before_ms = SecondsSince(question.start) * 1e3;
  auto generated = Generate(context(), *tokenizer_, *chat_, kv, question.generation, question.sink,
                            question.stop);
  if (generated.ok()) report->first_token_ms = before_ms + generated->first_token_ms;
  report->attended_tokens = kv.tokens();
  return generated;
}

Result<GenerationReport> LlamaEngine::AnswerFromScratch(const Question& question,
                                                        QuestionReport* report) {
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(question.record.name));
  ASSIGN_OR_RETURN(const auto recomputed, Recompute(tokens, question.format, question.stop));
  report->recomputed_tokens = tokens.size();
  // A question's own tokens are bf16 pages behind the corpus's pages, whether those were read or
  // recomputed: the same page list, so the same bits.
  KvSequence kv(question.format, question.own_format);
  for (const auto& block : recomputed->OwnBlocks()) kv.AddShared(block.bytes.data(), block.tokens);
  return AnswerOver(question, kv, report);
}

Result<GenerationReport> LlamaEngine::AnswerFromStore(const Question& question,
                                                      QuestionReport* report) {
  const CorpusRecord& record = question.record;
  FetchStats stats;
  report->cached_tokens = record.tokens;
  Result<GenerationReport> generated = CorruptionError("a block is damaged or missing");
  {
    PrefetchOptions options;
    options.stop = question.stop;
    ASSIGN_OR_RETURN(const auto arriving, store_->Prefetch(record.chain, options));
    bool whole = true;
    for (size_t i = 0; i < arriving->blocks(); ++i) whole = whole && !arriving->bytes(i).empty();
    if (whole) {
      const auto kv = SequenceOver(*arriving, question.format, question.own_format);
      generated = AnswerOver(question, *kv, report);
    }
    // All is there, or the answer failed or was cancelled: only the counts are of interest.
    (void)arriving->Finish(&stats);
  }
  const StatusCode code = generated.status().code();
  if (code == StatusCode::kCorruption || code == StatusCode::kNotFound) {
    ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
    Result<LeasedCorpus> mended = LeaseWhole(context(), *store_, record, question.format, tokens,
                                             ComputePriority::kQuestion, question.stop);
    if (!mended.ok() && store_->write_gate().state().read_only) {
      // What is damaged cannot be written again now; an answer does not need it to be.
      report->cached_tokens = 0;
      return AnswerFromScratch(question, report);
    }
    ASSIGN_OR_RETURN(const LeasedCorpus leased, std::move(mended));
    stats.waited_seconds += leased.stats.waited_seconds;
    stats.device_bytes += leased.stats.device_bytes;
    stats.disk_bytes += leased.stats.disk_bytes;
    report->recomputed_tokens = leased.recomputed_tokens;
    report->cached_tokens = record.tokens - std::min(record.tokens, leased.recomputed_tokens);
    const auto kv = SequenceOver(leased.refs, question.format, question.own_format);
    generated = AnswerOver(question, *kv, report);
  }
  report->load_ms = stats.waited_seconds * 1e3;
  report->device_bytes = stats.device_bytes;
  report->host_bytes = stats.host_bytes;
  report->disk_bytes = stats.disk_bytes;
  return generated;
}

Result<QuestionReport> LlamaEngine::Ask(const QuestionRequest& request,
                                        const std::function<bool(std::string_view)>& sink,
                                        std::stop_token stop) {
  const auto start = Clock::now();
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(request.corpus));
  if (record.state != CorpusState::kReady) {
    return NotReadyError("corpus '" + record.name + "' is " +
                         std::string(CorpusStateText(record.state)) + " (" +
                         std::to_string(record.durable_tokens) + " of " +
                         std::to_string(record.tokens) + " tokens): corpusctl wait " + record.name);
  }
  ASSIGN_OR_RETURN(const KvFormat format, model_->Format(record.kv_format));
  RETURN_IF_ERROR(CheckIdentity(record, format));
  ASSIGN_OR_RETURN(const KvFormat own_format, model_->Format("bf16"));
  GenerationRequest generation;
  ASSIGN_OR_RETURN(const auto prompt, QuestionTokens(record, request, &generation.max_tokens));
  generation.prompt = prompt;
  generation.sampler = {request.temperature, request.top_p, request.seed};

  QuestionReport report;
  report.prompt_tokens = record.tokens + prompt.size();
  const auto answer =
      request.no_cache ? &LlamaEngine::AnswerFromScratch : &LlamaEngine::AnswerFromStore;
  ASSIGN_OR_RETURN(
      const GenerationReport generated,
      (this->*answer)({record, format, own_format, generation, sink, stop, start}, &report));
  // Use is noted at leisure: an answer is not refused for it.
  (void)store_->NoteUse(record.name);
  report.answer = generated.text;
  report.finish_reason = generated.finish_reason;
  report.completion_tokens = generated.tokens;
  report.queue_ms = generated.queue_ms;
  report.total_ms = SecondsSince(start) * 1e3;
  report.decode_tokens_per_s =
      generated.tokens > 1 ? (generated.tokens - 1) / generated.decode_seconds : 0;
  return report;
}

Result<Engine::VerifyOutcome> LlamaEngine::Verify(
    std::string_view name, bool repair, const std::function<bool(uint64_t, uint64_t)>& progress) {
  VerifyOutcome outcome;
  ASSIGN_OR_RETURN(outcome.report, store_->Verify(name, progress));
  if (!repair || (outcome.report.damaged.empty() && outcome.report.missing.empty())) {
    return outcome;
  }
  ASSIGN_OR_RETURN(outcome.repaired, Repair(name));
  return outcome;
}

Result<uint64_t> LlamaEngine::Repair(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(name));
  ASSIGN_OR_RETURN(const KvFormat format, model_->Format(record.kv_format));
  RETURN_IF_ERROR(CheckIdentity(record, format));
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(name));
  ASSIGN_OR_RETURN(const LeasedCorpus leased, LeaseWhole(context(), *store_, record, format, tokens,
                                                         ComputePriority::kPrefill, {}));
  return leased.repaired_blocks;
}

Result<CorpusShape> LlamaEngine::ShapeOf(std::string_view kv_format) const {
  ASSIGN_OR_RETURN(const KvFormat format,
                   model_->Format(kv_format.empty() ? options_.kv_format : kv_format));
  CorpusShape shape;
  shape.identity = IdentityOf(format);
  shape.root = ChainRoot(shape.identity);
  shape.mode = "exact";
  shape.kv_format = KvFormatName(format);
  shape.block_tokens = format.block_tokens;
  shape.sections = format.layers;
  shape.block_bytes = format.BlockBytes();
  shape.tokens_max = summary_.context_tokens - reserved_tokens();
  shape.vocabulary = summary_.vocabulary;
  return shape;
}

Result<LeasedCorpus> LlamaEngine::LeaseCorpus(const CorpusRecord& record) {
  ASSIGN_OR_RETURN(const KvFormat format, model_->Format(record.kv_format));
  RETURN_IF_ERROR(CheckIdentity(record, format));
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
  return LeaseWhole(context(), *store_, record, format, tokens, ComputePriority::kPrefill, {});
}

Result<FetchStats> LlamaEngine::Warm(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(name));
  ASSIGN_OR_RETURN(const LeasedCorpus leased, LeaseCorpus(record));
  return leased.stats;
}

Result<Engine::DeviceWarming> LlamaEngine::WarmDevice(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(name));
  ASSIGN_OR_RETURN(const LeasedCorpus leased, LeaseCorpus(record));
  DeviceWarming warmed{leased.stats, 0};
  ASSIGN_OR_RETURN(warmed.device_bytes,
                   store_->PromoteToDevice(record.chain, leased.refs, /*stop=*/{}));
  return warmed;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options, BlockStore* store) {
  auto engine = std::make_unique<LlamaEngine>();
  RETURN_IF_ERROR(engine->Open(options, store));
  return engine;
}

}  // namespace corpusd
