#include "client/sources/text_decoder.h"

#include <gtest/gtest.h>

#include "client/sources/transfer_decoder.h"
#include "recorded_documents.h"

namespace corpusd::sources {
namespace {

struct Decoded {
  std::string text;
  bool converted = false;
};

// The same whatever the pieces.
Decoded Decode(std::string_view bytes) {
  Decoded whole;
  for (const size_t piece_bytes : {size_t{1} << 20, size_t{1}, size_t{2}, size_t{3}}) {
    TextCollector collector;
    TextDecoder decoder(collector);
    EXPECT_TRUE(Feed(decoder, bytes, piece_bytes));
    const Decoded decoded = {collector.Take(), decoder.converted()};
    if (piece_bytes > bytes.size()) whole = decoded;
    EXPECT_EQ(decoded.text, whole.text) << piece_bytes;
    EXPECT_EQ(decoded.converted, whole.converted) << piece_bytes;
  }
  return whole;
}

TEST(TextDecoder, Utf8StaysAndLosesItsMark) {
  EXPECT_EQ(Decode("").text, "");
  EXPECT_EQ(Decode("plain ä€😀 text").text, "plain ä€😀 text");
  EXPECT_FALSE(Decode("plain ä€😀 text").converted);
  EXPECT_EQ(Decode("\xEF\xBB\xBFmarked").text, "marked");
  EXPECT_FALSE(Decode("\xEF\xBB\xBFmarked").converted);
  EXPECT_EQ(Decode("\xEF\xBB\xBF").text, "");
}

TEST(TextDecoder, WhatIsNoUtf8IsWindows1252) {
  const Decoded latin = Decode("caf\xE9 \x80 5, \x93quoted\x94");
  EXPECT_EQ(latin.text, "café € 5, “quoted”");
  EXPECT_TRUE(latin.converted);
  EXPECT_EQ(Decode("ä and \xE4").text, "ä and ä");  // a file of two encodings
  EXPECT_EQ(Decode("\x81").text, "\xC2\x81");       // not assigned
  EXPECT_EQ(Decode("cut \xE2\x82").text, "cut â‚");
}

TEST(TextDecoder, Utf16ByItsMark) {
  using std::string_view_literals::operator""sv;
  const Decoded little = Decode("\xFF\xFEh\0\xE4\0\x3D\xD8\x00\xDE\n\0"sv);
  EXPECT_EQ(little.text, "hä😀\n");
  EXPECT_TRUE(little.converted);
  EXPECT_EQ(Decode("\xFE\xFF\0h\0\xE4\xD8\x3D\xDE\x00"sv).text, "hä😀");
  EXPECT_EQ(Decode("\xFF\xFEh\0\x3D\xD8x\0"sv).text, "h\uFFFDx");  // half a pair
  EXPECT_EQ(Decode("\xFF\xFEh\0\x3D\xD8"sv).text, "h\uFFFD");      // cut off in a pair
  EXPECT_EQ(Decode("\xFF\xFEh\0x"sv).text, "h\uFFFD");             // or in a unit
}

TEST(LooksBinary, TellsTextFromBinary) {
  using std::string_view_literals::operator""sv;
  EXPECT_FALSE(LooksBinary(""));
  EXPECT_FALSE(LooksBinary("ordinary text"));
  EXPECT_FALSE(LooksBinary("漢字"));
  EXPECT_FALSE(LooksBinary("a\xE2\x82"));  // the sample ends inside a character
  EXPECT_FALSE(LooksBinary("caf\xE9 is mostly ASCII in Latin-1"));
  EXPECT_FALSE(LooksBinary("\xFF\xFEh\0i\0"sv));
  EXPECT_FALSE(LooksBinary("\xFE\xFF\0h\0i\0\n\x4E"sv));
  EXPECT_TRUE(LooksBinary("text\0text"sv));
  EXPECT_TRUE(LooksBinary("\xFF\xFE\xFD\xFC ab"));
  EXPECT_TRUE(LooksBinary("\xFF\xFEh\0\0\0"sv));
}

TEST(TransferDecoder, QuotedPrintable) {
  EXPECT_EQ(DecodeTransfer("quoted-printable", "caf=C3=A9 =3D 1=\n00=\r\n%"), "café = 100%");
  EXPECT_EQ(DecodeTransfer("quoted-printable", "a=ZZ=4"), "a=ZZ=4");  // no escapes
  EXPECT_EQ(DecodeTransfer("quoted-printable", "end="), "end");
  EXPECT_EQ(DecodeTransfer("8bit", "=C3"), "=C3");
  TextCollector collector;
  const auto decoder = MakeTransferDecoder("quoted-printable", collector);
  EXPECT_TRUE(Feed(*decoder, "=C3=A9=\r\n!", 1));
  EXPECT_EQ(collector.Take(), "é!");
}

TEST(TransferDecoder, Base64) {
  EXPECT_EQ(DecodeTransfer("base64", "aGVsbG8="), "hello");
  EXPECT_EQ(DecodeTransfer("base64", "aGVs\r\nbG8\n"), "hello");
  EXPECT_EQ(DecodeTransfer("base64", "!a-G V*sbG8=="), "hello");  // what is no digit is passed over
  EXPECT_EQ(DecodeTransfer("base64", "aA==aQ=="), "hi");          // two runs
  EXPECT_EQ(DecodeTransfer("base64", "a"), "");
}

TEST(TransferDecoder, Charsets) {
  EXPECT_EQ(DecodeCharset("iso-8859-1", "\xE4\x80"), "ä€");
  EXPECT_EQ(DecodeCharset("utf-8", "ä"), "ä");
  EXPECT_EQ(DecodeCharset("koi8-r", "\xF0\xD2"), "Пр");
  EXPECT_EQ(DecodeCharset("shift_jis", "\x8A\xBF"), "漢");
  EXPECT_EQ(DecodeCharset("shift_jis", "\x8A"), "\uFFFD");  // cut off
  EXPECT_EQ(DecodeCharset("no-such-charset", "ab\xE4"), "abä");
  EXPECT_EQ(DecodeCharset("../../x", "ab"), "ab");
  TextCollector collector;
  const auto decoder = MakeCharsetDecoder("shift_jis", collector);
  EXPECT_TRUE(Feed(*decoder, "\x8A\xBF\x8E\x9A", 1));
  EXPECT_EQ(collector.Take(), "漢字");
}

}  // namespace
}  // namespace corpusd::sources
