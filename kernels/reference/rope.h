// kernels/reference/rope.h -- rotary positions, the specification: pairs (2j, 2j+1) turn by an
// angle. Pure functions; any thread.
#pragma once

#include <cstdint>

#include "kernels/shapes.h"

namespace corpusd {

// out[0:head_dim] = head turned by row delta of the table; elements past the rotating pairs are
// copied. rope may be null: a copy. out may be head. REQUIRES: delta < rope->positions.
void RotateHead(double* out, const float* head, uint32_t head_dim, const RopeTable* rope,
                uint32_t delta) noexcept;

}  // namespace corpusd
