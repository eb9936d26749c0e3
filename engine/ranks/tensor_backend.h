// engine/ranks/tensor_backend.h -- a rank's device as a Backend that has a part of every weight: a
// model loaded over it from a TensorSource computes the same rows as all ranks of its group, each
// with its own heads and inner numbers, and has the same hidden states and logits as one device
// with all weights, bit for bit. Products whose inputs or outputs lie with several ranks exchange
// them whole; sums are never exchanged, so no result hangs on timing or on the number of ranks.
// What has gone wrong between ranks is said by Synchronize, and so by Model::Forward. `local` may
// be a RankedBackend over ranks of another group: then pages are dealt to those, weights to these.
// One caller at a time, as of any Backend.
#pragma once

#include <functional>

#include "engine/backend/backend.h"
#include "engine/ranks/tensor_share.h"
#include "engine/ranks/transport.h"

namespace corpusd {

class TensorBackend final : public Backend {
 public:
  // group: the ranks among which weights are dealt, as many as the share says. Both must outlive
  // this. REQUIRES: all of the group call alike.
  TensorBackend(Backend& local, Transport& group, const TensorShare& share);

  // Of all weights that were loaded, on this rank's device.
  uint64_t weight_bytes() const { return weight_bytes_; }
  // What this rank has sent for products, experts and embeddings so far.
  uint64_t sent_bytes() const { return sent_bytes_; }

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
  // kUnimplemented: experts in memory that the host cannot address.
  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override;
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override;
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override {
    local_.RmsNorm(out, x, gain, epsilon);
  }
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;
  void SwiGlu(MatrixView out, MatrixView gate_up) override { local_.SwiGlu(out, gate_up); }
  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override {
    local_.WriteKv(target, keys, values, rope);
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
  Status Synchronize() override { return status_.ok() ? local_.Synchronize() : status_; }
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
  void MixExperts(MatrixView out, const ExpertInput& input) override;

 private:
  // Memory that grows to the largest call and stays; an empty view after an error.
  MatrixView Grow(std::unique_ptr<Buffer>* buffer, uint64_t rows, uint32_t cols);
  bool Keep(Status status);
  // Slices of bytes, [begins[r], begins[r + 1]) from rank r, from where each is to everywhere.
  bool Exchange(std::byte* bytes, std::span<const uint64_t> begins);
  // Columns of m, of every rank its own, from where they are to everywhere.
  void JoinColumns(MatrixView m, const std::function<NumberRange(uint32_t)>& columns_of);

  Backend& local_;
  Transport& group_;
  const TensorShare share_;
  std::unique_ptr<Buffer> inputs_, slices_;
  uint64_t weight_bytes_ = 0, sent_bytes_ = 0;
  Status status_;  // the first error between the ranks
};

}  // namespace corpusd
