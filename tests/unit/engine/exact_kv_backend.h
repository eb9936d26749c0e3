// tests/unit/engine/exact_kv_backend.h -- the reference backend with keys and values kept unrounded
// and attention as the papers write it: rotations by whole distances, one softmax over all keys
// that the pages show, in double. It shows that the graph is the oracle's to float32's precision;
// what tiles and pages do is compared with it elsewhere. One sequence per object, tokens in order;
// one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/backend/reference_backend.h"

namespace corpusd {

class ExactKvBackend final : public Backend {
 public:
  std::string_view name() const override { return "exact-kv"; }
  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override {
    return reference_->Allocate(bytes, purpose);
  }
  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override {
    return reference_->LoadWeight(sources);
  }
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override {
    reference_->Embed(out, table, ids);
  }
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override {
    reference_->RmsNorm(out, x, gain, epsilon);
  }
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override {
    reference_->MatMul(out, x, weight, accumulate);
  }
  void SwiGlu(MatrixView out, MatrixView gate_up) override { reference_->SwiGlu(out, gate_up); }
  Status Synchronize() override { return OkStatus(); }

  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* /*rope*/) override {
    Layer& layer = layers_[target.layer];
    for (uint32_t r = 0; r < keys.rows; ++r) {
      layer.keys.emplace_back(keys.row(r), keys.row(r) + keys.cols);
      layer.values.emplace_back(values.row(r), values.row(r) + values.cols);
    }
  }

  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override {
    for (uint32_t r = 0; r < q.rows; ++r) {
      const uint64_t position = input.first_position + r;
      const std::vector<uint64_t> seen = SeenFrom(position, input);
      for (uint32_t head = 0; head < input.shape.q_heads; ++head) {
        AttendHead(out.row(r), q.row(r), input, head, position, seen);
      }
    }
  }

 private:
  struct Layer {
    std::vector<std::vector<double>> keys, values;  // [position][kv_heads * head_dim]
  };

  // The positions of the keys that a query sees.
  static std::vector<uint64_t> SeenFrom(uint64_t position, const AttentionInput& input) {
    std::vector<uint64_t> seen;
    for (const KvPageList& list : input.lists) {
      for (const KvPage& page : list.pages) {
        for (uint64_t slot = page.hidden; slot < page.tokens; ++slot) {
          const uint64_t key = page.first_position + slot;
          const uint32_t window = input.shape.window;
          if (key <= position && (window == 0 || key + window > position)) seen.push_back(key);
        }
      }
    }
    return seen;
  }

  static void Rotate(std::vector<double>& head, const RopeTable* rope, uint64_t distance) {
    if (rope == nullptr) return;
    const float* const angles = rope->row(static_cast<uint32_t>(distance));
    for (uint32_t j = 0; j < rope->half_dim; ++j) {
      const double x = head[2 * j];
      const double y = head[2 * j + 1];
      head[2 * j] = x * angles[2 * j] - y * angles[2 * j + 1];
      head[2 * j + 1] = x * angles[2 * j + 1] + y * angles[2 * j];
    }
  }

  void AttendHead(float* out, const float* q, const AttentionInput& input, uint32_t head,
                  uint64_t position, const std::vector<uint64_t>& seen) const {
    const Layer& layer = layers_.at(input.layer);
    const AttentionShape& shape = input.shape;
    const size_t q0 = size_t{head} * shape.head_dim;
    const size_t k0 = size_t{head / (shape.q_heads / shape.kv_heads)} * shape.head_dim;
    std::vector<double> weights(seen.size());
    double top = -HUGE_VAL;
    for (size_t k = 0; k < seen.size(); ++k) {
      std::vector<double> query(q + q0, q + q0 + shape.head_dim);
      Rotate(query, input.rope, position - seen[k]);
      for (uint32_t d = 0; d < shape.head_dim; ++d) {
        weights[k] += query[d] * layer.keys[seen[k]][k0 + d];
      }
      weights[k] *= shape.scale;
      top = std::max(top, weights[k]);
    }
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - top);
    for (uint32_t d = 0; d < shape.head_dim; ++d) {
      double value = 0;
      for (size_t k = 0; k < seen.size(); ++k) value += weights[k] * layer.values[seen[k]][k0 + d];
      out[q0 + d] = static_cast<float>(value / sum);
    }
  }

  std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
  std::map<uint32_t, Layer> layers_;
};

}  // namespace corpusd
