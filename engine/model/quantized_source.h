// engine/model/quantized_source.h -- a ModelSource whose matrices are made smaller on their way to
// a backend: int8 (Q8_0) or int4 (Q4_1), a scale for each 32 inputs, or bfloat16. One matrix at a
// time, so that no more than one is in memory twice. What is stored in fewer bits already stays as
// it is, and so do routers, gains and biases. Not a file format: nothing is written.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/model/model_source.h"
#include "store/base/result.h"

namespace corpusd {

enum class WeightMode : uint8_t { kAuto, kBf16, kInt8, kInt4 };

// "auto", "bf16", "int8", "int4"; kInvalidArgument otherwise.
Result<WeightMode> ParseWeightMode(std::string_view name);

// As what a matrix of `type` is kept: `type` itself, or the mode's if that is smaller. The tables
// of tokens at both ends are int8 in the mode int4, too: an error there meets every token.
WeightType KeptType(WeightMode mode, WeightRole role, WeightType type, uint32_t cols);

// The source in that mode: the same object, if no matrix of it would change, else one that owns it.
// Its digest tells the mode, so that what was computed with other weights is never mistaken for it.
// threads: that encode a matrix; 0: all. Matrices with numbers that are not finite are
// kInvalidArgument when they are read.
std::unique_ptr<ModelSource> WithWeights(std::unique_ptr<ModelSource> source, WeightMode mode,
                                         unsigned threads);

}  // namespace corpusd
