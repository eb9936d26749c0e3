// engine/ranks/ranked_backend.h -- a rank's device as a Backend whose attention is over all ranks'
// pages: a model loaded over it computes this rank's rows of a pass, or the rows that all ranks
// have alike. Everything else is the local device's. What has gone wrong between ranks is said by
// Synchronize, and so by Model::Forward. While it has joined no ranks, and outside of Begin and
// End, it is the local device. Not a scheduler: who computes what is in RankedPass. One caller at a
// time, as of any Backend.
#pragma once

#include "engine/model/model_config.h"
#include "engine/ranks/ranked_attention.h"

namespace corpusd {

// How far the rows of a layer see beyond their own rank's.
struct LayerReach {
  bool whole = false;          // they see everything
  uint32_t window_tokens = 0;  // of a window; 0: a chunk, which no other rank has a part of
};
std::vector<LayerReach> ReachOf(const ModelConfig& config);

class RankedBackend final : public Backend {
 public:
  // local must outlive this.
  explicit RankedBackend(Backend& local) : local_(local) {}
  RankedBackend(Backend& local, Transport& transport) : RankedBackend(local) { Join(transport); }

  // The ranks of a job, in place of those before, whatever went wrong with them. REQUIRES: the
  // local backend has NodeAttention; the transport outlives this, or another takes its place.
  void Join(Transport& transport) {
    End();
    attention_ = std::make_unique<RankedAttention>(local_, transport);
  }
  // REQUIRES: ranks have been joined.
  RankedAttention& attention() { return *attention_; }
  // Until End, layers that see everything attend together with the other ranks, and those that see
  // a window get what they see of others' rows. Every call of the model has all layers, in order.
  void Begin(const RankedPass& pass, std::vector<LayerReach> layers);
  void End() { together_ = false; }

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
  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override;
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override;
  void AttentionOfParts(MatrixView out, MatrixView q,
                        std::span<const AttentionPart> parts) override;
  // Of pages that are read in turn: those of this rank alone.
  Status AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                           PagePieces& pieces) override {
    return local_.AttentionInPieces(out, q, input, pieces);
  }
  Status Synchronize() override {
    if (together_ && status_.ok()) status_ = attention_->Await();
    return together_ && !status_.ok() ? status_ : local_.Synchronize();
  }
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

 private:
  Backend& local_;
  std::unique_ptr<RankedAttention> attention_;
  bool Together() const;  // of the call that comes
  void CountLayer();
  std::vector<LayerReach> layers_;
  uint32_t next_layer_ = 0;
  bool together_ = false;
  Status status_;  // the first error between the ranks since Begin
};

}  // namespace corpusd
