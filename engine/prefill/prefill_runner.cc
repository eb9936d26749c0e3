#include "engine/prefill/prefill_runner.h"

#include <algorithm>

#include "engine/prefill/local_parts.h"

namespace corpusd {

namespace {

const std::byte* DeviceAddress(const DeviceRef& ref) {
  return reinterpret_cast<const std::byte*>(ref.address);
}

// local: null if no layers see less than everything.
std::unique_ptr<KvSequence> SequenceOf(std::vector<KvSequence::SharedPage>* pages,
                                       const KvLayout& layout, const LocalPages* local) {
  // The few last blocks that layers of other parts see.
  std::vector<std::vector<const std::byte*>> others;
  const size_t first = local == nullptr ? pages->size() : local->first_block();
  for (size_t i = first; i < pages->size(); ++i) {
    others.push_back(local->Of(i, layout.part_count()));
    (*pages)[i].others = others.back();
  }
  auto kv = std::make_unique<KvSequence>(layout);
  kv->AddShared(*pages);
  return kv;
}

}  // namespace

std::unique_ptr<KvSequence> SequenceOver(std::span<const BlockRef> refs, const KvLayout& layout,
                                         std::span<const DeviceRef> placed, const LocalPages* local,
                                         std::span<const KvSequence::OwnBlock> behind) {
  const uint64_t block_bytes = StoredBytes(layout.OfPart(layout.blocks, 0));
  std::vector<KvSequence::SharedPage> pages;
  pages.reserve(refs.size() + behind.size());
  for (size_t i = 0; i < refs.size(); ++i) {
    const BlockRef& ref = refs[i];
    CHECK(ref.valid()) << "block of a lease";
    const std::span<const std::byte> bytes = ref.bytes();
    CHECK(bytes.size() == block_bytes) << bytes.size() << " bytes of a leased block";
    const bool on_device = i < placed.size() && placed[i].held != nullptr;
    pages.push_back({on_device ? DeviceAddress(placed[i]) : bytes.data(), ref.tokens()});
  }
  for (const KvSequence::OwnBlock& own : behind) pages.push_back({own.bytes.data(), own.tokens});
  return SequenceOf(&pages, layout, local);
}

std::unique_ptr<KvSequence> SequenceOnDevice(std::span<const DeviceRef> placed,
                                             const KvLayout& layout, const LocalPages& local) {
  const uint64_t block_bytes = StoredBytes(layout.OfPart(layout.blocks, 0));
  std::vector<KvSequence::SharedPage> pages;
  pages.reserve(placed.size());
  for (const DeviceRef& ref : placed) {
    CHECK(ref.held != nullptr && ref.bytes == block_bytes) << "block on the device";
    pages.push_back({DeviceAddress(ref), ref.tokens});
  }
  return SequenceOf(&pages, layout, &local);
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

bool ArrivingCorpus::Whole() const {
  const auto whole = [](const BlockPrefetch& prefetch) {
    for (size_t i = 0; i < prefetch.blocks(); ++i) {
      if (prefetch.bytes(i).empty()) return false;
    }
    return true;
  };
  return whole(*blocks) && std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
           return part.blocks == nullptr || whole(*part.blocks);
         });
}

Status ArrivingCorpus::Finish(FetchStats* stats) {
  RETURN_IF_ERROR(blocks->Finish(stats).status());
  for (const Part& part : parts) {
    if (part.blocks == nullptr) continue;
    FetchStats own;
    RETURN_IF_ERROR(part.blocks->Finish(&own).status());
    stats->host_bytes += own.host_bytes;
    stats->disk_bytes += own.disk_bytes;
    stats->waited_seconds += own.waited_seconds;
  }
  return OkStatus();
}

Result<ArrivingCorpus> PrefetchCorpus(BlockStore& store, const CorpusRecord& record,
                                      const KvLayout& layout, const PrefetchOptions& options) {
  ArrivingCorpus arriving;
  ASSIGN_OR_RETURN(arriving.blocks, store.Prefetch(record.chain, options));
  for (size_t p = 1; p < layout.part_count(); ++p) {
    const LayerPart& part = layout.parts->parts[p];
    const BlockRange needed = NeededBlocks(part, record.durable_tokens);
    ArrivingCorpus::Part& here = arriving.parts.emplace_back();
    here.first_block = needed.first;
    if (needed == BlockRange{}) continue;
    std::vector<Digest> digests;
    for (uint64_t block = needed.first; block < needed.end; ++block) {
      digests.push_back(PartDigest(record.chain[block], part.kind));
    }
    ASSIGN_OR_RETURN(here.blocks, store.Prefetch(digests, options));
  }
  return arriving;
}

