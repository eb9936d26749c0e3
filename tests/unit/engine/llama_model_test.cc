// The model against transformers in float32, and pieces of it against their definitions.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <iostream>
#include <thread>
#include <utility>

#include "engine/backend/cpu_backend.h"
#include "engine/backend/forwarding_backend.h"
#include "engine/backend/reference_backend.h"
#include "engine/compute_gate.h"
#include "engine/decode/utf8_stream.h"
#include "engine/model/gguf.h"
#include "engine/model/model.h"
#include "engine/prefill/prefill_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/exact_kv_backend.h"
#include "tests/unit/engine/golden_logits.h"

namespace corpusd {
namespace {

TEST(LlamaModel, TheGraphAgreesWithTransformersToOneInAThousand) {
  if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent: run deploy/fetch_model";
  ExactKvBackend backend;
  const double difference = LargestDifferenceFromGolden(backend, "bf16");
  std::cout << "largest difference of a logit: " << difference << "\n";
  EXPECT_LT(difference, 1e-3);
}

TEST(LlamaModel, TheFastPathAgreesWithTransformers) {
  if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent: run deploy/fetch_model";
  auto backend = MakeCpuBackend({2, "auto"});
  ASSERT_TRUE(backend.ok()) << backend.status().ToString();
  // Rounding to bfloat16 moves a logit of about 20 by some hundredths; a wrong graph by whole
  // units.
  const double difference = LargestDifferenceFromGolden(**backend, "bf16");
  std::cout << "largest difference of a logit: " << difference << "\n";
  EXPECT_LT(difference, 0.5);
}

// The last token's logits after calls of `cuts` tokens.
std::vector<float> LogitsAfter(const Model& model, Backend& backend,
                               const std::vector<size_t>& cuts) {
  size_t total = 0;
  for (const size_t cut : cuts) total += cut;
  std::vector<TokenId> ids(total);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>(3 + i * 37 % 250);
  const KvFormat format = *model.Format("bf16");
  KvSequence kv(format, format);
  const auto scratch =
      ForwardScratch::Create(backend, model.config(), static_cast<uint32_t>(total));
  size_t first = 0;
  for (const size_t cut : cuts) {
    EXPECT_TRUE(
        model.Forward(std::span(ids).subspan(first, cut), kv, **scratch, [] { return true; }).ok());
    first += cut;
  }
  const auto logits = backend.AllocateShared(model.config().vocabulary * 4, "logits");
  const MatrixView row = (*logits)->Matrix(1, model.config().vocabulary);
  EXPECT_TRUE(model.Logits(**scratch, static_cast<uint32_t>(cuts.back()) - 1, row).ok());
  return {row.data, row.data + row.cols};
}

// One call and calls cut anywhere give one result, bit for bit: among calls of more rows than
// Backend::few_rows, and among calls of at most so many.
TEST(LlamaModel, CutsOfThePromptDoNotChangeTheLogits) {
  const TempDir folder;
  WriteTinyModel(folder.File("m.gguf"));
  const auto file = GgufFile::Open(folder.File("m.gguf"));
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  for (const char* isa : {"avx2", "auto"}) {
    auto backend = MakeCpuBackend({2, isa});
    ASSERT_TRUE(backend.ok());
    const auto model = LoadLlamaModel(**file, **backend);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    const std::vector<float> whole = LogitsAfter(**model, **backend, {300});
    for (const std::vector<size_t>& cuts :
         {std::vector<size_t>{17, 283}, {127, 33, 140}, {100, 100, 100}, {282, 18}}) {
      EXPECT_EQ(LogitsAfter(**model, **backend, cuts), whole) << isa;
    }
    const uint32_t few = (*backend)->few_rows() == 0 ? 16 : (*backend)->few_rows();
    const std::vector<size_t> single(size_t{10} * few, 1);
    const std::vector<float> alone = LogitsAfter(**model, **backend, single);
    EXPECT_EQ(LogitsAfter(**model, **backend, std::vector<size_t>(10, few)), alone) << isa;
    EXPECT_EQ(LogitsAfter(**model, **backend, std::vector<size_t>(size_t{5} * few, 2)), alone)
        << isa;
  }
}

TEST(LlamaModel, TokensAndPositionsBeyondTheModelAreRefused) {
  const TempDir folder;
  WriteTinyModel(folder.File("m.gguf"));
  const auto file = GgufFile::Open(folder.File("m.gguf"));
  const auto backend = MakeReferenceBackend();
  const auto model = LoadLlamaModel(**file, *backend);
  ASSERT_TRUE(model.ok());
  const KvFormat format = *(*model)->Format("bf16");
  KvSequence kv(format, format);
  const auto scratch = ForwardScratch::Create(*backend, (*model)->config(), 8);
  const std::vector<TokenId> wrong = {(*model)->config().vocabulary};
  EXPECT_EQ((*model)->Forward(wrong, kv, **scratch, [] { return true; }).code(),
            StatusCode::kInvalidArgument);
  const std::vector<TokenId> right = {5};
  EXPECT_EQ((*model)->Forward(right, kv, **scratch, [] { return false; }).code(),
            StatusCode::kCancelled);
  EXPECT_EQ((*model)->Format("cq4").status().code(), StatusCode::kInvalidArgument);
}

TEST(Rope, PlainFrequenciesAndLinearScaling) {
  RopeConfig config;
  config.base = 10000;
  config.dimensions = 8;
  const auto plain = RopeFrequencies(config);
  ASSERT_EQ(plain.size(), 4u);
  EXPECT_DOUBLE_EQ(plain[0], 1);
  EXPECT_NEAR(plain[3], std::pow(10000, -0.75), 1e-15);
  config.scaling = RopeScaling::kLinear;
  config.factor = 4;
  EXPECT_NEAR(RopeFrequencies(config)[1], plain[1] / 4, 1e-15);
  config.frequency_factors = {1, 2, 4, 8};
  EXPECT_NEAR(RopeFrequencies(config)[3], plain[3] / 4 / 8, 1e-15);
}

// YaRN keeps fast pairs, interpolates slow ones, and warms the scores (arXiv 2309.00071).
TEST(Rope, YarnKeepsFastPairsAndDividesSlowOnes) {
  RopeConfig config;
  config.base = 10000;
  config.dimensions = 128;
  const auto plain = RopeFrequencies(config);
  config.scaling = RopeScaling::kYarn;
  config.factor = 8;
  config.original_context = 4096;
  const auto yarn = RopeFrequencies(config);
  EXPECT_DOUBLE_EQ(yarn.front(), plain.front());
  EXPECT_NEAR(yarn.back(), plain.back() / 8, 1e-18);
  for (size_t i = 0; i < yarn.size(); ++i) {
    EXPECT_LE(yarn[i], plain[i] * 1.0000001);
    EXPECT_GE(yarn[i], plain[i] / 8 * 0.9999999);
  }
  EXPECT_NEAR(RopeAttentionFactor(config), std::pow(0.1 * std::log(8.0) + 1, 2), 1e-12);
  EXPECT_FALSE(ValidateRope(config, 256).ok());
  config.dimensions = 127;
  EXPECT_FALSE(ValidateRope(config, 128).ok());
}

TEST(Utf8StreamTest, CharactersComeWholeAndBrokenOnesAreReplaced) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Append("a\xe4\xb8"), "a");
  EXPECT_EQ(stream.Append("\xad"), "\xe4\xb8\xad");
  EXPECT_EQ(stream.Append("\xff"), "\xef\xbf\xbd");
  EXPECT_EQ(stream.Append("\xe4x"), "\xef\xbf\xbdx");
  EXPECT_EQ(stream.Append("\xf0\x9f"), "");
  EXPECT_EQ(stream.Finish(), "\xef\xbf\xbd");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(ComputeGateTest, QuestionsGoBeforeAPrefillThatOffersItsTurn) {
  ComputeGate gate;
  std::vector<int> order;
  ComputeGate::Turn turn(gate, ComputePriority::kPrefill);
  std::jthread question([&] {
    ComputeGate::Turn inner(gate, ComputePriority::kQuestion);
    order.push_back(1);
  });
  // Until the question waits, an offer returns at once.
  while (order.empty()) turn.Offer();
  order.push_back(2);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

// Its first product fails: the next Synchronize says so, once, as a device's.
class FailsOnce final : public ForwardingBackend {
 public:
  explicit FailsOnce(Backend& local) : ForwardingBackend(local) {}
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override {
    if (!failed) met_ = UnavailableError("a product failed");
    failed = true;
    ForwardingBackend::MatMul(out, x, weight, accumulate);
  }
  Status Synchronize() override { return std::exchange(met_, OkStatus()); }

  std::atomic<bool> failed{false};

 private:
  Status met_;
};

// A question that goes first between two layers asks the backend, too, and would get the answer
// that is the prefill's: what the prefill stores then is made of nothing.
TEST(ComputeGateTest, WhatAPrefillHasMetIsNotAQuestionsThatGoesFirst) {
  const TempDir folder;
  WriteTinyModel(folder.File("m.gguf"));
  const auto file = GgufFile::Open(folder.File("m.gguf"));
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  auto cpu = MakeCpuBackend({1, "auto"});
  ASSERT_TRUE(cpu.ok());
  FailsOnce backend(**cpu);
  const auto model = LoadLlamaModel(**file, backend);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto scratch = ForwardScratch::Create(backend, (*model)->config(), 512);
  ASSERT_TRUE(scratch.ok());
  const KvFormat format = *(*model)->Format("bf16");
  KvSequence kv(format, format);
  ComputeGate gate;
  std::atomic<bool> done{false};
  std::jthread questions([&] {
    while (!backend.failed) std::this_thread::yield();
    while (!done) {
      const ComputeGate::Turn turn(gate, ComputePriority::kQuestion);
      (void)backend.Synchronize();
    }
  });
  const std::vector<TokenId> tokens(512, 5);
  const Status status =
      ComputeRun({**model, backend, gate}, tokens, kv, **scratch, ComputePriority::kPrefill, {});
  done = true;
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
}

}  // namespace
}  // namespace corpusd
