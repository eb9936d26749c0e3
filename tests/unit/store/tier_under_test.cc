#include "tests/unit/store/tier_under_test.h"

#include <mutex>
#include <set>

#include "store/block_header.h"
#include "store/block_loader.h"
#include "store/device_tier.h"
#include "tests/support/corrupt_block.h"
#include "tests/support/fake_device_memory.h"
#include "tests/unit/store/gated_source.h"

namespace corpusd {
namespace {

constexpr uint64_t kMemoryBytes = 8 * kTestBlockBytes;
constexpr uint64_t kDiskBytes = 40 * kTestBlockBytes;  // catalogue and logs included

std::vector<std::byte> CopyOf(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

class HostUnderTest final : public TierUnderTest {
 public:
  Status Put(uint32_t seed) override {
    const TestCorpus corpus = MakeCorpus(seed, 1);
    source_.Add(corpus);
    ASSIGN_OR_RETURN(const auto prefetch, loader_.Prefetch(corpus.chain, {}));
    FetchStats stats;
    ASSIGN_OR_RETURN(const auto refs, prefetch->Finish(&stats));
    return refs[0].valid() ? OkStatus() : CorruptionError("damaged");
  }
  bool Contains(uint32_t seed) override { return host_.Contains(MakeCorpus(seed, 1).chain[0]); }
  Lease Read(uint32_t seed) override {
    const BlockRef ref = host_.Find(MakeCorpus(seed, 1).chain[0]);
    if (!ref.valid()) return {};
    return {std::make_shared<BlockRef>(ref), CopyOf(ref.bytes())};
  }
  Status Pin(uint32_t seed) override {
    const std::lock_guard lock(mutex_);
    pins_[MakeCorpus(seed, 1).chain[0]] = 0;
    host_.SetPins(pins_);
    return OkStatus();
  }
  void Drop(uint32_t seed) override { host_.Drop(MakeCorpus(seed, 1).chain, false); }
  void Damage(uint32_t seed) override {
    Drop(seed);
    source_.Fail(MakeCorpus(seed, 1).chain[0], 0, CorruptionError("checksum differs"));
    (void)Put(seed);
  }
  uint64_t used_bytes() override { return host_.used_bytes(); }
  uint64_t capacity_bytes() override { return host_.capacity_bytes(); }

 private:
  GatedSource source_{/*in_parts=*/false};
  HostTier host_{kMemoryBytes};
  BlockLoader loader_{source_, host_, queue_};
  TransferQueue queue_{{}};
  std::mutex mutex_;
  HostTier::Pins pins_;
};

class DeviceUnderTest final : public TierUnderTest {
 public:
  Status Put(uint32_t seed) override {
    const TestCorpus corpus = MakeCorpus(seed, 1);
    const auto payload = PayloadOf(corpus.chain[0]);
    const BlockHeader header =
        MakeBlockHeader(corpus.chain[0], kTestBlockTokens, payload, kTestSections);
    return tier_.Put(header, {corpus.chain[0], 0}, payload).status();
  }
  bool Contains(uint32_t seed) override {
    return tier_.table().Contains(MakeCorpus(seed, 1).chain[0]);
  }
  Lease Read(uint32_t seed) override {
    const auto block = tier_.Find(MakeCorpus(seed, 1).chain[0]);
    if (block == nullptr) return {};
    std::vector<std::byte> bytes(block->payload_bytes());
    if (!tier_.ReadSections(*block, {0, kTestSections}, bytes).ok()) bytes.clear();
    return {block, bytes};
  }
  Status Pin(uint32_t seed) override {
    const std::lock_guard lock(mutex_);
    pins_[MakeCorpus(seed, 1).chain[0]] = 0;
    tier_.table().SetPins(pins_);
    return OkStatus();
  }
  void Drop(uint32_t seed) override { tier_.table().Drop(MakeCorpus(seed, 1).chain, false); }
  void Damage(uint32_t /*seed*/) override { memory_->DamageEverything(); }
  uint64_t used_bytes() override {
    EXPECT_LE(memory_->used_bytes(), tier_.table().capacity_bytes());
    return tier_.table().used_bytes();
  }
  uint64_t capacity_bytes() override { return tier_.table().capacity_bytes(); }

 private:
  const std::shared_ptr<FakeDeviceMemory> memory_ =
      std::make_shared<FakeDeviceMemory>(2 * kMemoryBytes);
  DeviceTier tier_{memory_, kMemoryBytes};
  std::mutex mutex_;
  TierTable::Pins pins_;
};

class DiskUnderTest final : public TierUnderTest {
 public:
  explicit DiskUnderTest(const std::string& folder) {
    options_.data_dir = folder;
    options_.host_bytes = 64 * kTestBlockBytes;
    options_.disk_bytes = kDiskBytes;
    Open();
  }

  Status Put(uint32_t seed) override {
    const TestCorpus corpus = MakeCorpus(seed, 1);
    CorpusRecord record;
    record.name = NameOf(seed);
    record.mode = "exact";
    record.root = corpus.root;
    record.block_bytes = kTestBlockBytes;
    record.identity = {{"schema", "1"}};
    (void)store_->RemoveCorpus(record.name);
    ASSIGN_OR_RETURN(record, store_->CreateCorpus(record, corpus.tokens));
    const auto payload = PayloadOf(corpus.chain[0]);
    const BlockWrite write{corpus.chain[0], corpus.tokens, payload, kTestSections};
    ASSIGN_OR_RETURN(record, store_->Publish(record, {&write, 1}));
    record.state = CorpusState::kReady;
    return store_->UpdateCorpus(record).status();
  }
  bool Contains(uint32_t seed) override {
    const TestCorpus corpus = MakeCorpus(seed, 1);
    return *store_->LongestPrefix(corpus.chain, corpus.tokens) == 1;
  }
  Lease Read(uint32_t seed) override {
    const TestCorpus corpus = MakeCorpus(seed, 1);
    (void)store_->Evict(NameOf(seed), TierKind::kHost, false);  // from the disk, then
    FetchStats stats;
    const auto refs = store_->Fetch(corpus.chain, &stats);
    if (!refs.ok() || !(*refs)[0].valid()) return {};
    return {std::make_shared<BlockRef>((*refs)[0]), CopyOf((*refs)[0].bytes())};
  }
  Status Pin(uint32_t seed) override {
    ASSIGN_OR_RETURN(CorpusRecord record, store_->GetCorpus(NameOf(seed)));
    record.pin = CorpusPin{};
    return store_->UpdateCorpus(record).status();
  }
  void Drop(uint32_t seed) override {
    (void)store_->Evict(NameOf(seed), TierKind::kDisk, false);
    (void)store_->Evict(NameOf(seed), TierKind::kHost, false);
  }
  void Damage(uint32_t seed) override {
    store_.reset();
    const Status status = CorruptBlock(options_.data_dir, NameOf(seed), 0, 1000);
    EXPECT_TRUE(status.ok()) << status.ToString();
    Open();
  }
  uint64_t used_bytes() override { return store_->Usage()[1].used_bytes; }
  uint64_t capacity_bytes() override { return kDiskBytes; }

 private:
  static std::string NameOf(uint32_t seed) { return "block" + std::to_string(seed); }
  void Open() {
    auto store = BlockStore::Open(options_);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(*store);
  }
  BlockStoreOptions options_;
  std::unique_ptr<BlockStore> store_;
};

}  // namespace

std::unique_ptr<TierUnderTest> MakeHostUnderTest(const std::string& /*folder*/) {
  return std::make_unique<HostUnderTest>();
}

std::unique_ptr<TierUnderTest> MakeDeviceUnderTest(const std::string& /*folder*/) {
  return std::make_unique<DeviceUnderTest>();
}

std::unique_ptr<TierUnderTest> MakeDiskUnderTest(const std::string& folder) {
  return std::make_unique<DiskUnderTest>(folder);
}

}  // namespace corpusd
