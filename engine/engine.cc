#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/llama_engine.h"
#include "engine/model/quantized_source.h"
#include "store/miss_explain.h"

namespace corpusd {
namespace {

// What a prefill is about to compute is a lookup that missed: the store's counters say why.
void CountMisses(BlockStore& store, const CorpusRecord& record, std::span<const TokenId> tokens) {
  const auto report = ExplainMiss(store, {record.identity, tokens, kBlockTokens, ""});
  if (!report.ok() || report->present == report->blocks) return;
  store.misses().Count(report->reason(), report->blocks - report->present);
}

}  // namespace

Status LlamaEngine::Open(const EngineOptions& options, BlockStore* store) {
  options_ = options;
  store_ = store;
  ASSIGN_OR_RETURN(const WeightMode weights, ParseWeightMode(options.weights));
  ASSIGN_OR_RETURN(source_, OpenModelSource(options.model_path));
  source_ = WithWeights(std::move(source_), weights, options.threads);
  ASSIGN_OR_RETURN(tokenizer_, source_->LoadTokenizer());
  ASSIGN_OR_RETURN(auto chat, source_->LoadChatTemplate(*tokenizer_));
  chat_ = std::make_unique<ChatTemplate>(std::move(chat));
  RETURN_IF_ERROR(OpenModel());
  ASSIGN_OR_RETURN(summary_.digest, source_->WeightsDigestHex(options.cache_dir));
  batcher_ = std::make_unique<DecodeBatcher>(context());
  // A device's memory is its tier's.
  const bool kept = backend_->host_addressable();
  prompts_ = std::make_unique<PromptCache>(kept ? options.prompt_cache_bytes : 0, kRunTokens);
  calibrations_ = std::make_unique<CalibrationSource>(
      *source_, *tokenizer_, *model_, *backend_, gate_,
      CalibrationOptions{options.calibration_dir, options.calibration_cache,
                         options.calibration_text, summary_.digest, options.threads,
                         options.on_calibration});
  if (store_ != nullptr) {
    segmented_ = std::make_unique<SegmentedCorpora>(
        context(), *store_, *tokenizer_, *chat_, *batcher_, options,
        [this](const IndexScanner& scanner) { return HeadsOfModel(scanner); });
  }
  // Early: a bad default is an error of the start, and calibrating is not the first corpus's work.
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfFormat(options.kv_format));
  (void)layout;
  const ModelConfig& config = model_->config();
  if (tokenizer_->vocabulary() > config.vocabulary) {
    return InvalidArgumentError("the tokenizer has " + std::to_string(tokenizer_->vocabulary()) +
                                " tokens, the embedding only " + std::to_string(config.vocabulary));
  }
  summary_.name = config.name;
  summary_.architecture = config.architecture;
  summary_.backend = std::string(backend_->name());
  summary_.context_tokens = config.context_tokens;
  summary_.vocabulary = config.vocabulary;
  summary_.quality_kld_max = options.quality_kld_max;
  summary_.segmented_tokens_max = kSegmentedTokensMax;
  summary_.parameters = CountParameters(*source_);
  return OpenRanks();
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

Status LlamaEngine::Prefill(std::string_view name,
                            const std::function<void(const PrefillProgress&)>& progress,
                            std::stop_token stop) {
  ASSIGN_OR_RETURN(CorpusRecord record, store_->GetCorpus(name));
  ASSIGN_OR_RETURN(KvLayout layout, LayoutOfRecord(record));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, store_->CorpusTokens(name));
  if (record.state == CorpusState::kPrefilling) ++record.resumed_times;
  record.state = CorpusState::kPrefilling;
  record.error.clear();
  ASSIGN_OR_RETURN(record, store_->UpdateCorpus(record));
  // The first report says what was durable before.
  std::optional<PrefillProgress> before;
  const auto observed = [&](const PrefillProgress& now) {
    if (options_.observer != nullptr && before && now.done_tokens >= before->done_tokens) {
      const uint64_t done = now.done_tokens - before->done_tokens;
      const uint64_t reused = std::min(done, now.reused_tokens - before->reused_tokens);
      options_.observer->OnPrefill(done - reused, reused);
    }
    before = now;
    progress(now);
  };
  const Status status = IsSegmented(record)
                            ? PrefillSegmented(&record, &layout, tokens, observed, stop)
                            : PrefillExact(&record, &layout, tokens, observed, stop);
  if (!status.ok()) return FailPrefill(std::move(record), status);
  return FinishPrefill(std::move(record));
}

Status LlamaEngine::PrefillSegmented(CorpusRecord* record, KvLayout* layout,
                                     std::span<const TokenId> tokens,
                                     const std::function<void(const PrefillProgress&)>& progress,
                                     const std::stop_token& stop) {
  RETURN_IF_ERROR(CheckSegmented(*record, kBlockTokens));
  RETURN_IF_ERROR(AddSinksOf(*record, tokens, ComputePriority::kPrefill, stop, layout));
  RETURN_IF_ERROR(RecordQuality(*layout, tokens, stop, record));
  return segmented_->Prefill(record, *layout, tokens, progress, stop, leader());
}

