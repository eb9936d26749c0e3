// engine/prefill/history_in_turn.h -- what a run of a corpus reads of the blocks before it: leased
// in memory as far as half of the host tier holds them, behind that read from disk, layer by layer.
// Kept from one run to the next. One thread.
#pragma once

#include <memory>

#include "engine/prefill/block_repair.h"
#include "store/section_reader.h"

namespace corpusd {

struct HistoryInTurn {
  LeasedCorpus leased;
  size_t leased_max = SIZE_MAX;           // blocks
  std::unique_ptr<SectionReader> reader;  // of those behind them
};

// How many of a corpus's blocks are leased: all if seven eighths of the host tier hold them, else
// what half of it holds, or less if layers with a span need more than the other half. What is
// behind them is read in turn.
size_t LeasedBlocksMax(const Backend& backend, BlockStore& store, const KvLayout& layout,
                       size_t blocks);

// A sequence over all blocks of the record, for a run behind them; own pages as `layout` says.
// kCorruption, now or from who attends to it: a block is damaged. REQUIRES: more blocks than are
// leased; the same chain as before, perhaps longer.
Result<std::shared_ptr<KvSequence>> SequenceInTurn(BlockStore& store, const CorpusRecord& record,
                                                   const KvLayout& layout, HistoryInTurn* history);

}  // namespace corpusd
