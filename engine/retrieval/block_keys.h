// engine/retrieval/block_keys.h -- the keys of one KV head read back from a stored block as they
// were before positions: of any format, coordinates and the rotation by slot undone. Pure; any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/calibration/kv_calibration.h"
#include "engine/retrieval/retrieval_heads.h"
#include "kernels/kv_format.h"
#include "kernels/shapes.h"

namespace corpusd {

// out: [tokens][head_dim]. block: BlockBytes(). calibration: of coded keys, else not looked at.
// rope: as the keys were rotated, with kBlockTokens positions; null: they were not.
void ReadBlockKeys(float* out, const KvFormat& format, const KvCalibration* calibration,
                   const RopeTable* rope, const std::byte* block, const KeySource& source,
                   uint32_t tokens);

}  // namespace corpusd
