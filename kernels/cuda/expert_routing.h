// kernels/cuda/expert_routing.h -- a mixture of experts' bookkeeping on the device: which experts a
// row is sent to, which slots an expert has, and what comes back. Each call enqueues one or two
// kernels on the stream and returns a cudaError_t. Any thread, for distinct arrays.
#pragma once

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

inline constexpr uint32_t kRoutedExpertsMax = 1024;

// Arrays on the device; slots = rows * used, slot s is the s % used-th expert of row s / used.
struct RoutedSlots {
  uint32_t used = 1;
  uint32_t tile_rows = 0;
  uint32_t* chosen = nullptr;   // [slots]
  float* factors = nullptr;     // [slots]
  uint32_t* order = nullptr;    // [slots]; null: not wanted, nor tiles
  ExpertTile* tiles = nullptr;  // [ExpertTilesMax]
};
constexpr uint32_t ExpertTilesMax(uint32_t slots, uint32_t experts, uint32_t tile_rows) {
  return slots / tile_rows + (experts < slots ? experts : slots);
}

// The `used` largest logits of each row (the first of equal ones; what is no number comes last),
// with sigmoid(logit) as factor; then the slots by expert, cut into tiles, the last tiles empty.
// REQUIRES: logits.cols <= kRoutedExpertsMax.
int RouteRows(const RoutedSlots& to, DeviceMatrix logits, CUstream_st* stream);
// out[r, :] += the results of row r's slots, in their order; results: [rows * used, out.cols].
int AddSlots(DeviceMatrix out, DeviceMatrix results, uint32_t used, CUstream_st* stream);

}  // namespace corpusd::cuda
