#include "client/sources/transfer_decoder.h"

#include <iconv.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "client/sources/text_decoder.h"
#include "client/wire/utf8.h"

namespace corpusd::sources {
namespace {

constexpr uint32_t kReplacementCharacter = 0xFFFD;
constexpr size_t kCharsetNameMax = 40;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

class PassedOn : public PieceConsumer {
 public:
  explicit PassedOn(PieceConsumer& next) : next_(next) {}
  bool Write(std::string_view piece) override { return next_.Write(piece); }
  bool Finish() override { return next_.Finish(); }

 private:
  PieceConsumer& next_;
};

class QuotedPrintable : public PieceConsumer {
 public:
  explicit QuotedPrintable(PieceConsumer& next) : next_(next) {}

  bool Write(std::string_view piece) override {
    std::string input = std::exchange(pending_, {});
    input += piece;
    std::string output;
    size_t at = 0;
    while (at < input.size()) {
      if (input[at] != '=') {
        output += input[at++];
        continue;
      }
      const std::string_view rest = std::string_view(input).substr(at);
      if (rest.size() < 2 || (rest.size() < 3 && rest[1] != '\n')) {
        pending_ = rest;
        break;
      }
      at += TakeEscape(rest, &output);
    }
    return output.empty() || next_.Write(output);
  }

  bool Finish() override {
    // "=" at the very end is a line that goes on with nothing.
    const std::string rest = pending_ == "=" || pending_ == "=\r" ? "" : pending_;
    return (rest.empty() || next_.Write(rest)) && next_.Finish();
  }

 private:
  // RETURNS how many bytes the escape took. REQUIRES: it is whole.
  static size_t TakeEscape(std::string_view rest, std::string* output) {
    if (rest[1] == '\n') return 2;
    if (rest[1] == '\r' && rest[2] == '\n') return 3;
    const int high = HexValue(rest[1]);
    const int low = HexValue(rest[2]);
    if (high < 0 || low < 0) {
      *output += '=';  // no escape at all
      return 1;
    }
    *output += static_cast<char>(high * 16 + low);
    return 3;
  }

  PieceConsumer& next_;
  std::string pending_;  // an escape that is cut off
};

class Base64 : public PieceConsumer {
 public:
  explicit Base64(PieceConsumer& next) : next_(next) {}

  bool Write(std::string_view piece) override {
    std::string output;
    for (const char c : piece) {
      const int value = Base64Value(c);
      if (c == '=') bits_ = 0;  // the end of a run; another may follow
      if (value < 0) continue;
      word_ = (word_ << 6 | static_cast<uint32_t>(value)) & 0xFFFFFF;
      bits_ += 6;
      if (bits_ < 8) continue;
      bits_ -= 8;
      output += static_cast<char>(word_ >> bits_ & 0xFF);
    }
    return output.empty() || next_.Write(output);
  }
  bool Finish() override { return next_.Finish(); }

 private:
  PieceConsumer& next_;
  uint32_t word_ = 0;
  int bits_ = 0;  // of word_ that were not passed on
};

class SingleByte : public PieceConsumer {
 public:
  explicit SingleByte(PieceConsumer& next) : next_(next) {}

  bool Write(std::string_view piece) override {
    std::string text;
    for (const char c : piece) AppendUtf8(FromWindows1252(static_cast<uint8_t>(c)), &text);
    return text.empty() || next_.Write(text);
  }
  bool Finish() override { return next_.Finish(); }

 private:
  PieceConsumer& next_;
};

// Any other charset that the C library knows.
class Converted : public PieceConsumer {
 public:
  Converted(iconv_t converter, PieceConsumer& next) : converter_(converter), next_(next) {}
  ~Converted() override { iconv_close(converter_); }
  Converted(const Converted&) = delete;
  Converted& operator=(const Converted&) = delete;

  bool Write(std::string_view piece) override {
    std::string input = std::exchange(pending_, {});
    input += piece;
    char* at = input.data();
    size_t left = input.size();
    while (left > 0) {
      std::array<char, 4096> output;
      char* end = output.data();
      size_t room = output.size();
      const size_t outcome = iconv(converter_, &at, &left, &end, &room);
      const int error = outcome == static_cast<size_t>(-1) ? errno : 0;
      const std::string_view text(output.data(), output.size() - room);
      if (!text.empty() && !next_.Write(ReplaceInvalidUtf8(text))) return false;
      if (error == 0 || error == E2BIG) continue;
      if (error == EINVAL && left < kPendingMax) {
        pending_.assign(at, left);
        return true;
      }
      if (!SkipByte(&at, &left)) return false;
    }
    return true;
  }

  bool Finish() override { return (pending_.empty() || Replace()) && next_.Finish(); }

 private:
  static constexpr size_t kPendingMax = 16;  // longer than any character

  bool Replace() {
    std::string text;
    AppendUtf8(kReplacementCharacter, &text);
    return next_.Write(text);
  }
  bool SkipByte(char** at, size_t* left) {
    ++*at;
    --*left;
    return Replace();
  }

  const iconv_t converter_;
  PieceConsumer& next_;
  std::string pending_;
};

bool IsAnyOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The name reaches the C library, which looks for a module of that name: letters and digits only.
bool IsPlainName(std::string_view name) {
  if (name.empty() || name.size() > kCharsetNameMax) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == ':';
  });
}

}  // namespace

std::unique_ptr<PieceConsumer> MakeTransferDecoder(std::string_view encoding, PieceConsumer& next) {
  if (encoding == "quoted-printable") return std::make_unique<QuotedPrintable>(next);
  if (encoding == "base64") return std::make_unique<Base64>(next);
  return std::make_unique<PassedOn>(next);
}

std::unique_ptr<PieceConsumer> MakeCharsetDecoder(std::string_view charset, PieceConsumer& next) {
  if (IsAnyOf(charset, {"iso-8859-1", "latin1", "windows-1252", "cp1252"})) {
    return std::make_unique<SingleByte>(next);
  }
  const bool usual = IsAnyOf(charset, {"", "utf-8", "utf8", "us-ascii", "ascii"});
  if (!usual && IsPlainName(charset)) {
    const iconv_t converter = iconv_open("UTF-8", std::string(charset).c_str());
    if (converter != reinterpret_cast<iconv_t>(-1)) {
      return std::make_unique<Converted>(converter, next);
    }
  }
  return std::make_unique<TextDecoder>(next);
}

std::string DecodeTransfer(std::string_view encoding, std::string_view text) {
  TextCollector collector;
  const auto decoder = MakeTransferDecoder(encoding, collector);
  decoder->Write(text);
  decoder->Finish();
  return collector.Take();
}

std::string DecodeCharset(std::string_view charset, std::string_view text) {
  TextCollector collector;
  const auto decoder = MakeCharsetDecoder(charset, collector);
  decoder->Write(text);
  decoder->Finish();
  return collector.Take();
}

}  // namespace corpusd::sources
