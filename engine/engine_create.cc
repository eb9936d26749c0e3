// How corpora begin and grow: which kind they are, what their records say before anything is
// computed.
#include <algorithm>

#include "engine/llama_engine.h"
#include "engine/segment/companions.h"
#include "store/base/clock.h"
#include "store/tenant_of.h"

namespace corpusd {

Status LlamaEngine::CheckFits(uint64_t tokens) const {
  const uint64_t limit = summary_.context_tokens - reserved_tokens();
  if (tokens <= limit) return OkStatus();
  return InvalidArgumentError(
      "the corpus has " + std::to_string(tokens) + " tokens; an exact corpus of this model may " +
      "have at most " + std::to_string(limit) + " (context " +
      std::to_string(summary_.context_tokens) + ", less " + std::to_string(reserved_tokens()) +
      " kept for a question and its answer): ingest less text");
}

Status LlamaEngine::MeasureWhole(CorpusRecord* record) const {
  ASSIGN_OR_RETURN(const KvFormat bf16, model_->Format("bf16"));
  record->whole_blocks = CorpusChain(*record, kBlockTokens).blocks();
  record->bf16_bytes = record->whole_blocks * bf16.BlockBytes();
  return OkStatus();
}

Result<SegmentRule> LlamaEngine::RuleOf(const CorpusRequest& request, uint64_t tokens) const {
  if (request.mode == "exact") return SegmentRule{};
  if (request.mode != "auto" && request.mode != "segmented" && !request.mode.empty()) {
    return InvalidArgumentError("mode '" + request.mode + "' is none of auto, exact, segmented");
  }
  if (request.mode == "segmented" || request.update) {
    if (model_->config().IsPlain()) return kSegmentRule;
    return UnimplementedError("segmented corpora of '" + summary_.architecture +
                              "' models are not in this version: use exact");
  }
  if (!model_->config().IsPlain()) return SegmentRule{};
  return CheckFits(tokens).ok() ? SegmentRule{} : kSegmentRule;
}

// Ok if one preamble, one window and a question fit the model's context together.
Status LlamaEngine::CheckSegmentsFit(const CorpusRecord& record) const {
  const uint64_t limit = summary_.context_tokens - reserved_tokens();
  const uint64_t segment = record.segments.window_tokens + record.segments.overlap_tokens;
  const uint64_t preamble = record.sources.front().first_token;
  if (record.tokens > kSegmentedTokensMax) {
    return InvalidArgumentError("the corpus has " + std::to_string(record.tokens) +
                                " tokens; a segmented corpus may have at most " +
                                std::to_string(kSegmentedTokensMax));
  }
  if (preamble + segment <= limit) return OkStatus();
  return InvalidArgumentError("the preamble has " + std::to_string(preamble) +
                              " tokens; beside a segment of " + std::to_string(segment) +
                              " the model's context leaves room for " +
                              std::to_string(limit - std::min(limit, segment)));
}

// What an update keeps of the corpus whose place it will take: its format, its preamble, and the
// roots unless there are new ones.
Status LlamaEngine::BeginUpdate(const CorpusRequest& request, CorpusRecord* record,
                                std::vector<TokenId>* tokens) {
  ASSIGN_OR_RETURN(const CorpusRecord base, store_->GetCorpus(request.name));
  if (base.segments.window_tokens == 0) {
    return FailedPreconditionError("corpus '" + base.name +
                                   "' is exact and cannot be updated: append to it, or ingest it "
                                   "again with --mode segmented");
  }
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfRecord(base));
  ASSIGN_OR_RETURN(const std::vector<TokenId> old_tokens, store_->CorpusTokens(request.name));
  const auto preamble = std::span(old_tokens).first(base.sources.front().first_token);
  const uint64_t prefix = record->sources.front().first_token;
  tokens->erase(tokens->begin(), tokens->begin() + static_cast<ptrdiff_t>(prefix));
  tokens->insert(tokens->begin(), preamble.begin(), preamble.end());
  std::vector<CorpusSource> sources(record->sources.begin(), record->sources.end());
  for (CorpusSource& source : sources) {
    source.first_token = source.first_token - prefix + preamble.size();
  }
  record->sources = std::move(sources);
  record->name = UpdateName(base.name);
  record->replaces = base.name;
  record->segments = base.segments;
  record->kv_format = base.kv_format;
  record->block_bytes = layout.blocks.BlockBytes();
  record->identity = base.identity;
  record->root = base.root;
  if (record->roots.empty()) record->roots = base.roots;
  // What an earlier update left, cancelled or failed: its blocks are found again by their digests.
  const Status removed = store_->RemoveCorpus(record->name);
  return removed.code() == StatusCode::kNotFound ? OkStatus() : removed;
}

