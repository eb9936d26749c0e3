#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace corpusd {
namespace {

TEST(ThreadPool, DoesEveryItemOnceWithADistinctThreadNumber) {
  ThreadPool pool(5);
  EXPECT_EQ(pool.threads(), 5u);
  for (int round = 0; round < 2000; ++round) {
    const auto items = static_cast<uint32_t>(round % 37);
    std::vector<std::atomic<int>> counts(items);
    std::vector<std::atomic<int>> busy(5);
    pool.ParallelFor(items, [&](uint32_t item, unsigned thread) {
      ASSERT_LT(thread, 5u);
      ASSERT_EQ(busy[thread].fetch_add(1), 0);
      counts[item].fetch_add(1);
      busy[thread].fetch_sub(1);
    });
    for (const auto& count : counts) ASSERT_EQ(count.load(), 1);
  }
}

TEST(ThreadPool, RangesDoEveryItemOnceAndAThreadsOwnInOrder) {
  ThreadPool pool(3);
  for (int round = 0; round < 2000; ++round) {
    const auto items = static_cast<uint32_t>(round % 23);
    std::vector<std::atomic<int>> counts(items);
    std::vector<uint32_t> own_next(3);
    pool.ParallelForRanges(items, [&](uint32_t item, unsigned thread) {
      counts[item].fetch_add(1);
      if (item < pool.RangeBegin(items, thread) || item >= pool.RangeBegin(items, thread + 1)) {
        return;  // another's, which it helps with
      }
      ASSERT_GE(item, own_next[thread]);
      own_next[thread] = item + 1;
    });
    for (const auto& count : counts) ASSERT_EQ(count.load(), 1);
  }
  EXPECT_EQ(pool.RangeBegin(7, 0), 0u);
  EXPECT_EQ(pool.RangeBegin(7, 3), 7u);
}

TEST(ThreadPool, WakesSleepersAfterAPause) {
  ThreadPool pool(3);
  std::atomic<uint64_t> sum{0};
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pool.ParallelFor(100, [&](uint32_t item, unsigned) { sum += item; });
  }
  EXPECT_EQ(sum.load(), 5u * 4950);
}

TEST(ThreadPool, EndsWithoutEverWorking) {
  for (int round = 0; round < 50; ++round) {
    const auto pool = std::make_unique<ThreadPool>(4);
    EXPECT_EQ(pool->threads(), 4u);
  }
  EXPECT_GE(ThreadPool(0).threads(), 1u);
}

}  // namespace
}  // namespace corpusd
