// client/sources/transfer_decoder.h -- what a mail's Content-Transfer-Encoding and charset undo:
// quoted-printable and base64 to bytes, and bytes of a charset to UTF-8. Streaming: a few bytes are
// kept between pieces. Damaged input never fails: what makes no sense stays or is left out. Each
// PieceConsumer is for one thread; the functions are pure.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "client/sources/document_sink.h"

namespace corpusd::sources {

// encoding: in lower case; what is neither "quoted-printable" nor "base64" is passed on as it is.
std::unique_ptr<PieceConsumer> MakeTransferDecoder(std::string_view encoding, PieceConsumer& next);

// charset: in lower case. UTF-8, ASCII, "" and what is not known: as TextDecoder reads it.
std::unique_ptr<PieceConsumer> MakeCharsetDecoder(std::string_view charset, PieceConsumer& next);

// The whole of a short text at once.
std::string DecodeTransfer(std::string_view encoding, std::string_view text);
std::string DecodeCharset(std::string_view charset, std::string_view text);

// Passes on as it is. Finish is passed on too.
class TextCollector : public PieceConsumer {
 public:
  bool Write(std::string_view piece) override {
    text_ += piece;
    return true;
  }
  bool Finish() override { return true; }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace corpusd::sources
