// What must hold of any store at any time, and the seed of a random test. For property tests of the
// store only; it asks the store through its public face.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {

// From CORPUSD_SEED, or new; printed, so that a failure can be run again.
inline uint32_t TestSeed() {
  const char* const text = std::getenv("CORPUSD_SEED");
  const uint32_t seed = text != nullptr ? static_cast<uint32_t>(std::strtoul(text, nullptr, 10))
                                        : std::random_device()();
  std::cout << "CORPUSD_SEED=" << seed << "\n";
  return seed;
}

// Records name only blocks that are stored, whole and theirs; references and extents agree.
inline void ExpectInvariants(BlockStore& store) {
  for (const CorpusRecord& record : store.ListCorpora()) {
    EXPECT_EQ(record.durable_tokens, record.chain.size() * kTestBlockTokens);
    const auto tokens = store.CorpusTokens(record.name);
    ASSERT_TRUE(tokens.ok()) << tokens.status().ToString();
    const auto chain = BuildChain(record.root, *tokens, kTestBlockTokens);
    ASSERT_LE(record.chain.size(), chain.size());
    EXPECT_TRUE(std::equal(record.chain.begin(), record.chain.end(), chain.begin()));
    const auto report = store.Verify(record.name, nullptr);
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_TRUE(report->damaged.empty()) << record.name;
    EXPECT_TRUE(report->missing.empty()) << record.name;
  }
  for (const std::string& line : store.Diagnose()) {
    EXPECT_FALSE(line.starts_with("error")) << line;
  }
}

}  // namespace corpusd
