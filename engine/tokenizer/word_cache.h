// engine/tokenizer/word_cache.h -- remembers the ids of short words met lately: natural text
// repeats few words often. Direct-mapped, of fixed size; a collision forgets. One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "store/prefix_hash.h"

namespace corpusd {

class WordCache {
 public:
  static constexpr size_t kWordBytesMax = 15;
  static constexpr size_t kIdsMax = 3;

  // A word's bytes, zero-padded, with its length in the last byte.
  struct Key {
    uint64_t low = 0, high = 0;
    bool operator==(const Key&) const = default;
  };
  // Half a cache line, so that a look-up touches one.
  struct alignas(32) Entry {
    Key key;  // a length of 0: empty
    std::array<TokenId, kIdsMax> ids{};
    uint32_t count = 0;
  };

  // REQUIRES: 1 <= word.size() <= kWordBytesMax.
  static Key MakeKey(std::string_view word) {
    char bytes[16] = {};
    std::memcpy(bytes, word.data(), word.size());
    return Finish(bytes, word.size());
  }
  // The same for a word with at least 16 readable bytes behind its start.
  static Key MakeKeyFast(const char* word, size_t size) {
    Key key;
    std::memcpy(&key.low, word, sizeof key.low);
    std::memcpy(&key.high, word + sizeof key.low, sizeof key.high);
    const uint64_t keep_low = size >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1;
    const uint64_t keep_high = size <= 8 ? 0 : (uint64_t{1} << (8 * (size - 8))) - 1;
    key.low &= keep_low;
    key.high = (key.high & keep_high) | uint64_t{size} << 56;
    return key;
  }

  // RETURNS the entry where the key is or belongs.
  Entry& Slot(const Key& key) {
    const uint64_t mixed = (key.low ^ (key.high >> 29 | key.high << 35)) * 0x9e3779b97f4a7c15;
    return entries_[(mixed ^ key.high * 0xd6e8feb86659fd93) >> (64 - kEntriesLog2)];
  }
  // The memory is taken at the first use, so that encoding a short text costs nothing.
  void Prepare() {
    if (entries_.empty()) entries_.resize(size_t{1} << kEntriesLog2);
  }
  bool ready() const { return !entries_.empty(); }

 private:
  // 2 MiB: a quarter of it was measured half as fast on source code, twice of it no faster.
  static constexpr uint32_t kEntriesLog2 = 16;

  static Key Finish(const char* bytes, size_t size) {
    Key key;
    std::memcpy(&key.low, bytes, sizeof key.low);
    std::memcpy(&key.high, bytes + sizeof key.low, sizeof key.high);
    key.high |= uint64_t{size} << 56;
    return key;
  }

  std::vector<Entry> entries_;
};

}  // namespace corpusd
