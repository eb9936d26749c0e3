// The device tier over a CUDA device's memory: what a tier promises, and how near copies come to
// what the bus gives.
#include "store/cuda/cuda_device_memory.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <future>
#include <random>
#include <vector>

#include "store/base/crc32c.h"
#include "store/device_tier.h"

namespace corpusd {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::vector<std::byte> RandomBytes(size_t count, uint32_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i + 8 <= count; i += 8) {
    const uint64_t value = random();
    std::memcpy(&bytes[i], &value, 8);
  }
  return bytes;
}

std::vector<uint32_t> CrcsOf(std::span<const std::byte> bytes, size_t parts) {
  std::vector<uint32_t> crcs;
  const size_t part = bytes.size() / parts;
  for (size_t i = 0; i < parts; ++i) crcs.push_back(Crc32c(bytes.subspan(i * part, part)));
  return crcs;
}

class CudaDeviceMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
      GTEST_SKIP() << "this host has no CUDA device";
    }
    uint64_t taken = 0;
    auto memory = MakeCudaDeviceMemory(0, 256 * kMiB, &taken);
    ASSERT_TRUE(memory.ok()) << memory.status().ToString();
    EXPECT_EQ(taken, 256 * kMiB);
    memory_ = std::move(*memory);
  }
  std::shared_ptr<DeviceMemory> memory_;
};

TEST_F(CudaDeviceMemoryTest, WhatIsCopiedInComesOutAndIsChecked) {
  for (const auto& [bytes, parts] :
       {std::pair<size_t, size_t>{16, 1}, {4096, 2}, {30 * 50304, 30}, {5 * (3 * kMiB - 48), 5}}) {
    const std::vector<std::byte> source = RandomBytes(bytes, static_cast<uint32_t>(bytes));
    const uint64_t address = *memory_->Allocate(bytes);
    EXPECT_EQ(address % 256, 0u);
    ASSERT_TRUE(memory_->CopyIn(address, source)->Wait().ok());
    std::vector<uint32_t> crcs = CrcsOf(source, parts);
    const Status good = memory_->Verify(address, bytes, crcs);
    EXPECT_TRUE(good.ok()) << bytes << " bytes: " << good.ToString();
    crcs.back() ^= 1;
    const Status bad = memory_->Verify(address, bytes, crcs);
    EXPECT_EQ(bad.code(), StatusCode::kCorruption);
    EXPECT_NE(bad.message().find("section " + std::to_string(parts - 1)), std::string::npos);
    std::vector<std::byte> target(bytes);
    ASSERT_TRUE(memory_->CopyOut(address, target)->Wait().ok());
    EXPECT_EQ(target, source);
    memory_->Free(address);
  }
}

TEST_F(CudaDeviceMemoryTest, FullMemoryIsRefusedAndRoomComesBack) {
  std::vector<uint64_t> pieces;
  while (true) {
    const auto piece = memory_->Allocate(7 * kMiB);
    if (!piece.ok()) {
      EXPECT_EQ(piece.status().code(), StatusCode::kResourceExhausted);
      break;
    }
    pieces.push_back(*piece);
  }
  EXPECT_EQ(pieces.size(), 36u);
  // Freed in a shuffled order, all of it is one piece again.
  for (size_t i = 0; i < pieces.size(); ++i) memory_->Free(pieces[i * 7 % pieces.size()]);
  const auto all = memory_->Allocate(256 * kMiB);
  EXPECT_TRUE(all.ok());
}

