#include "engine/prefill/exact_prefill.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace corpusd {
namespace {

// Activations and own pages of one call: half a GiB beside weights and history.
constexpr uint64_t kCallBytes = uint64_t{512} << 20;
// Of one layer's attention over what lies before a call: a fifth of a second of a Hopper device,
// in which no question gets its turn.
constexpr uint64_t kLayerFlop = 100'000'000'000'000;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Whether rows get the same bits in a call of several runs. Layers with a window turn keys to the
// first page that a call sees. A chunk may be cut by runs: the pieces must not be so few rows that
// they have another arithmetic.
bool RunsJoin(const Backend& backend, const ModelConfig& config) {
  return std::ranges::all_of(config.layer_configs, [&](const LayerConfig& layer) {
    if (layer.span == AttentionSpan::kWindow) return false;
    return layer.span == AttentionSpan::kAll ||
           std::gcd(layer.span_tokens, kRunTokens) > backend.few_rows();
  });
}

// Activations and keys and values of one token.
uint64_t TokenBytes(const ModelConfig& c, const KvLayout& layout) {
  const uint64_t floats = 2 * uint64_t{c.hidden} + 2 * c.q_heads * c.head_dim +
                          2 * c.kv_heads * c.head_dim + 3 * uint64_t{c.FeedForwardMax()} +
                          (c.experts == 0 ? 0 : 2 * c.hidden + c.experts);
  return floats * sizeof(float) + layout.blocks.BlockBytes() / kBlockTokens;
}

}  // namespace

uint64_t TokensOfCall(const ComputeContext& context, const KvLayout& layout, uint64_t before) {
  const ModelConfig& config = context.model.config();
  const uint64_t wanted = context.backend.batch_rows();
  if (wanted <= kRunTokens || !RunsJoin(context.backend, config)) return kRunTokens;
  const uint64_t flop_of_row =
      4 * uint64_t{config.q_heads} * config.head_dim * std::max<uint64_t>(before, 1);
  const uint64_t tokens =
      std::min({wanted, kCallBytes / TokenBytes(config, layout), kLayerFlop / flop_of_row});
  return std::max<uint64_t>(tokens / kRunTokens, 1) * kRunTokens;
}

ExactPrefill::ExactPrefill(const ComputeContext& context, BlockStore& store, const ExactText& text,
                           CorpusRecord* record, PrefillProgress* progress)
    : context_(context),
      store_(store),
      text_(text),
      record_(*record),
      progress_(*progress),
      one_run_(text.run_by_run) {
  history_.leased_max = LeasedBlocksMax(context.backend, store, text.layout, text.chain.size());
}

// Only whole runs go together: the last one may have few rows.
size_t ExactPrefill::EndOfCall(size_t first_block) const {
  const size_t begin = first_block / kRunBlocks * kRunBlocks;
  const size_t whole = text_.tokens.size() / kRunTokens * kRunBlocks;
  size_t blocks = kRunBlocks;
  if (begin == first_block && !one_run_) {
    const uint64_t before = first_block * uint64_t{kBlockTokens};
    blocks = TokensOfCall(context_, text_.layout, before) / kBlockTokens;
  }
  const size_t end = std::min(begin + blocks, text_.chain.size());
  return begin < whole ? std::min(end, whole) : end;
}

Status ExactPrefill::Next(const std::stop_token& stop) {
  const size_t first = computed_blocks();
  const size_t run_end = std::min(first / kRunBlocks * kRunBlocks + kRunBlocks, text_.chain.size());
  if (run_end <= text_.known_blocks) {
    RETURN_IF_ERROR(Finish());
    const uint64_t tokens =
        std::min(run_end * uint64_t{kBlockTokens}, uint64_t{text_.tokens.size()}) -
        first * kBlockTokens;
    const Status adopted = Adopt(text_.chain.subspan(first, run_end - first), tokens);
    // Gone since it was looked up: computed like any other.
    if (adopted.code() != StatusCode::kNotFound) return adopted;
  }
  auto computed = Compute(first, EndOfCall(first), stop);
  if (computed.status().code() == StatusCode::kResourceExhausted && EndOfCall(first) > run_end) {
    one_run_ = true;  // from now on: a device's memory may be lent to others
    scratch_.reset();
    computed = Compute(first, run_end, stop);
  }
  RETURN_IF_ERROR(Finish());
  RETURN_IF_ERROR(computed.status());
  return BeginToPublish(*std::move(computed));
}

