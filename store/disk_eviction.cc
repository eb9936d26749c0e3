#include "store/disk_eviction.h"

#include <algorithm>
#include <unordered_map>

#include "store/corpus_chain.h"
#include "store/eviction_policy.h"

namespace corpusd {
namespace {

// Chain entries looked up at once.
constexpr uint64_t kPieceBlocks = 1024;

// The places where one corpus may be cut: 0 and its whole length among them.
class CutPlaces {
 public:
  CutPlaces(const CorpusRecord& record, const CutRule& rule)
      : blocks_(record.chain.size()), run_blocks_(std::max<uint32_t>(rule.run_blocks, 1)) {
    if (record.segments.window_tokens == 0) return;
    run_blocks_ = 0;
    if (rule.block_tokens == 0) return;
    const CorpusChain chain(record, rule.block_tokens);
    for (const CorpusSegment& segment : chain.segments()) {
      borders_.push_back(segment.first_block);
    }
  }
  // The last one below `end`. REQUIRES: end > 0.
  uint64_t Before(uint64_t end) const {
    if (run_blocks_ > 0) return (end - 1) / run_blocks_ * run_blocks_;
    const auto after = std::lower_bound(borders_.begin(), borders_.end(), end);
    return after == borders_.begin() ? 0 : *std::prev(after);
  }
  // The first one from `begin` on, or the whole length.
  uint64_t AtLeast(uint64_t begin) const {
    if (begin == 0) return 0;
    if (run_blocks_ > 0) {
      return std::min(blocks_, (begin + run_blocks_ - 1) / run_blocks_ * run_blocks_);
    }
    const auto next = std::lower_bound(borders_.begin(), borders_.end(), begin);
    return next == borders_.end() ? blocks_ : std::min(blocks_, *next);
  }

 private:
  const uint64_t blocks_;
  uint64_t run_blocks_;  // 0: at the borders
  std::vector<uint64_t> borders_;
};

class Planner {
 public:
  Planner(std::span<const EvictableCorpus> corpora, const ChainReader& entries,
          uint64_t needed_bytes, const CutRule& rule)
      : corpora_(corpora),
        entries_(entries),
        needed_bytes_(needed_bytes),
        rule_(rule),
        cuts_(corpora.size()) {
    for (size_t c = 0; c < corpora.size(); ++c) {
      cuts_[c].keep = corpora[c].record->chain.size();
    }
  }

  Result<EvictPlan> Run(const std::vector<size_t>& order) {
    for (const size_t c : order) {
      if (!Enough()) RETURN_IF_ERROR(Cut(c, /*shared_too=*/false));
    }
    for (const size_t c : order) {
      if (!Enough()) RETURN_IF_ERROR(Cut(c, /*shared_too=*/true));
    }
    EvictPlan plan;
    plan.bytes = freed_bytes_;
    for (const size_t c : order) {
      RETURN_IF_ERROR(GiveBackWhatFreesNothing(c));
      const EvictableCorpus& corpus = corpora_[c];
      const uint64_t blocks = corpus.record->chain.size() - cuts_[c].keep;
      if (blocks == 0) continue;
      plan.steps.push_back({corpus.record->name, corpus.record->id, cuts_[c].keep, blocks,
                            cuts_[c].bytes, corpus.expired, corpus.why});
    }
    return plan;
  }

 private:
  struct CutAt {
    uint64_t keep = 0;
    uint64_t bytes = 0;
  };

  bool Enough() const { return freed_bytes_ >= needed_bytes_; }

