// Matrices made smaller while they are loaded: which, how near, and under which digest.
#include "engine/model/quantized_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "engine/backend/cpu_backend.h"
#include "engine/model/model.h"
#include "kernels/reference/dequantize.h"
#include "tests/support/hashed_checkpoint.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

// A tiny Llama 4 in float32: hidden 32, experts of 24, 4 experts.
class QuantizedSourceTest : public testing::Test {
 protected:
  QuantizedSourceTest() : case_(ReadFamilyCases(GoldenPath("families.jsonl")).front()) {
    WriteCheckpoint(case_, folder_.path());
  }

  std::unique_ptr<ModelSource> Open(WeightMode mode) {
    auto source = OpenModelSource(folder_.path());
    EXPECT_TRUE(source.ok()) << source.status().ToString();
    return WithWeights(*std::move(source), mode, 2);
  }

  // The largest logit of the last position under each mode, with its distance from `exact`.
  std::vector<float> Logits(WeightMode mode) {
    auto backend = *MakeCpuBackend({2, "auto"});
    const auto source = Open(mode);
    uint32_t told = 0;
    const auto model = LoadModel(*source, *backend, [&](uint32_t done, uint32_t layers) {
      EXPECT_EQ(done, ++told);
      EXPECT_EQ(layers, source->config().layers);
    });
    EXPECT_TRUE(model.ok()) << model.status().ToString();
    EXPECT_EQ(told, source->config().layers);
    const KvFormat format = *(*model)->Format("bf16");
    KvSequence kv(format, format);
    const auto rows = static_cast<uint32_t>(case_.ids.size());
    const auto scratch = *ForwardScratch::Create(*backend, source->config(), rows);
    EXPECT_TRUE((*model)->Forward(case_.ids, kv, *scratch, [] { return true; }).ok());
    const auto logits = *backend->Allocate(uint64_t{source->config().vocabulary} * 4, "logits");
    const MatrixView view = logits->Matrix(1, source->config().vocabulary);
    EXPECT_TRUE((*model)->Logits(*scratch, rows - 1, view).ok());
    return {view.row(0), view.row(0) + view.cols};
  }

  const FamilyCase case_;
  TempDir folder_;
};

std::vector<float> Values(const SourceMatrix& matrix) {
  const WeightSource& w = matrix.weight;
  std::vector<float> values(size_t{w.rows} * w.cols);
  for (uint32_t r = 0; r < w.rows; ++r) {
    DequantizeRow(w.type, w.bytes.data() + r * WeightRowBytes(w.type, w.cols),
                  values.data() + size_t{r} * w.cols, w.cols);
  }
  return values;
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(sum / norm);
}

