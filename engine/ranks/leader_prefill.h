// engine/ranks/leader_prefill.h -- prefills of a group of ranks as rank 0 leads them: an exact
// corpus segment by segment, and the documents of a segmented corpus dealt over the ranks. The
// blocks come to rank 0, whose caller stores them; they are those of a prefill by one rank. An
// error of the group's is its end; any other leaves it as it was. One thread each.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/ranks/rank_leader.h"
#include "engine/ranks/ranked_prefill.h"
#include "engine/segment/segment_runner.h"

namespace corpusd {

// How many parts of a block that was computed in `pass` rank 0 needs: part 0, and the others where
// something may still see them. The same on all ranks.
uint32_t PartsGiven(const KvLayout& layout, const RankedPass& pass, uint32_t unit_tokens,
                    uint64_t block);
// The blocks of a pass that a rank keeps, in order.
std::vector<uint64_t> KeptBlocks(const Placement& placement, const KvLayout& layout,
                                 const RankedPass& pass, uint32_t rank);
// Where a rank has stored them: one extent.
struct ShelvedExtent {
  uint64_t number = 0, bytes = 0;
};
struct ShelvedPlace {
  uint64_t ordinal = 0, payload_bytes = 0;
};
// Rows of a rank in one segment: while it is computed, questions wait.
uint32_t RankTokensOf(const Backend& backend);

class LeaderPrefill {
 public:
  struct Text {
    std::span<const TokenId> tokens;  // all
    std::span<const Digest> chain;    // of all
    size_t stored_blocks = 0;         // of them, those that are in the store
  };
  // Rows may be dealt from multiples of so many tokens on: where stored_blocks has to end.
  // kUnimplemented: a model that ranks do not compute together.
  static Result<uint32_t> UnitTokens(RankLeader& leader, const KvLayout& layout);
  // REQUIRES: text, and the layout's calibration, outlive this.
  static Result<std::unique_ptr<LeaderPrefill>> Begin(std::shared_ptr<RankLeader> leader,
                                                      const KvLayout& layout, const Text& text);
  ~LeaderPrefill();

  bool done() const { return next_ >= text_.tokens.size(); }
  // What each rank will write to its disk with the next segment; none: rank 0 stores all.
  std::vector<uint64_t> NextBytes() const;
  // One segment: its blocks, in order, by part of the layers; of parts that nothing can see any
  // more there is none.
  struct Segment {
    uint64_t first_block = 0;
    uint64_t end = 0;  // of its tokens
    std::vector<std::vector<std::span<const std::byte>>> blocks;
    // Where a block's first part was stored by the rank that keeps it, and is not among these.
    std::vector<std::optional<ShelvedBlock>> shelved;
  };
  // Computes the next one, within a turn of the gate. Valid until Stored.
  Result<Segment> Next();
  // What Next gave is in the store: rank 0 leases what it keeps of it. To be called between two
  // calls of Next.
  Status Stored();

 private:
  LeaderPrefill(std::shared_ptr<RankLeader> leader, const KvLayout& layout, const Text& text)
      : leader_(std::move(leader)),
        layout_(layout),
        text_(text),
        copies_(leader_->context().backend) {}
  // Answers of another rank to a segment.
  struct Answer {
    RankReply reply;
    ShelvedExtent extent;
    std::vector<ShelvedPlace> places;  // of what it keeps, by block
  };
  void ReceiveBlocks(const RankedPass& pass, std::vector<TransferPtr>* arriving);
  void ReceiveAnswers(const RankedPass& pass, std::vector<Answer>* answers,
                      std::vector<TransferPtr>* arriving);
  // Of the last segment, where the CPU reads it.
  Status BringToHost();
  Segment TakeSegment(const RankedPass& pass, std::span<const Answer> answers) const;
  bool shelved() const { return !epochs_.empty(); }

  const std::shared_ptr<RankLeader> leader_;
  const KvLayout layout_;
  const Text text_;
  RankLeader::Share history_;
  uint64_t next_ = 0;  // token
  std::unique_ptr<RankedPrefill> prefill_;
  std::vector<uint64_t> epochs_;  // of the ranks' shelves; none: rank 0 stores all
  // Of the last segment: what rank 0 keeps, and what it computed, by part.
  std::map<uint64_t, std::span<const std::byte>> own_;
  std::map<uint64_t, std::vector<std::span<const std::byte>>> computed_;
  std::map<uint64_t, std::vector<std::vector<std::byte>>> received_;  // of the last segment
  HostCopies copies_;
  std::vector<HeldBlock> kept_;
};

class LeaderDocuments {
 public:
  // text, layout: of the corpus, whose preamble is stored; they outlive this.
  static Result<std::unique_ptr<LeaderDocuments>> Begin(std::shared_ptr<RankLeader> leader,
                                                        const KvLayout& layout,
                                                        const CorpusRecord& record,
                                                        const SegmentedText& text);
  ~LeaderDocuments() {
    if (preamble_.pages != nullptr) leader_->Close(preamble_.id);
  }

  uint32_t ranks() const { return leader_->size(); }
  // The blocks of these segments of the text, in order; rank 0's share by `runner`, in turns.
  Result<std::vector<ComputedSegment>> Compute(std::span<const CorpusSegment> segments,
                                               SegmentRunner& runner, const std::stop_token& stop);

 private:
  LeaderDocuments(std::shared_ptr<RankLeader> leader, const KvLayout& layout,
                  const SegmentedText& text)
      : leader_(std::move(leader)), layout_(layout), text_(text) {}

  const std::shared_ptr<RankLeader> leader_;
  const KvLayout layout_;
  const SegmentedText text_;
  RankLeader::Share preamble_;
};

// Where each rank's share of some segments begins, and the end: [ranks + 1]. About as many tokens
// each, in order. The same on all ranks.
std::vector<size_t> DealSegments(std::span<const CorpusSegment> segments, uint32_t ranks);

}  // namespace corpusd
