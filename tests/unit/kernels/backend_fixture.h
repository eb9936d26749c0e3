// tests/unit/kernels/backend_fixture.h -- what a backend computes of a small layer, for tests that
// compare backends. Any thread.
#pragma once

#include <vector>

#include "engine/backend/backend.h"

namespace corpusd {

// One attention layer over a mixed stack of weights: what a model does between two of its norms.
// rows: of the last call; pages_filled: full pages before them.
std::vector<float> RunLayer(Backend& backend, uint32_t rows, uint32_t pages_filled);

// |got - expected| / |expected|. Fails if expected is zero, or anything is no number.
double RelativeError(const std::vector<float>& got, const std::vector<float>& expected);

}  // namespace corpusd
