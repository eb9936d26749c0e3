#include "engine/ranks/ranked_prefill.h"

#include <algorithm>

#include "engine/prefill/prefill_runner.h"

namespace corpusd {

Result<std::unique_ptr<RankedPrefill>> RankedPrefill::Create(const Model& model,
                                                             RankedBackend& backend,
                                                             Transport& transport,
                                                             const KvLayout& layout,
                                                             const RankedPrefillOptions& options) {
  const ModelConfig& config = model.config();
  RankedPrefillOptions rounded = options;
  uint32_t unit = kBlockTokens;
  for (const LayerConfig& layer : config.layer_configs) {
    if (layer.span == AttentionSpan::kWindow) {
      return UnimplementedError("layers that see a window are not computed by several ranks: '" +
                                config.architecture + "' has them");
    }
    if (layer.span != AttentionSpan::kChunk) continue;
    if (layout.parts == nullptr) {
      return InvalidArgumentError("the layout of a model with chunks must keep its layers apart");
    }
    if (layer.span_tokens % kBlockTokens != 0) {
      return UnimplementedError("chunks of " + std::to_string(layer.span_tokens) +
                                " tokens are no multiple of a block's " +
                                std::to_string(kBlockTokens));
    }
    unit = std::max(unit, layer.span_tokens);
  }
  // Local layers need nothing of another rank if no chunk is cut.
  rounded.unit_tokens = (std::max(options.unit_tokens, unit) + unit - 1) / unit * unit;
  rounded.rank_tokens =
      std::max(options.rank_tokens / rounded.unit_tokens, 1u) * rounded.unit_tokens;
  std::unique_ptr<RankedPrefill> prefill(
      new RankedPrefill(model, backend, transport, layout, rounded));
  KvFormat layer = layout.blocks;
  layer.layers = 1;
  prefill->kv_bytes_token_ = layer.LayerBytes() / kBlockTokens;
  prefill->query_bytes_row_ = uint64_t{config.q_heads} * config.head_dim * sizeof(float);
  return prefill;
}

bool RankedPrefill::Keeps(uint64_t block) const {
  return placement().RankOfPage(block + (sink_tokens() > 0 ? 1 : 0)) == transport_.rank();
}

std::unique_ptr<KvSequence> RankedPrefill::SequenceOver(uint64_t tokens, bool own_blocks) const {
  auto kv = std::make_unique<KvSequence>(own_blocks ? layout_.OfBlocks() : layout_);
  for (uint64_t block = 0; block * kBlockTokens < tokens; ++block) {
    const auto found = history_.find(block);
    const uint64_t left = tokens - block * kBlockTokens;
    const auto local = local_.find(block);
    kv->AddShared({found == history_.end() ? RemotePage() : found->second,
                   static_cast<uint32_t>(std::min<uint64_t>(left, kBlockTokens)), 0,
                   local == local_.end() ? std::span<const std::byte* const>() : local->second});
  }
  return kv;
}

RankedPass RankedPrefill::PassOver(uint64_t first, uint64_t end) const {
  RankedPass pass;
  pass.first_token = first;
  pass.tokens = end;
  pass.sink_tokens = sink_tokens();
  pass.pieces = DealRows(first, end, options_.unit_tokens, transport_.size());
  if (pass.pieces.empty()) return pass;
  bool keys = KeysTravel(end - first, first, kv_bytes_token_, query_bytes_row_);
  if (options_.travel != RankedPrefillOptions::Travel::kWhatIsLess) {
    keys = options_.travel == RankedPrefillOptions::Travel::kKeys;
  }
  pass.rows = keys ? RankedPass::Rows::kKeysTravel : RankedPass::Rows::kQueryTravel;
  return pass;
}

std::vector<bool> RankedPrefill::LocalLayers() const {
  std::vector<bool> local;
  for (const LayerConfig& layer : model_.config().layer_configs) {
    local.push_back(layer.span != AttentionSpan::kAll);
  }
  return local;
}

Status RankedPrefill::Run(std::span<const TokenId> tokens, uint64_t first,
                          const std::function<Status(const KeptBlock&)>& kept) {
  CHECK(first % kRunTokens == 0 && first % options_.unit_tokens == 0) << first;
  // One rank computes a last run of few rows with their own arithmetic: so do several, all alike,
  // and the begin of the chunk that the run may see.
  const uint64_t last_run = tokens.size() / kRunTokens * kRunTokens;
  const uint64_t few = tokens.size() - last_run;
  const bool few_last = few > 0 && few <= backend_.few_rows();
  const uint64_t dealt_end =
      few_last ? last_run / options_.unit_tokens * options_.unit_tokens : uint64_t{tokens.size()};
  const uint64_t segment = uint64_t{options_.rank_tokens} * transport_.size();
  Status status;
  while (status.ok() && first < tokens.size()) {
    const bool alike = first >= dealt_end;
    const uint64_t stop = !alike ? dealt_end : first < last_run ? last_run : tokens.size();
    uint64_t end = std::min(first + segment, stop);
    RankedPass pass = PassOver(first, end);
    if (alike || pass.pieces.empty()) {
      end = std::min<uint64_t>(first + options_.rank_tokens, stop);
      pass.tokens = end;
      pass.pieces.clear();
      pass.rows = RankedPass::Rows::kAlike;
    }
    status = RunSegment(tokens, pass, kept);
    first = end;
  }
  backend_.End();
  if (!status.ok()) transport_.Abort(status);
  return status;
}

Status RankedPrefill::RunSegment(std::span<const TokenId> tokens, const RankedPass& pass,
                                 const std::function<Status(const KeptBlock&)>& kept) {
  std::vector<RowPiece> pieces;
  if (pass.rows == RankedPass::Rows::kAlike) {
    pieces.push_back({pass.first_token, static_cast<uint32_t>(pass.tokens - pass.first_token)});
  } else {
    pieces = pass.pieces[transport_.rank()];
  }
  std::vector<TokenId> own;
  std::vector<std::shared_ptr<KvSequence>> computed;
  std::vector<SequenceRows> rows;
  for (const RowPiece& piece : pieces) {
    const auto ids = tokens.subspan(piece.first_position, piece.rows);
    own.insert(own.end(), ids.begin(), ids.end());
    computed.push_back(SequenceOver(piece.first_position, /*own_blocks=*/true));
    rows.push_back({computed.back().get(), piece.rows});
  }
  ASSIGN_OR_RETURN(const auto scratch, ForwardScratch::Create(backend_, model_.config(),
                                                              static_cast<uint32_t>(own.size())));
  backend_.Begin(pass, LocalLayers());
  // The last layer's attention, too: it deals out that layer's blocks.
  RETURN_IF_ERROR(model_.ForwardPacked(own, rows, *scratch, ForwardGoal::kHidden,
                                       [&] { return backend_.Synchronize().ok(); }));
  return GiveOut(pass, std::move(computed), pieces, kept);
}

Status RankedPrefill::GiveOut(const RankedPass& pass,
                              std::vector<std::shared_ptr<KvSequence>> computed,
                              const std::vector<RowPiece>& pieces,
                              const std::function<Status(const KeptBlock&)>& kept) {
  std::map<uint64_t, KeptBlock> blocks;
  const auto at = [&](uint64_t block) -> KeptBlock& {
    KeptBlock& here = blocks[block];
    here.block = block;
    here.tokens =
        static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens, pass.tokens - block * kBlockTokens));
    here.parts.resize(layout_.part_count());
    return here;
  };
  for (size_t p = 0; p < pieces.size(); ++p) {
    for (uint32_t part = 0; part < computed[p]->parts(); ++part) {
      uint64_t block = pieces[p].first_position / kBlockTokens;
      for (const KvSequence::OwnBlock& own : computed[p]->OwnBlocks(part)) {
        if (part > 0) local_[block].push_back(own.bytes.data());
        const bool given = part > 0 && pass.rows != RankedPass::Rows::kAlike;
        if (given || Keeps(block)) at(block).parts[part] = own.bytes;
        ++block;
      }
    }
  }
  for (auto& [block, buffer] : backend_.attention().TakeDealt()) {
    at(block).parts[0] = {buffer->data(), buffer->bytes()};
    dealt_.push_back(std::move(buffer));
  }
  computed_.insert(computed_.end(), computed.begin(), computed.end());
  for (const auto& [block, held] : blocks) {
    CHECK(block >= pass.first_token / kBlockTokens && block * kBlockTokens < pass.tokens) << block;
    if (!held.parts[0].empty()) history_[block] = held.parts[0].data();
    RETURN_IF_ERROR(kept(held));
  }
  return OkStatus();
}

}  // namespace corpusd
