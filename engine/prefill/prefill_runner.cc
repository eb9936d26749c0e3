#include "engine/prefill/prefill_runner.h"

#include <algorithm>

namespace corpusd {

namespace {

const std::byte* DeviceAddress(const DeviceRef& ref) {
  return reinterpret_cast<const std::byte*>(ref.address);
}

}  // namespace

std::unique_ptr<KvSequence> SequenceOver(std::span<const BlockRef> refs, const KvLayout& layout,
                                         std::span<const DeviceRef> placed) {
  auto kv = std::make_unique<KvSequence>(layout);
  for (size_t i = 0; i < refs.size(); ++i) {
    const BlockRef& ref = refs[i];
    CHECK(ref.valid() && ref.bytes().size() == layout.blocks.BlockBytes()) << "block of a lease";
    const bool on_device = i < placed.size() && placed[i].held != nullptr;
    kv->AddShared(on_device ? DeviceAddress(placed[i]) : ref.bytes().data(), ref.tokens());
  }
  return kv;
}

std::unique_ptr<KvSequence> SequenceOnDevice(std::span<const DeviceRef> placed,
                                             const KvLayout& layout) {
  auto kv = std::make_unique<KvSequence>(layout);
  for (const DeviceRef& ref : placed) {
    CHECK(ref.held != nullptr && ref.bytes == layout.blocks.BlockBytes()) << "block on the device";
    kv->AddShared(DeviceAddress(ref), ref.tokens);
  }
  return kv;
}

void PlaceOnDevice(const ComputeContext& context, BlockStore& store, std::span<const Digest> chain,
                   std::span<const BlockRef> refs, const std::stop_token& stop,
                   std::vector<DeviceRef>* placed) {
  if (context.backend.host_addressable() || refs.size() <= placed->size()) return;
  const size_t first = placed->size();
  const auto wanted = chain.subspan(first, refs.size() - first);
  std::vector<DeviceRef> found = store.OnDevice(wanted);
  const auto there = [](const DeviceRef& ref) { return ref.held != nullptr; };
  if (!std::all_of(found.begin(), found.end(), there)) {
    // A tier that is full or failing costs copies, not the answer.
    (void)store.PromoteToDevice(wanted, refs.subspan(first), stop);
    found = store.OnDevice(wanted);
  }
  placed->insert(placed->end(), found.begin(), found.end());
}

std::unique_ptr<KvSequence> SequenceOver(BlockPrefetch& arriving, const KvLayout& layout) {
  auto kv = std::make_unique<KvSequence>(layout);
  for (size_t i = 0; i < arriving.blocks(); ++i) {
    CHECK(arriving.bytes(i).size() == layout.blocks.BlockBytes()) << "block of a prefetch";
    kv->AddShared(arriving.bytes(i).data(), arriving.tokens(i));
  }
  kv->Follow(&arriving);
  return kv;
}

Result<std::shared_ptr<const SinkPage>> ComputeSinks(const ComputeContext& context,
                                                     std::span<const TokenId> tokens,
                                                     const KvLayout& layout,
                                                     ComputePriority priority,
                                                     const std::stop_token& stop) {
  const auto first = tokens.first(std::min<size_t>(tokens.size(), kSinkTokens));
  KvSequence kv({layout.own, layout.own, layout.calibration, nullptr});
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(context.backend, context.model.config(), kSinkTokens));
  RETURN_IF_ERROR(ComputeRun(context, first, kv, *scratch, priority, stop));
  auto page = std::make_shared<SinkPage>();
  page->format = layout.own;
  page->tokens = static_cast<uint32_t>(first.size());
  const auto source = kv.OwnBlocks().front().bytes;
  ASSIGN_OR_RETURN(page->bytes, context.backend.Allocate(source.size(), "exact first tokens"));
  RETURN_IF_ERROR(context.backend.Copy(page->bytes->data(), source.data(), source.size()));
  return std::shared_ptr<const SinkPage>(std::move(page));
}

void AwaitLayer(const KvSequence& kv, uint32_t layer, ComputeGate::Turn& turn) {
  if (layer >= kv.own_format().layers || kv.HasLayer(layer)) return;
  turn.Pause([&] { (void)kv.WaitLayer(layer); });
}

Status ComputeRun(const ComputeContext& context, std::span<const TokenId> run_tokens,
                  KvSequence& kv, ForwardScratch& scratch, ComputePriority priority,
                  const std::stop_token& stop) {
  const SequenceRows all{&kv, static_cast<uint32_t>(run_tokens.size())};
  return ComputePacked(context, run_tokens, {&all, 1}, scratch, priority, stop);
}

Status ComputePacked(const ComputeContext& context, std::span<const TokenId> tokens,
                     std::span<const SequenceRows> sequences, ForwardScratch& scratch,
                     ComputePriority priority, const std::stop_token& stop) {
  ComputeGate::Turn turn(context.gate, priority);
  return context.model.ForwardPacked(tokens, sequences, scratch, [&] {
    turn.Offer();
    return !stop.stop_requested();
  });
}

Result<std::vector<BlockWrite>> BlockWrites(Backend& backend, KvSequence& kv,
                                            std::span<const Digest> digests,
                                            std::span<const TokenId> tokens, size_t first_block) {
  std::vector<BlockWrite> writes;
  size_t block = first_block;
  ASSIGN_OR_RETURN(const auto blocks, kv.HostBlocks(backend));
  for (const KvSequence::OwnBlock& own : blocks) {
    const auto ids = tokens.subspan(block * kBlockTokens, own.tokens);
    writes.push_back({digests[block], {ids.begin(), ids.end()}, own.bytes, kv.own_format().layers});
    ++block;
  }
  return writes;
}

}  // namespace corpusd
