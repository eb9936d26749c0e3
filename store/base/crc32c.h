// store/base/crc32c.h -- CRC32C (Castagnoli, RFC 3720 appendix B.4), in hardware where the CPU has
// SSE4.2. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace corpusd {

uint32_t Crc32c(std::span<const std::byte> bytes);
// The portable version, for tests.
uint32_t Crc32cPortable(std::span<const std::byte> bytes);

}  // namespace corpusd
