// engine/backend/forwarding_backend.h -- a Backend that is another one, call by call: what stands
// between a model and its device, and changes some of the calls, derives from it. As thread-safe as
// the other.
#pragma once

#include "engine/backend/backend.h"

namespace corpusd {

class ForwardingBackend : public Backend {
 public:
  std::string_view name() const override { return local_.name(); }
  uint32_t few_rows() const override { return local_.few_rows(); }
  uint32_t batch_rows() const override { return local_.batch_rows(); }
  Status Supports(const AttentionShape& shape) const override { return local_.Supports(shape); }
  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override {
    return local_.Allocate(bytes, purpose);
  }
  Result<std::unique_ptr<Buffer>> AllocateShared(uint64_t bytes,
                                                 std::string_view purpose) override {
    return local_.AllocateShared(bytes, purpose);
  }
  void Clear(std::byte* data, uint64_t bytes) override { local_.Clear(data, bytes); }
  Status Copy(std::byte* target, const std::byte* source, uint64_t bytes) override {
    return local_.Copy(target, source, bytes);
  }
  Status CopyBeside(std::span<const CopyPiece> pieces) override {
    return local_.CopyBeside(pieces);
  }
  bool host_addressable() const override { return local_.host_addressable(); }
  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override {
    return local_.LoadWeight(sources);
  }
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override {
    local_.Embed(out, table, ids);
  }
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override {
    local_.RmsNorm(out, x, gain, epsilon);
  }
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override {
    local_.MatMul(out, x, weight, accumulate);
  }
  void SwiGlu(MatrixView out, MatrixView gate_up) override { local_.SwiGlu(out, gate_up); }
  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override {
    local_.WriteKv(target, keys, values, rope);
  }
  void WriteKvEach(std::span<const KvWriteTarget> targets, MatrixView keys, MatrixView values,
                   const RopeTable* rope) override {
    local_.WriteKvEach(targets, keys, values, rope);
  }
  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override {
    local_.Attention(out, q, input);
  }
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override {
    local_.AttentionEach(out, q, rows);
  }
  void AttentionOfParts(MatrixView out, MatrixView q,
                        std::span<const AttentionPart> parts) override {
    local_.AttentionOfParts(out, q, parts);
  }
  Status AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                           PagePieces& pieces) override {
    return local_.AttentionInPieces(out, q, input, pieces);
  }
  Status Synchronize() override { return local_.Synchronize(); }
  void HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) override {
    local_.HeadNorm(x, head_dim, gain, epsilon);
  }
  void ScaleRows(MatrixView x, std::span<const float> factors) override {
    local_.ScaleRows(x, factors);
  }
  void AddBias(MatrixView x, const float* bias) override { local_.AddBias(x, bias); }
  void Add(MatrixView x, MatrixView y) override { local_.Add(x, y); }
  void CopyMatrix(MatrixView target, MatrixView source) override {
    local_.CopyMatrix(target, source);
  }
  void GeGlu(MatrixView out, MatrixView gate_up) override { local_.GeGlu(out, gate_up); }
  void MixExperts(MatrixView out, const ExpertInput& input) override {
    local_.MixExperts(out, input);
  }

 protected:
  // local must outlive this.
  explicit ForwardingBackend(Backend& local) : local_(local) {}

  Backend& local_;
};

}  // namespace corpusd
