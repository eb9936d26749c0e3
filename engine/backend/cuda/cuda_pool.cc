#include "engine/backend/cuda/cuda_pool.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <string>

#include "engine/backend/cuda/cuda_error.h"
#include "store/device_memory.h"

namespace corpusd {
namespace {

// Small pieces are cut out of slabs: an allocation from the driver takes a fraction of a
// millisecond and whole pages.
constexpr uint64_t kSlabBytes = uint64_t{32} << 20;
constexpr uint64_t kAlignment = 256;
constexpr uint64_t kMaxBytes = uint64_t{1} << 46;

}  // namespace

CudaPool::~CudaPool() {
  cudaSetDevice(device_);
  for (const auto& [address, bytes] : mapped_) {
    auto* const memory = const_cast<std::byte*>(address);
    if (kind_ == Kind::kDevice) {
      cudaFree(memory);
    } else {
      cudaFreeHost(memory);
    }
  }
}

// Sizes are rounded up to eighths of a power of two, so that pieces of growing scratch fit again.
uint64_t CudaPool::PieceBytes(uint64_t bytes) {
  const uint64_t step = std::max(kAlignment, std::bit_floor(std::max<uint64_t>(bytes, 1)) / 8);
  return (std::max<uint64_t>(bytes, 1) + step - 1) / step * step;
}

Result<std::byte*> CudaPool::Map(uint64_t bytes, std::string_view purpose) {
  void* memory = nullptr;
  cudaSetDevice(device_);
  const cudaError_t error = kind_ == Kind::kDevice
                                ? cudaMalloc(&memory, bytes)
                                : cudaHostAlloc(&memory, bytes, cudaHostAllocPortable);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // it is no error of the launches that follow
    return CudaStatus(error,
                      "allocate " + std::to_string(bytes) + " bytes for " + std::string(purpose));
  }
  mapped_.emplace(static_cast<std::byte*>(memory), bytes);
  mapped_bytes_ += bytes;
  return static_cast<std::byte*>(memory);
}

Result<std::byte*> CudaPool::Take(uint64_t bytes, std::string_view purpose) {
  if (bytes > kMaxBytes) {
    return ResourceExhaustedError("cannot allocate " + std::to_string(bytes) + " bytes for " +
                                  std::string(purpose) + ": more than any device has");
  }
  const uint64_t size = PieceBytes(bytes);
  const std::lock_guard lock(mutex_);
  if (auto& pieces = free_[size]; !pieces.empty()) {
    std::byte* const piece = pieces.back();
    pieces.pop_back();
    return piece;
  }
  if (size >= kSlabBytes / 2) return Map(size, purpose);
  if (slab_bytes_ < size) {
    ASSIGN_OR_RETURN(slab_, Map(kSlabBytes, purpose));
    slab_bytes_ = kSlabBytes;
  }
  std::byte* const piece = slab_;
  slab_ += size;
  slab_bytes_ -= size;
  return piece;
}

void CudaPool::Give(std::byte* piece, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  free_[PieceBytes(bytes)].push_back(piece);
}

bool CudaPool::Holds(const std::byte* address) const {
  const std::lock_guard lock(mutex_);
  const auto behind = mapped_.upper_bound(address);
  if (behind == mapped_.begin()) return false;
  const auto& [begin, bytes] = *std::prev(behind);
  return address < begin + bytes;
}

uint64_t CudaPool::mapped_bytes() const {
  const std::lock_guard lock(mutex_);
  return mapped_bytes_;
}

Result<std::unique_ptr<CudaBuffer>> CudaBuffer::Create(const std::shared_ptr<CudaPool>& pool,
                                                       uint64_t bytes, std::string_view purpose) {
  ASSIGN_OR_RETURN(std::byte* const piece, pool->Take(bytes, purpose));
  return std::unique_ptr<CudaBuffer>(new CudaBuffer(pool, piece, bytes));
}

Status CopyInFrames(std::byte* target, const std::byte* source, uint64_t bytes,
                    CUstream_st* stream) {
  const auto to_border = [](const std::byte* address) {
    return kPinFrameBytes - reinterpret_cast<uintptr_t>(address) % kPinFrameBytes;
  };
  for (uint64_t piece = 0; bytes > 0; bytes -= piece) {
    piece = std::min({bytes, to_border(target), to_border(source)});
    RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(target, source, piece, cudaMemcpyDefault, stream), "copy"));
    target += piece;
    source += piece;
  }
  return OkStatus();
}

}  // namespace corpusd
