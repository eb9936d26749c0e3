// tests/unit/engine/exact_kv_backend.h -- the reference backend with keys and values kept unrounded
// and attention as the papers write it: absolute rotations, one softmax over all keys, in double.
// It shows that the graph is the oracle's to float32's precision; what tiles and pages do is
// compared with it elsewhere. One sequence per object, tokens in order; one thread.
#pragma once

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
               const RopeTable* rope) override {
    Layer& layer = layers_[target.layer];
    for (uint32_t r = 0; r < keys.rows; ++r) {
      std::vector<double> key(keys.row(r), keys.row(r) + keys.cols);
      Rotate(key, target.format->head_dim, *rope, static_cast<uint32_t>(layer.keys.size()));
      layer.keys.push_back(std::move(key));
      layer.values.emplace_back(values.row(r), values.row(r) + values.cols);
    }
  }

  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override {
    const Layer& layer = layers_.at(input.layer);
    for (uint32_t r = 0; r < q.rows; ++r) {
      const size_t position = input.first_position + r;
      std::vector<double> query(q.row(r), q.row(r) + q.cols);
      Rotate(query, input.shape.head_dim, *input.rope, static_cast<uint32_t>(position));
      for (uint32_t head = 0; head < input.shape.q_heads; ++head) {
        AttendHead(out.row(r), query, layer, input.shape, head, position + 1);
      }
    }
  }

 private:
  struct Layer {
    std::vector<std::vector<double>> keys, values;  // [position][kv_heads * head_dim], rotated keys
  };

  static void Rotate(std::vector<double>& row, uint32_t head_dim, const RopeTable& rope,
                     uint32_t position) {
    const float* const angles = rope.row(position);
    for (size_t head = 0; head < row.size(); head += head_dim) {
      for (uint32_t j = 0; j < rope.half_dim; ++j) {
        const double x = row[head + 2 * j];
        const double y = row[head + 2 * j + 1];
        row[head + 2 * j] = x * angles[2 * j] - y * angles[2 * j + 1];
        row[head + 2 * j + 1] = x * angles[2 * j + 1] + y * angles[2 * j];
      }
    }
  }

  static void AttendHead(float* out, const std::vector<double>& query, const Layer& layer,
                         const AttentionShape& shape, uint32_t head, size_t keys) {
    const size_t q0 = size_t{head} * shape.head_dim;
    const size_t k0 = size_t{head / (shape.q_heads / shape.kv_heads)} * shape.head_dim;
    std::vector<double> weights(keys);
    double top = -HUGE_VAL;
    for (size_t k = 0; k < keys; ++k) {
      for (uint32_t d = 0; d < shape.head_dim; ++d) {
        weights[k] += query[q0 + d] * layer.keys[k][k0 + d];
      }
      weights[k] *= shape.scale;
      top = std::max(top, weights[k]);
    }
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - top);
    for (uint32_t d = 0; d < shape.head_dim; ++d) {
      double value = 0;
      for (size_t k = 0; k < keys; ++k) value += weights[k] * layer.values[k][k0 + d];
      out[q0 + d] = static_cast<float>(value / sum);
    }
  }

  std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
  std::map<uint32_t, Layer> layers_;
};

}  // namespace corpusd
