// Every family that Hugging Face folders are read for, against transformers in float32: tiny random
// models with each switch varied (tests/golden/make_families.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "engine/backend/cpu_backend.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/unit/engine/exact_kv_backend.h"
#include "tests/unit/engine/family_logits.h"

namespace corpusd {
namespace {

std::vector<FamilyCase> Cases() {
  const char* const path = std::getenv("CORPUSD_FAMILIES");
  return ReadFamilyCases(path != nullptr ? path : GoldenPath("families.jsonl"));
}

TEST(ModelFamilies, TheGraphAgreesWithTransformersInAnySplit) {
  for (const FamilyCase& family_case : Cases()) {
    SCOPED_TRACE(family_case.name);
    double worst = 0;
    for (const size_t call_tokens : {0, 1, 7, 16, 33}) {
      const TempDir folder;
      ExactKvBackend backend;
      const LoadedFamily loaded = LoadFamily(family_case, folder.path(), backend);
      if (loaded.model == nullptr) break;
      const double difference = Quantile(
          LogitDifferences(family_case,
                           AllLogits(*loaded.model, backend, family_case.ids, call_tokens)),
          1);
      EXPECT_LT(difference, 2e-4) << "calls of " << call_tokens << " tokens";
      worst = std::max(worst, difference);
    }
    std::cout << "largest difference " << worst << ": " << family_case.name << "\n";
  }
}

// Keys and values rounded to bfloat16, as the store keeps them, move a logit by some hundredths,
// and now and then a token to another expert; a wrong graph moves all by whole units.
TEST(ModelFamilies, TheFastPathFollowsTheGraph) {
  for (const FamilyCase& family_case : Cases()) {
    SCOPED_TRACE(family_case.name);
    const TempDir folder;
    auto backend = MakeCpuBackend({2, "auto"});
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    const LoadedFamily loaded = LoadFamily(family_case, folder.path(), **backend);
    ASSERT_NE(loaded.model, nullptr);
    const auto rows = AllLogits(*loaded.model, **backend, family_case.ids, 0);
    const double median = Quantile(LogitDifferences(family_case, rows), 0.5);
    std::cout << "median difference " << median << ": " << family_case.name << "\n";
    EXPECT_LT(median, 0.2);
  }
}

// Questions that decode together get, bit for bit, what each gets alone; so do the experts.
TEST(ModelFamilies, SequencesTogetherComputeWhatEachComputesAlone) {
  for (const FamilyCase& family_case : Cases()) {
    SCOPED_TRACE(family_case.name);
    const TempDir folder;
    auto backend = MakeCpuBackend({2, "auto"});
    ASSERT_TRUE(backend.ok());
    const LoadedFamily loaded = LoadFamily(family_case, folder.path(), **backend);
    ASSERT_NE(loaded.model, nullptr);
    const Model& model = *loaded.model;
    const ModelConfig& config = model.config();
    const KvFormat format = *model.Format("bf16");
    const auto scratch = ForwardScratch::Create(**backend, config, 64);
    const auto hidden = [&](uint32_t row) {
      const MatrixView view = (*scratch)->hidden->Matrix(row + 1, config.hidden);
      return std::vector<float>(view.row(row), view.row(row) + config.hidden);
    };
    const auto go_on = [] { return true; };
    std::vector<std::unique_ptr<KvSequence>> alone, together;
    std::vector<KvSequence*> sequences;
    std::vector<TokenId> tokens;
    std::vector<std::vector<float>> expected;
    for (uint32_t s = 0; s < 3; ++s) {  // of different lengths, some at a border of chunks
      const auto prompt = std::span(family_case.ids).first(15 + s);
      tokens.push_back(family_case.ids[20 + s]);
      for (auto* list : {&alone, &together}) {
        list->push_back(std::make_unique<KvSequence>(format, format));
        ASSERT_TRUE(model.Forward(prompt, *list->back(), **scratch, go_on).ok());
      }
      sequences.push_back(together.back().get());
      ASSERT_TRUE(model.Forward(std::span(tokens).last(1), *alone.back(), **scratch, go_on).ok());
      expected.push_back(hidden(0));
    }
    ASSERT_TRUE(model.ForwardEach(tokens, sequences, **scratch, go_on).ok());
    for (uint32_t s = 0; s < 3; ++s) EXPECT_EQ(hidden(s), expected[s]) << s;
  }
}

// A row's result does not depend on where its neighbours are sent.
TEST(MixExperts, RowsDoNotDependOnTheirNeighbours) {
  constexpr uint32_t kHidden = 32, kInner = 24, kExperts = 4, kRows = 40;
  auto backend = MakeCpuBackend({2, "auto"});
  ASSERT_TRUE(backend.ok());
  ASSERT_LT((*backend)->few_rows(), kRows);
  std::vector<float> numbers(size_t{2} * kInner * kHidden);
  std::vector<Expert> experts(kExperts);
  uint32_t state = 1;
  const auto next = [&] {
    state = state * 1664525 + 1013904223;
    return static_cast<float>(state >> 8) / 8388608.0F - 1;
  };
  const auto load = [&](uint32_t rows, uint32_t cols) {
    for (float& number : numbers) number = next();
    const std::vector<WeightSource> sources = {
        {"w", WeightType::kF32, rows, cols, std::as_bytes(std::span(numbers))}};
    return *(*backend)->LoadWeight(sources);
  };
  for (Expert& expert : experts) {
    expert.gate_up = load(2 * kInner, kHidden);
    expert.down = load(kHidden, kInner);
  }
  const auto matrix = [](std::vector<float>& data, uint32_t cols) {
    data.resize(size_t{kRows} * cols);
    return MatrixView{data.data(), kRows, cols, cols};
  };
  std::vector<float> x, logits, gathered, result, gate_up, activated;
  ExpertInput input{matrix(x, kHidden),
                    matrix(logits, kExperts),
                    experts,
                    1,
                    matrix(gathered, kHidden),
                    matrix(result, kHidden),
                    matrix(gate_up, 2 * kInner),
                    matrix(activated, kInner)};
  for (float& number : x) number = next();
  // First all rows go to expert 0, then row 7 alone does.
  std::vector<std::vector<float>> outs(2);
  for (uint32_t round = 0; round < 2; ++round) {
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t e = 0; e < kExperts; ++e) logits[r * kExperts + e] = e == 1 ? 0 : -1;
      if (round == 0 || r == 7) logits[r * kExperts] = 0.5F;
    }
    const MatrixView out = matrix(outs[round], kHidden);
    (*backend)->MixExperts(out, input);
  }
  const auto row = [&](uint32_t round, uint32_t r) {
    return std::vector<float>(outs[round].begin() + r * kHidden,
                              outs[round].begin() + (r + 1) * kHidden);
  };
  EXPECT_EQ(row(0, 7), row(1, 7));
  EXPECT_NE(row(0, 6), row(1, 6));
  EXPECT_NE(row(0, 7), std::vector<float>(kHidden, 0));
}

}  // namespace
}  // namespace corpusd
