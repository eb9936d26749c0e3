// store/device_tier.h -- blocks in an accelerator's memory, under a hard cap of bytes. Every
// crossing is checked: a block is findable only after the device has computed the checksums of what
// arrived, and what is copied out is checked where it lands. Blocks here are copies: losing one, or
// the whole device, costs a transfer and no answer. Thread-safe; leases are DeviceBlock pointers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "store/base/result.h"
#include "store/block_header.h"
#include "store/device_memory.h"
#include "store/tier_table.h"

namespace corpusd {

// One block's payload in device memory. Immutable once it is in the tier.
class DeviceBlock final : public TierBlock {
 public:
  DeviceBlock(std::shared_ptr<DeviceMemory> memory, BlockHeader header, uint64_t address,
              TierCharge charge);
  ~DeviceBlock() override;

  uint64_t charged_bytes() const override { return ChargedBytes(header_.payload_bytes); }
  uint64_t payload_bytes() const override { return header_.payload_bytes; }
  uint64_t address() const { return address_; }  // of the device
  const BlockHeader& header() const { return header_; }
  static uint64_t ChargedBytes(uint64_t payload_bytes) { return (payload_bytes + 255) / 256 * 256; }

 private:
  const std::shared_ptr<DeviceMemory> memory_;
  const BlockHeader header_;
  const uint64_t address_;
  const TierCharge charge_;
};

class DeviceTier {
 public:
  DeviceTier(std::shared_ptr<DeviceMemory> memory, uint64_t capacity_bytes)
      : memory_(std::move(memory)), table_("device", "--device-bytes", capacity_bytes) {}

  // A block, leased, or null.
  std::shared_ptr<DeviceBlock> Find(const Digest& digest);
  // Copies the payload in, checks it there and makes it findable. RETURNS the lease; if the block
  // is here already, that one. kResourceExhausted, kDeviceError; kCorruption: what arrived is not
  // what the header says.
  Result<std::shared_ptr<DeviceBlock>> Put(const BlockHeader& header, const BlockPlace& place,
                                           std::span<const std::byte> payload);
  // Copies these sections to their places in the payload and checks them there. kCorruption and
  // kDeviceError: the copy here is of no use, and is forgotten.
  Status ReadSections(const DeviceBlock& block, SectionRange range, std::span<std::byte> payload);

  TierTable& table() { return table_; }
  const TierTable& table() const { return table_; }
  const DeviceMemory& memory() const { return *memory_; }

 private:
  const std::shared_ptr<DeviceMemory> memory_;
  TierTable table_;
};

}  // namespace corpusd
