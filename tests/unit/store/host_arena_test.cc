#include "store/host_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace corpusd {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::shared_ptr<HostArena> Arena(uint64_t capacity_bytes, HostArena::RunLater later = nullptr) {
  auto arena = HostArena::Create({capacity_bytes, std::move(later), nullptr});
  EXPECT_TRUE(arena.ok()) << arena.status().ToString();
  return *arena;
}

TEST(HostArena, SlotsAreWritableAlignedAndApart) {
  const auto arena = Arena(4 * kMiB);
  std::set<std::byte*> seen;
  for (int i = 0; i < 4; ++i) {
    std::byte* const slot = arena->Allocate(kMiB - 100);
    ASSERT_NE(slot, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(slot) % 4096, 0u);
    std::memset(slot, i, kMiB - 100);
    for (std::byte* const other : seen) EXPECT_GE(std::abs(slot - other), kMiB);
    seen.insert(slot);
  }
  EXPECT_EQ(arena->Allocate(1), nullptr) << "the cap is hard";
  for (std::byte* const slot : seen) arena->Free(slot, kMiB - 100);
  EXPECT_EQ(arena->usage().given_bytes, 0u);
}

TEST(HostArena, AFreedSlotIsUsedAgainBeforeNewMemory) {
  const auto arena = Arena(8 * kMiB);
  std::byte* const first = arena->Allocate(kMiB);
  std::byte* const second = arena->Allocate(kMiB);
  arena->Free(first, kMiB);
  EXPECT_EQ(arena->Allocate(kMiB), first);
  EXPECT_EQ(arena->usage().physical_bytes, 2 * kMiB);
  arena->Free(second, kMiB);
}

TEST(HostArena, PhysicalMemoryStaysUnderTheCapWhateverSizesCome) {
  const auto arena = Arena(16 * kMiB);
  for (uint64_t round = 0; round < 40; ++round) {
    const uint64_t bytes = kMiB + round % 7 * 300'000;
    std::vector<std::byte*> slots;
    while (std::byte* const slot = arena->Allocate(bytes)) {
      slot[0] = std::byte{1};
      slots.push_back(slot);
    }
    EXPECT_EQ(slots.size(), 16 * kMiB / HostArena::WholePages(bytes)) << bytes;
    EXPECT_LE(arena->usage().physical_bytes, 16 * kMiB);
    // Some stay into the next round, so that sizes meet.
    std::byte* const kept = slots.back();
    slots.pop_back();
    for (std::byte* const slot : slots) arena->Free(slot, bytes);
    EXPECT_LE(arena->usage().physical_bytes, 16 * kMiB);
    arena->Free(kept, bytes);
  }
  EXPECT_EQ(arena->usage().given_bytes, 0u);
}

TEST(HostArena, MemoryIsTouchedASliceAheadAndNotBeyondTheCap) {
  std::vector<std::function<void()>> touches;
  const auto arena =
      Arena(40 * kMiB, [&](std::function<void()> touch) { touches.push_back(std::move(touch)); });
  EXPECT_TRUE(touches.empty()) << "nothing before the first use";
  std::byte* const slot = arena->Allocate(kMiB);
  slot[7] = std::byte{42};
  ASSERT_EQ(touches.size(), 1u);
  touches[0]();
  EXPECT_EQ(slot[7], std::byte{42}) << "touching changes nothing";
  EXPECT_EQ(arena->usage().physical_bytes, 32 * kMiB) << "slices end at multiples of 32 MiB";
  std::vector<std::byte*> slots;
  while (std::byte* const next = arena->Allocate(kMiB)) slots.push_back(next);
  EXPECT_EQ(slots.size(), 39u);
  for (const auto& touch : touches) touch();
  EXPECT_EQ(arena->usage().physical_bytes, 40 * kMiB);
}

// TR#15430, DY#13710: a big pool that is touched before the first request is a slow start.
TEST(HostArena, ABigPoolIsTouchedInSlicesWhileItServes) {
  std::vector<std::function<void()>> touches;
  const auto arena =
      Arena(256 * kMiB, [&](std::function<void()> touch) { touches.push_back(std::move(touch)); });
  arena->TouchAll();
  EXPECT_EQ(touches.size(), 8u);
  std::byte* const slot = arena->Allocate(kMiB);  // no touch has run yet
  ASSERT_NE(slot, nullptr);
  slot[0] = std::byte{9};
  for (const auto& touch : touches) touch();
  EXPECT_EQ(slot[0], std::byte{9});
  EXPECT_EQ(arena->usage().physical_bytes, 256 * kMiB);
}

TEST(HostArena, MemoryTouchedAheadIsGivenUpForABlockOfAnotherSize) {
  std::vector<std::function<void()>> touches;
  const auto arena =
      Arena(8 * kMiB, [&](std::function<void()> touch) { touches.push_back(std::move(touch)); });
  std::byte* const first = arena->Allocate(kMiB);
  arena->Free(first, kMiB);
  EXPECT_NE(arena->Allocate(8 * kMiB), nullptr);
  for (const auto& touch : touches) touch();
  EXPECT_LE(arena->usage().physical_bytes, 8 * kMiB);
}

}  // namespace
}  // namespace corpusd
