// tests/unit/store/tier_under_test.h -- the three kinds of memory behind one face, for the set of
// tests that runs over each. A block here is a corpus of one block, MakeCorpus(seed, 1).
// Thread-safe but for Damage and the making.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {

class TierUnderTest {
 public:
  virtual ~TierUnderTest() = default;
  // Brings the block here. kResourceExhausted: no room.
  virtual Status Put(uint32_t seed) = 0;
  virtual bool Contains(uint32_t seed) = 0;
  // A lease: while it lives, the block's memory does. bytes: its content, checked; empty if the
  // tier does not serve the block.
  struct Lease {
    std::shared_ptr<const void> hold;
    std::vector<std::byte> bytes;
  };
  virtual Lease Read(uint32_t seed) = 0;
  virtual Status Pin(uint32_t seed) = 0;
  virtual void Drop(uint32_t seed) = 0;
  // From now on this block's stored bytes, or those on their way here, are not what they should be.
  virtual void Damage(uint32_t seed) = 0;
  virtual uint64_t used_bytes() = 0;
  virtual uint64_t capacity_bytes() = 0;
};

using TierMaker = std::unique_ptr<TierUnderTest> (*)(const std::string& folder);
std::unique_ptr<TierUnderTest> MakeHostUnderTest(const std::string& folder);
std::unique_ptr<TierUnderTest> MakeDeviceUnderTest(const std::string& folder);
std::unique_ptr<TierUnderTest> MakeDiskUnderTest(const std::string& folder);

}  // namespace corpusd
