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
  refs_.resize(wanted_.size());
}

std::vector<Digest> RankPages::WantedDigests() const {
  std::vector<Digest> digests;
  for (const WantedBlock& wanted : wanted_) digests.push_back(wanted.digest);
  return digests;
}

uint32_t RankPages::TokensOf(uint64_t block) const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(kBlockTokens, text_.tokens - block * kBlockTokens));
}

void RankPages::Put(std::span<const BlockRef> refs) {
  CHECK(refs.size() == refs_.size()) << refs.size() << " of " << refs_.size();
  std::copy(refs.begin(), refs.end(), refs_.begin());
}

void RankPages::Put(size_t wanted, BlockRef ref) { refs_[wanted] = std::move(ref); }

std::unique_ptr<KvSequence> RankPages::Sequence() const {
  auto kv = std::make_unique<KvSequence>(layout_);
  std::map<std::pair<uint32_t, uint64_t>, const std::byte*> here;
  for (size_t i = 0; i < wanted_.size(); ++i) {
    CHECK(refs_[i].valid()) << "block " << wanted_[i].block << " is not at hand";
    here[{wanted_[i].part, wanted_[i].block}] = refs_[i].bytes().data();
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
    pages.push_back({refs_[i].bytes().data(), TokensOf(wanted_[i].block)});
  }
  return pages;
}

}  // namespace corpusd