Status LlamaEngine::GoToRestorePoint(const KvLayout& layout, std::span<const TokenId> tokens,
                                     std::span<const Digest> chain, size_t known_blocks,
                                     CorpusRecord* record, PrefillProgress* progress) {
  while (true) {
    const uint64_t known_tokens =
        known_blocks == chain.size() ? tokens.size() : known_blocks / kRunBlocks * kRunTokens;
    // Anew each time: what was stored may have gone.
    StoredParts stored(*store_, layout, chain);
    ASSIGN_OR_RETURN(const uint64_t point, stored.RestorePoint(known_tokens));
    const size_t blocks = point == tokens.size() ? chain.size() : point / kBlockTokens;
    Status status;
    if (blocks < record->chain.size()) {
      record->chain.resize(blocks);
      record->durable_tokens = point;
      auto cut = store_->UpdateCorpus(*record);
      status = cut.status();
      if (cut.ok()) *record = *std::move(cut);
    }
    if (status.ok()) {
      const uint64_t before = record->durable_tokens;
      CorpusRecord grown = *record;
      RETURN_IF_ERROR(stored.Hold(point, &grown.parts));
      const auto more = chain.subspan(record->chain.size(), blocks - record->chain.size());
      if (more.empty() && grown.parts == record->parts) return OkStatus();
      auto adopted = store_->AdoptBlocks(grown, more);
      status = adopted.status();
      if (adopted.ok()) {
        *record = *std::move(adopted);
        progress->reused_tokens += point - before;
        return OkStatus();
      }
    }
    // Renamed, pinned or touched meanwhile; or blocks have gone since they were looked up.
    const bool again =
        status.code() == StatusCode::kAborted || status.code() == StatusCode::kNotFound;
    if (!again) return status;
    ASSIGN_OR_RETURN(*record, store_->GetCorpus(record->name));
    if (status.code() == StatusCode::kNotFound) {
      ASSIGN_OR_RETURN(known_blocks, store_->LongestPrefix(chain, tokens));
    }
  }
}

Status LlamaEngine::PrefillExact(CorpusRecord* record, KvLayout* layout,
                                 std::span<const TokenId> tokens,
                                 const std::function<void(const PrefillProgress&)>& progress,
                                 const std::stop_token& stop) {
  const std::vector<Digest> chain = BuildChain(record->root, tokens, kBlockTokens);
  CountMisses(*store_, *record, tokens);
  RETURN_IF_ERROR(AwaitShelves(*record, stop));
  // Looked up once: a lookup starts at the root, and one a run would cost the square of the length.
  ASSIGN_OR_RETURN(size_t known_blocks, store_->LongestPrefix(chain, tokens));
  if (!chain.empty()) {
    RETURN_IF_ERROR(AddSinksOf(*record, tokens, ComputePriority::kPrefill, stop, layout));
  }
  RETURN_IF_ERROR(RecordQuality(*layout, tokens, stop, record));
  PrefillProgress state;
  if (layout->parts != nullptr) {
    RETURN_IF_ERROR(GoToRestorePoint(*layout, tokens, chain, known_blocks, record, &state));
    known_blocks = 0;  // what is behind it is computed, if only for its parts
  }
  state.total_tokens = tokens.size();
  state.done_tokens = record->durable_tokens;
  progress(state);
  if (const auto leader = this->leader(); leader != nullptr) {
    RETURN_IF_ERROR(PrefillOverRanks(leader, {*layout, tokens, chain, known_blocks}, record, &state,
                                     progress, stop));
  }
  // Attention by ranks has an order of its own.
  const bool run_by_run = ranks_ != nullptr;
  return PrefillAlone({*layout, tokens, chain, known_blocks, run_by_run}, record, &state, progress,
                      stop);
}

Status LlamaEngine::PrefillAlone(const ExactText& text, CorpusRecord* record,
                                 PrefillProgress* state,
                                 const std::function<void(const PrefillProgress&)>& progress,
                                 const std::stop_token& stop) {
  int mends = 0;
  ExactPrefill calls(context(), *store_, text, record, state);
  while (true) {
    const bool stopped = !calls.done() && stop.stop_requested();
    const bool last = calls.done() || stopped;
    const Status status = last ? calls.Finish() : calls.Next(stop);
    if (status.code() == StatusCode::kAborted) {  // renamed, pinned or touched meanwhile
      ASSIGN_OR_RETURN(*record, store_->GetCorpus(record->name));
      continue;
    }
    if (IsDamage(status) && calls.reads_in_turn() && mends++ < kMendsMax) {
      // What is leased was mended on the way; what is read in turn is mended now.
      calls.ForgetHistory();
      RETURN_IF_ERROR(Mend(*record, text.layout, stop).status());
      continue;
    }
    RETURN_IF_ERROR(status);
    progress(*state);
    if (stopped) {
      return CancelledError("the prefill of corpus '" + record->name + "' was stopped after " +
                            std::to_string(record->durable_tokens) + " tokens, which stay");
    }
    if (last) return OkStatus();
  }
}

