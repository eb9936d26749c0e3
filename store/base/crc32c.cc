#include "store/base/crc32c.h"

#include <nmmintrin.h>

#include <array>
#include <cstring>

namespace corpusd {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

constexpr std::array<uint32_t, 256> MakeByteTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kByteTable = MakeByteTable();

// Three streams of this size hide the instruction's latency of 3 cycles; their results are joined
// by shifting the earlier ones over the later ones' zeros, which kShift* tabulate byte by byte.
constexpr size_t kStreamBytes = 2048;

using ShiftTable = std::array<std::array<uint32_t, 256>, 4>;

constexpr uint32_t ShiftByZeroBytes(uint32_t crc, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) crc = kByteTable[crc & 255] ^ (crc >> 8);
  return crc;
}

// CRC is linear: the shift of a word is the xor of the shifts of its bytes, and of its bits.
ShiftTable MakeShiftTable(size_t bytes) {
  std::array<uint32_t, 32> of_bit{};
  for (size_t bit = 0; bit < 32; ++bit) of_bit[bit] = ShiftByZeroBytes(uint32_t{1} << bit, bytes);
  ShiftTable table{};
  for (size_t byte = 0; byte < 4; ++byte) {
    for (size_t value = 0; value < 256; ++value) {
      uint32_t shifted = 0;
      for (size_t bit = 0; bit < 8; ++bit) {
        if ((value >> bit & 1) != 0) shifted ^= of_bit[byte * 8 + bit];
      }
      table[byte][value] = shifted;
    }
  }
  return table;
}

uint32_t Shift(const ShiftTable& table, uint32_t crc) {
  return table[0][crc & 255] ^ table[1][crc >> 8 & 255] ^ table[2][crc >> 16 & 255] ^
         table[3][crc >> 24];
}

uint64_t Load64(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

__attribute__((target("sse4.2"))) uint32_t Crc32cHardware(std::span<const std::byte> bytes) {
  static const ShiftTable kShift = MakeShiftTable(kStreamBytes);
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  uint64_t crc = 0xffffffff;
  while (left >= 3 * kStreamBytes) {
    uint64_t a = crc;
    uint64_t b = 0;
    uint64_t c = 0;
    for (size_t i = 0; i < kStreamBytes; i += 8) {
      a = _mm_crc32_u64(a, Load64(p + i));
      b = _mm_crc32_u64(b, Load64(p + kStreamBytes + i));
      c = _mm_crc32_u64(c, Load64(p + 2 * kStreamBytes + i));
    }
    const uint32_t ab = Shift(kShift, static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
    crc = Shift(kShift, ab) ^ static_cast<uint32_t>(c);
    p += 3 * kStreamBytes;
    left -= 3 * kStreamBytes;
  }
  for (; left >= 8; p += 8, left -= 8) crc = _mm_crc32_u64(crc, Load64(p));
  auto tail = static_cast<uint32_t>(crc);
  for (; left > 0; ++p, --left) tail = _mm_crc32_u8(tail, static_cast<uint8_t>(*p));
  return ~tail;
}

}  // namespace

uint32_t Crc32cPortable(std::span<const std::byte> bytes) {
  uint32_t crc = 0xffffffff;
  for (const std::byte b : bytes) {
    crc = kByteTable[(crc ^ static_cast<uint8_t>(b)) & 255] ^ (crc >> 8);
  }
  return ~crc;
}

uint32_t Crc32c(std::span<const std::byte> bytes) {
  static const bool kHardware = __builtin_cpu_supports("sse4.2") != 0;
  return kHardware ? Crc32cHardware(bytes) : Crc32cPortable(bytes);
}

}  // namespace corpusd
