// engine/ranks/rank_blocks.h -- the blocks that a rank has at hand, leased: those of the store of
// its own process, or, of a rank without a store, those that it was given or computed, in a host
// tier of its own; and, where the rank's backend does not read the host's memory, copies of them in
// a tier of its device. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/ranks/device_source.h"
#include "engine/ranks/rank_message.h"
#include "store/block_place.h"
#include "store/block_store.h"

namespace corpusd {

class RankBlocks {
 public:
  virtual ~RankBlocks() = default;
  // In order; those that are not at hand are invalid. kResourceExhausted: memory has no room.
  virtual Result<std::vector<BlockRef>> Find(std::span<const Digest> digests) = 0;
  struct Block {
    Digest digest;
    uint32_t tokens = 0;
    BlockPlace place;
    std::span<const std::byte> bytes;
  };
  // Whether a block that was computed here has to be kept to be found.
  virtual bool keeps() const = 0;
  // Keeps a copy. kResourceExhausted: leases leave no room for it.
  virtual Result<BlockRef> Keep(const Block& block) = 0;
  virtual RankHoldings holdings() const = 0;
  // Those that are not leased leave its memory, unless dry_run.
  virtual RankDropped Drop(std::span<const Digest> digests, bool dry_run) = 0;
};

// Of a rank that shares its process, and so its store, with rank 0; nothing has to be kept.
std::unique_ptr<RankBlocks> BlocksOfStore(BlockStore& store);
// Of a rank that has memory alone. device: what copies them from there, or null.
std::unique_ptr<RankBlocks> BlocksInMemory(uint64_t capacity_bytes,
                                           std::shared_ptr<DeviceMemory> device = nullptr);

// A block where the rank's backend reads it, leased there.
class HeldBlock {
 public:
  HeldBlock() = default;
  explicit HeldBlock(BlockRef host) : host_(std::move(host)) {}
  explicit HeldBlock(DeviceRef device) : device_(std::move(device)) {}
  explicit HeldBlock(std::shared_ptr<Buffer> copy) : copy_(std::move(copy)) {}
  bool valid() const { return host_.valid() || device_.held != nullptr || copy_ != nullptr; }
  const std::byte* data() const {
    if (copy_ != nullptr) return copy_->data();
    return device_.held != nullptr ? reinterpret_cast<const std::byte*>(device_.address)
                                   : host_.bytes().data();
  }

 private:
  BlockRef host_;
  DeviceRef device_;
  std::shared_ptr<Buffer> copy_;
};

// Brings leased blocks to where the backend reads them.
class BlockHolder {
 public:
  virtual ~BlockHolder() = default;
  // Those that are there, in order; the others are invalid.
  virtual std::vector<HeldBlock> Find(std::span<const Digest> digests) = 0;
  struct Block {
    BlockRef ref;
    BlockPlace place;
    uint32_t sections = 1;
    bool whole = true;  // else a part of layers that do not see everything: its text keeps it
  };
  // RETURNS them in order. kResourceExhausted: there is no room for all of them.
  virtual Result<std::vector<HeldBlock>> Hold(std::span<const Block> blocks) = 0;
  // What its tier holds, and could; 0 of 0 where it has none.
  virtual std::pair<uint64_t, uint64_t> used_of_bytes() const { return {}; }
};

// Of a backend that reads the host's memory: blocks stay where they are.
std::unique_ptr<BlockHolder> HoldInHost();
// By the device tier of the store that rank 0 has. Both must outlive it.
std::unique_ptr<BlockHolder> HoldByStore(Backend& backend, BlockStore& store);
// In a tier of its own. The backend must outlive it.
std::unique_ptr<BlockHolder> HoldOnDevice(Backend& backend, const DeviceRoom& room);

// Bytes of the backend's memory where the CPU reads them, all copied in one go. One thread.
class HostCopies {
 public:
  explicit HostCopies(Backend& backend) : backend_(backend) {}
  // Those of `bytes` that are not empty, in their places; valid until the next call. REQUIRES: they
  // were made before the backend's last Synchronize.
  Status Bring(std::span<std::span<const std::byte>*> bytes);

 private:
  Backend& backend_;
  std::unique_ptr<Buffer> memory_;
};

}  // namespace corpusd
