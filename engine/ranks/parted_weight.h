// engine/ranks/parted_weight.h -- a weight of which each of several devices has some outputs. Cut
// by outputs alone, as everywhere (tensor_share.h): a number is one device's sum over all inputs,
// in the order of one device alone, so that no bit hangs on the number of devices. Immutable once
// loaded; any thread.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/backend/tensor_ops.h"

namespace corpusd {

// Where a product's inputs are, and where its outputs go.
enum class PartedUse : uint8_t {
  kWhole,       // every device has all of it: norms' neighbours, routers
  kToFirst,     // inputs everywhere, outputs to the first: queries, keys and values
  kFromFirst,   // inputs with the first, outputs everywhere: attention's output
  kInner,       // outputs stay where they are: gates and ups
  kJoined,      // inputs put together, outputs everywhere: downs
  kShared,      // the same beside a mixture of experts, which may be put together with it
  kVocabulary,  // embedding and head
  kExpertInner,
  kExpertJoined,
};
PartedUse UseOf(std::string_view tensor);  // by its name in ModelSource

class PartedWeight final : public Weight {
 public:
  // Outputs of all sources, stacked. kInvalidArgument names the tensor whose outputs cannot be
  // dealt evenly, in fours.
  static Result<std::unique_ptr<PartedWeight>> Plan(std::span<const WeightSource> sources,
                                                    uint32_t devices);

  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override;  // on all devices
  PartedUse use() const { return use_; }

  // What LoadWeight of a device is given: rows of the sources, no others. A table has a row of
  // zeros behind its own, for tokens of other devices. Valid as long as the sources.
  std::vector<WeightSource> SourcesOf(uint32_t device, std::span<const WeightSource> sources) const;
  void Keep(uint32_t device, std::unique_ptr<Weight> part) { parts_[device] = std::move(part); }
  const Weight& part(uint32_t device) const { return *parts_[device]; }
  // Of the part's outputs, in its order, where each run of them belongs.
  std::span<const ColumnPiece> PiecesOf(uint32_t device) const { return pieces_[device]; }
  // Outputs of the part that belong to the whole.
  uint32_t CountOf(uint32_t device) const;

 private:
  PartedWeight() = default;

  PartedUse use_ = PartedUse::kWhole;
  uint32_t rows_ = 0, cols_ = 0;
  std::vector<std::vector<ColumnPiece>> pieces_;  // [devices]
  std::vector<std::unique_ptr<Weight>> parts_;    // [devices]
};

}  // namespace corpusd
