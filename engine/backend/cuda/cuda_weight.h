// engine/backend/cuda/cuda_weight.h -- a weight of the CUDA backend: sources of any stored type,
// stacked by rows, as one bfloat16 matrix on the device, its rows padded with zeros to what the
// kernels' tiles take. Immutable once loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/backend/buffer.h"
#include "engine/backend/cuda/cuda_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "store/base/result.h"

namespace corpusd {

class CudaWeight : public Weight {
 public:
  // Dequantizes on the pool's threads. kUnimplemented: the kernels cannot take so many inputs.
  // REQUIRES: equal cols.
  static Result<std::unique_ptr<CudaWeight>> Load(std::span<const WeightSource> sources,
                                                  const std::shared_ptr<CudaPool>& memory,
                                                  ThreadPool& threads);

  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override { return buffer_->bytes(); }
  // On the device: [rows rounded up, cols].
  const uint16_t* data() const { return reinterpret_cast<const uint16_t*>(buffer_->data()); }

 private:
  CudaWeight(std::unique_ptr<CudaBuffer> buffer, uint32_t rows, uint32_t cols)
      : buffer_(std::move(buffer)), rows_(rows), cols_(cols) {}

  const std::unique_ptr<CudaBuffer> buffer_;
  const uint32_t rows_, cols_;
};

}  // namespace corpusd
