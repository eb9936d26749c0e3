// Eight threads that publish, fetch, prefetch and let go, promote, evict, verify, pin, rename and
// remove the same few corpora at once, over all three tiers. Short by default; for minutes with
// CORPUSD_MIXED_OPERATIONS, and meant for ThreadSanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/property/store_invariants.h"
#include "tests/support/fake_device_memory.h"

namespace corpusd {
namespace {

constexpr uint32_t kThreads = 8;
constexpr uint32_t kNames = 10;

int OperationsOfAThread() {
  const char* const text = std::getenv("CORPUSD_MIXED_OPERATIONS");
  return text != nullptr ? std::atoi(text) : 60;
}

class MixedOperationsTest : public StoreFixture {
 protected:
  void SetUp() override {
    options_.device = memory_;
    options_.device_bytes = 8 * kTestBlockBytes;
    options_.host_bytes = 24 * kTestBlockBytes;
    options_.inflight_bytes = 4 * kTestBlockBytes;
    StoreFixture::SetUp();
    for (uint32_t n = 0; n < kNames; ++n) contents_.push_back(MakeCorpus(n, 2 + n % 5, n % 4));
  }

  // Two threads may stand in each other's way, and a tier may be full; nothing else may happen.
  void ExpectOrdinary(const Status& status, const char* what) {
    const StatusCode code = status.code();
    const bool ordinary = status.ok() || code == StatusCode::kNotFound ||
                          code == StatusCode::kAlreadyExists || code == StatusCode::kAborted ||
                          code == StatusCode::kResourceExhausted ||
                          code == StatusCode::kFailedPrecondition ||
                          code == StatusCode::kCancelled || code == StatusCode::kUnavailable;
    EXPECT_TRUE(ordinary) << what << ": " << status.ToString();
    done_ += status.ok() ? 1 : 0;
  }

  void ExpectBytes(const BlockRef& ref) {
    const auto expected = PayloadOf(ref.digest());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), ref.bytes().begin()));
  }

  void Publish(uint32_t n, size_t blocks) {
    const std::string name = "corpus" + std::to_string(n);
    auto record = store_->GetCorpus(name);
    if (!record.ok()) {
      record = Create(name, contents_[n]);
      if (record.ok()) {  // else it would be a job's, which is not evicted
        record->state = CorpusState::kReady;
        record = store_->UpdateCorpus(*record);
      }
    }
    if (!record.ok()) return ExpectOrdinary(record.status(), "create");
    const size_t end = std::min(contents_[n].chain.size(), record->chain.size() + blocks);
    if (end > record->chain.size()) {
      ExpectOrdinary(PublishTo(*record, contents_[n], end).status(), "publish");
    }
  }

  void Fetch(uint32_t n) {
    FetchStats stats;
    const auto refs = store_->Fetch(contents_[n].chain, &stats);
    ExpectOrdinary(refs.status(), "fetch");
    EXPECT_TRUE(stats.damaged.empty());
    if (!refs.ok()) return;
    for (const BlockRef& ref : *refs) {
      if (ref.valid()) ExpectBytes(ref);
    }
  }

  void PrefetchAndLetGo(uint32_t n, uint32_t sections) {
    const auto prefetch = store_->Prefetch(contents_[n].chain, {});
    if (!prefetch.ok()) return ExpectOrdinary(prefetch.status(), "prefetch");
    Status status;
    for (uint32_t s = 0; s < sections && status.ok(); ++s) {
      status = (*prefetch)->WaitSection(s);
      const size_t part = kTestBlockBytes / kTestSections;
      for (size_t i = 0; i < (*prefetch)->blocks() && status.ok(); ++i) {
        const auto expected = PayloadOf(contents_[n].chain[i]);
        const auto first = expected.begin() + static_cast<ptrdiff_t>(s * part);
        EXPECT_TRUE(std::equal(first, first + static_cast<ptrdiff_t>(part),
                               (*prefetch)->bytes(i).begin() + static_cast<ptrdiff_t>(s * part)));
      }
    }
    ExpectOrdinary(status, "wait for a section");
  }

  void Promote(uint32_t n) {
    FetchStats stats;
    const auto refs = store_->Fetch(contents_[n].chain, &stats);
    if (!refs.ok() || !stats.missing.empty()) return;
    ExpectOrdinary(store_->PromoteToDevice(contents_[n].chain, *refs, {}).status(), "promote");
  }

  void Pin(const std::string& name, std::optional<TierKind> tier) {
    auto record = store_->GetCorpus(name);
    if (!record.ok()) return;
    record->pin.reset();
    if (tier) record->pin = CorpusPin{static_cast<uint8_t>(*tier), 0};
    ExpectOrdinary(store_->UpdateCorpus(*record).status(), "pin");
  }

  void Step(std::mt19937& random) {
    const uint32_t n = random() % kNames;
    const std::string name = "corpus" + std::to_string(n);
    switch (random() % 15) {
      case 0:
      case 1:
      case 2:
        return Publish(n, 1 + random() % 4);
      case 3:
      case 4:
        return Fetch(n);
      case 5:
      case 6:
        return PrefetchAndLetGo(n, random() % (kTestSections + 1));
      case 7:
        return Promote(n);
      case 8:
        return ExpectOrdinary(
            store_->Evict(name, static_cast<TierKind>(random() % 3), random() % 4 == 0).status(),
            "evict");
      case 9: {
        const auto report = store_->Verify(name, nullptr);
        EXPECT_TRUE(!report.ok() || report->damaged.empty());
        return ExpectOrdinary(report.status(), "verify");
      }
      case 10:
        return ExpectOrdinary(store_->RemoveCorpus(name), "remove");
      case 11:
        return Pin(name, static_cast<TierKind>(random() % 3));
      case 12:
        return Pin(name, std::nullopt);
      case 13:
        return ExpectOrdinary(
            store_
                ->EvictByPolicy(static_cast<TierKind>(random() % 3),
                                random() % (8 * kTestBlockBytes), random() % 4 == 0)
                .status(),
            "evict by policy");
      default:
        for (const TierUsage& tier : store_->Usage()) {
          EXPECT_LE(tier.used_bytes, tier.capacity_bytes) << tier.name;
        }
    }
  }

  const std::shared_ptr<FakeDeviceMemory> memory_ =
      std::make_shared<FakeDeviceMemory>(16 * kTestBlockBytes);
  std::vector<TestCorpus> contents_;
  std::atomic<uint64_t> done_{0};
};

TEST_F(MixedOperationsTest, EightThreadsOverThreeTiers) {
  const uint32_t seed = TestSeed();
  const int operations = OperationsOfAThread();
  std::vector<std::jthread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      for (int i = 0; i < operations; ++i) Step(random);
    });
  }
  threads.clear();
  EXPECT_GT(done_.load(), uint64_t{kThreads} * static_cast<uint64_t>(operations) / 8);
  ExpectInvariants(*store_);
  Reopen();
  ExpectInvariants(*store_);
  store_.reset();
  EXPECT_EQ(memory_->used_bytes(), 0u) << "device memory leaked";
}

}  // namespace
}  // namespace corpusd
