// store/key_codec.h -- database keys: numbers big-endian, so that they sort as numbers. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace corpusd {

template <typename T>
void AppendBigEndian(std::string* key, T value) {
  for (int shift = 8 * (static_cast<int>(sizeof value) - 1); shift >= 0; shift -= 8) {
    key->push_back(static_cast<char>(value >> shift & 0xff));
  }
}

// RETURNS false if the key is too short.
template <typename T>
bool ReadBigEndian(std::string_view key, size_t offset, T* value) {
  if (key.size() < offset + sizeof(T)) return false;
  T result = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    result = static_cast<T>(result << 8 | static_cast<unsigned char>(key[offset + i]));
  }
  *value = result;
  return true;
}

inline std::string KeyOf(uint64_t a) {
  std::string key;
  AppendBigEndian(&key, a);
  return key;
}

inline std::string KeyOf(uint64_t a, uint32_t b) {
  std::string key = KeyOf(a);
  AppendBigEndian(&key, b);
  return key;
}

}  // namespace corpusd
