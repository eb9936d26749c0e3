// tests/bench/random_model.h -- a model of any shape with random weights, for benches of shapes
// whose checkpoints are not at hand: a ModelSource without files. Layers' matrices are 4-bit blocks
// (Q4_1), embedding, output and router bfloat16. Immutable; any thread.
#pragma once

#include <memory>

#include "engine/model/model_source.h"

namespace corpusd {

// Numbers are such that activations stay of one size from layer to layer.
std::unique_ptr<ModelSource> MakeRandomModel(ModelConfig config);

}  // namespace corpusd
