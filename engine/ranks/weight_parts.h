// engine/ranks/weight_parts.h -- which part of every matrix each of several ranks has that share
// the weights of one of them, and nothing else: some outputs of each matrix, some experts whole.
// Cut by outputs alone, so that a sum is one device's, in its order (tensor_share.h); no size has
// to be a multiple of the ranks. All of them load a model in the same order, so a weight goes by
// its number. Immutable once loaded; any thread may read.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/backend/forwarding_backend.h"
#include "engine/ranks/tensor_share.h"

namespace corpusd {

// Of so many rows those of one rank: whole panels of the CPU's kernels, where there are enough.
NumberRange RowsOfPart(uint32_t rows, uint32_t rank, uint32_t ranks);
// "blk.0.ffn_up_exps.weight[3]": 3; of other tensors: none.
std::optional<uint32_t> ExpertOf(std::string_view tensor);
inline uint32_t OwnerOfExpert(uint32_t expert, uint32_t ranks) { return expert % ranks; }

// Rank `rank` of so many that share the weights; 0 has the model's other data, and asks the others.
struct WeightSeat {
  uint32_t rank = 0, ranks = 1;
};

// To the model as large as its product; of its bytes the rank has a part.
class PartWeight final : public Weight {
 public:
  // Loads the seat's part of what Backend::LoadWeight is given. number: in the order of loading.
  static Result<std::unique_ptr<PartWeight>> Load(Backend& backend,
                                                  std::span<const WeightSource> sources,
                                                  const WeightSeat& seat, uint32_t number);

  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override { return own_ == nullptr ? 0 : own_->bytes(); }
  uint32_t number() const { return number_; }
  // Null: this seat has none of its rows.
  const Weight* own() const { return own_.get(); }
  bool is_expert() const { return is_expert_; }
  // Which outputs a rank has, in the order in which its part has them: a run of each source.
  std::span<const NumberRange> OutputsOf(uint32_t rank) const { return outputs_[rank]; }
  uint32_t CountOf(uint32_t rank) const { return counts_[rank]; }
  // The rank that has an output, and which of its part it is.
  struct Place {
    uint32_t rank = 0, row = 0;
  };
  Place PlaceOf(uint32_t output) const;

 private:
  PartWeight() = default;

  std::vector<std::vector<NumberRange>> outputs_;  // [ranks]
  std::vector<uint32_t> counts_;                   // [ranks]
  std::unique_ptr<Weight> own_;
  uint32_t rows_ = 0, cols_ = 0, number_ = 0;
  bool is_expert_ = false;
};

// A device on which models are loaded in part. Products over what is not whole here are another's
// to compute (weight_backend.h); those of an expert that is here are as ever.
class PartBackend : public ForwardingBackend {
 public:
  // local must outlive this.
  PartBackend(Backend& local, const WeightSeat& seat) : ForwardingBackend(local), seat_(seat) {}

  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override;
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;

  const WeightSeat& seat() const { return seat_; }
  // By number; they live as long as the model.
  std::span<const PartWeight* const> weights() const { return weights_; }
  uint64_t weight_bytes() const { return weight_bytes_; }

 protected:
  // At least so many bytes, of memory that grows and stays.
  Result<std::byte*> Grow(std::unique_ptr<Buffer>* buffer, uint64_t bytes);

 private:
  const WeightSeat seat_;
  std::vector<const PartWeight*> weights_;
  uint64_t weight_bytes_ = 0;
};

}  // namespace corpusd
