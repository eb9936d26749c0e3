// engine/backend/reference_backend.h -- the specification as a Backend: plain scalar loops in
// double over weights dequantized to float32. For tests and oracles, never for serving. One caller
// at a time.
#pragma once

#include <memory>

#include "engine/backend/backend.h"

namespace corpusd {

std::unique_ptr<Backend> MakeReferenceBackend();

}  // namespace corpusd
