#include "store/cuda/device_crc32c.h"

#include <cuda_runtime.h>

#include "store/cuda/crc32c_parts.h"

namespace corpusd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLevels = 8;  // 2^8 slices
constexpr int kTables = 4;  // bytes at once

struct CrcCall {
  uint32_t* crcs;
  const uint4* data;
  uint64_t part_chunks;         // of 16 bytes
  uint64_t slice_chunks;        // of a thread
  uint32_t following[kLevels];  // x^(8 bytes) of 1, 2, 4 .. slices
  uint32_t initial;             // what the usual first value of all ones adds to the sum of a part
};

__device__ __forceinline__ uint32_t AddWord(uint32_t crc, uint32_t word,
                                            const uint32_t (*tables)[256]) {
  crc ^= word;
  return tables[3][crc & 0xFF] ^ tables[2][crc >> 8 & 0xFF] ^ tables[1][crc >> 16 & 0xFF] ^
         tables[0][crc >> 24];
}

// A block sums one part, a thread one slice. Slices are aligned to the part's end: those that would
// begin before it are shorter or empty, and zeros in front do not change a sum that begins at zero.
__global__ void __launch_bounds__(kThreads) CrcKernel(const __grid_constant__ CrcCall call) {
  __shared__ uint32_t tables[kTables][256];
  __shared__ uint32_t sums[kThreads];
  uint32_t entry = threadIdx.x;
  for (int t = 0; t < kTables; ++t) {
    for (int i = 0; i < 8; ++i) entry = (entry >> 1) ^ ((entry & 1u) != 0 ? kCrcPolynomial : 0u);
    tables[t][threadIdx.x] = entry;
  }
  __syncthreads();
  const uint64_t after = (kThreads - 1 - threadIdx.x) * call.slice_chunks;
  const uint64_t end = call.part_chunks > after ? call.part_chunks - after : 0;
  const uint64_t begin = end > call.slice_chunks ? end - call.slice_chunks : 0;
  const uint4* data = call.data + blockIdx.x * call.part_chunks;
  uint32_t crc = 0;
  for (uint64_t i = begin; i < end; ++i) {
    const uint4 v = data[i];
    crc = AddWord(crc, v.x, tables);
    crc = AddWord(crc, v.y, tables);
    crc = AddWord(crc, v.z, tables);
    crc = AddWord(crc, v.w, tables);
  }
  sums[threadIdx.x] = crc;
  for (int level = 0; level < kLevels; ++level) {
    __syncthreads();
    const int step = 1 << level;
    const bool joins = (threadIdx.x & (2 * step - 1)) == 0;
    if (joins) {
      crc = MultiplyCrc(crc, call.following[level]) ^ sums[threadIdx.x + step];
    }
    __syncthreads();
    if (joins) sums[threadIdx.x] = crc;
  }
  if (threadIdx.x == 0) call.crcs[blockIdx.x] = crc ^ call.initial ^ 0xFFFFFFFFu;
}

}  // namespace

int DeviceCrc32c(uint32_t* crcs, const void* data, uint64_t part, uint32_t parts,
                 CUstream_st* stream) {
  CrcCall call{};
  call.crcs = crcs;
  call.data = static_cast<const uint4*>(data);
  call.part_chunks = part / 16;
  call.slice_chunks = (call.part_chunks + kThreads - 1) / kThreads;
  for (int level = 0; level < kLevels; ++level) {
    call.following[level] = CrcOfFollowing((call.slice_chunks << level) * 16);
  }
  call.initial = MultiplyCrc(0xFFFFFFFFu, CrcOfFollowing(part));
  CrcKernel<<<parts, kThreads, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace corpusd::cuda
