// A child process publishes, removes and shares until SIGKILL finds it at a random moment; what is
// left must be whole blocks, records that name only them, and room for the next attempt.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>

#include <array>

#include "tests/property/store_invariants.h"

namespace corpusd {
namespace {

constexpr const char* kFolderVariable = "CORPUSD_CRASH_FOLDER";
constexpr const char* kWorkSeedVariable = "CORPUSD_CRASH_SEED";
constexpr const char* kEvictVariable = "CORPUSD_CRASH_EVICT";
constexpr size_t kRunBlocks = 4;
constexpr uint64_t kChunkBlocks = 6;           // so that runs end within chunks, and with them
constexpr int64_t kFarMs = 4'000'000'000'000;  // an expiry that does not come
constexpr uint64_t kSmallDiskBytes = uint64_t{16} << 20;

class CrashRecoveryTest : public StoreFixture {
 protected:
  // This program again, as CrashWorker, on this test's folder. RETURNS its pid; events gets the
  // end of a pipe where a byte arrives after each publish.
  pid_t StartWorker(uint32_t seed, const std::string& fault, int* events) {
    std::array<int, 2> ends{};
    EXPECT_EQ(pipe(ends.data()), 0);
    const pid_t child = fork();
    if (child == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      close(ends[0]);
      close(ends[1]);
      setenv(kFolderVariable, folder_.c_str(), 1);
      setenv(kWorkSeedVariable, std::to_string(seed).c_str(), 1);
      if (options_.evict_disk) setenv(kEvictVariable, "1", 1);
      if (!fault.empty()) setenv("CORPUSD_FAULT", fault.c_str(), 1);
      execl("/proc/self/exe", "worker", "--gtest_filter=CrashWorker.DISABLED_Work",
            "--gtest_also_run_disabled_tests", nullptr);
      _exit(3);
    }
    close(ends[1]);
    *events = ends[0];
    return child;
  }

  // Reads until so many publishes are told, or the worker ends. RETURNS how many were.
  size_t AwaitPublishes(int events, size_t count) {
    size_t publishes = 0;
    char text = 0;
    while (publishes < count && read(events, &text, 1) == 1) {
      publishes += text == '+' ? 1 : 0;
      told_ += text;
    }
    return publishes;
  }

  void CheckAfterCrash() {
    Reopen();
    if (HasFatalFailure()) return;
    for (const CorpusRecord& record : store_->ListCorpora()) {
      EXPECT_EQ(record.chain.size() % kRunBlocks, 0u) << "part of a publish became visible";
      if (!record.chain.empty()) ExpectWhole(record.chain);
      // What is evicted may have lost what its last chunk saw.
      ASSERT_EQ(record.parts.size(), record.name.starts_with("old") ? 0u : 1u);
      if (!record.parts.empty() && record.state != CorpusState::kEvicted) {
        EXPECT_EQ(record.parts[0].held, ChunkTail(record.chain.size(), kChunkBlocks));
      }
      // An update takes the whole place of what it replaces, or nothing of it.
      const bool beside = record.name.ends_with("~update");
      EXPECT_TRUE(record.replaces.empty() || beside) << record.name;
      const bool left = record.name.ends_with("~previous");
      EXPECT_EQ(left, record.priority == RetentionPriority::kLow) << record.name;
      EXPECT_EQ(left, record.expires_at_ms != 0) << record.name;
    }
    ExpectInvariants(*store_);
    size_t sidecars = 0;
    for (const CorpusRecord& record : store_->ListCorpora()) {
      const auto sidecar = store_->Sidecar(record.id, "index");
      if (sidecar.status().code() == StatusCode::kNotFound) continue;
      ASSERT_TRUE(sidecar.ok()) << sidecar.status().ToString();
      EXPECT_FALSE(sidecar->empty());
      ++sidecars;
    }
    const std::filesystem::directory_iterator files(folder_ + "/sidecars");
    EXPECT_EQ(std::distance(begin(files), end(files)), static_cast<ptrdiff_t>(sidecars))
        << "what nobody owns, or a draft";
  }