TEST_F(QuantizedSourceTest, EachMatrixIsWhatTheModeSays) {
  const auto exact = Open(WeightMode::kAuto);
  const auto int4 = Open(WeightMode::kInt4);
  const auto int8 = Open(WeightMode::kInt8);
  const ModelConfig& c = exact->config();
  const struct {
    const char* tensor;
    uint32_t rows, cols;
    WeightType in_int4;
  } kPlain[] = {{"blk.0.attn_q.weight", c.q_heads * c.head_dim, c.hidden, WeightType::kQ4_1},
                {"blk.1.ffn_up_shexp.weight", c.expert_feed_forward, c.hidden, WeightType::kQ4_1},
                {"blk.0.ffn_gate_inp.weight", c.experts, c.hidden, WeightType::kF32},
                {"token_embd.weight", c.vocabulary, c.hidden, WeightType::kQ8_0},
                {"output.weight", c.vocabulary, c.hidden, WeightType::kQ8_0}};
  for (const auto& plain : kPlain) {
    SCOPED_TRACE(plain.tensor);
    const auto values = Values(*exact->Matrix(plain.tensor, plain.rows, plain.cols));
    const auto four = int4->Matrix(plain.tensor, plain.rows, plain.cols);
    ASSERT_TRUE(four.ok()) << four.status().ToString();
    EXPECT_EQ(four->weight.type, plain.in_int4);
    const auto eight = int8->Matrix(plain.tensor, plain.rows, plain.cols);
    const bool wide = plain.in_int4 == WeightType::kF32;
    EXPECT_EQ(eight->weight.type, wide ? WeightType::kF32 : WeightType::kQ8_0);
    EXPECT_LT(Distance(Values(*four), values), 0.09);
    EXPECT_LT(Distance(Values(*eight), values), 0.006);
  }
  for (uint32_t expert = 0; expert < c.experts; ++expert) {
    const char* const up = "blk.0.ffn_up_exps.weight";
    const uint32_t inner = c.expert_feed_forward;
    const auto values = Values(*exact->ExpertMatrix(up, expert, c.experts, inner, c.hidden));
    const auto four = int4->ExpertMatrix(up, expert, c.experts, inner, c.hidden);
    ASSERT_TRUE(four.ok()) << four.status().ToString();
    EXPECT_EQ(four->weight.type, WeightType::kQ4_1);
    EXPECT_LT(Distance(Values(*four), values), 0.09);
    // 24 inputs are no whole block.
    const auto down = int4->ExpertMatrix("blk.0.ffn_down_exps.weight", expert, c.experts, c.hidden,
                                         c.expert_feed_forward);
    ASSERT_TRUE(down.ok()) << down.status().ToString();
    EXPECT_EQ(down->weight.type, WeightType::kF32);
  }
}

TEST_F(QuantizedSourceTest, TheModelFollowsTheExactOne) {
  const auto exact = Logits(WeightMode::kAuto);
  const double bf16 = Distance(Logits(WeightMode::kBf16), exact);
  const double int8 = Distance(Logits(WeightMode::kInt8), exact);
  const double int4 = Distance(Logits(WeightMode::kInt4), exact);
  std::cout << "distance of logits: bf16 " << bf16 << ", int8 " << int8 << ", int4 " << int4
            << "\n";
  EXPECT_LT(bf16, 0.02);
  EXPECT_LT(int8, 0.05);
  EXPECT_LT(int4, 0.5);
  EXPECT_LT(int8, int4);
}

TEST_F(QuantizedSourceTest, TheDigestAndTheSizesTellTheMode) {
  std::set<std::string> digests;
  uint64_t bytes = UINT64_MAX;
  for (const WeightMode mode :
       {WeightMode::kAuto, WeightMode::kBf16, WeightMode::kInt8, WeightMode::kInt4}) {
    const auto source = Open(mode);
    digests.insert(*source->WeightsDigestHex(""));
    EXPECT_EQ(*source->WeightsDigestHex(""), *Open(mode)->WeightsDigestHex(""));
    uint64_t total = 0;
    for (const TensorSize& size : source->TensorSizes()) total += size.bytes;
    EXPECT_LT(total, bytes);
    bytes = total;
    EXPECT_EQ(CountParameters(*source), CountParameters(*Open(WeightMode::kAuto)));
  }
  EXPECT_EQ(digests.size(), 4U);
}

TEST_F(QuantizedSourceTest, WhatIsSmallAlreadyStaysAsItIs) {
  WriteTinyModel(folder_.path() + "/tiny.gguf");  // Q4_1
  for (const WeightMode mode : {WeightMode::kBf16, WeightMode::kInt8, WeightMode::kInt4}) {
    auto source = *OpenModelSource(folder_.path() + "/tiny.gguf");
    const ModelSource* const same = source.get();
    EXPECT_EQ(WithWeights(std::move(source), mode, 1).get(), same);
  }
}

TEST(WeightMode, NamesAreParsed) {
  EXPECT_EQ(*ParseWeightMode("int4"), WeightMode::kInt4);
  EXPECT_EQ(*ParseWeightMode("auto"), WeightMode::kAuto);
  const auto wrong = ParseWeightMode("int3");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
