// engine/backend/cuda/host_arrays.h -- device copies of what a model keeps in host arrays: gains,
// rope tables, bases. A copy is found by the array's address and used while a sample of the array's
// content is as it was; so a new array at an old address is seen, at the price of comparing a few
// kilobytes. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/cuda/cuda_pool.h"
#include "kernels/cuda/page.h"
#include "kernels/kv_basis.h"
#include "kernels/shapes.h"
#include "store/base/result.h"

namespace corpusd {

class HostArrays {
 public:
  // Copies so many floats to the device, in the order of the stream, before it returns.
  using Upload = std::function<Status(std::byte* target, const float* source, uint64_t floats)>;
  HostArrays(std::shared_ptr<CudaPool> pool, Upload upload)
      : pool_(std::move(pool)), upload_(std::move(upload)) {}

  Result<const float*> Gain(const float* gain, uint32_t count);
  Result<cuda::DeviceRope> Rope(const RopeTable* rope);  // null: nothing turns
  // After an error: nothing of earlier calls is on the device.
  void Forget() { copies_.clear(); }
  // [kv_heads] of one layer; null: no arrays.
  Result<cuda::DeviceBasis> Basis(const KvBasis* basis, uint32_t kv_heads, uint32_t head_dim);

 private:
  struct Copy {
    std::vector<float> sample;
    std::unique_ptr<CudaBuffer> buffer;
  };
  // The device copy for `address`; `fill` gives the content if it must be made.
  Result<const float*> Find(const void* address, std::span<const float> sample,
                            const std::function<void(std::vector<float>*)>& fill);

  const std::shared_ptr<CudaPool> pool_;
  const Upload upload_;
  std::map<const void*, Copy> copies_;
  std::vector<float> sample_;
};

}  // namespace corpusd
