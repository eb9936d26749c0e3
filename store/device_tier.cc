#include "store/device_tier.h"

namespace corpusd {

DeviceBlock::DeviceBlock(std::shared_ptr<DeviceMemory> memory, BlockHeader header, uint64_t address,
                         TierCharge charge)
    : TierBlock(header.digest, header.tokens),
      memory_(std::move(memory)),
      header_(std::move(header)),
      address_(address),
      charge_(std::move(charge)) {}

DeviceBlock::~DeviceBlock() {
  memory_->Free(address_);
  charge_->fetch_sub(charged_bytes());
}

std::shared_ptr<DeviceBlock> DeviceTier::Find(const Digest& digest) {
  return std::static_pointer_cast<DeviceBlock>(table_.Find(digest));
}

Result<std::shared_ptr<DeviceBlock>> DeviceTier::Put(const BlockHeader& header,
                                                     const BlockPlace& place,
                                                     std::span<const std::byte> payload) {
  if (auto here = Find(header.digest); here != nullptr) return here;
  const uint64_t bytes = DeviceBlock::ChargedBytes(payload.size());
  RETURN_IF_ERROR(table_.Charge(bytes, 1));
  const auto address = memory_->Allocate(payload.size());
  if (!address.ok()) {
    table_.charge()->fetch_sub(bytes);
    return address.status();
  }
  auto block = std::make_shared<DeviceBlock>(memory_, header, *address, table_.charge());
  RETURN_IF_ERROR(memory_->CopyIn(*address, payload)->Wait());
  RETURN_IF_ERROR(memory_->Verify(*address, payload.size(), header.section_crcs));
  return std::static_pointer_cast<DeviceBlock>(table_.Insert(std::move(block), place));
}

Status DeviceTier::ReadSections(const DeviceBlock& block, SectionRange range,
                                std::span<std::byte> payload) {
  const uint64_t part = block.header().SectionBytes();
  const uint64_t offset = part * range.first;
  const auto target = payload.subspan(offset, part * (range.end - range.first));
  Status status = memory_->CopyOut(block.address() + offset, target)->Wait();
  if (status.ok()) status = VerifySections(block.header(), payload, range);
  if (!status.ok()) table_.Erase(block.digest());
  return status;
}

}  // namespace corpusd
