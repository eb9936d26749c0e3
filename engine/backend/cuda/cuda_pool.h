// engine/backend/cuda/cuda_pool.h -- memory of one device, or host memory that it reaches, given
// out in pieces and taken back: nothing is allocated from the driver while a model runs in shapes
// that it ran in before. A piece goes to its next owner at once, so all work on pieces must be
// ordered by one stream, or have ended. Thread-safe; shared by the buffers in it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "engine/backend/buffer.h"
#include "store/base/result.h"

struct CUstream_st;  // cudaStream_t

namespace corpusd {

class CudaPool {
 public:
  enum class Kind { kDevice, kHost };  // kHost: pinned, and mapped into the device's addresses
  CudaPool(int device, Kind kind) : device_(device), kind_(kind) {}
  ~CudaPool();
  CudaPool(const CudaPool&) = delete;
  CudaPool& operator=(const CudaPool&) = delete;

  // A piece of at least so many bytes, aligned to 256, with any content. kResourceExhausted.
  Result<std::byte*> Take(uint64_t bytes, std::string_view purpose);
  void Give(std::byte* piece, uint64_t bytes);
  uint64_t mapped_bytes() const;
  // Whether the address is in memory of this pool.
  bool Holds(const std::byte* address) const;

 private:
  static uint64_t PieceBytes(uint64_t bytes);
  // From the driver.
  Result<std::byte*> Map(uint64_t bytes, std::string_view purpose);

  const int device_;
  const Kind kind_;
  mutable std::mutex mutex_;
  std::map<uint64_t, std::vector<std::byte*>> free_;  // by size
  std::map<const std::byte*, uint64_t> mapped_;       // bytes of each
  uint64_t mapped_bytes_ = 0;
  std::byte* slab_ = nullptr;  // what is left of the last one
  uint64_t slab_bytes_ = 0;
};

// A piece of a pool as a Buffer.
class CudaBuffer : public Buffer {
 public:
  static Result<std::unique_ptr<CudaBuffer>> Create(const std::shared_ptr<CudaPool>& pool,
                                                    uint64_t bytes, std::string_view purpose);
  ~CudaBuffer() override { pool_->Give(data_, bytes_); }
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;
  std::byte* data() override { return data_; }
  uint64_t bytes() const override { return bytes_; }

 private:
  CudaBuffer(std::shared_ptr<CudaPool> pool, std::byte* data, uint64_t bytes)
      : pool_(std::move(pool)), data_(data), bytes_(bytes) {}

  const std::shared_ptr<CudaPool> pool_;
  std::byte* const data_;
  const uint64_t bytes_;
};

// Enqueues a copy between memories of any kind, cut where a store's pinned memory may end
// (store/device_memory.h).
Status CopyInFrames(std::byte* target, const std::byte* source, uint64_t bytes,
                    CUstream_st* stream);

}  // namespace corpusd
