#include "engine/ranks/rank_pages.h"

#include <algorithm>
#include <map>

#include "engine/prefill/local_parts.h"
#include "engine/ranks/ranked_attention.h"

namespace corpusd {

RankPages::RankPages(const KvLayout& layout, Text text, const Placement& placement, uint32_t rank,
                     bool all)
    : layout_(layout), text_(std::move(text)) {
  const uint64_t sinks = layout_.sinks == nullptr ? 0 : 1;
  for (uint64_t block = 0; block < text_.chain.size(); ++block) {
    if (all || placement.RankOfPage(block + sinks) == rank) {
      wanted_.push_back({0, block, text_.chain[block]});
    }
  }
  for (uint32_t part = 1; part < layout_.part_count(); ++part) {
    const LayerPart& layers = layout_.parts->parts[part];
    const BlockRange seen = NeededBlocks(layers, text_.tokens);
    for (uint64_t block = seen.first; block < seen.end; ++block) {
      wanted_.push_back({part, block, PartDigest(text_.chain[block], layers.kind)});
    }
  }
  held_.resize(wanted_.size());
}

uint32_t RankPages::TokensOf(uint64_t block) const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(kBlockTokens, text_.tokens - block * kBlockTokens));
}

std::vector<Digest> RankPages::FindHeld(BlockHolder& holder) {
  std::vector<Digest> digests;
  for (const WantedBlock& wanted : wanted_) {
    if (wanted.part == 0) digests.push_back(wanted.digest);
  }
  // They come first.
  auto held = holder.Find(digests);
  std::move(held.begin(), held.end(), held_.begin());
  digests.clear();
  for (size_t i = 0; i < wanted_.size(); ++i) {
    if (!Has(i)) digests.push_back(wanted_[i].digest);
  }
  return digests;
}

Status RankPages::Put(std::span<const BlockRef> refs, BlockHolder& holder) {
  std::vector<Given> given;
  size_t next = 0;
  for (size_t i = 0; i < wanted_.size(); ++i) {
    if (Has(i)) continue;
    CHECK(next < refs.size()) << refs.size() << " blocks are too few";
    const BlockRef& ref = refs[next++];
    if (ref.valid()) given.push_back({i, ref});
  }
  return Put(given, holder);
}

Status RankPages::Put(std::span<const Given> given, BlockHolder& holder) {
  std::vector<BlockHolder::Block> blocks;
  for (const auto& [wanted, ref] : given) {
    const auto& [part, block, digest] = wanted_[wanted];
    const KvFormat format = layout_.OfPart(layout_.blocks, part);
    CHECK(ref.bytes().size() == StoredBytes(format)) << "block of a lease";
    blocks.push_back({ref, {text_.chain.front(), block}, StoredSections(format), part == 0});
  }
  ASSIGN_OR_RETURN(auto held, holder.Hold(blocks));
  for (size_t i = 0; i < given.size(); ++i) held_[given[i].wanted] = std::move(held[i]);
  return OkStatus();
}

std::unique_ptr<KvSequence> RankPages::Sequence() const {
  auto kv = std::make_unique<KvSequence>(layout_);
  std::map<std::pair<uint32_t, uint64_t>, const std::byte*> here;
  for (size_t i = 0; i < wanted_.size(); ++i) {
    CHECK(Has(i)) << "block " << wanted_[i].block << " is not at hand";
    here[{wanted_[i].part, wanted_[i].block}] = bytes(i);
  }
  const auto find = [&](uint32_t part, uint64_t block, const std::byte* otherwise) {
    const auto found = here.find({part, block});
    return found == here.end() ? otherwise : found->second;
  };
  std::vector<const std::byte*> others(layout_.part_count() - 1);
  for (uint64_t block = 0; block < text_.chain.size(); ++block) {
    for (uint32_t part = 1; part < layout_.part_count(); ++part) {
      others[part - 1] = find(part, block, nullptr);
    }
    kv->AddShared({find(0, block, RemotePage()), TokensOf(block), 0, others});
  }
  return kv;
}

std::vector<KvSequence::SharedPage> RankPages::Pages() const {
  std::vector<KvSequence::SharedPage> pages;
  for (size_t i = 0; i < wanted_.size() && wanted_[i].part == 0; ++i) {
    pages.push_back({bytes(i), TokensOf(wanted_[i].block)});
  }
  return pages;
}

}  // namespace corpusd