Status LlamaEngine::FinishPrefill(CorpusRecord record) {
  const std::string name = record.name;
  record.state = CorpusState::kReady;
  auto ready = store_->UpdateCorpus(record);
  while (ready.status().code() == StatusCode::kAborted) {
    ASSIGN_OR_RETURN(record, store_->GetCorpus(name));
    record.state = CorpusState::kReady;
    ready = store_->UpdateCorpus(record);
  }
  RETURN_IF_ERROR(ready.status());
  return ready->replaces.empty() ? OkStatus() : TakePlace(*ready);
}

Result<Engine::VerifyOutcome> LlamaEngine::Verify(
    std::string_view name, bool repair, const std::function<bool(uint64_t, uint64_t)>& progress) {
  VerifyOutcome outcome;
  ASSIGN_OR_RETURN(outcome.report, store_->Verify(name, progress));
  if (!repair || (outcome.report.damaged.empty() && outcome.report.missing.empty())) {
    return outcome;
  }
  // What lies with a rank that is away is computed again, too: that was asked for.
  RETURN_IF_ERROR(store_->GiveUp(outcome.report.missing));
  ASSIGN_OR_RETURN(outcome.repaired, Repair(name));
  return outcome;
}

Result<uint64_t> LlamaEngine::Repair(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(name));
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(name));
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfChain(record, tokens));
  if (IsSegmented(record)) return segmented_->Repair(record, layout, tokens);
  ASSIGN_OR_RETURN(const RepairCounts counts,
                   RepairInPieces(context(), *store_, record, layout, tokens, /*stop=*/{}));
  return counts.blocks;
}

Result<uint64_t> LlamaEngine::Mend(const CorpusRecord& record, const KvLayout& layout,
                                   const std::stop_token& stop) {
  // Where one block is damaged others may be: all are known before the first is mended.
  const auto go_on = [&](uint64_t, uint64_t) { return !stop.stop_requested(); };
  RETURN_IF_ERROR(store_->Verify(record.name, go_on).status());
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
  ASSIGN_OR_RETURN(const RepairCounts counts,
                   RepairInPieces(context(), *store_, record, layout, tokens, stop));
  return counts.recomputed_tokens;
}

Result<CorpusShape> LlamaEngine::ShapeOf(std::string_view kv_format, const SegmentRule& rule,
                                         std::string_view tenant) const {
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfFormat(kv_format));
  const KvFormat& format = layout.blocks;
  CorpusShape shape;
  shape.identity = IdentityOf(layout, rule, SaltOf(options_.tenant_salt, tenant));
  shape.root = ChainRoot(shape.identity);
  shape.mode = rule.window_tokens == 0 ? "exact" : "segmented";
  shape.kv_format = KvFormatName(format);
  shape.block_tokens = format.block_tokens;
  shape.sections = StoredSections(layout.OfPart(format, 0));
  shape.block_bytes = StoredBytes(layout.OfPart(format, 0));
  shape.tokens_max =
      rule.window_tokens == 0 ? summary_.context_tokens - reserved_tokens() : kSegmentedTokensMax;
  shape.parts = PartsOf(layout, shape.tokens_max);
  shape.vocabulary = summary_.vocabulary;
  return shape;
}

Result<LeasedCorpus> LlamaEngine::LeaseCorpus(const CorpusRecord& record) {
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfChain(record, tokens));
  return LeaseWhole(context(), *store_, record, layout, tokens, ComputePriority::kPrefill, {});
}

Result<FetchStats> LlamaEngine::Warm(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(name));
  if (IsSegmented(record)) return segmented_->Warm(record);
  if (const auto ranks = leader(); ranks != nullptr && ranks->Spreads(record.chain.size())) {
    auto warmed = WarmOverRanks(*ranks, record);
    // Else rank 0 does it, and finds what is broken.
    if (warmed.ok()) return warmed;
  }
  ASSIGN_OR_RETURN(const LeasedCorpus leased, LeaseCorpus(record));
  return leased.stats;
}

Result<Engine::DeviceWarming> LlamaEngine::WarmDevice(std::string_view name) {
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(name));
  if (IsSegmented(record)) return segmented_->WarmDevice(record);
  ASSIGN_OR_RETURN(const LeasedCorpus leased, LeaseCorpus(record));
  DeviceWarming warmed{leased.stats, 0};
  ASSIGN_OR_RETURN(warmed.device_bytes,
                   store_->PromoteToDevice(record.chain, leased.refs, /*stop=*/{}));
  return warmed;
}

Result<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options, BlockStore* store) {
  auto engine = std::make_unique<LlamaEngine>();
  RETURN_IF_ERROR(engine->Open(options, store));
  return engine;
}

}  // namespace corpusd
