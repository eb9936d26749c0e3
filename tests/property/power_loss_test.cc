// Random work on a store whose disk loses power: what was acknowledged before is there after,
// whole, although every byte that was not synced is gone.
#include <gtest/gtest.h>

#include <map>

#include "tests/property/store_invariants.h"
#include "tests/support/faulty_file_system.h"

namespace corpusd {
namespace {

class PowerLossTest : public StoreFixture {
 protected:
  void SetUp() override {
    disk_ = std::make_unique<FaultyFileSystem>();
    StoreFixture::SetUp();
  }
  void TearDown() override {
    StoreFixture::TearDown();
    disk_.reset();
  }

  // Random publishes and removals; acknowledged_ follows those that returned Ok.
  void Work(std::mt19937& random, int steps) {
    for (int step = 0; step < steps; ++step) {
      const std::string name = "c" + std::to_string(random() % 4);
      const TestCorpus content = MakeCorpus(static_cast<uint32_t>(name[1]), 12, random() % 6);
      auto record = store_->GetCorpus(name);
      if (record.ok() && random() % 3 == 0) {
        if (store_->RemoveCorpus(name).ok()) acknowledged_.erase(name);
        continue;
      }
      if (!record.ok()) {
        contents_[name] = content;
        record = Create(name, content);
        if (record.ok()) acknowledged_[name] = 0;
        if (!record.ok()) continue;
      }
      (void)store_->NoteUse(name);
      const size_t end = std::min<size_t>(12, record->chain.size() + 1 + random() % 4);
      const auto published = PublishTo(*record, contents_[name], end);
      if (published.ok()) acknowledged_[name] = published->chain.size();
    }
  }

  std::unique_ptr<FaultyFileSystem> disk_;
  std::map<std::string, size_t> acknowledged_;
  std::map<std::string, TestCorpus> contents_;
};

TEST_F(PowerLossTest, WhatWasAcknowledgedIsThere) {
  std::mt19937 random(TestSeed());
  for (int round = 0; round < 12; ++round) {
    Work(random, 1 + static_cast<int>(random() % 12));
    disk_->SetState(DiskState::kBroken);
    store_.reset();
    disk_->LosePower();
    disk_->SetState(DiskState::kFine);
    Reopen();
    if (HasFatalFailure()) return;
    ExpectInvariants(*store_);
    ASSERT_EQ(store_->ListCorpora().size(), acknowledged_.size());
    for (const auto& [name, blocks] : acknowledged_) {
      const auto record = store_->GetCorpus(name);
      ASSERT_TRUE(record.ok()) << name;
      ASSERT_EQ(record->chain.size(), blocks) << name;
      if (blocks > 0) ExpectWhole(record->chain);
    }
  }
}

// A disk that breaks in the middle of an operation: it fails, and then either happened or did not.
TEST_F(PowerLossTest, AnErrorLeavesOldOrNewAndNothingBetween) {
  std::mt19937 random(TestSeed());
  for (const DiskState state : {DiskState::kFull, DiskState::kBroken}) {
    for (int round = 0; round < 4; ++round) {
      Work(random, 5);
      const auto before = acknowledged_;
      disk_->SetState(state);
      Work(random, 6);
      EXPECT_EQ(acknowledged_, before) << "acknowledged on a disk that takes no writes";
      for (const CorpusRecord& record : store_->ListCorpora()) {
        if (!record.chain.empty()) ExpectWhole(record.chain);  // still readable
      }
      disk_->SetState(DiskState::kFine);
      const TestCorpus probe = MakeCorpus(77, 3);
      Ingest("probe", probe);  // writes again without being opened again
      if (HasFailure()) return;
      ASSERT_TRUE(store_->RemoveCorpus("probe").ok());
      ExpectInvariants(*store_);
      if (round % 2 == 0) Reopen();
      ExpectInvariants(*store_);
      for (const auto& [name, blocks] : acknowledged_) {
        const auto record = store_->GetCorpus(name);
        ASSERT_TRUE(record.ok()) << name;
        ASSERT_GE(record->chain.size(), blocks) << name;
      }
      acknowledged_.clear();  // a failed publish may have happened: take what is there
      for (const CorpusRecord& record : store_->ListCorpora()) {
        acknowledged_[record.name] = record.chain.size();
      }
    }
  }
}

}  // namespace
}  // namespace corpusd
