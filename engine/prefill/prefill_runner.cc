#include "engine/prefill/prefill_runner.h"

#include <algorithm>

namespace corpusd {

std::unique_ptr<KvSequence> SequenceOver(std::span<const BlockRef> refs,
                                         const KvFormat& shared_format,
                                         const KvFormat& own_format) {
  auto kv = std::make_unique<KvSequence>(shared_format, own_format);
  for (const BlockRef& ref : refs) {
    CHECK(ref.valid() && ref.bytes().size() == shared_format.BlockBytes()) << "block of a lease";
    kv->AddShared(ref.bytes().data(), ref.tokens());
  }
  return kv;
}

std::unique_ptr<KvSequence> SequenceOver(BlockPrefetch& arriving, const KvFormat& shared_format,
                                         const KvFormat& own_format) {
  auto kv = std::make_unique<KvSequence>(shared_format, own_format);
  for (size_t i = 0; i < arriving.blocks(); ++i) {
    CHECK(arriving.bytes(i).size() == shared_format.BlockBytes()) << "block of a prefetch";
    kv->AddShared(arriving.bytes(i).data(), arriving.tokens(i));
  }
  kv->Follow(&arriving);
  return kv;
}

void AwaitLayer(const KvSequence& kv, uint32_t layer, ComputeGate::Turn& turn) {
  if (layer >= kv.own_format().layers || kv.HasLayer(layer)) return;
  turn.Pause([&] { (void)kv.WaitLayer(layer); });
}

Status ComputeRun(const ComputeContext& context, std::span<const TokenId> run_tokens,
                  KvSequence& kv, ForwardScratch& scratch, ComputePriority priority,
                  const std::stop_token& stop) {
  ComputeGate::Turn turn(context.gate, priority);
  return context.model.Forward(run_tokens, kv, scratch, [&] {
    turn.Offer();
    return !stop.stop_requested();
  });
}

std::vector<BlockWrite> BlockWrites(const KvSequence& kv, std::span<const Digest> digests,
                                    std::span<const TokenId> tokens, size_t first_block) {
  std::vector<BlockWrite> writes;
  size_t block = first_block;
  for (const KvSequence::OwnBlock& own : kv.OwnBlocks()) {
    const auto ids = tokens.subspan(block * kBlockTokens, own.tokens);
    writes.push_back({digests[block], {ids.begin(), ids.end()}, own.bytes, kv.own_format().layers});
    ++block;
  }
  return writes;
}

}  // namespace corpusd
