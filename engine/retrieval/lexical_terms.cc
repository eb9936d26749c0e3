#include "engine/retrieval/lexical_terms.h"

#include "engine/retrieval/case_folding.h"
#include "engine/tokenizer/unicode_classes.h"
#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {
namespace {

enum class Kind : uint8_t { kNone, kLower, kUpper, kDigit, kAlone };

// Letters of scripts that put no spaces between words: Thai to Tibetan, Khmer, kana, Han.
bool StandsAlone(uint32_t c) {
  return (c >= 0x0e00 && c <= 0x0fff) || (c >= 0x1000 && c <= 0x109f) ||
         (c >= 0x1780 && c <= 0x17ff) || (c >= 0x3040 && c <= 0x30ff) ||
         (c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
         (c >= 0x20000 && c <= 0x3ffff);
}

Kind KindOf(uint32_t c, const UnicodeClasses& classes) {
  switch (classes.Of(c)) {
    case CharClass::kNumber:
      return Kind::kDigit;
    case CharClass::kLetter:
      if (StandsAlone(c)) return Kind::kAlone;
      return IsCapital(c) ? Kind::kUpper : Kind::kLower;
    default:
      return Kind::kNone;
  }
}

// FNV-1a (Fowler, Noll, Vo) over code points, its bits mixed at the end (the finalizer of
// MurmurHash3).
constexpr uint64_t kHashSeed = 0xcbf29ce484222325;
uint64_t Continue(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x100000001b3; }
uint32_t Term(uint64_t hash) {
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
  return static_cast<uint32_t>((hash ^ (hash >> 33)) >> (64 - kTermBits));
}

class TermList {
 public:
  void Add(uint32_t c) { hash_ = Continue(hash_, FoldCase(c)); }
  void EndPart() {
    if (hash_ == kHashSeed) return;
    terms_.push_back(Term(hash_));
    if (before_ != 0) terms_.push_back(Term(Continue(Continue(before_, 0x110000), hash_)));
    before_ = hash_;
    hash_ = kHashSeed;
  }
  std::vector<uint32_t> Take() { return std::move(terms_); }

 private:
  uint64_t hash_ = kHashSeed;  // of the part under way
  uint64_t before_ = 0;        // of the part before it
  std::vector<uint32_t> terms_;
};

}  // namespace

std::vector<uint32_t> TermsOf(std::string_view text) {
  std::string repaired;
  RepairUtf8(text, /*last=*/true, &repaired);
  const UnicodeClasses& classes = UnicodeClasses::Get();
  TermList terms;
  Kind before = Kind::kNone;
  for (size_t at = 0; at < repaired.size();) {
    const CodePoint c = DecodeAt(repaired, at);
    at += c.bytes;
    const Kind kind = KindOf(c.value, classes);
    const bool goes_on = kind == before || (before == Kind::kUpper && kind == Kind::kLower);
    // Of several capitals the last begins the word that goes on in lower case.
    const bool last_capital = kind == Kind::kUpper && before == Kind::kUpper &&
                              at < repaired.size() &&
                              KindOf(DecodeAt(repaired, at).value, classes) == Kind::kLower;
    if (!goes_on || kind == Kind::kAlone || last_capital) terms.EndPart();
    if (kind != Kind::kNone) terms.Add(c.value);
    before = kind;
  }
  terms.EndPart();
  return terms.Take();
}

}  // namespace corpusd
