// Every family that Hugging Face folders are read for, on a CUDA device against transformers in
// float32: tiny random models of shapes that the kernels take, with each switch varied
// (tests/golden/make_families.py --device).
#include <cstdio>
#include <cstring>

#include "engine/backend/device_backend.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/unit/engine/family_logits.h"

namespace corpusd {
namespace {

class CudaFamilies : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    auto backend = MakeCudaBackend(0, 0);
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    cuda_ = std::move(*backend);
  }

  static std::vector<FamilyCase> Cases() {
    return ReadFamilyCases(GoldenPath("families_device.jsonl"));
  }

  std::unique_ptr<Backend> cuda_;
};

// Few rows keep float32's worth in products, so there it is keys and values in bfloat16 that move a
// logit; many rows are rounded to bfloat16. Now and then a token goes to another expert. A wrong
// graph moves all logits by whole units.
TEST_F(CudaFamilies, LogitsAreTransformersInAnySplit) {
  for (const FamilyCase& family_case : Cases()) {
    SCOPED_TRACE(family_case.name);
    const TempDir folder;
    const LoadedFamily loaded = LoadFamily(family_case, folder.path(), *cuda_);
    ASSERT_NE(loaded.model, nullptr);
    std::printf("median, nine tenths, all:");
    for (const size_t call_tokens : {0, 1, 16, 33}) {
      const auto differences = LogitDifferences(
          family_case, AllLogits(*loaded.model, *cuda_, family_case.ids, call_tokens));
      const double median = Quantile(differences, 0.5), most = Quantile(differences, 0.9);
      std::printf("  %.4f %.4f %.3f (%zu)", median, most, Quantile(differences, 1), call_tokens);
      EXPECT_LT(median, 0.1) << "calls of " << call_tokens << " tokens";
      EXPECT_LT(most, 0.5) << "calls of " << call_tokens << " tokens";
    }
    std::printf(": %s\n", family_case.name.c_str());
  }
}

// Questions that decode together get, bit for bit, what each gets alone; so do rows of a call that
// go to experts with others.
TEST_F(CudaFamilies, SequencesTogetherComputeWhatEachComputesAlone) {
  for (const FamilyCase& family_case : Cases()) {
    SCOPED_TRACE(family_case.name);
    const TempDir folder;
    const LoadedFamily loaded = LoadFamily(family_case, folder.path(), *cuda_);
    ASSERT_NE(loaded.model, nullptr);
    const Model& model = *loaded.model;
    const ModelConfig& config = model.config();
    const KvFormat format = *model.Format("bf16");
    const auto scratch = ForwardScratch::Create(*cuda_, config, 64, /*shared=*/true);
    const auto go_on = [] { return true; };
    const auto hidden = [&](uint32_t row) {
      const MatrixView view = (*scratch)->hidden->Matrix(row + 1, config.hidden);
      return std::vector<float>(view.row(row), view.row(row) + config.hidden);
    };
    std::vector<std::unique_ptr<KvSequence>> together;
    std::vector<KvSequence*> sequences;
    std::vector<TokenId> tokens;
    std::vector<std::vector<float>> expected;
    for (uint32_t s = 0; s < 3; ++s) {  // of different lengths, some at a border of chunks
      const auto prompt = std::span(family_case.ids).first(15 + s);
      tokens.push_back(family_case.ids[20 + s]);
      KvSequence alone(format, format);
      ASSERT_TRUE(model.Forward(prompt, alone, **scratch, go_on).ok());
      ASSERT_TRUE(model.Forward(std::span(tokens).last(1), alone, **scratch, go_on).ok());
      expected.push_back(hidden(0));
      together.push_back(std::make_unique<KvSequence>(format, format));
      ASSERT_TRUE(model.Forward(prompt, *together.back(), **scratch, go_on).ok());
      sequences.push_back(together.back().get());
    }
    ASSERT_TRUE(model.ForwardEach(tokens, sequences, **scratch, go_on).ok());
    for (uint32_t s = 0; s < 3; ++s) EXPECT_EQ(hidden(s), expected[s]) << "sequence " << s;
    // A prompt's rows, in one call and cut where both calls have many rows, over one chunk.
    KvSequence whole(format, format), cut(format, format);
    const auto ids = std::span(family_case.ids).first(34);
    ASSERT_TRUE(model.Forward(ids, whole, **scratch, go_on).ok());
    const std::vector<float> last = hidden(33);
    ASSERT_TRUE(model.Forward(ids.first(17), cut, **scratch, go_on).ok());
    ASSERT_TRUE(model.Forward(ids.last(17), cut, **scratch, go_on).ok());
    const bool spans = std::ranges::any_of(config.layer_configs, [](const LayerConfig& layer) {
      return layer.span != AttentionSpan::kAll && layer.span_tokens < 64;
    });
    if (!spans) {
      EXPECT_EQ(hidden(16), last);
    }
  }
}

}  // namespace
}  // namespace corpusd
