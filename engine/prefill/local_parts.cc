#include "engine/prefill/local_parts.h"

#include <algorithm>

#include "engine/prefill/prefill_runner.h"

namespace corpusd {
namespace {

// Blocks whose parts are looked up at once.
constexpr uint64_t kPieceBlocks = 512;

uint64_t BlocksOf(uint64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

// In order, without gaps between neighbours that touch. REQUIRES: in order of their begins.
std::vector<BlockRange> Joined(const std::vector<BlockRange>& ranges) {
  std::vector<BlockRange> joined;
  for (const BlockRange& range : ranges) {
    if (range.first >= range.end) continue;
    if (!joined.empty() && range.first <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

std::vector<BlockRange> Common(const std::vector<BlockRange>& a, const std::vector<BlockRange>& b) {
  std::vector<BlockRange> common;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const uint64_t end = std::min(a[i].end, b[j].end);
    common.push_back({std::max(a[i].first, b[j].first), end});
    if (a[i].end == end) ++i;
    if (j < b.size() && b[j].end == end) ++j;
  }
  return Joined(common);
}

uint64_t RunBegin(uint64_t tokens) { return tokens / kRunTokens * kRunTokens; }

// Tokens between the restore points of a window.
uint64_t PointDistance(const LayerPart& part) {
  return (kPointWindows * part.span_tokens + kRunTokens - 1) / kRunTokens * kRunTokens;
}

}  // namespace

uint64_t FirstSeen(const LayerPart& part, uint64_t position) {
  CHECK(part.span_tokens > 0) << part.kind;
  if (!part.window) return position / part.span_tokens * part.span_tokens;
  return position + 1 - std::min<uint64_t>(position + 1, part.span_tokens);
}

BlockRange NeededBlocks(const LayerPart& part, uint64_t position) {
  const uint64_t first = FirstSeen(part, position);
  if (first >= position) return {};
  return {first / kBlockTokens, BlocksOf(position)};
}

std::vector<BlockRange> HeldBlocks(const LayerPart& part, uint64_t tokens) {
  std::vector<BlockRange> ranges;
  if (part.window) {
    const uint64_t distance = PointDistance(part);
    for (uint64_t point = distance; point < tokens; point += distance) {
      ranges.push_back(NeededBlocks(part, point));
    }
  }
  ranges.push_back(NeededBlocks(part, RunBegin(tokens)));
  ranges.push_back(NeededBlocks(part, tokens));
  std::sort(ranges.begin(), ranges.end(),
            [](const BlockRange& a, const BlockRange& b) { return a.first < b.first; });
  return Joined(ranges);
}

std::vector<CorpusPart> PartsOf(const KvLayout& layout, uint64_t tokens) {
  std::vector<CorpusPart> parts;
  for (size_t p = 1; p < layout.part_count(); ++p) {
    const LayerPart& part = layout.parts->parts[p];
    const KvFormat format = layout.OfPart(layout.blocks, p);
    const uint64_t points = part.window ? tokens / PointDistance(part) : 0;
    // What is seen from a place and from the begin of its run, begun blocks at both ends included.
    const uint64_t most =
        BlocksOf(part.span_tokens + kRunTokens) + 1 + points * (BlocksOf(part.span_tokens) + 1);
    parts.push_back({part.kind,
                     StoredBytes(format),
                     StoredSections(format),
                     std::min(most, BlocksOf(tokens)),
                     {}});
  }
  return parts;
}

void HoldParts(const KvLayout& layout, uint64_t tokens, uint64_t first_new,
               std::vector<CorpusPart>* parts) {
  for (size_t p = 0; p < parts->size(); ++p) {
    std::vector<BlockRange>& held = (*parts)[p].held;
    held.push_back({first_new, BlocksOf(tokens)});
    held = Common(HeldBlocks(layout.parts->parts[p + 1], tokens), Joined(held));
  }
}

Result<bool> StoredParts::Has(uint32_t part, uint64_t block) {
  const uint64_t piece = block / kPieceBlocks;
  const auto [known, inserted] = known_[part].try_emplace(piece);
  if (inserted) {
    const uint64_t first = piece * kPieceBlocks;
    std::vector<Digest> digests;
    for (uint64_t b = first; b < std::min<uint64_t>(first + kPieceBlocks, chain_.size()); ++b) {
      digests.push_back(PartDigest(chain_[b], layout_.parts->parts[part].kind));
    }
    ASSIGN_OR_RETURN(const auto presence, store_.Presence(digests));
    for (const BlockPresence here : presence) {
      known->second.push_back(here == BlockPresence::kStored);
    }
  }
  return known->second[block % kPieceBlocks];
}

Result<bool> StoredParts::HasAll(uint64_t position) {
  for (uint32_t part = 1; part < layout_.part_count(); ++part) {
    const BlockRange needed = NeededBlocks(layout_.parts->parts[part], position);
    for (uint64_t block = needed.end; block-- > needed.first;) {
      ASSIGN_OR_RETURN(const bool here, Has(part, block));
      if (!here) return false;
    }
  }
  return true;
}

Result<uint64_t> StoredParts::RestorePoint(uint64_t tokens) {
  for (uint64_t point = tokens; point > 0; point = RunBegin(point - 1)) {
    ASSIGN_OR_RETURN(const bool all, HasAll(point));
    if (all) return point;
  }
  return uint64_t{0};
}

Status StoredParts::Hold(uint64_t tokens, std::vector<CorpusPart>* parts) {
  for (uint32_t part = 1; part < layout_.part_count(); ++part) {
    std::vector<BlockRange> held;
    for (const BlockRange& range : HeldBlocks(layout_.parts->parts[part], tokens)) {
      for (uint64_t block = range.first; block < range.end; ++block) {
        ASSIGN_OR_RETURN(const bool here, Has(part, block));
        if (here) held.push_back({block, block + 1});
      }
    }
    (*parts)[part - 1].held = Joined(held);
  }
  return OkStatus();
}

Result<bool> LocalPages::Fetch(BlockStore& store, const KvLayout& layout,
                               std::span<const Digest> chain, uint64_t position,
                               FetchStats* stats) {
  bool whole = true;
  for (uint32_t part = 1; part < layout.part_count(); ++part) {
    const BlockRange needed = NeededBlocks(layout.parts->parts[part], position);
    std::vector<Digest> wanted;
    std::vector<uint64_t> blocks;
    for (uint64_t block = needed.first; block < needed.end; ++block) {
      if (pages_.contains({part, block})) continue;
      CHECK(block < chain.size()) << block << " of " << chain.size() << " blocks";
      wanted.push_back(PartDigest(chain[block], layout.parts->parts[part].kind));
      blocks.push_back(block);
    }
    std::erase_if(pages_, [&](const auto& page) {
      const auto& [its_part, block] = page.first;
      return its_part == part && (block < needed.first || block >= needed.end);
    });
    if (wanted.empty()) continue;
    ASSIGN_OR_RETURN(const auto refs, store.Fetch(wanted, stats));
    for (size_t i = 0; i < refs.size(); ++i) {
      whole = whole && refs[i].valid();
      if (refs[i].valid()) {
        pages_[{part, blocks[i]}] = {refs[i], nullptr, nullptr, refs[i].bytes().data()};
      }
    }
  }
  return whole;
}

Status LocalPages::Place(Backend& backend) {
  if (backend.host_addressable()) return OkStatus();
  for (auto& [place, page] : pages_) {
    if (!page.leased.valid() || page.placed != nullptr) continue;
    const auto bytes = page.leased.bytes();
    ASSIGN_OR_RETURN(page.placed, backend.Allocate(bytes.size(), "pages that few tokens see"));
    RETURN_IF_ERROR(backend.Copy(page.placed->data(), bytes.data(), bytes.size()));
    page.bytes = page.placed->data();
  }
  return OkStatus();
}

void LocalPages::Keep(std::shared_ptr<const KvSequence> computed, uint64_t first_block) {
  for (uint32_t part = 1; part < computed->parts(); ++part) {
    uint64_t block = first_block;
    for (const KvSequence::OwnBlock& own : computed->OwnBlocks(part)) {
      pages_[{part, block++}] = {{}, computed, nullptr, own.bytes.data()};
    }
  }
}

size_t LocalPages::first_block() const {
  uint64_t first = UINT64_MAX;
  for (const auto& [place, page] : pages_) first = std::min(first, place.second);
  return first;
}

std::vector<const std::byte*> LocalPages::Of(uint64_t block, size_t parts) const {
  std::vector<const std::byte*> bytes;
  for (uint32_t part = 1; part < parts; ++part) {
    const auto page = pages_.find({part, block});
    bytes.push_back(page == pages_.end() ? nullptr : page->second.bytes);
  }
  return bytes;
}

}  // namespace corpusd
