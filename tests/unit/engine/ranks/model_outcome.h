// All that calls of a model give, so that it can be compared bit for bit with the same model whose
// weights lie with several ranks. For tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "engine/kv/kv_sequence.h"
#include "engine/model/model.h"
#include "tests/support/tiny_model.h"

namespace corpusd {

using Bytes = std::vector<std::byte>;

inline std::vector<TokenId> SomeIds(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(random() % 256 + 3);
  return ids;
}

struct Outcome {
  std::vector<float> numbers;  // hidden states and logits
  std::vector<Bytes> blocks;   // of the text's sequence
};

inline void Append(MatrixView m, std::vector<float>* out) {
  for (uint32_t r = 0; r < m.rows; ++r) out->insert(out->end(), m.row(r), m.row(r) + m.cols);
}

// Of many rows, of few, and of several sequences.
inline Outcome RunModel(const Model& model, Backend& backend, const KvLayout& layout,
                        size_t tokens) {
  const ModelConfig& c = model.config();
  Outcome outcome;
  const auto scratch = *ForwardScratch::Create(backend, c, static_cast<uint32_t>(tokens));
  const auto memory = *backend.AllocateShared(uint64_t{c.vocabulary} * 4 * 4, "logits");
  const auto keep = [&](const Status& status, uint32_t rows) {
    ASSERT_TRUE(status.ok()) << status.ToString();
    Append(scratch->hidden->Matrix(rows, c.hidden), &outcome.numbers);
    const uint32_t wanted = std::min(rows, 4u);
    const MatrixView logits = memory->Matrix(wanted, c.vocabulary);
    ASSERT_TRUE(model.Logits(*scratch, rows - wanted, logits).ok());
    Append(logits, &outcome.numbers);
  };
  const auto go_on = [] { return true; };
  KvSequence text(layout.OfBlocks());
  const auto ids = SomeIds(tokens, 5);
  keep(model.Forward(ids, text, *scratch, go_on), static_cast<uint32_t>(tokens));
  for (const auto& own : text.OwnBlocks()) {
    outcome.blocks.emplace_back(own.bytes.begin(), own.bytes.end());
  }
  KvSequence one(layout), other(layout);
  for (KvSequence* const question : {&one, &other}) {
    for (size_t i = 0; i < outcome.blocks.size(); ++i) {
      const auto left = static_cast<uint32_t>(tokens - i * kBlockTokens);
      question->AddShared(text.OwnBlocks()[i].bytes.data(), std::min(left, kBlockTokens));
    }
  }
  keep(model.Forward(SomeIds(5, 6), one, *scratch, go_on), 5);
  keep(model.Forward(SomeIds(1, 7), other, *scratch, go_on), 1);
  KvSequence* const both[] = {&one, &other};
  for (uint32_t step = 0; step < 3; ++step) {
    keep(model.ForwardEach(SomeIds(2, 8 + step), both, *scratch, go_on), 2);
  }
  return outcome;
}

// Of a model whose layers may be kept apart.
inline Outcome RunShort(const Model& model, Backend& backend, const KvLayout& layout) {
  Outcome outcome;
  const auto scratch = *ForwardScratch::Create(backend, model.config(), 200);
  KvSequence kv(layout);
  for (const size_t rows : {200u, 9u, 1u}) {
    const Status status = model.Forward(SomeIds(rows, static_cast<uint32_t>(rows)), kv, *scratch,
                                        [] { return true; });
    EXPECT_TRUE(status.ok()) << status.ToString();
    Append(scratch->hidden->Matrix(static_cast<uint32_t>(rows), model.config().hidden),
           &outcome.numbers);
  }
  return outcome;
}

inline TinyModelOptions Heads(uint32_t q_heads, uint32_t kv_heads, uint32_t hidden,
                              uint32_t feed_forward) {
  TinyModelOptions options;
  options.q_heads = q_heads;
  options.kv_heads = kv_heads;
  options.head_dim = 64;
  options.hidden = hidden;
  options.feed_forward = feed_forward;
  return options;
}

}  // namespace corpusd
