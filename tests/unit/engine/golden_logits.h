// tests/unit/engine/golden_logits.h -- the default model's logits as transformers computes them in
// float32, for tests that compare backends with them. Needs the model file. One thread.
#pragma once

#include <string>

#include "engine/backend/backend.h"

namespace corpusd {

// RETURNS the largest difference of a logit from the golden ones, on a backend, with keys and
// values in a format. Fails if the model cannot be loaded.
double LargestDifferenceFromGolden(Backend& backend, const std::string& kv_format);

}  // namespace corpusd
