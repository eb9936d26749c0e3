// engine/ranks/ranked_model.h -- a model over a RankedBackend whose sequences may be on other ranks
// as well: what a call computes over such ones is computed by all of them, within the caller's turn
// of the compute gate; what is asked between layers is heeded when the call is over, since the
// others go on. Sequences that are here alone are the local model's. As thread-safe as that.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/model/model.h"

namespace corpusd {

// A sequence that other ranks have, too.
class RankedTwin : public SequenceTwin {
 public:
  // `compute` does this rank's part of a call over sequences of one group. An error of another
  // rank's names that rank.
  virtual Status Pass(bool each, std::span<const TokenId> tokens,
                      std::span<const SequenceRows> sequences,
                      const std::function<Status()>& compute) = 0;
};

std::unique_ptr<Model> MakeRankedModel(std::unique_ptr<Model> local);

}  // namespace corpusd