  // From the end, run by run. Of an exact chain no block is named by fewer corpora than those
  // behind it, so the first run that nobody gives up with it ends what the corpus has for itself.
  Status Cut(size_t c, bool shared_too) {
    const EvictableCorpus& corpus = corpora_[c];
    const SharedVector<Digest>& chain = corpus.record->chain;
    CutAt& cut = cuts_[c];
    const CutPlaces places(*corpus.record, rule_);
    const uint64_t lowest = places.AtLeast(corpus.keep_blocks);
    shared_too = shared_too || corpus.record->segments.window_tokens > 0;
    std::vector<ChainEntry> piece;
    uint64_t piece_first = cut.keep;
    const uint64_t end = cut.keep;
    uint64_t there = 0;  // where room is needed, shared or not
    std::vector<Digest> parts_gone;
    std::vector<HeldPart> parts = HeldParts(*corpus.record);
    std::erase_if(parts, [&](const HeldPart& held) { return held.block >= cut.keep; });
    std::stable_sort(parts.begin(), parts.end(),
                     [](const HeldPart& a, const HeldPart& b) { return a.block < b.block; });
    while (cut.keep > lowest && !Enough()) {
      const uint64_t first = std::max(places.Before(cut.keep), lowest);
      if (first < piece_first) {
        piece_first = std::max(lowest, first - std::min(first, kPieceBlocks));
        ASSIGN_OR_RETURN(piece,
                         entries_(std::span(chain).subspan(piece_first, cut.keep - piece_first)));
      }
      uint64_t bytes = 0, own_blocks = 0;
      for (uint64_t i = first; i < cut.keep; ++i) {
        const ChainEntry& entry = piece[i - piece_first];
        there += entry.payload_bytes;
        if (entry.references > dropped_[chain[i]] + 1) continue;
        bytes += entry.payload_bytes;
        ++own_blocks;
      }
      std::vector<Digest> gone;  // parts, which go with their blocks
      while (!parts.empty() && parts.back().block >= first) {
        gone.push_back(parts.back().digest);
        parts.pop_back();
      }
      ASSIGN_OR_RETURN(const auto part_entries, entries_(gone));
      for (size_t i = 0; i < gone.size(); ++i) {
        there += part_entries[i].payload_bytes;
        if (part_entries[i].references <= dropped_[gone[i]] + 1) {
          bytes += part_entries[i].payload_bytes;
          ++own_blocks;
        }
      }
      if (own_blocks == 0 && !shared_too) break;
      for (uint64_t i = first; i < cut.keep; ++i) ++dropped_[chain[i]];
      for (const Digest& digest : gone) ++dropped_[digest];
      parts_gone.insert(parts_gone.end(), gone.begin(), gone.end());
      cut.keep = first;
      cut.bytes += bytes;
      freed_bytes_ += bytes;
    }
    if (there > 0) return OkStatus();
    // All of it lies elsewhere.
    for (uint64_t i = cut.keep; i < end; ++i) --dropped_[chain[i]];
    for (const Digest& digest : parts_gone) --dropped_[digest];
    cut.keep = end;
    return OkStatus();
  }

  // Blocks that somebody keeps all the same need not be missed here.
  Status GiveBackWhatFreesNothing(size_t c) {
    const SharedVector<Digest>& chain = corpora_[c].record->chain;
    CutAt& cut = cuts_[c];
    if (cut.keep == chain.size()) return OkStatus();
    const CutPlaces places(*corpora_[c].record, rule_);
    while (cut.keep < chain.size()) {
      const uint64_t end = places.AtLeast(cut.keep + 1);
      const auto run = std::span(chain).subspan(cut.keep, end - cut.keep);
      ASSIGN_OR_RETURN(const auto entries, entries_(run));
      for (size_t i = 0; i < run.size(); ++i) {
        if (entries[i].references <= dropped_[run[i]]) return OkStatus();
      }
      std::vector<Digest> parts;
      for (const HeldPart& held : HeldParts(*corpora_[c].record)) {
        if (held.block >= cut.keep && held.block < end) parts.push_back(held.digest);
      }
      ASSIGN_OR_RETURN(const auto part_entries, entries_(parts));
      for (size_t i = 0; i < parts.size(); ++i) {
        if (part_entries[i].references <= dropped_[parts[i]]) return OkStatus();
      }
      cut.keep = end;
    }
    return OkStatus();
  }

  const std::span<const EvictableCorpus> corpora_;
  const ChainReader& entries_;
  const uint64_t needed_bytes_;
  const CutRule rule_;
  std::vector<CutAt> cuts_;
  std::unordered_map<Digest, uint32_t, DigestHash> dropped_;  // references that the plan takes
  uint64_t freed_bytes_ = 0;
};

}  // namespace

Result<EvictPlan> PlanDiskEviction(std::span<const EvictableCorpus> corpora,
                                   const ChainReader& entries, uint64_t needed_bytes,
                                   const CutRule& rule) {
  std::vector<EvictionCandidate> candidates;
  for (const EvictableCorpus& corpus : corpora) {
    EvictionCandidate candidate;
    candidate.rank = corpus.rank;
    candidate.priority = corpus.expired ? -1 : static_cast<int32_t>(corpus.record->priority);
    candidates.push_back(candidate);
  }
  return Planner(corpora, entries, needed_bytes, rule).Run(LeavingOrder(candidates));
}

std::string AgeText(int64_t milliseconds) {
  const int64_t seconds = std::max<int64_t>(milliseconds / 1000, 0);
  if (seconds < 120) return std::to_string(seconds) + " s";
  if (seconds < 7200) return std::to_string(seconds / 60) + " min";
  if (seconds < 172800) return std::to_string(seconds / 3600) + " h";
  return std::to_string(seconds / 86400) + " days";
}

}  // namespace corpusd
