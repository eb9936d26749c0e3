// engine/prefill/prefill_runner.h -- computes KV blocks from token ids, one run of blocks at a
// time. Runs begin at fixed multiples of kRunTokens of the corpus and read their history from
// stored bytes, so the blocks of an interrupted, resumed or repaired prefill are those of an
// undisturbed one. Each call is one thread; the compute gate interleaves it with questions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/compute_gate.h"
#include "engine/kv/kv_sequence.h"
#include "engine/model/model.h"
#include "store/base/result.h"
#include "store/block_store.h"

namespace corpusd {

// Tokens of one run: computed together, published together, lost together in a crash.
inline constexpr uint32_t kRunTokens = 512;
inline constexpr uint32_t kRunBlocks = kRunTokens / kBlockTokens;

class LocalPages;  // engine/prefill/local_parts.h

// What every computation of the engine needs.
struct ComputeContext {
  const Model& model;
  Backend& backend;
  ComputeGate& gate;
};

// Leased blocks of a corpus as the start of a sequence; block i is read on the device if placed[i]
// is there. local: of a layout with parts, what these layers see from the end of the blocks on.
// behind: blocks that another sequence has computed and that are not stored yet. REQUIRES: every
// ref valid; they, `placed`, `local` and who has `behind` must outlive the sequence.
std::unique_ptr<KvSequence> SequenceOver(std::span<const BlockRef> refs, const KvLayout& layout,
                                         std::span<const DeviceRef> placed = {},
                                         const LocalPages* local = nullptr,
                                         std::span<const KvSequence::OwnBlock> behind = {});

// The same over blocks that are all on the device.
std::unique_ptr<KvSequence> SequenceOnDevice(std::span<const DeviceRef> placed,
                                             const KvLayout& layout, const LocalPages& local);

// If the backend does not read host memory: copies blocks refs[placed->size() ..] of the chain to
// the store's device tier, as far as it takes them, and leases them there. What it does not take is
// copied anew for every pass. The chain may be longer.
void PlaceOnDevice(const ComputeContext& context, BlockStore& store, std::span<const Digest> chain,
                   std::span<const BlockRef> refs, const std::stop_token& stop,
                   std::vector<DeviceRef>* placed);

// Blocks of a corpus, and what layers of other parts see from its end on, that are still on their
// way.
struct ArrivingCorpus {
  std::unique_ptr<BlockPrefetch> blocks;
  struct Part {
    uint64_t first_block = 0;
    std::unique_ptr<BlockPrefetch> blocks;  // null: nothing is seen
  };
  std::vector<Part> parts;  // behind part 0

  // Whether no block is known to be damaged or missing.
  bool Whole() const;
  // Waits for all of them, and adds up the counts.
  Status Finish(FetchStats* stats);
};
Result<ArrivingCorpus> PrefetchCorpus(BlockStore& store, const CorpusRecord& record,
                                      const KvLayout& layout, const PrefetchOptions& options);
// A sequence over them: a layer can be read when its section is there. REQUIRES: they are whole;
// `arriving` must outlive the sequence.
std::unique_ptr<KvSequence> SequenceOver(ArrivingCorpus& arriving, const KvLayout& layout);

// Between two layers: gives up the turn while the next layer of the sequence is not there yet, so
// that those whose layers are there compute meanwhile. Returns at once after the last layer. What
// went wrong is said by the sequence's WaitLayer.
void AwaitLayer(const KvSequence& kv, uint32_t layer, ComputeGate::Turn& turn);

// The exact page of a chain's first tokens: of at most kSinkTokens of `tokens`. layout: without
// sinks. kCancelled if stopped.
Result<std::shared_ptr<const SinkPage>> ComputeSinks(const ComputeContext& context,
                                                     std::span<const TokenId> tokens,
                                                     const KvLayout& layout,
                                                     ComputePriority priority,
                                                     const std::stop_token& stop);

// Between two layers of a pass: lets whoever waits with a higher priority go first. RETURNS what
// has failed in the pass so far, which must end then: the next one's Synchronize would take the
// error for its own, and what the pass goes on with would be made of nothing.
Status OfferTurn(Backend& backend, ComputeGate::Turn& turn);

// Computes keys and values of the run of tokens that follows `kv` (at most kRunTokens). Offers the
// turn between layers. kCancelled if stopped.
Status ComputeRun(const ComputeContext& context, std::span<const TokenId> run_tokens,
                  KvSequence& kv, ForwardScratch& scratch, ComputePriority priority,
                  const std::stop_token& stop);

// The same for runs of several sequences at once, as Model::ForwardPacked takes them; at most
// kRunTokens together.
Status ComputePacked(const ComputeContext& context, std::span<const TokenId> tokens,
                     std::span<const SequenceRows> sequences, ForwardScratch& scratch,
                     ComputePriority priority, const std::stop_token& stop);

// The own blocks of a computed run, ready to publish. Payload spans point into kv.
// digests, tokens: of the whole corpus; first_block: of the run.
Result<std::vector<BlockWrite>> BlockWrites(Backend& backend, KvSequence& kv,
                                            std::span<const Digest> digests,
                                            std::span<const TokenId> tokens, size_t first_block);

}  // namespace corpusd
