// kernels/cuda/launch_shape.h -- how many blocks a launch has each way, where rows of a matrix are
// among them: only the first way takes more than 65,535, so rows go there. Plain data; usable
// without CUDA headers.
#pragma once

#include <cstdint>

namespace corpusd::cuda {

struct LaunchShape {
  uint32_t x = 1, y = 1, z = 1;
  // Whether a device takes it.
  constexpr bool Fits() const { return x < uint32_t{1} << 31 && y < 1u << 16 && z < 1u << 16; }
};

// A block for each row and each of `others`: heads, or groups of columns.
constexpr LaunchShape RowLaunch(uint32_t rows, uint32_t others) { return {rows, others, 1}; }

}  // namespace corpusd::cuda
