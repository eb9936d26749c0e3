#include "store/leased_prefetch.h"

#include "store/block_store.h"

namespace corpusd {
namespace {

class LeasedPrefetch final : public BlockPrefetch {
 public:
  LeasedPrefetch(std::unique_ptr<BlockPrefetch> inside, std::shared_ptr<LeaseTable::Lease> lease)
      : lease_(std::move(lease)), inside_(std::move(inside)) {}

  size_t blocks() const override { return inside_->blocks(); }
  std::span<const std::byte> bytes(size_t i) const override { return inside_->bytes(i); }
  uint32_t tokens(size_t i) const override { return inside_->tokens(i); }
  bool HasSection(uint32_t section) override { return inside_->HasSection(section); }
  Status WaitSection(uint32_t section) override { return inside_->WaitSection(section); }
  Result<std::vector<BlockRef>> Finish(FetchStats* stats) override {
    ASSIGN_OR_RETURN(auto refs, inside_->Finish(stats));
    return LeaseTable::Hold(lease_, std::move(refs));
  }

 private:
  const std::shared_ptr<LeaseTable::Lease> lease_;
  const std::unique_ptr<BlockPrefetch> inside_;  // lets its blocks go before the lease ends
};

}  // namespace

std::unique_ptr<BlockPrefetch> WithLease(LeaseTable& leases, std::unique_ptr<BlockPrefetch> inside,
                                         std::span<const Digest> digests) {
  std::vector<Digest> held;
  uint64_t bytes = 0;
  for (size_t i = 0; i < inside->blocks(); ++i) {
    if (inside->bytes(i).empty()) continue;
    held.push_back(digests[i]);
    bytes += inside->bytes(i).size();
  }
  auto lease = leases.Begin(std::move(held), bytes);
  return std::make_unique<LeasedPrefetch>(std::move(inside), std::move(lease));
}

}  // namespace corpusd
