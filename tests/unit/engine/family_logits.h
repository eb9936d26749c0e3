// tests/unit/engine/family_logits.h -- the tiny models of families.jsonl on any backend: loading
// one, all its logits, and how far they are from the oracle's. One thread.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/model/model.h"
#include "engine/model/model_source.h"
#include "tests/support/hashed_checkpoint.h"

namespace corpusd {

struct LoadedFamily {
  std::unique_ptr<ModelSource> source;
  std::unique_ptr<Model> model;
};

inline LoadedFamily LoadFamily(const FamilyCase& family_case, const std::string& folder,
                               Backend& backend) {
  WriteCheckpoint(family_case, folder);
  auto source = OpenModelSource(folder);
  EXPECT_TRUE(source.ok()) << source.status().ToString();
  if (!source.ok()) return {};
  auto model = LoadModel(**source, backend);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  if (!model.ok()) return {};
  return {*std::move(source), *std::move(model)};
}

// All logits [position][vocabulary], the prompt given in calls of so many tokens each.
inline std::vector<std::vector<float>> AllLogits(const Model& model, Backend& backend,
                                                 std::span<const TokenId> ids,
                                                 std::span<const size_t> calls) {
  const ModelConfig& config = model.config();
  const KvFormat format = *model.Format("bf16");
  KvSequence kv(format, format);
  const size_t step = *std::max_element(calls.begin(), calls.end());
  const auto scratch = ForwardScratch::Create(backend, config, static_cast<uint32_t>(step));
  const auto logits = backend.AllocateShared(uint64_t{config.vocabulary} * 4 * step, "logits");
  std::vector<std::vector<float>> rows;
  size_t first = 0;
  for (const size_t call_tokens : calls) {
    const auto call = ids.subspan(first, call_tokens);
    first += call_tokens;
    const Status status = model.Forward(call, kv, **scratch, [] { return true; });
    EXPECT_TRUE(status.ok()) << status.ToString();
    const MatrixView view =
        (*logits)->Matrix(static_cast<uint32_t>(call.size()), config.vocabulary);
    EXPECT_TRUE(model.Logits(**scratch, 0, view).ok());
    for (uint32_t r = 0; r < view.rows; ++r) {
      rows.emplace_back(view.row(r), view.row(r) + view.cols);
    }
  }
  return rows;
}

// The same in calls of `call_tokens`, the last of what is left; 0: one call.
inline std::vector<std::vector<float>> AllLogits(const Model& model, Backend& backend,
                                                 std::span<const TokenId> ids, size_t call_tokens) {
  const size_t step = call_tokens == 0 ? ids.size() : call_tokens;
  std::vector<size_t> calls(ids.size() / step, step);
  if (ids.size() % step > 0) calls.push_back(ids.size() % step);
  return AllLogits(model, backend, ids, calls);
}

// Of each kept position the largest difference from the oracle, as a share of the larger of the
// logit and 1: logits of these models have a spread of about 2.
inline std::vector<double> LogitDifferences(const FamilyCase& family_case,
                                            const std::vector<std::vector<float>>& rows) {
  std::vector<double> differences;
  EXPECT_EQ(rows.size(), family_case.ids.size());
  EXPECT_EQ(family_case.positions.size(), family_case.logits.size());
  for (size_t kept_at = 0; kept_at < family_case.positions.size(); ++kept_at) {
    const uint32_t position = family_case.positions[kept_at];
    const std::vector<float>& expected = family_case.logits[kept_at];
    const auto kept = static_cast<uint32_t>(expected.size());
    double largest = 0;
    for (uint32_t i = 0; i < kept; ++i) {
      const auto vocabulary = static_cast<uint32_t>(rows[position].size());
      const double ours = rows[position][KeptLogit(position, i, kept, vocabulary)];
      const double scale = std::max(1.0, std::abs(double{expected[i]}));
      largest = std::max(largest, std::abs(ours - expected[i]) / scale);
    }
    differences.push_back(largest);
  }
  return differences;
}

// The value that so large a share of them does not exceed.
inline double Quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

}  // namespace corpusd
