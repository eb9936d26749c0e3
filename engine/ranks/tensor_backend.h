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

#include "engine/backend/forwarding_backend.h"
#include "engine/ranks/tensor_share.h"
#include "engine/ranks/transport.h"

namespace corpusd {

class TensorBackend final : public ForwardingBackend {
 public:
  // group: the ranks among which weights are dealt, as many as the share says. Both must outlive
  // this. REQUIRES: all of the group call alike.
  TensorBackend(Backend& local, Transport& group, const TensorShare& share);

  // Of all weights that were loaded, on this rank's device.
  uint64_t weight_bytes() const { return weight_bytes_; }
  // What this rank has sent for products, experts and embeddings so far.
  uint64_t sent_bytes() const { return sent_bytes_; }

  // kUnimplemented: experts in memory that the host cannot address.
  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override;
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override;
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;
  Status Synchronize() override { return status_.ok() ? local_.Synchronize() : status_; }
  void MixExperts(MatrixView out, const ExpertInput& input) override;

 private:
  // Memory that grows to the largest call and stays; an empty view after an error.
  MatrixView Grow(std::unique_ptr<Buffer>* buffer, uint64_t rows, uint32_t cols);
  bool Keep(Status status);
  // Slices of bytes, [begins[r], begins[r + 1]) from rank r, from where each is to everywhere.
  bool Exchange(std::byte* bytes, std::span<const uint64_t> begins);
  // Columns of m, of every rank its own, from where they are to everywhere.
  void JoinColumns(MatrixView m, const std::function<NumberRange(uint32_t)>& columns_of);

  Transport& group_;
  const TensorShare share_;
  std::unique_ptr<Buffer> inputs_, slices_;
  uint64_t weight_bytes_ = 0, sent_bytes_ = 0;
  Status status_;  // the first error between the ranks
};

}  // namespace corpusd
