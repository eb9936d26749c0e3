#include "engine/tokenizer/streaming_encoder.h"

#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {
namespace {

// Text is repaired and cut in pieces of this size: small enough for the second-level cache.
constexpr size_t kPieceBytes = size_t{64} << 10;
// Setting up the word cache pays off from about here.
constexpr size_t kCacheFromBytes = size_t{64} << 10;

}  // namespace

StreamingEncoder::StreamingEncoder(const Tokenizer& tokenizer, TextPlace place)
    : tokenizer_(tokenizer),
      merges_(tokenizer.merges()),
      scanner_(tokenizer.word_rule() == WordRule::kSmolLm
                   ? std::nullopt
                   : std::make_optional<WordScanner>(tokenizer.word_rule())),
      place_(place) {
  if (tokenizer.nfc()) nfc_.emplace();
}

void StreamingEncoder::Append(std::string_view bytes, std::vector<TokenId>* out) {
  seen_bytes_ += bytes.size();
  if (seen_bytes_ >= kCacheFromBytes) cache_.Prepare();
  std::string& repaired = nfc_ ? repaired_ : text_;
  while (!incomplete_.empty() && !bytes.empty()) {
    // Completes the sequence that the last Append left open, byte by byte.
    incomplete_.push_back(bytes.front());
    bytes.remove_prefix(1);
    incomplete_.erase(0, RepairUtf8(incomplete_, false, &repaired));
  }
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kPieceBytes);
    const size_t taken = RepairUtf8(piece, false, &repaired);
    if (taken == 0) {
      incomplete_ = piece;  // fewer than 4 bytes, so also all of `bytes`
      break;
    }
    bytes.remove_prefix(taken);
    Normalize(false);
    EncodeWords(false, out);
  }
}

void StreamingEncoder::Normalize(bool last) {
  if (!nfc_) return;
  nfc_->Append(repaired_, last, &text_);
  repaired_.clear();
}

void StreamingEncoder::Finish(std::vector<TokenId>* out) {
  RepairUtf8(incomplete_, true, nfc_ ? &repaired_ : &text_);
  incomplete_.clear();
  Normalize(true);
  EncodeWords(true, out);
  place_ = TextPlace::kInside;
}

void StreamingEncoder::EncodeWords(bool last, std::vector<TokenId>* out) {
  if (tokenizer_.pieces() != nullptr) return EncodePieces(last, out);
  const std::string_view text = text_;
  size_t at = 0;
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    const size_t size =
        scanner_ ? scanner_->FirstWord(rest, last) : pretokenizer_.FirstWord(rest, last);
    if (size == 0) break;
    EncodeWord(at, size, out);
    at += size;
  }
  text_.erase(0, at);
}

void StreamingEncoder::AddSpacePrefix() {
  if (place_ != TextPlace::kStart || text_.empty()) return;
  place_ = TextPlace::kInside;
  if (tokenizer_.space_prefix() == SpacePrefix::kNone) return;
  const bool begins_with_space = text_.starts_with(' ') || text_.starts_with("\xe2\x96\x81");
  if (!begins_with_space || !tokenizer_.prefix_unless_space()) text_.insert(0, 1, ' ');
}

void StreamingEncoder::EncodePieces(bool last, std::vector<TokenId>* out) {
  AddSpacePrefix();
  const std::string_view text = text_;
  size_t at = 0;
  while (at < text.size()) {
    const PieceTable::Word word = tokenizer_.pieces()->FirstWord(text.substr(at), last);
    if (word.bytes == 0) break;
    if (word.literal != PieceTable::kNoToken) {
      out->push_back(word.literal);
    } else {
      EncodeCached(at, word.bytes, out);
    }
    at += word.bytes;
  }
  text_.erase(0, at);
}

void StreamingEncoder::EncodeUncached(std::string_view word, std::vector<TokenId>* out) {
  if (tokenizer_.pieces() != nullptr) return tokenizer_.pieces()->Encode(word, out);
  merges_.Encode(word, &scratch_, out);
}

// Long words are encoded in parts where no merge can cross.
void StreamingEncoder::EncodeWord(size_t at, size_t size, std::vector<TokenId>* out) {
  if (!tokenizer_.whole_words().empty()) {
    const auto found = tokenizer_.whole_words().find(std::string_view(text_).substr(at, size));
    if (found != tokenizer_.whole_words().end()) return out->push_back(found->second);
  }
  if (size <= WordCache::kWordBytesMax) return EncodeCached(at, size, out);
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text_[i]); };
  size_t start = at;
  for (size_t i = at + 1; i < at + size; ++i) {
    if (merges_.MayJoin(byte(i - 1), byte(i))) continue;
    EncodeCached(start, i - start, out);
    start = i;
  }
  EncodeCached(start, at + size - start, out);
}

void StreamingEncoder::EncodeCached(size_t at, size_t size, std::vector<TokenId>* out) {
  const std::string_view word = std::string_view(text_).substr(at, size);
  if (size > WordCache::kWordBytesMax || !cache_.ready()) {
    return EncodeUncached(word, out);
  }
  const WordCache::Key key = text_.size() - at >= 16 ? WordCache::MakeKeyFast(word.data(), size)
                                                     : WordCache::MakeKey(word);
  WordCache::Entry& entry = cache_.Slot(key);
  if (entry.key == key) {
    out->insert(out->end(), entry.ids.begin(), entry.ids.begin() + entry.count);
    return;
  }
  const size_t before = out->size();
  EncodeUncached(word, out);
  const size_t count = out->size() - before;
  if (count > WordCache::kIdsMax) return;
  entry.key = key;
  entry.count = static_cast<uint32_t>(count);
  for (size_t i = 0; i < count; ++i) entry.ids[i] = (*out)[before + i];
}

}  // namespace corpusd