  // With all corpora gone nothing of them is left, orphans of crashes included.
  void CheckNothingLeaks() {
    for (const CorpusRecord& record : store_->ListCorpora()) {
      ASSERT_TRUE(store_->RemoveCorpus(record.name).ok());
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/segments"));
    EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/sidecars"));
  }

  std::string told_;  // by a worker, on both its streams
};

TEST_F(CrashRecoveryTest, KillAtAnyMomentLeavesWholeBlocks) {
  std::mt19937 random(TestSeed());
  for (int round = 0; round < 12; ++round) {
    store_.reset();
    int events = -1;
    const pid_t child = StartWorker(static_cast<uint32_t>(random()), "", &events);
    const size_t publishes = 1 + random() % 8;
    EXPECT_EQ(AwaitPublishes(events, publishes), publishes);
    usleep(random() % 30'000);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    close(events);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the worker ended by itself with " << WEXITSTATUS(status);
    CheckAfterCrash();
    if (HasFatalFailure()) return;
  }
  CheckNothingLeaks();
}

// The same at the places where a crash is worst.
TEST_F(CrashRecoveryTest, CrashAroundPayloadAndCatalogue) {
  for (const char* const point : {"payload.write", "payload.written", "catalog.write",
                                  "catalog.written", "sidecar.write", "sidecar.written"}) {
    for (const int after : {0, 1, 2, 5}) {
      store_.reset();
      int events = -1;
      const std::string fault = std::string(point) + "=crash:after=" + std::to_string(after);
      const pid_t child = StartWorker(static_cast<uint32_t>(after), fault, &events);
      AwaitPublishes(events, SIZE_MAX);
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      close(events);
      ASSERT_TRUE(WIFSIGNALED(status)) << fault << " " << WEXITSTATUS(status);
      CheckAfterCrash();
      if (HasFatalFailure()) return;
    }
  }
  CheckNothingLeaks();
}

// The same while every publish makes others go.
TEST_F(CrashRecoveryTest, KillWhileAFullTierEvictsLeavesWholeRunsAndNoLeak) {
  options_.evict_disk = true;
  options_.evict_run_blocks = kRunBlocks;
  options_.disk_bytes = kSmallDiskBytes;
  Reopen();
  for (uint32_t i = 0; i < 24; ++i) Ingest("old" + std::to_string(i), MakeCorpus(50 + i, 12));
  ASSERT_GT(store_->evictions().passes, 0u);
  std::mt19937 random(TestSeed());
  const auto run_worker = [&](uint32_t seed, const std::string& fault, size_t publishes) {
    store_.reset();
    told_.clear();
    int events = -1;
    const pid_t child = StartWorker(seed, fault, &events);
    AwaitPublishes(events, publishes);
    if (fault.empty()) {
      usleep(random() % 30'000);
      kill(child, SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    AwaitPublishes(events, SIZE_MAX);
    close(events);
    ASSERT_TRUE(WIFSIGNALED(status)) << fault << " " << WEXITSTATUS(status) << " " << told_;
    CheckAfterCrash();
    EXPECT_LE(store_->Usage()[1].used_bytes, options_.disk_bytes);
  };
  for (int round = 0; round < 6 && !HasFailure(); ++round) {
    run_worker(static_cast<uint32_t>(random()), "", 1 + random() % 8);
  }
  for (const char* const point : {"evict.step", "catalog.write", "catalog.written"}) {
    for (const int after : {0, 1, 3}) {
      if (HasFailure()) return;
      run_worker(static_cast<uint32_t>(after),
                 std::string(point) + "=crash:after=" + std::to_string(after), SIZE_MAX);
    }
  }
  CheckNothingLeaks();
}

// Not a test of its own: what those above start and kill.
class CrashWorker : public StoreFixture {
 protected:
  void SetUp() override {
    const char* const folder = std::getenv(kFolderVariable);
    if (folder == nullptr) GTEST_SKIP() << "started by CrashRecoveryTest only";
    options_.data_dir = folder;
    options_.host_bytes = 16 * kTestBlockBytes;
    chunk_blocks_ = kChunkBlocks;
    if (std::getenv(kEvictVariable) != nullptr) {
      options_.evict_disk = true;
      options_.evict_run_blocks = kRunBlocks;
      options_.disk_bytes = kSmallDiskBytes;
    }
    ASSERT_TRUE(ArmFaultsFromEnvironment().ok());
    Reopen();
  }
  void TearDown() override {}
};

TEST_F(CrashWorker, DISABLED_Work) {
  std::mt19937 random(static_cast<uint32_t>(std::stoul(std::getenv(kWorkSeedVariable))));
  while (true) {
    const std::string name = "c" + std::to_string(random() % 4);
    const TestCorpus content =
        MakeCorpus(static_cast<uint32_t>(random() % 5), 3 * kRunBlocks, random() % 6);
    const bool updates = store_->GetCorpus(name).ok() && random() % 2 == 0;
    const std::string made = updates ? name + "~update" : name;
    auto record = Create(made, content);
    if (!record.ok()) {
      ASSERT_TRUE(store_->RemoveCorpus(made).ok());
      continue;
    }
    for (size_t run = 1; run <= 3; ++run) {
      record = PublishTo(*record, content, run * kRunBlocks);
      // A block that it shared was evicted in the same moment: who publishes begins again.
      if (record.status().code() == StatusCode::kAborted) break;
      ASSERT_TRUE(record.ok()) << record.status().ToString();
      ASSERT_EQ(write(STDOUT_FILENO, "+", 1), 1);
    }
    if (!record.ok()) {
      ASSERT_TRUE(store_->RemoveCorpus(made).ok());
      continue;
    }
    record->state = CorpusState::kReady;
    if (updates) record->replaces = name;
    ASSERT_TRUE(store_->UpdateCorpus(*record).ok());
    ASSERT_TRUE(store_->PutSidecar(record->id, "index", PayloadOf(record->chain[0])).ok());
    if (!updates) continue;
    const auto replaced = store_->ReplaceCorpus(made, name, name + "~previous", kFarMs);
    ASSERT_TRUE(replaced.ok()) << replaced.status().ToString();
  }
}

}  // namespace
}  // namespace corpusd