TEST_F(CudaDeviceMemoryTest, ATierKeepsBlocksAndRefusesWhatArrivesDamaged) {
  DeviceTier tier(memory_, 16 * kMiB);
  const std::vector<std::byte> payload = RandomBytes(30 * 50304, 3);
  Digest digest;
  digest.bytes[0] = 7;
  const BlockHeader header = MakeBlockHeader(digest, 128, payload, 30);
  const auto block = tier.Put(header, {digest, 0}, payload);
  ASSERT_TRUE(block.ok()) << block.status().ToString();
  EXPECT_EQ(tier.Find(digest), *block);
  std::vector<std::byte> back(payload.size());
  EXPECT_TRUE(tier.ReadSections(**block, {0, 30}, back).ok());
  EXPECT_EQ(back, payload);
  std::vector<std::byte> damaged = payload;
  damaged[50304 * 4 + 9] ^= std::byte{16};
  digest.bytes[0] = 8;
  BlockHeader other = header;
  other.digest = digest;
  EXPECT_EQ(tier.Put(other, {digest, 1}, damaged).status().code(), StatusCode::kCorruption);
  EXPECT_EQ(tier.Find(digest), nullptr);
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Prints; there is no bound, since hosts are shared.
class CudaCopiesTest : public CudaDeviceMemoryTest, public testing::WithParamInterface<size_t> {};

TEST_P(CudaCopiesTest, BesideTheBus) {
  const size_t kBlock = GetParam(), kBlocks = (size_t{192} << 20) / kBlock, kRounds = 8;
  const std::vector<std::byte> payload = RandomBytes(kBlock * kBlocks, 5);
  std::vector<uint64_t> places;
  for (size_t i = 0; i < kBlocks; ++i) places.push_back(*memory_->Allocate(kBlock));
  void* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(&pinned, kBlock * kBlocks, 0), cudaSuccess);
  std::memcpy(pinned, payload.data(), payload.size());
  const auto bus = [&] {
    cudaMemcpy(reinterpret_cast<void*>(places[0]), pinned, kBlock * kBlocks,
               cudaMemcpyHostToDevice);
  };
  std::vector<std::vector<uint32_t>> crcs;
  for (size_t i = 0; i < kBlocks; ++i) {
    crcs.push_back(CrcsOf(std::span(payload).subspan(i * kBlock, kBlock), 6));
  }
  const auto tier = [&](size_t threads, const std::byte* from, bool check) {
    std::vector<std::future<void>> workers;
    for (size_t t = 0; t < threads; ++t) {
      workers.push_back(std::async(std::launch::async, [&, t] {
        for (size_t i = t; i < kBlocks * kRounds; i += threads) {
          const size_t b = i % kBlocks;
          EXPECT_TRUE(memory_->CopyIn(places[b], {from + b * kBlock, kBlock})->Wait().ok());
          if (!check) continue;
          EXPECT_TRUE(memory_->Verify(places[b], kBlock, crcs[b]).ok());
        }
      }));
    }
    for (auto& worker : workers) worker.get();
  };
  bus();
  const double gigabytes = static_cast<double>(kBlock * kBlocks) / 1e9;
  const double best = gigabytes * kRounds / Seconds([&] {
                        for (size_t i = 0; i < kRounds; ++i) bus();
                      });
  std::printf("one pinned copy: %.1f GB/s\n", best);
  // Out of memory that is not pinned, and out of pinned frames as a host tier has them.
  const size_t frames = payload.size() / kPinFrameBytes + 1;
  std::vector<std::byte> room((frames + 1) * kPinFrameBytes);
  const auto begin = reinterpret_cast<uintptr_t>(room.data());
  std::byte* const frame = room.data() + (kPinFrameBytes - begin % kPinFrameBytes);
  std::memcpy(frame, payload.data(), payload.size());
  for (size_t i = 0; i < frames; ++i) {
    EXPECT_TRUE(memory_->Pin({frame + i * kPinFrameBytes, kPinFrameBytes}));
  }
  tier(8, payload.data(), true);  // makes the lanes
  for (const std::byte* from : {payload.data(), static_cast<const std::byte*>(frame)}) {
    for (const bool check : {false, true}) {
      for (const size_t threads : {1, 2, 4, 8}) {
        const double seconds = Seconds([&] { tier(threads, from, check); });
        const double rate = gigabytes * kRounds / seconds;
        std::printf("blocks of %.1f MB, %s%s, %zu threads: %.1f GB/s, %.0f %%\n", kBlock / 1e6,
                    from == frame ? "pinned" : "staged", check ? ", checked there" : "", threads,
                    rate, 100 * rate / best);
      }
    }
  }
  std::vector<std::byte> back(payload.size());
  for (size_t i = 0; i < kBlocks; ++i) {
    std::span<std::byte> target(frame + i * kBlock, kBlock);
    ASSERT_TRUE(memory_->CopyOut(places[i], target)->Wait().ok());
    std::memcpy(back.data() + i * kBlock, target.data(), kBlock);
  }
  EXPECT_EQ(back, payload);
  memory_->Unpin({frame, frames * kPinFrameBytes});
  const double check =
      Seconds([&] { EXPECT_TRUE(memory_->Verify(places[0], kBlock, crcs[0]).ok()); });
  std::printf("checking one: %.0f us\n", check * 1e6);
  cudaFreeHost(pinned);
}

// Thirty layers of 128 tokens at 8 bits of SmolLM2-135M; twelve of a Scout in bfloat16.
INSTANTIATE_TEST_SUITE_P(Blocks, CudaCopiesTest, testing::Values(30 * 50304, 12 * 16 * 32768));

}  // namespace
}  // namespace corpusd
