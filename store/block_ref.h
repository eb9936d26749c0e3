// store/block_ref.h -- BlockRef: the only way to reach a stored block's bytes. While a BlockRef
// lives, its bytes stay in the host tier, unmoved and unchanged (a lease). Copyable, cheap; any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "store/prefix_hash.h"

namespace corpusd {

enum class TierKind : uint8_t { kDevice = 0, kHost = 1, kDisk = 2 };

class HostBlock;  // store/host_tier.h

class BlockRef {
 public:
  BlockRef() = default;
  explicit BlockRef(std::shared_ptr<const HostBlock> block) : block_(std::move(block)) {}
  bool valid() const { return block_ != nullptr; }
  std::span<const std::byte> bytes() const;  // the payload, 64-byte aligned
  uint32_t tokens() const;                   // filled slots
  const Digest& digest() const;
  // The same block; the ref and its copies keep `holder` alive, which keeps the block.
  BlockRef HeldBy(const std::shared_ptr<const void>& holder) const;

 private:
  std::shared_ptr<const HostBlock> block_;
};

// A block's payload in device memory, kept there, unmoved and unchanged, while this lives. The
// address is for the device. Copyable, cheap; any thread.
struct DeviceRef {
  uint64_t address = 0;
  uint32_t tokens = 0;
  uint64_t bytes = 0;
  std::shared_ptr<const void> held;  // null: the block is not there
};

}  // namespace corpusd
