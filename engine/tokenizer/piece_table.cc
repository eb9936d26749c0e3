#include "engine/tokenizer/piece_table.h"

#include <algorithm>
#include <bit>

#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {
namespace {

constexpr uint32_t kIdBits = 20;
// Fibonacci hashing, as in MergeTable.
constexpr uint64_t kHashFactor = 0x9e3779b97f4a7c15;
constexpr uint32_t kSpaceMark = 0x2581;
constexpr std::string_view kSpaceText = "\xe2\x96\x81";
// Four million bits for some hundred thousand pairs: a false joint costs a missed cut, no more.
constexpr uint32_t kJointBits = 22;

uint32_t CharacterAt(std::string_view text, size_t at) {
  const uint32_t value = DecodeAt(text, at).value;
  return value == ' ' ? kSpaceMark : value;
}

size_t JointHash(uint32_t a, uint32_t b) {
  return (uint64_t{a} << 21 | b) * kHashFactor >> (64 - kJointBits);
}

}  // namespace

struct PieceTable::Symbol {
  TokenId id;              // kNoToken: merged away, or of no token
  int32_t previous, next;  // -1: none
  std::string_view text;   // of a character that no token has
};

struct PieceTable::Candidate {
  uint32_t priority;
  int32_t left;
  TokenId left_id, right_id, merged;  // stale if the symbols' ids have changed
  // True if a is merged after b.
  static bool After(const Candidate& a, const Candidate& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.left > b.left;
  }
};

void PieceTable::Build(Parts parts) {
  parts_ = std::move(parts);
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * parts_.merges.size(), 16));
  shift_ = 64 - static_cast<uint32_t>(std::countr_zero(slots));
  slots_.resize(slots);
  for (const Merge& merge : parts_.merges) {
    const uint64_t key = uint64_t{merge.left} << kIdBits | merge.right;
    size_t slot = key * kHashFactor >> shift_;
    while (slots_[slot].key != ~uint64_t{0} && slots_[slot].key != key) {
      slot = (slot + 1) & (slots - 1);
    }
    if (slots_[slot].key != key) slots_[slot] = {key, merge.priority, merge.merged};
  }
  joints_.resize(size_t{1} << kJointBits);
  for (const std::string& text : parts_.merged_texts) {
    for (size_t at = 0; at < text.size();) {
      const size_t next = at + DecodeAt(text, at).bytes;
      if (next < text.size())
        joints_[JointHash(CharacterAt(text, at), CharacterAt(text, next))] = true;
      at = next;
    }
  }
  parts_.merged_texts = {};
  parts_.merges = {};
  literal_of_node_.assign(1, kNoToken);
  for (const auto& [text, id] : parts_.literals) {
    uint32_t node = 0;
    for (const char c : text) {
      const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(c);
      const auto [branch, is_new] =
          branches_.emplace(key, static_cast<uint32_t>(literal_of_node_.size()));
      if (is_new) literal_of_node_.push_back(kNoToken);
      node = branch->second;
    }
    literal_of_node_[node] = id;
    literal_starts_[static_cast<uint8_t>(text[0])] = true;
    literal_bytes_max_ = std::max(literal_bytes_max_, text.size());
  }
}

const PieceTable::Slot* PieceTable::Find(TokenId left, TokenId right) const {
  if (left == kNoToken || right == kNoToken) return nullptr;
  const uint64_t key = uint64_t{left} << kIdBits | right;
  for (size_t slot = key * kHashFactor >> shift_;; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].key == key) return &slots_[slot];
    if (slots_[slot].key == ~uint64_t{0}) return nullptr;
  }
}

// RETURNS the bytes of the longest literal that text begins with, or 0.
size_t PieceTable::LiteralAt(std::string_view text, TokenId* id) const {
  if (!literal_starts_[static_cast<uint8_t>(text[0])]) return 0;
  uint32_t node = 0;
  size_t longest = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto branch = branches_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (branch == branches_.end()) break;
    node = branch->second;
    if (literal_of_node_[node] == kNoToken) continue;
    *id = literal_of_node_[node];
    longest = i + 1;
  }
  return longest;
}

