// What copies blocks of a DurableBlockStore from host memory to the device tier.
#include <condition_variable>

#include "store/durable_block_store.h"
#include "store/store_observer.h"

namespace corpusd {

// One promotion, shared by its copies.
struct DurableBlockStore::Promotion {
  std::mutex mutex;
  std::condition_variable done;
  size_t left = 0;
  uint64_t bytes = 0;
  Status failed;
};

Status DurableBlockStore::CopyToDevice(const BlockRef& block, const ChainEntry& entry,
                                       Promotion& promotion, const std::stop_token& stop) {
  {
    const std::lock_guard lock(promotion.mutex);
    RETURN_IF_ERROR(promotion.failed);
  }
  if (stop.stop_requested()) return CancelledError("copying blocks to the device was cancelled");
  const BlockHeader header =
      MakeBlockHeader(block.digest(), block.tokens(), block.bytes(), entry.sections);
  const Status status = device_->Put(header, entry.place, block.bytes()).status();
  if (status.code() == StatusCode::kCorruption && options_.observer != nullptr) {
    options_.observer->OnDamaged(TierKind::kDevice);
  }
  return status;
}

std::vector<DeviceRef> DurableBlockStore::OnDevice(std::span<const Digest> digests) {
  std::vector<DeviceRef> refs(digests.size());
  if (device_ == nullptr) return refs;
  for (size_t i = 0; i < digests.size(); ++i) {
    std::shared_ptr<DeviceBlock> block = device_->Find(digests[i]);
    if (block == nullptr) continue;
    refs[i].address = block->address();
    refs[i].tokens = block->tokens();
    refs[i].bytes = block->payload_bytes();
    refs[i].held = std::move(block);
  }
  return refs;
}

Result<uint64_t> DurableBlockStore::PromoteToDevice(std::span<const Digest> chain,
                                                    std::span<const BlockRef> blocks,
                                                    const std::stop_token& stop) {
  if (device_ == nullptr) {
    return InvalidArgumentError(
        "this daemon has no device tier: blocks can be warmed to host only");
  }
  CHECK(chain.size() == blocks.size()) << chain.size() << " digests, " << blocks.size();
  // One at a time: who comes second finds the blocks there and copies nothing twice.
  const std::lock_guard one_at_a_time(promote_mutex_);
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(chain));
  const auto promotion = std::make_shared<Promotion>();
  std::vector<TransferQueue::Transfer> copies;
  for (size_t i = 0; i < chain.size(); ++i) {
    const BlockRef& block = blocks[i];
    const ChainEntry& entry = entries[i];
    if (entry.references == 0) continue;  // removed meanwhile
    copies.push_back(
        {block.bytes().size(), [this, promotion, held = BlockRef(block), entry, stop]() mutable {
           const Status status = CopyToDevice(held, entry, *promotion, stop);
           const uint64_t bytes = held.bytes().size();
           held = {};  // no lease outlives the promotion
           const std::lock_guard lock(promotion->mutex);
           if (status.ok()) promotion->bytes += bytes;
           if (!status.ok() && promotion->failed.ok()) promotion->failed = status;
           if (--promotion->left == 0) promotion->done.notify_all();
         }});
  }
  promotion->left = copies.size();
  transfers_.Submit(TransferPriority::kBackground, std::move(copies));
  std::unique_lock lock(promotion->mutex);
  promotion->done.wait(lock, [&] { return promotion->left == 0; });
  RETURN_IF_ERROR(promotion->failed);
  return promotion->bytes;
}

}  // namespace corpusd
