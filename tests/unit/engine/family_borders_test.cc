// Llama 4's switches mixed with each other, and layers with windows, around every border of chunks
// and windows of texts that are several of them long, against transformers in float32
// (tests/golden/make_families.py --borders): prompts of any length, decodes, any split.
#include <gtest/gtest.h>

#include <iostream>
#include <random>

#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/unit/engine/exact_kv_backend.h"
#include "tests/unit/engine/family_logits.h"

namespace corpusd {
namespace {

using Calls = std::vector<size_t>;

// A prompt of `prompt` tokens, then so many one by one, then all that are left.
Calls PromptAndDecode(size_t prompt, size_t decoded, size_t all) {
  Calls calls = {prompt};
  calls.insert(calls.end(), std::min(decoded, all - prompt), 1);
  if (prompt + decoded < all) calls.push_back(all - prompt - decoded);
  return calls;
}

Calls RandomCalls(size_t all, uint32_t seed) {
  std::mt19937 random(seed);
  Calls calls;
  for (size_t left = all; left > 0; left -= calls.back()) {
    calls.push_back(std::min<size_t>(left, 1 + random() % 70));
  }
  return calls;
}

// All at once, cut at random, and around each border: prompts that end before, at and behind it,
// the next tokens decoded. Longer texts are cut before their borders alone, the longest nowhere
// else.
std::vector<Calls> Splits(const FamilyCase& family_case) {
  const size_t all = family_case.ids.size();
  std::vector<Calls> splits;
  for (const size_t border : family_case.borders) {
    if (border + 1 >= all) continue;
    splits.push_back(PromptAndDecode(border - (border > 1 ? 1 : 0), 3, all));
    if (all > 300) continue;
    splits.push_back(PromptAndDecode(border, 2, all));
    splits.push_back(PromptAndDecode(border + 1, 1, all));
  }
  if (all > 1000) return splits;
  splits.push_back({all});
  splits.push_back(RandomCalls(all, static_cast<uint32_t>(all)));
  return splits;
}

TEST(FamilyBorders, EveryLogitAroundThemInAnySplit) {
  for (const FamilyCase& family_case : ReadFamilyCases(GoldenPath("families_borders.jsonl"))) {
    SCOPED_TRACE(family_case.name);
    const auto splits = Splits(family_case);
    ASSERT_FALSE(splits.empty());
    double worst = 0;
    for (const Calls& calls : splits) {
      const TempDir folder;
      ExactKvBackend backend;
      const LoadedFamily loaded = LoadFamily(family_case, folder.path(), backend);
      ASSERT_NE(loaded.model, nullptr);
      const auto rows = AllLogits(*loaded.model, backend, family_case.ids, calls);
      const double difference = Quantile(LogitDifferences(family_case, rows), 1);
      EXPECT_LT(difference, 2e-4) << "a first call of " << calls.front() << " tokens";
      worst = std::max(worst, difference);
    }
    std::cout << "largest difference " << worst << " in " << splits.size()
              << " splits: " << family_case.name << "\n";
  }
}

}  // namespace
}  // namespace corpusd
