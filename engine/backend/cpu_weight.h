// engine/backend/cpu_weight.h -- a weight of the CPU backend: matrices stacked by rows, each in the
// packed form of its own kind (cpu/packed_weight.h). Immutable once loaded; any thread may read.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/buffer.h"
#include "engine/backend/host_buffer.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/thread_pool.h"
#include "store/base/result.h"

namespace corpusd {

// Memory that many weights share, so that small ones lie in huge pages too: a decode reads all of
// them for every token. Freed with the last weight in it. One thread.
class WeightArena {
 public:
  struct Slice {
    std::shared_ptr<HostBuffer> memory;
    std::byte* data = nullptr;  // 64-byte aligned, zeroed
  };
  // kResourceExhausted if the system has no such memory; `purpose` is named in the message.
  Result<Slice> Take(uint64_t bytes, std::string_view purpose);

 private:
  std::shared_ptr<HostBuffer> memory_;
  uint64_t used_ = 0;
};

class CpuWeight : public Weight {
 public:
  // Adjacent sources of one kind share a segment.
  struct Segment {
    PackedWeight packed;
    uint32_t first_row = 0;  // of the whole weight
  };

  // Repacks the sources on the pool's threads. REQUIRES: equal cols, and all rows present.
  static Result<std::unique_ptr<CpuWeight>> Load(std::span<const WeightSource> sources,
                                                 WeightArena& arena, ThreadPool& pool);

  uint32_t rows() const override { return rows_; }
  uint32_t cols() const override { return cols_; }
  uint64_t bytes() const override { return bytes_; }
  std::span<const Segment> segments() const { return segments_; }
  // A number that the owner gives it, such as its place in the order of loading.
  void set_order(uint32_t order) { order_ = order; }
  uint32_t order() const { return order_; }
  // out[0:cols] = row `row`, exactly as the kernels see it.
  void Unpack(float* out, uint32_t row) const;

 private:
  CpuWeight() = default;

  std::vector<std::shared_ptr<HostBuffer>> memory_;
  std::vector<Segment> segments_;
  uint32_t rows_ = 0, cols_ = 0;
  uint32_t order_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace corpusd
