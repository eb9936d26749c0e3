#include "engine/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>

#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint64_t kEmptySlot = ~uint64_t{0};
constexpr uint32_t kRankBits = 24;
constexpr uint32_t kIdBits = 20;
constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;
// Fibonacci hashing: the golden ratio of 64 bits spreads neighbouring ids over the whole table.
constexpr uint64_t kHashFactor = 0x9e3779b97f4a7c15;
// Up to here scanning all pairs for the best one beats keeping a heap.
constexpr size_t kShortWordBytes = 24;

uint64_t PairKey(TokenId left, TokenId right) { return uint64_t{left} << kIdBits | right; }

// True if a is merged after b.
bool MergesAfter(const MergeScratch::Candidate& a, const MergeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

void MergeTable::Build(const std::array<TokenId, 256>& byte_ids, const std::vector<Merge>& merges,
                       const std::vector<std::string_view>& merged_pieces, bool one_rank) {
  CHECK(merges.size() <= kMergesMax && merges.size() == merged_pieces.size());
  byte_ids_ = byte_ids;
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * merges.size(), 16));
  shift_ = 64 - static_cast<uint32_t>(std::countr_zero(slots));
  slots_.assign(slots, kEmptySlot);
  merged_ids_.reserve(merges.size());
  size_t rank = 0;
  for (size_t m = 0; m < merges.size(); ++m) {
    const Merge& merge = merges[m];
    if (!one_rank || m == 0 || merges[m - 1].merged != merge.merged) rank = m;
    merged_ids_.push_back(merge.merged);
    const uint64_t key = PairKey(merge.left, merge.right);
    size_t slot = key * kHashFactor >> shift_;
    while (slots_[slot] != kEmptySlot && slots_[slot] >> kRankBits != key) {
      slot = (slot + 1) & (slots - 1);
    }
    if (slots_[slot] == kEmptySlot) slots_[slot] = key << kRankBits | rank;
    const std::string_view piece = merged_pieces[m];
    for (size_t i = 1; i < piece.size(); ++i) {
      joins_.set(size_t{static_cast<uint8_t>(piece[i - 1])} << 8 | static_cast<uint8_t>(piece[i]));
    }
  }
}

uint32_t MergeTable::Rank(TokenId left, TokenId right) const {
  if (left == kNoToken || right == kNoToken) return kNoRank;
  const uint64_t key = PairKey(left, right);
  for (size_t slot = key * kHashFactor >> shift_;; slot = (slot + 1) & (slots_.size() - 1)) {
    const uint64_t entry = slots_[slot];
    if (entry >> kRankBits == key) return static_cast<uint32_t>(entry & kRankMask);
    if (entry == kEmptySlot) return kNoRank;
  }
}

void MergeTable::Encode(std::string_view word, MergeScratch* scratch,
                        std::vector<TokenId>* out) const {
  if (word.size() <= kShortWordBytes) {
    EncodeShort(word, out);
  } else {
    EncodeLong(word, scratch, out);
  }
}

void MergeTable::EncodeShort(std::string_view word, std::vector<TokenId>* out) const {
  TokenId ids[kShortWordBytes];
  uint32_t ranks[kShortWordBytes];  // of merging symbol i with i + 1
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = Rank(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoRank) break;
    ids[best] = merged_ids_[ranks[best]];
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      ids[i] = ids[i + 1];
      ranks[i - 1] = ranks[i];
    }
    if (best + 1 < count) ranks[best] = Rank(ids[best], ids[best + 1]);
    if (best > 0) ranks[best - 1] = Rank(ids[best - 1], ids[best]);
  }
  for (size_t i = 0; i < count; ++i) {
    if (ids[i] != kNoToken) out->push_back(ids[i]);
  }
}

void MergeTable::EncodeLong(std::string_view word, MergeScratch* scratch,
                            std::vector<TokenId>* out) const {
  auto& symbols = scratch->symbols;
  auto& heap = scratch->heap;
  symbols.clear();
  heap.clear();
  const auto count = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols.push_back(
        {byte_ids_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < count ? i + 1 : -1});
  }
  const auto find = [&](int32_t left, int32_t right) {
    const uint32_t rank = Rank(symbols[left].id, symbols[right].id);
    if (rank == kNoRank) return false;
    heap.push_back({rank, left, symbols[left].id, symbols[right].id});
    return true;
  };
  for (int32_t i = 0; i + 1 < count; ++i) find(i, i + 1);
  std::make_heap(heap.begin(), heap.end(), MergesAfter);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), MergesAfter);
    const MergeScratch::Candidate best = heap.back();
    heap.pop_back();
    MergeScratch::Symbol& left = symbols[best.left];
    const int32_t right = left.next;
    // A symbol merged into its left neighbour carries kNoToken, which no candidate names.
    if (left.id != best.left_id || right < 0 || symbols[right].id != best.right_id) continue;
    left.id = merged_ids_[best.rank];
    left.next = symbols[right].next;
    symbols[right].id = kNoToken;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    if (left.previous >= 0 && find(left.previous, best.left)) {
      std::push_heap(heap.begin(), heap.end(), MergesAfter);
    }
    if (left.next >= 0 && find(best.left, left.next)) {
      std::push_heap(heap.begin(), heap.end(), MergesAfter);
    }
  }
  for (const MergeScratch::Symbol& symbol : symbols) {
    if (symbol.id != kNoToken) out->push_back(symbol.id);
  }
}

}  // namespace corpusd
