// store/cuda/crc32c_parts.h -- CRC32C of a piece whose slices were summed apart: the arithmetic of
// polynomials over two elements that joins them (Brown, "Reversing CRC", 2010; zlib's
// crc32_combine). Numbers are bit-reversed, as CRC32C has them. Pure, for host and device; any
// thread.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CORPUSD_CRC_FUNCTION __host__ __device__ __forceinline__
#else
#define CORPUSD_CRC_FUNCTION inline
#endif

namespace corpusd::cuda {

inline constexpr uint32_t kCrcPolynomial = 0x82F63B78u;

// a * b modulo the polynomial.
CORPUSD_CRC_FUNCTION uint32_t MultiplyCrc(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int i = 0; i < 32; ++i) {
    product ^= (a >> 31 & 1u) != 0 ? b : 0u;
    a <<= 1;
    b = (b >> 1) ^ ((b & 1u) != 0 ? kCrcPolynomial : 0u);
  }
  return product;
}

// x^(8 bytes): what a sum is multiplied by when so many bytes follow.
inline uint32_t CrcOfFollowing(uint64_t bytes) {
  uint32_t result = 0x80000000u;  // 1
  uint32_t power = 0x00800000u;   // x^8
  for (; bytes != 0; bytes >>= 1) {
    if ((bytes & 1) != 0) result = MultiplyCrc(result, power);
    power = MultiplyCrc(power, power);
  }
  return result;
}

}  // namespace corpusd::cuda