Result<CorpusRecord> LlamaEngine::CreateCorpus(const CorpusRequest& request,
                                               std::unique_ptr<CorpusTokenizer> tokenizer) {
  CorpusRecord record;
  record.name = request.name;
  ASSIGN_OR_RETURN(record.segments, RuleOf(request, tokenizer->tokens()));
  if (IsSegmented(record)) {
    tokenizer->NameDocuments();
  } else {
    RETURN_IF_ERROR(CheckFits(tokenizer->tokens()));
  }
  record.mode = IsSegmented(record) ? "segmented" : "exact";
  record.skipped_files = request.skipped_files;
  record.expires_at_ms = request.expires_at_ms;
  record.priority = request.priority;
  record.pin = request.pin;
  record.roots = request.roots;
  std::vector<TokenId> tokens = tokenizer->TakeTokens();
  record.sources = tokenizer->TakeSources();
  if (request.update) {
    RETURN_IF_ERROR(BeginUpdate(request, &record, &tokens));
  } else {
    ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfFormat(request.kv_format));
    record.kv_format = KvFormatName(layout.blocks);
    record.block_bytes = StoredBytes(layout.OfPart(layout.blocks, 0));
    record.parts = PartsOf(layout, tokens.size());
    record.identity =
        IdentityOf(layout, record.segments, SaltOf(options_.tenant_salt, TenantOf(record.name)));
    record.root = ChainRoot(record.identity);
  }
  record.tokens = tokens.size();
  if (IsSegmented(record)) RETURN_IF_ERROR(CheckSegmentsFit(record));
  RETURN_IF_ERROR(MeasureWhole(&record));
  return store_->CreateCorpus(std::move(record), tokens);
}

// The old corpus stays for a while, so that a change that is reverted computes nothing.
Status LlamaEngine::TakePlace(const CorpusRecord& record) {
  return store_
      ->ReplaceCorpus(record.name, record.replaces, PreviousName(record.replaces),
                      WallTimeMs() + kPreviousKeptMs)
      .status();
}

Result<CorpusRecord> LlamaEngine::AppendCorpus(std::string_view name,
                                               std::unique_ptr<CorpusTokenizer> tokenizer) {
  ASSIGN_OR_RETURN(CorpusRecord record, store_->GetCorpus(name));
  // Of an evicted one all tokens are there: its prefill computes what left with what is new.
  if (record.state != CorpusState::kReady && record.state != CorpusState::kEvicted) {
    return NotReadyError("corpus '" + record.name + "' is " +
                         std::string(CorpusStateText(record.state)) +
                         ": append to it when it is ready");
  }
  if (IsSegmented(record)) {
    return FailedPreconditionError("corpus '" + record.name +
                                   "' is segmented: give it other sources with corpusctl update");
  }
  ASSIGN_OR_RETURN(const KvLayout layout, LayoutOfRecord(record));
  ASSIGN_OR_RETURN(std::vector<TokenId> tokens, store_->CorpusTokens(name));
  RETURN_IF_ERROR(CheckFits(tokens.size() + tokenizer->tokens()));
  const std::vector<TokenId> added = tokenizer->TakeTokens();
  // The last run is computed anew unless it is whole, so that the result is that of one ingest.
  const size_t whole_tokens = std::min(tokens.size(), record.chain.size() * kBlockTokens);
  const size_t kept_tokens = whole_tokens / kRunTokens * kRunTokens;
  record.chain.resize(kept_tokens / kBlockTokens);
  record.durable_tokens = kept_tokens;
  record.state = CorpusState::kQueued;
  for (CorpusSource& source : tokenizer->TakeSources()) record.sources.push_back(std::move(source));
  tokens.insert(tokens.end(), added.begin(), added.end());
  record.tokens = tokens.size();
  const std::vector<CorpusPart> longer = PartsOf(layout, tokens.size());
  for (size_t p = 0; p < longer.size(); ++p) record.parts[p].blocks_max = longer[p].blocks_max;
  RETURN_IF_ERROR(MeasureWhole(&record));
  return store_->ReplaceTokens(record, tokens);
}

}  // namespace corpusd
