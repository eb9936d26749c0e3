// client/sources/text_decoder.h -- TextDecoder: the bytes of a text file as UTF-8, whatever they
// were: a byte order mark says UTF-8 or UTF-16 and is taken off; without one the text is UTF-8, and
// each byte that is no part of a well-formed character is read as Windows-1252, of which Latin-1 is
// a part. So nothing needs to be known of the whole file, and a file of mixed encodings comes out
// right too. Memory is a few bytes. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "client/sources/document_sink.h"

namespace corpusd::sources {

// Whether the first bytes of a file look like something other than text: a NUL without a UTF-16
// mark, or more than a tenth that is not UTF-8 (a sequence cut off by the end of the sample is not
// counted). An empty sample is text.
bool LooksBinary(std::string_view sample);

// A byte of Windows-1252 as a code point; those that it leaves open stay what they are in Latin-1.
uint32_t FromWindows1252(uint8_t byte);

class TextDecoder : public PieceConsumer {
 public:
  explicit TextDecoder(PieceConsumer& next) : next_(next) {}

  bool Write(std::string_view piece) override;
  bool Finish() override;
  // Whether what came was anything but plain UTF-8, so far. A UTF-8 mark does not count.
  bool converted() const { return converted_; }

 private:
  enum class Form : uint8_t { kUnknown, kUtf8, kUtf16Little, kUtf16Big };

  // Looks for a mark. RETURNS false while more bytes are wanted to tell.
  bool FindForm(bool at_end);
  bool Decode(std::string_view bytes, bool at_end);
  bool DecodeUtf8(std::string_view bytes, bool at_end);
  bool DecodeUtf16(std::string_view bytes, bool at_end);
  void TakeUnit(uint16_t unit, std::string* text);

  PieceConsumer& next_;
  Form form_ = Form::kUnknown;
  bool converted_ = false;
  std::string pending_;          // a character cut off by the end of a piece, or the first bytes
  uint16_t high_surrogate_ = 0;  // that waits for its low one; 0: none
};

}  // namespace corpusd::sources
