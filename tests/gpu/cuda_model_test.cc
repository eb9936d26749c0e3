// A whole model on the CUDA backend: against transformers in float32, against the reference
// backend, and against itself in other cuts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "engine/backend/device_backend.h"
#include "engine/backend/reference_backend.h"
#include "engine/model/gguf.h"
#include "engine/model/model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/golden_logits.h"
#include "tests/unit/kernels/backend_fixture.h"
#include "tests/unit/kernels/basis_fixture.h"

namespace corpusd {
namespace {

class CudaModelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    auto backend = MakeCudaBackend(0, 0);
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    cuda_ = std::move(*backend);
  }

  std::unique_ptr<Model> Tiny(Backend& backend, uint32_t head_dim) {
    const std::string path = folder_.File("tiny.gguf");
    WriteTinyModel(path, {.layers = 3, .q_heads = 4, .kv_heads = 2, .head_dim = head_dim});
    file_ = *GgufFile::Open(path);
    auto model = LoadLlamaModel(*file_, backend);
    EXPECT_TRUE(model.ok()) << model.status().ToString();
    return model.ok() ? std::move(*model) : nullptr;
  }

  const TempDir folder_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Backend> cuda_;
};

TEST_F(CudaModelTest, AgreesWithTransformers) {
  if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent: run deploy/fetch_model";
  // Rounding to bfloat16 moves a logit of about 20 by some hundredths; a wrong graph by whole
  // units.
  const double difference = LargestDifferenceFromGolden(*cuda_, "bf16");
  std::printf("largest difference of a logit: %.3f\n", difference);
  EXPECT_LT(difference, 0.5);
}

// The last token's logits after calls of `cuts` tokens.
std::vector<float> LogitsAfter(const Model& model, Backend& backend, const KvFormat& format,
                               const std::vector<size_t>& cuts) {
  size_t total = 0;
  for (const size_t cut : cuts) total += cut;
  std::vector<TokenId> ids(total);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(3 + i * 37 % 250);
  KvSequence kv(format, format);
  const auto scratch =
      ForwardScratch::Create(backend, model.config(), static_cast<uint32_t>(total));
  size_t first = 0;
  for (const size_t cut : cuts) {
    const Status status =
        model.Forward(std::span(ids).subspan(first, cut), kv, **scratch, [] { return true; });
    EXPECT_TRUE(status.ok()) << status.ToString();
    first += cut;
  }
  const auto logits = backend.AllocateShared(model.config().vocabulary * 4, "logits");
  const MatrixView row = (*logits)->Matrix(1, model.config().vocabulary);
  EXPECT_TRUE(model.Logits(**scratch, static_cast<uint32_t>(cuts.back()) - 1, row).ok());
  return {row.data, row.data + row.cols};
}

TEST_F(CudaModelTest, LogitsAreTheReferencesAndCutsDoNotChangeThem) {
  for (const uint32_t head_dim : {64u, 128u}) {
    const auto model = Tiny(*cuda_, head_dim);
    ASSERT_NE(model, nullptr);
    const KvFormat format = *model->Format("bf16");
    const std::vector<float> whole = LogitsAfter(*model, *cuda_, format, {300});
    for (const std::vector<size_t>& cuts :
         {std::vector<size_t>{17, 283}, {127, 33, 140}, {100, 100, 100}, {282, 18}}) {
      EXPECT_EQ(LogitsAfter(*model, *cuda_, format, cuts), whole);
    }
    const uint32_t few = cuda_->few_rows();
    const std::vector<float> alone =
        LogitsAfter(*model, *cuda_, format, std::vector<size_t>(size_t{10} * few, 1));
    EXPECT_EQ(LogitsAfter(*model, *cuda_, format, std::vector<size_t>(10, few)), alone);
    EXPECT_EQ(LogitsAfter(*model, *cuda_, format, std::vector<size_t>(size_t{5} * few, 2)), alone);
    const auto reference = MakeReferenceBackend();
    const auto exact = Tiny(*reference, head_dim);
    // Random weights have no structure that would keep bfloat16's rounding small; a wrong graph is
    // off by more than 1.
    EXPECT_LT(RelativeError(whole, LogitsAfter(*exact, *reference, format, {300})), 0.15);
    EXPECT_LT(RelativeError(alone, LogitsAfter(*exact, *reference, format, {10 * few})), 0.15);
  }
}

// Steps that are launched as graphs, over a border of pages, are those that are launched one by
// one.
TEST_F(CudaModelTest, StepsAsGraphsComputeTheSame) {
  const std::vector<size_t> steps(150, 1);
  const auto model = Tiny(*cuda_, 64);
  ASSERT_NE(model, nullptr);
  const KvFormat format = *model->Format("bf16");
  const std::vector<float> together = LogitsAfter(*model, *cuda_, format, steps);
  setenv("CORPUSD_CUDA_GRAPHS", "0", 1);
  const auto plain = *MakeCudaBackend(0, 0);
  unsetenv("CORPUSD_CUDA_GRAPHS");
  const auto same = Tiny(*plain, 64);
  ASSERT_NE(same, nullptr);
  EXPECT_EQ(LogitsAfter(*same, *plain, format, steps), together);
}

TEST_F(CudaModelTest, HeadsThatNoKernelTakesAreRefusedAtTheStart) {
  const std::string path = folder_.File("odd.gguf");
  WriteTinyModel(path);  // heads of 16
  const auto file = *GgufFile::Open(path);
  const auto model = LoadLlamaModel(*file, *cuda_);
  EXPECT_EQ(model.status().code(), StatusCode::kUnimplemented) << model.status().ToString();
}

}  // namespace
}  // namespace corpusd
