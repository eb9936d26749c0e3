// engine/tokenizer/streaming_encoder.h -- encodes a text that arrives in pieces, with the same ids
// however it is cut. Keeps only the undecided tail, at most about Pretokenizer::kWordBytesMax, so
// the text is never in memory whole. Users' text: special tokens are not looked for. One thread at
// a time; the Tokenizer must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/nfc_stream.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/word_cache.h"

namespace corpusd {

class StreamingEncoder {
 public:
  explicit StreamingEncoder(const Tokenizer& tokenizer, TextPlace place = TextPlace::kInside);

  // Where the next text stands. REQUIRES: the last one has been finished.
  void Begin(TextPlace place) { place_ = place; }

  // Appends to *out the ids that are certain by now.
  void Append(std::string_view bytes, std::vector<TokenId>* out);
  // Ends the text: appends the remaining ids. The encoder is then ready for another text, inside.
  void Finish(std::vector<TokenId>* out);

 private:
  void Normalize(bool last);
  void EncodeWords(bool last, std::vector<TokenId>* out);
  void AddSpacePrefix();
  void EncodePieces(bool last, std::vector<TokenId>* out);
  void EncodeUncached(std::string_view word, std::vector<TokenId>* out);
  void EncodeWord(size_t at, size_t size, std::vector<TokenId>* out);
  void EncodeCached(size_t at, size_t size, std::vector<TokenId>* out);

  const Tokenizer& tokenizer_;
  const MergeTable& merges_;
  const Pretokenizer pretokenizer_;
  const std::optional<WordScanner> scanner_;  // of rules that pretokenizer_ does not have
  MergeScratch scratch_;
  WordCache cache_;
  uint64_t seen_bytes_ = 0;
  std::string incomplete_;  // up to 3 bytes that may begin a UTF-8 sequence
  std::string repaired_;    // not yet in normal form
  std::string text_;        // repaired and normalized, from the start of a word on
  std::optional<NfcStream> nfc_;
  TextPlace place_;
};

}  // namespace corpusd
