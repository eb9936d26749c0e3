// Where expanded keys and values lie, and how many rows share the device: host arithmetic of the
// CUDA prefill kernels, checked without a device.
#include <gtest/gtest.h>

#include <set>

#include "kernels/cuda/prefill_attention.h"

namespace corpusd::cuda {
namespace {

// The tensor core's 128-byte swizzle: bits 4 to 6 of an address take those of bits 7 to 9.
uint32_t Swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

TEST(PrefillLayoutTest, ExpandedTilesAreSwizzledRowsOf128Bytes) {
  for (const uint32_t dims : {64u, 128u}) {
    std::set<uint32_t> seen;
    for (uint32_t token = 0; token < kTileTokens; ++token) {
      for (uint32_t dim = 0; dim < dims; ++dim) {
        const uint32_t plain = dim / 64 * kTileTokens * 128 + token * 128 + dim % 64 * 2;
        EXPECT_EQ(ExpandedOffset(token, dim), Swizzled(plain)) << token << " " << dim;
        EXPECT_TRUE(seen.insert(ExpandedOffset(token, dim)).second);
      }
      // What one store writes: eight dims, aligned.
      for (uint32_t dim = 0; dim < dims; dim += 8) {
        EXPECT_EQ(ExpandedOffset(token, dim) % 16, 0u);
        EXPECT_EQ(ExpandedOffset(token, dim + 7), ExpandedOffset(token, dim) + 14);
      }
    }
    EXPECT_EQ(*seen.rbegin(), kTileTokens * dims * 2 - 2);
  }
}

TEST(PrefillLayoutTest, SpansAreSpreadWhereStacksAreFew) {
  const uint32_t span = PrefillSpanPages(128);
  EXPECT_EQ(PrefillParts(4, span, 40, 128), 1u);
  EXPECT_EQ(PrefillParts(4, span + 1, 40, 128), 2u);
  EXPECT_EQ(PrefillParts(16, 4 * span, 40, 128), 1u) << "enough stacks for every multiprocessor";
  for (const uint32_t pages : {1u, span, span + 1, 40 * span, 400 * span}) {
    for (const uint32_t tiles : {1u, 4u, 16u}) {
      const uint32_t parts = PrefillParts(tiles, pages, 40, 128);
      const uint64_t floats = PrefillWorkspaceFloats(tiles, pages, 40, 128);
      // A block that goes on to another span keeps a state; within one span none is needed.
      const uint32_t kept = pages > span ? kPrefillBlocks : 0;
      EXPECT_GE(floats, uint64_t{parts > 1 ? tiles * 40 * parts : kept} * PrefillStateFloats(128));
      EXPECT_LE(floats, kPrefillWorkspaceMax + 2 * kPrefillBlocks);
    }
  }
}

}  // namespace
}  // namespace corpusd::cuda