PieceTable::Word PieceTable::FirstWord(std::string_view text, bool last) const {
  // A literal at `at` is certain when the longest one would be there whole.
  const auto certain = [&](size_t at) { return last || text.size() - at >= literal_bytes_max_; };
  Word word;
  if (!certain(0)) return word;
  word.bytes = LiteralAt(text, &word.literal);
  if (word.bytes > 0) return word;
  size_t at = DecodeAt(text, 0).bytes;
  uint32_t before = CharacterAt(text, 0);
  TokenId ignored = kNoToken;
  for (; at < text.size() && at < kWordBytesMax; at += DecodeAt(text, at).bytes) {
    const uint32_t here = CharacterAt(text, at);
    if (literal_starts_[static_cast<uint8_t>(text[at])]) {
      if (!certain(at)) return word;
      if (LiteralAt(text.substr(at), &ignored) > 0) break;
    }
    if (!joints_[JointHash(before, here)]) break;
    if (parts_.splits_at_spaces && here == kSpaceMark) break;
    before = here;
  }
  if (at >= text.size() && at < kWordBytesMax && !last) return word;
  word.bytes = at;
  return word;
}

void PieceTable::Symbols(std::string_view word, std::vector<Symbol>* symbols) const {
  std::string text;
  for (size_t at = 0; at < word.size();) {
    const size_t bytes = DecodeAt(word, at).bytes;
    const std::string_view character = word.substr(at, bytes);
    text = word[at] == ' ' ? kSpaceText : character;
    const auto found = parts_.characters.find(text);
    const auto index = static_cast<int32_t>(symbols->size());
    symbols->push_back({found == parts_.characters.end() ? kNoToken : found->second, index - 1,
                        at + bytes < word.size() ? index + 1 : -1,
                        found == parts_.characters.end() ? character : std::string_view()});
    at += bytes;
  }
}

void PieceTable::Encode(std::string_view word, std::vector<TokenId>* out) const {
  std::vector<Symbol> symbols;
  Symbols(word, &symbols);
  std::vector<Candidate> heap;
  const auto find = [&](int32_t left, int32_t right) {
    const Slot* const slot = Find(symbols[left].id, symbols[right].id);
    if (slot == nullptr) return;
    heap.push_back({slot->priority, left, symbols[left].id, symbols[right].id, slot->merged});
    std::push_heap(heap.begin(), heap.end(), Candidate::After);
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) find(i, i + 1);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), Candidate::After);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    const int32_t right = left.next;
    if (left.id != best.left_id || right < 0 || symbols[right].id != best.right_id) continue;
    left.id = best.merged;
    left.next = symbols[right].next;
    symbols[right].id = kNoToken;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    if (left.previous >= 0) find(left.previous, best.left);
    if (left.next >= 0) find(best.left, left.next);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kNoToken) {
      out->push_back(symbol.id);
    } else if (!symbol.text.empty()) {
      EncodeUnknown(symbol.text, out);
    }
  }
}

// The tokens of its bytes, or one unknown token for a run of such characters.
void PieceTable::EncodeUnknown(std::string_view character, std::vector<TokenId>* out) const {
  const auto byte_id = [&](char c) { return parts_.byte_ids[static_cast<uint8_t>(c)]; };
  if (std::all_of(character.begin(), character.end(),
                  [&](char c) { return byte_id(c) != kNoToken; })) {
    for (const char c : character) out->push_back(byte_id(c));
    return;
  }
  if (parts_.unknown == kNoToken) return;
  if (!out->empty() && out->back() == parts_.unknown) return;
  out->push_back(parts_.unknown);
}

}  // namespace corpusd
