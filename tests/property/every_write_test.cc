// Power lost at each change of a file in a scripted life of a store: what was not synced stays,
// goes or is torn. After reopening, the state before or after the interrupted step is there, whole.
// The whole walk takes minutes; without CORPUSD_EVERY_WRITE=1 a sample of it is taken.
#include <gtest/gtest.h>

#include <map>

#include "tests/property/store_invariants.h"
#include "tests/support/faulty_file_system.h"

namespace corpusd {
namespace {

constexpr uint64_t kSample = 12;

class EveryWriteTest : public StoreFixture {
 protected:
  using State = std::map<std::string, size_t>;  // corpus -> published blocks

  void SetUp() override {
    disk_ = std::make_unique<FaultyFileSystem>();
    StoreFixture::SetUp();
  }
  void TearDown() override {
    StoreFixture::TearDown();
    disk_.reset();
  }

  // One step; on success the state is what it led to.
  template <typename Operation>
  bool Step(const State& after, const Operation& operation) {
    pending_ = after;
    if (!operation()) return false;
    reached_ = after;
    return true;
  }

  bool Publish(const std::string& name, const TestCorpus& corpus, size_t end) {
    State after = reached_;
    after[name] = end;
    return Step(after, [&] {
      const auto record = store_->GetCorpus(name);
      return record.ok() && PublishTo(*record, corpus, end).ok();
    });
  }

  // Two corpora that share their first blocks; growth, removal, eviction, updates. Stops at the
  // first failure.
  void Script() {
    const TestCorpus first = MakeCorpus(1, 8, 3);
    const TestCorpus second = MakeCorpus(2, 6, 3);
    State state = reached_ = pending_ = {};
    state["first"] = 0;
    const bool done =
        Step(state, [&] { return Create("first", first).ok(); }) && Publish("first", first, 3) &&
        Publish("first", first, 6) &&
        Step({{"first", 6}, {"second", 0}}, [&] { return Create("second", second).ok(); }) &&
        Step({{"first", 6}, {"second", 3}},
             [&] {
               const auto record = store_->GetCorpus("second");
               return record.ok() && store_->AdoptBlocks(*record, {second.chain.data(), 3}).ok();
             }) &&
        Publish("second", second, 6) &&
        Step({{"second", 6}}, [&] { return store_->RemoveCorpus("first").ok(); }) &&
        Step({{"first", 0}, {"second", 6}}, [&] { return Create("first", first).ok(); }) &&
        Publish("first", first, 8) &&
        Step(reached_,
             [&] {
               auto record = *store_->GetCorpus("first");
               record.state = CorpusState::kReady;
               return store_->UpdateCorpus(record).ok();
             }) &&
        Step({{"first", 3}, {"second", 6}},
             [&] {
               return store_->EvictByPolicy(TierKind::kDisk, 5 * kTestBlockBytes, false).ok();
             }) &&
        Update({{"second", 6}, {"first", 4}, {"first~previous", 3}}, MakeCorpus(3, 4, 2)) &&
        Update({{"second", 6}, {"first", 5}, {"first~previous", 4}}, MakeCorpus(4, 5, 2));
    finished_ = done;
  }

  // Makes the content beside corpus "first", then puts it in its place: from one state to the next.
  bool Update(const State& after, const TestCorpus& content) {
    State beside = reached_;
    beside["first~update"] = 0;
    return Step(beside, [&] { return Create("first~update", content).ok(); }) &&
           Publish("first~update", content, content.chain.size()) &&
           Step(reached_,
                [&] {
                  auto record = *store_->GetCorpus("first~update");
                  record.state = CorpusState::kReady;
                  record.replaces = "first";
                  return store_->UpdateCorpus(record).ok();
                }) &&
           Step(after, [&] {
             return store_->ReplaceCorpus("first~update", "first", "first~previous", 0).ok();
           });
  }

  void ExpectOldOrNew() {
    State found;
    for (const CorpusRecord& record : store_->ListCorpora()) {
      found[record.name] = record.chain.size();
      if (!record.chain.empty()) ExpectWhole(record.chain);
    }
    EXPECT_TRUE(found == reached_ || found == pending_);
    ExpectInvariants(*store_);
    uint64_t used = 0;
    for (const TierUsage& tier : store_->Usage()) {
      if (tier.name == "disk") used = tier.used_bytes;
    }
    EXPECT_LE(SegmentDiskBytes(), used) << "space that nobody names was not given back";
  }

  std::unique_ptr<FaultyFileSystem> disk_;
  State reached_, pending_;
  bool finished_ = false;
};

TEST_F(EveryWriteTest, LeavesOldOrNewAndNoWrongByte) {
  const uint32_t seed = TestSeed();
  const uint64_t before = disk_->changes();
  Script();
  ASSERT_TRUE(finished_);
  const uint64_t changes = disk_->changes() - before;
  const bool all = std::getenv("CORPUSD_EVERY_WRITE") != nullptr;
  const uint64_t stride = all ? 1 : std::max<uint64_t>(1, changes / kSample);
  std::cout << changes << " changes, every " << stride << ". is the last one\n";
  for (uint64_t index = all ? 0 : seed % stride; index < changes; index += stride) {
    SCOPED_TRACE("power lost at change " + std::to_string(index));
    store_.reset();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
    disk_->LosePower();  // forgets the files of the run before
    Reopen();
    disk_->BreakAfter(index);
    Script();
    store_.reset();
    disk_->LosePowerUnevenly(seed + static_cast<uint32_t>(index));
    disk_->SetState(DiskState::kFine);
    Reopen();
    ExpectOldOrNew();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace corpusd
