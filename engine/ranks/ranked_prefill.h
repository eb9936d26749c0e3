// engine/ranks/ranked_prefill.h -- one rank's part in computing an exact corpus together: segment
// after segment of the text, rows dealt, every block encoded by the rank that computed it and kept
// by the rank that `Placement` says. The blocks are those of a prefill by one rank, byte for byte,
// however many ranks there are, and any number can go on from them. Not a job: the caller has the
// store, the digests and what follows when a rank is lost. One thread a rank; all ranks call alike:
// Run, or RunNext until the end of the text, with whatever each does between segments.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv/kv_sequence.h"
#include "engine/model/model.h"
#include "engine/ranks/ranked_backend.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct RankedPrefillOptions {
  // Rows of a rank in one segment: what its activations are sized for.
  uint32_t rank_tokens = 8192;
  // Where rows may be cut: of a model with chunks a multiple of them, else of a block.
  uint32_t unit_tokens = 128;
  enum class Travel : uint8_t { kWhatIsLess, kKeys, kQueries };
  Travel travel = Travel::kWhatIsLess;  // no result depends on it
};

// A block that this rank keeps: its bytes by part of the layers. Parts of layers that see a chunk
// are with the rank that computed them, and empty elsewhere.
struct KeptBlock {
  uint64_t block = 0;
  uint32_t tokens = 0;
  std::vector<std::span<const std::byte>> parts;
};

class RankedPrefill {
 public:
  // model: loaded over `backend`. layout: of the corpus, with its exact first tokens. All must
  // outlive this. kUnimplemented: chunks that are no multiple of a block.
  static Result<std::unique_ptr<RankedPrefill>> Create(const Model& model, RankedBackend& backend,
                                                       Transport& transport, const KvLayout& layout,
                                                       const RankedPrefillOptions& options);

  const Placement& placement() const { return backend_.attention().placement(); }
  // Whether this rank keeps the block's part of the layers that see everything.
  bool Keeps(uint64_t block) const;
  // A block of the text's begin that is there already, such as from a store; by those who keep it.
  // The bytes must outlive this. REQUIRES: whole, before Run.
  void AddHistory(uint64_t block, const std::byte* bytes) { history_[block] = bytes; }
  // The same for a part of layers that see a window, of the last blocks that it still sees; by all.
  void AddWindow(uint64_t block, uint32_t part, const std::byte* bytes) {
    Local(block)[part - 1] = bytes;
    windows_[{block, part}] = nullptr;
  }

  // Computes tokens [first, tokens.size()) and gives out each block this rank keeps once it is
  // complete, in no order between ranks. REQUIRES: first is a multiple of a run and of the unit,
  // and what comes before it is history. An error of another rank's names that rank; what has been
  // given out stays good.
  Status Run(std::span<const TokenId> tokens, uint64_t first,
             const std::function<Status(const KeptBlock&)>& kept);

  // Rows may be dealt from multiples of so many tokens on.
  uint32_t unit_tokens() const { return options_.unit_tokens; }
  // What RunNext computes from `first` on, of a text of so many tokens.
  RankedPass NextPass(uint64_t first, uint64_t tokens) const;
  // Computes one segment. REQUIRES and kept: as of Run. RETURNS its end.
  Result<uint64_t> RunNext(std::span<const TokenId> tokens, uint64_t first,
                           const std::function<Status(const KeptBlock&)>& kept);
  // The blocks that this rank computed in the last segment, by part; until the next one.
  const std::map<uint64_t, std::vector<std::span<const std::byte>>>& computed() const {
    return fresh_;
  }
  // Lets go of what was computed or dealt. REQUIRES: AddHistory has told of each kept block where
  // it is now.
  void DropComputed();

  // For questions over the whole text, which all ranks compute alike: the pages of this rank where
  // they are, the others remote. Valid until the next Run.
  std::unique_ptr<KvSequence> QuestionSequence(uint64_t tokens) {
    backend_.Begin({}, ReachOf(model_.config()));
    return SequenceOver(tokens, /*own_blocks=*/false);
  }

 private:
  RankedPrefill(const Model& model, RankedBackend& backend, Transport& transport,
                const KvLayout& layout, const RankedPrefillOptions& options)
      : model_(model),
        backend_(backend),
        transport_(transport),
        layout_(layout),
        options_(options) {}

  uint32_t sink_tokens() const { return layout_.sinks == nullptr ? 0 : layout_.sinks->tokens; }
  std::vector<const std::byte*>& Local(uint64_t block) {
    auto& parts = local_[block];
    parts.resize(layout_.part_count() - 1);
    return parts;
  }
  bool HasWindows() const;
  std::unique_ptr<KvSequence> SequenceOver(uint64_t tokens, bool own_blocks) const;
  // Pages for what the begin of a piece sees, on layers with a window, of rows of the same pass.
  Status MakeHalo(const RankedPass& pass, const RowPiece& piece);
  // Every rank gets the parts of such layers that what follows the pass still sees.
  Status KeepWindows(const RankedPass& pass);
  RankedPass PassOver(uint64_t first, uint64_t end) const;
  Status RunSegment(std::span<const TokenId> tokens, const RankedPass& pass,
                    const std::function<Status(const KeptBlock&)>& kept);
  Status GiveOut(const RankedPass& pass, std::vector<std::shared_ptr<KvSequence>> computed,
                 const std::vector<RowPiece>& pieces,
                 const std::function<Status(const KeptBlock&)>& kept);

  const Model& model_;
  RankedBackend& backend_;
  Transport& transport_;
  const KvLayout layout_;
  const RankedPrefillOptions options_;
  uint64_t kv_bytes_token_ = 0, query_bytes_row_ = 0;  // of a layer
  uint64_t end_ = 0;                                   // of the last segment
  std::map<uint64_t, const std::byte*> history_;       // by block, what this rank keeps
  std::map<uint64_t, std::vector<std::span<const std::byte>>> fresh_;
  // Of layers that see a chunk, what was computed here, and of a window, what is still seen: by
  // block, parts after the first, or null.
  std::map<uint64_t, std::vector<const std::byte*>> local_;
  struct HaloPage {
    uint64_t block = 0;
    uint32_t part = 0;
    std::unique_ptr<Buffer> page;
  };
  std::vector<HaloPage> halo_;                                                // of the pass
  std::map<std::pair<uint64_t, uint32_t>, std::unique_ptr<Buffer>> windows_;  // by block and part
  std::vector<std::shared_ptr<KvSequence>> computed_;  // own what history_ points to
  std::vector<std::unique_ptr<Buffer>> dealt_;
};

}  // namespace corpusd
