// store/cuda/device_crc32c.h -- checksums of what lies in a CUDA device's memory. Enqueues one
// kernel on the stream, returns a cudaError_t. Any thread.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t

namespace corpusd::cuda {

// crcs[i], on the device or in host memory that it reaches, = CRC32C of bytes [i * part, (i + 1) *
// part) from `data` on. REQUIRES: data and part are multiples of 16.
int DeviceCrc32c(uint32_t* crcs, const void* data, uint64_t part, uint32_t parts,
                 CUstream_st* stream);

}  // namespace corpusd::cuda
