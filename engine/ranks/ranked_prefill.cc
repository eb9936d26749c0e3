#include "engine/ranks/ranked_prefill.h"

#include <algorithm>

#include "engine/prefill/local_parts.h"
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
    if (layer.span == AttentionSpan::kAll) continue;
    if (layout.parts == nullptr) {
      return InvalidArgumentError("a model's layers with chunks or windows must be kept apart");
    }
    if (layer.span == AttentionSpan::kWindow) continue;
    if (layer.span_tokens % kBlockTokens != 0) {
      return UnimplementedError("chunks of " + std::to_string(layer.span_tokens) +
                                " tokens are no multiple of a block's " +
                                std::to_string(kBlockTokens));
    }
    unit = std::max(unit, layer.span_tokens);
  }
  // Local layers need nothing of another rank if no chunk is cut.
  rounded.unit_tokens = (std::max(options.unit_tokens, unit) + unit - 1) / unit * unit;
  // Whole spans of pages, if there is room for two a rank: they are dealt to who keeps them.
  const uint32_t spans = 2 * backend.attention().placement().span_pages * kBlockTokens;
  const bool whole = spans % rounded.unit_tokens == 0 && options.rank_tokens >= spans;
  const uint32_t round = whole ? spans : rounded.unit_tokens;
  rounded.rank_tokens = std::max(options.rank_tokens / round, 1u) * round;
  std::unique_ptr<RankedPrefill> prefill(
      new RankedPrefill(model, backend, transport, layout, rounded));
  const KvFormat& blocks = layout.blocks;
  prefill->kv_bytes_token_ = blocks.BlockBytes() / blocks.layers / kBlockTokens;
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
  if (transport_.size() == 1) return pass;  // one piece, which it has alone
  pass.pieces = DealRows(first, end, options_.unit_tokens, transport_.size(),
                         uint64_t{placement().span_pages} * kBlockTokens);
  if (pass.pieces.empty()) return pass;
  bool keys = KeysTravel(end - first, first, kv_bytes_token_, query_bytes_row_);
  if (options_.travel != RankedPrefillOptions::Travel::kWhatIsLess) {
    keys = options_.travel == RankedPrefillOptions::Travel::kKeys;
  }
  pass.rows = keys ? RankedPass::Rows::kKeysTravel : RankedPass::Rows::kQueryTravel;
  return pass;
}

bool RankedPrefill::HasWindows() const {
  if (layout_.parts == nullptr) return false;
  const auto& parts = layout_.parts->parts;
  return std::any_of(parts.begin(), parts.end(), [](const LayerPart& p) { return p.window; });
}

Status RankedPrefill::MakeHalo(const RankedPass& pass, const RowPiece& piece) {
  for (uint32_t part = 1; part < layout_.part_count(); ++part) {
    const LayerPart& layers = layout_.parts->parts[part];
    if (!layers.window) continue;
    const BlockRange seen = NeededBlocks(layers, piece.first_position);
    uint64_t block = std::max(seen.first, pass.first_token / kBlockTokens);
    for (; block < seen.end; ++block) {
      const uint64_t bytes = StoredBytes(layout_.OfPart(layout_.blocks, part));
      ASSIGN_OR_RETURN(auto page, backend_.Allocate(bytes, "KV page of another rank"));
      Local(block)[part - 1] = page->data();
      halo_.push_back({block, part, std::move(page)});
    }
  }
  return OkStatus();
}

Status RankedPrefill::KeepWindows(const RankedPass& pass) {
  for (const HaloPage& halo : halo_) {
    const std::byte*& here = Local(halo.block)[halo.part - 1];
    if (here == halo.page->data()) here = nullptr;
  }
  halo_.clear();
  std::map<std::pair<uint64_t, uint32_t>, std::unique_ptr<Buffer>> kept;
  for (uint32_t part = 1; part < layout_.part_count(); ++part) {
    const LayerPart& layers = layout_.parts->parts[part];
    if (!layers.window) continue;
    const BlockRange seen = NeededBlocks(layers, pass.tokens);
    for (uint64_t block = seen.first; block < seen.end; ++block) {
      auto& page = kept[{block, part}];
      if (block * kBlockTokens < pass.first_token) {  // of a pass before, or of the history
        page = std::move(windows_[{block, part}]);
        continue;
      }
      const uint64_t bytes = StoredBytes(layout_.OfPart(layout_.blocks, part));
      ASSIGN_OR_RETURN(page, backend_.Allocate(bytes, "KV page of a window"));
      const auto computed = fresh_.find(block);
      if (computed != fresh_.end()) {
        RETURN_IF_ERROR(backend_.Copy(page->data(), computed->second[part].data(), bytes));
      }
      if (pass.rows != RankedPass::Rows::kAlike) {
        RETURN_IF_ERROR(transport_.Broadcast(pass.ComputedBy(block), {page->data(), bytes}));
      }
      Local(block)[part - 1] = page->data();
    }
  }
  windows_ = std::move(kept);
  return OkStatus();
}

