// engine/model/weight_sizes.h -- what a model's weights take in memory, reckoned from its shape
// alone, so that a model can be planned for before its files are there. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/quantized_source.h"
#include "kernels/weight_types.h"

namespace corpusd {

struct WeightPart {
  std::string name;  // "experts", "attention", ...
  uint64_t parameters = 0;
  uint64_t used = 0;  // by one token
  uint64_t bytes = 0;
};

// The parts of a model whose files hold matrices as `stored`, in a mode; those that it has not are
// left out. tied: the output is the table of tokens. Gains and biases are float32. Panels of the
// CPU and blocks of files have the same number of bytes, but for rows up to a multiple of 16.
std::vector<WeightPart> WeightSizes(const ModelConfig& config, bool tied, WeightType stored,
                                    WeightMode mode);

}  // namespace corpusd
