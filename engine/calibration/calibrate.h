// engine/calibration/calibrate.h -- calibrates the coordinates of the cq formats for one model:
// plain passes over a text, moments of its keys, values and queries, one basis a layer and KV head.
// Slow (tens of seconds); one thread calls it, it uses all that the backend and its own pool have.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/calibration/kv_calibration.h"
#include "engine/model/model_source.h"
#include "engine/prefill/prefill_runner.h"

namespace corpusd {

// Tokens of the passes; more of a text are left out. Fewer lose a fifth of what coding gains on
// text of another kind (tests/eval/README.md).
inline constexpr uint32_t kCalibrationTokens = 32768;

// source: of the model, for its W_o. Each window takes a turn at the gate and offers it between
// layers. progress: windows done, of how many; may be empty. kInvalidArgument: fewer than 1,024
// tokens, or a head_dim that the cq formats do not take.
Result<std::unique_ptr<KvCalibration>> CalibrateKv(
    const ModelSource& source, const ComputeContext& context, std::span<const TokenId> tokens,
    unsigned threads, const std::function<void(size_t done, size_t windows)>& progress);

}  // namespace corpusd