RankedPass RankedPrefill::NextPass(uint64_t first, uint64_t tokens) const {
  // One rank computes a last run of few rows with their own arithmetic: so do several, all alike,
  // and the begin of the chunk that the run may see.
  const uint64_t last_run = tokens / kRunTokens * kRunTokens;
  const uint64_t few = tokens - last_run;
  const bool few_last = few > 0 && few <= backend_.few_rows();
  const uint64_t dealt_end =
      few_last ? last_run / options_.unit_tokens * options_.unit_tokens : tokens;
  const bool alike = first >= dealt_end;
  const uint64_t stop = !alike ? dealt_end : first < last_run ? last_run : tokens;
  RankedPass pass =
      PassOver(first, std::min(first + uint64_t{options_.rank_tokens} * transport_.size(), stop));
  if (alike || pass.pieces.empty()) {
    pass.tokens = std::min<uint64_t>(first + options_.rank_tokens, stop);
    pass.pieces.clear();
    pass.rows = RankedPass::Rows::kAlike;
  }
  return pass;
}

Result<uint64_t> RankedPrefill::RunNext(std::span<const TokenId> tokens, uint64_t first,
                                        const std::function<Status(const KeptBlock&)>& kept) {
  const RankedPass pass = NextPass(first, tokens.size());
  const Status status = RunSegment(tokens, pass, kept);
  backend_.End();
  if (status.ok()) return pass.tokens;
  transport_.Abort(status);
  return status;
}

Status RankedPrefill::Run(std::span<const TokenId> tokens, uint64_t first,
                          const std::function<Status(const KeptBlock&)>& kept) {
  CHECK(first % kRunTokens == 0 && first % options_.unit_tokens == 0) << first;
  while (first < tokens.size()) {
    ASSIGN_OR_RETURN(first, RunNext(tokens, first, kept));
  }
  return OkStatus();
}

void RankedPrefill::DropComputed() {
  fresh_.clear();
  dealt_.clear();
  // What layers see of a chunk that goes on lies with what was computed.
  if (layout_.parts != nullptr && end_ % options_.unit_tokens != 0) return;
  computed_.clear();
  // What windows still see is in pages of its own.
  std::erase_if(local_, [&](const auto& local) {
    const auto at = windows_.lower_bound({local.first, 0});
    return at == windows_.end() || at->first.first != local.first;
  });
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
    if (pass.rows != RankedPass::Rows::kAlike) RETURN_IF_ERROR(MakeHalo(pass, piece));
    computed.push_back(SequenceOver(piece.first_position, /*own_blocks=*/true));
    rows.push_back({computed.back().get(), piece.rows});
  }
  ASSIGN_OR_RETURN(const auto scratch, ForwardScratch::Create(backend_, model_.config(),
                                                              static_cast<uint32_t>(own.size())));
  backend_.Begin(pass, ReachOf(model_.config()));
  // The last layer's attention, too: it deals out that layer's blocks.
  RETURN_IF_ERROR(model_.ForwardPacked(own, rows, *scratch, ForwardGoal::kHidden,
                                       [&] { return backend_.Synchronize().ok(); }));
  return GiveOut(pass, std::move(computed), pieces, kept);
}

Status RankedPrefill::GiveOut(const RankedPass& pass,
                              std::vector<std::shared_ptr<KvSequence>> computed,
                              const std::vector<RowPiece>& pieces,
                              const std::function<Status(const KeptBlock&)>& kept) {
  end_ = pass.tokens;
  fresh_.clear();
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
        if (part > 0) Local(block)[part - 1] = own.bytes.data();
        fresh_[block].push_back(own.bytes);
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
  if (HasWindows()) RETURN_IF_ERROR(KeepWindows(pass));
  for (const auto& [block, held] : blocks) {
    CHECK(block >= pass.first_token / kBlockTokens && block * kBlockTokens < pass.tokens) << block;
    if (!held.parts[0].empty()) history_[block] = held.parts[0].data();
    RETURN_IF_ERROR(kept(held));
  }
  return OkStatus();
}

}  // namespace corpusd
