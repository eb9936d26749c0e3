// tests/bench/device_random.h -- device memory full of numbers that look like a normal
// distribution's, for benches: never zeros, never the same twice. Each call enqueues a kernel on
// the stream and returns a cudaError_t. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;  // cudaStream_t

namespace corpusd::cuda {

// Number i hangs on seed and i alone. Standard deviation 1.
int FillBfloats(uint16_t* data, size_t count, uint64_t seed, CUstream_st* stream);
// The same for [rows, cols], row r with the seed `seed` + r.
int FillRows(float* data, uint32_t rows, uint32_t cols, uint64_t seed, CUstream_st* stream);

}  // namespace corpusd::cuda
