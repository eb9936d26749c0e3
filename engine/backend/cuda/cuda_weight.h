// engine/backend/cuda/cuda_weight.h -- a weight of the CUDA backend: sources stacked by rows, as
// one matrix on the device in the form that kernels read (kernels/cuda/device_weight.h). Blocks of
// 4 or 8 bits stay codes; all other types become bfloat16. Immutable once loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/backend/buffer.h"
#include "engine/backend/cuda/cuda_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda/device_weight.h"
#include "store/base/result.h"

namespace corpusd {

// The kind that sources of these types and so many inputs are kept as.
cuda::WeightKind KindOfWeight(std::span<const WeightSource> sources);

class CudaWeight : public Weight {
 public:
  // Dequantizes on the pool's threads, or packs blocks on the device, in the order of the stream,
  // and waits for it. kUnimplemented: the kernels cannot take so many inputs. REQUIRES: equal cols.
  static Result<std::unique_ptr<CudaWeight>> Load(std::span<const WeightSource> sources,
                                                  const std::shared_ptr<CudaPool>& memory,
                                                  ThreadPool& threads, CUstream_st* stream);

  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override {
    return buffer_->bytes() + (wide_ == nullptr ? 0 : wide_->bytes());
  }
  cuda::WeightKind kind() const { return kind_; }
  cuda::DeviceWeight view() const { return view_; }
  // What products of many rows read: codes of small matrices are there as bfloat16, too, since
  // making bfloat16 of them again for every tile costs a third of such a model's prefill.
  cuda::WeightKind wide_kind() const { return wide_ == nullptr ? kind_ : cuda::WeightKind::kBf16; }
  cuda::DeviceWeight wide_view() const {
    if (wide_ == nullptr) return view_;
    return {reinterpret_cast<const uint8_t*>(wide_->data()), nullptr};
  }

 private:
  CudaWeight(std::unique_ptr<CudaBuffer> buffer, cuda::WeightKind kind, uint32_t rows,
             uint32_t cols);
  // Bfloat16 into memory of the device.
  Status Fill(std::span<const WeightSource> sources, ThreadPool& threads, CUstream_st* stream,
              std::byte* to) const;
  Status Pack(std::span<const WeightSource> sources, const std::shared_ptr<CudaPool>& memory,
              CUstream_st* stream);

  const std::unique_ptr<CudaBuffer> buffer_;
  std::unique_ptr<CudaBuffer> wide_;
  const cuda::WeightKind kind_;
  const uint32_t rows_, cols_;
  const cuda::DeviceWeight view_;
};

}  // namespace corpusd
