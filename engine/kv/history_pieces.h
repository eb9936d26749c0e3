// engine/kv/history_pieces.h -- the pages of a sequence for one layer, of which a run of shared
// ones is not in memory: those are read in turn, two groups at a time. One thread; the sequence and
// the reader must outlive it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/kv/kv_sequence.h"
#include "store/section_reader.h"

namespace corpusd {

class HistoryPieces final : public PagePieces {
 public:
  // REQUIRES: kv.history() is not null; layer: one of part 0.
  HistoryPieces(const KvSequence& kv, uint32_t layer);
  ~HistoryPieces() override;
  HistoryPieces(const HistoryPieces&) = delete;
  HistoryPieces& operator=(const HistoryPieces&) = delete;
  Result<std::span<const KvPageList>> Next() override;

 private:
  // Pages [first, end) of all lists, in order, as lists of pieces_.
  void Cut(size_t first, size_t end);
  void BeginGroup(size_t group);
  size_t GroupBlocks(size_t group) const;

  const KvSequence& kv_;
  SectionReader& reader_;
  const uint32_t section_;
  const size_t before_;    // pages in memory before the history
  const size_t streamed_;  // pages of the history
  size_t pages_ = 0;       // of all lists
  size_t groups_ = 0;
  size_t begun_ = 0, next_ = 0;  // groups
  bool before_out_ = false;
  std::vector<std::vector<KvPage>> cut_;
  std::vector<KvPageList> lists_;
};

}  // namespace corpusd