std::unique_ptr<KvSequence> SequenceOver(ArrivingCorpus& arriving, const KvLayout& layout) {
  auto kv = std::make_unique<KvSequence>(layout);
  const uint64_t block_bytes = StoredBytes(layout.OfPart(layout.blocks, 0));
  std::vector<const std::byte*> others(arriving.parts.size());
  for (size_t i = 0; i < arriving.blocks->blocks(); ++i) {
    CHECK(arriving.blocks->bytes(i).size() == block_bytes) << "block of a prefetch";
    for (size_t p = 0; p < others.size(); ++p) {
      const ArrivingCorpus::Part& part = arriving.parts[p];
      const bool here = part.blocks != nullptr && i >= part.first_block;
      others[p] = here ? part.blocks->bytes(i - part.first_block).data() : nullptr;
    }
    kv->AddShared({arriving.blocks->bytes(i).data(), arriving.blocks->tokens(i), 0, others});
  }
  kv->Follow(arriving.blocks.get());
  for (size_t p = 0; p < others.size(); ++p) {
    kv->Follow(arriving.parts[p].blocks.get(), static_cast<uint32_t>(p + 1));
  }
  return kv;
}

Result<std::shared_ptr<const SinkPage>> ComputeSinks(const ComputeContext& context,
                                                     std::span<const TokenId> tokens,
                                                     const KvLayout& layout,
                                                     ComputePriority priority,
                                                     const std::stop_token& stop) {
  const auto first = tokens.first(std::min<size_t>(tokens.size(), kSinkTokens));
  KvSequence kv({layout.own, layout.own, layout.calibration, nullptr, layout.parts});
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(context.backend, context.model.config(), kSinkTokens));
  RETURN_IF_ERROR(ComputeRun(context, first, kv, *scratch, priority, stop));
  auto page = std::make_shared<SinkPage>();
  page->format = layout.own;
  page->tokens = static_cast<uint32_t>(first.size());
  page->ids.assign(first.begin(), first.end());
  for (uint32_t part = 0; part < kv.parts(); ++part) {
    const auto source = kv.OwnBlocks(part).front().bytes;
    ASSIGN_OR_RETURN(auto bytes, context.backend.Allocate(source.size(), "exact first tokens"));
    RETURN_IF_ERROR(context.backend.Copy(bytes->data(), source.data(), source.size()));
    page->parts.push_back(std::move(bytes));
  }
  return std::shared_ptr<const SinkPage>(std::move(page));
}

void AwaitLayer(const KvSequence& kv, uint32_t layer, ComputeGate::Turn& turn) {
  if (layer >= kv.layers() || kv.HasLayer(layer)) return;
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
  Status met;
  const Status status =
      context.model.ForwardPacked(tokens, sequences, scratch, ForwardGoal::kKeysAndValues, [&] {
        met = OfferTurn(context.backend, turn);
        return met.ok() && !stop.stop_requested();
      });
  return met.ok() ? status : met;
}

Status OfferTurn(Backend& backend, ComputeGate::Turn& turn) {
  if (!turn.wanted()) return OkStatus();
  RETURN_IF_ERROR(backend.Synchronize());
  turn.Offer();
  return OkStatus();
}

Result<std::vector<BlockWrite>> BlockWrites(Backend& backend, KvSequence& kv,
                                            std::span<const Digest> digests,
                                            std::span<const TokenId> tokens, size_t first_block) {
  std::vector<BlockWrite> writes;
  size_t block = first_block;
  ASSIGN_OR_RETURN(const auto blocks, kv.HostBlocks(backend));
  for (const KvSequence::OwnBlock& own : blocks) {
    const auto ids = tokens.subspan(block * kBlockTokens, own.tokens);
    writes.push_back(
        {digests[block], {ids.begin(), ids.end()}, own.bytes, StoredSections(kv.own_format()), {}});
    ++block;
  }
  for (uint32_t part = 1; part < kv.parts(); ++part) {
    ASSIGN_OR_RETURN(const auto pieces, kv.HostBlocks(backend, part));
    for (size_t i = 0; i < pieces.size(); ++i) writes[i].parts.push_back(pieces[i].bytes);
  }
  return writes;
}

}  // namespace corpusd