Status ExactPrefill::Adopt(std::span<const Digest> blocks, uint64_t tokens) {
  ASSIGN_OR_RETURN(record_, store_.AdoptBlocks(record_, blocks));
  progress_.reused_tokens += tokens;
  progress_.done_tokens = record_.durable_tokens;
  return OkStatus();
}

Result<std::shared_ptr<KvSequence>> ExactPrefill::SequenceBefore(const std::stop_token& stop) {
  const KvLayout layout = text_.layout.OfBlocks();
  LeasedCorpus& leased = history_.leased;
  if (computed_blocks() > history_.leased_max) {
    RETURN_IF_ERROR(Finish());
    leased.computed_tokens = 0;
    return SequenceInTurn(store_, record_, layout, &history_);
  }
  // The leases of the calls before stay: only what became durable since is fetched.
  leased.computed_tokens = computed_ ? computed_->end_token : 0;
  RETURN_IF_ERROR(ExtendLease(context_, store_, record_, text_.layout, text_.tokens,
                              ComputePriority::kPrefill, stop, &leased));
  PlaceOnDevice(context_, store_, record_.chain, leased.refs, stop, &leased.placed);
  RETURN_IF_ERROR(leased.local.Place(context_.backend));
  std::vector<KvSequence::OwnBlock> behind;
  if (computed_) behind = computed_->kv->OwnBlocks();
  return std::shared_ptr<KvSequence>(
      SequenceOver(leased.refs, layout, leased.placed, &leased.local, behind));
}

Result<ExactPrefill::Computed> ExactPrefill::Compute(size_t first_block, size_t end_block,
                                                     const std::stop_token& stop) {
  const auto start = std::chrono::steady_clock::now();
  const uint64_t first_token = first_block * uint64_t{kBlockTokens};
  Computed computed;
  computed.first_block = first_block;
  computed.end_token = std::min(end_block * uint64_t{kBlockTokens}, uint64_t{text_.tokens.size()});
  const auto tokens = text_.tokens.subspan(first_token, computed.end_token - first_token);
  ASSIGN_OR_RETURN(computed.kv, SequenceBefore(stop));
  if (scratch_ == nullptr || scratch_->rows() < tokens.size()) {
    scratch_.reset();
    ASSIGN_OR_RETURN(scratch_, ForwardScratch::Create(context_.backend, context_.model.config(),
                                                      static_cast<uint32_t>(tokens.size())));
  }
  RETURN_IF_ERROR(
      ComputeRun(context_, tokens, *computed.kv, *scratch_, ComputePriority::kPrefill, stop));
  computed.seconds = SecondsSince(start);
  ASSIGN_OR_RETURN(computed.writes, BlockWrites(context_.backend, *computed.kv, text_.chain,
                                                text_.tokens, first_block));
  return computed;
}

Status ExactPrefill::BeginToPublish(Computed computed) {
  CHECK(!published_.valid()) << "blocks are on their way";
  if (text_.layout.parts != nullptr) {
    history_.leased.local.Keep(computed.kv, computed.first_block);
  }
  computed_ = std::move(computed);
  published_ = std::async(std::launch::async, [this, record = record_] { return Publish(record); });
  return OkStatus();
}

Result<CorpusRecord> ExactPrefill::Publish(CorpusRecord record) const {
  const Computed& computed = *computed_;
  const uint64_t tokens = computed.end_token - computed.first_block * uint64_t{kBlockTokens};
  while (true) {
    record.prefill_seconds += computed.seconds;
    record.prefill_tokens += tokens;
    HoldParts(text_.layout, computed.end_token, computed.first_block, &record.parts);
    auto published = store_.Publish(record, computed.writes);
    if (published.status().code() != StatusCode::kAborted) return published;
    // Pinned or touched meanwhile: the blocks are the same.
    ASSIGN_OR_RETURN(record, store_.GetCorpus(record.name));
    if (record.chain.size() != computed.first_block) return published;
  }
}

Status ExactPrefill::Finish() {
  if (!published_.valid()) return OkStatus();
  auto published = published_.get();
  // Here: its pages may be a device's, and a sequence over them has ended.
  const Computed computed = *std::move(computed_);
  computed_.reset();
  ASSIGN_OR_RETURN(record_, std::move(published));
  for (const BlockWrite& write : computed.writes) progress_.written_bytes += write.payload.size();
  if (history_.reader != nullptr) progress_.history = history_.reader->reads();
  progress_.done_tokens = record_.durable_tokens;
  return OkStatus();
}

void ExactPrefill::ForgetHistory() {
  CHECK(!published_.valid()) << "blocks are on their way";
  history_.leased = {};
  history_.reader.reset();
}

}  // namespace corpusd
