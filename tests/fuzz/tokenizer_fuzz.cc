// Any bytes as text: the ids do not depend on how a text arrives, and they stand for the text. The
// first byte of the input decides where the text is cut; the rest is the text.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/tokenizer/streaming_encoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8_repair.h"
#include "store/base/check.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

const Tokenizer& TinyTokenizer() {
  static const std::unique_ptr<Tokenizer> kTokenizer = [] {
    const TempDir dir;
    auto file = GgufFile::Open(dir.Write("tiny.gguf", TinyModelBytes()));
    CHECK(file.ok()) << file.status().ToString();
    auto tokenizer = Tokenizer::FromGguf(**file);
    CHECK(tokenizer.ok()) << tokenizer.status().ToString();
    return std::move(*tokenizer);
  }();
  return *kTokenizer;
}

std::vector<TokenId> EncodeInPieces(std::string_view text, size_t piece_bytes) {
  StreamingEncoder encoder(TinyTokenizer());
  std::vector<TokenId> ids;
  for (size_t at = 0; at < text.size(); at += piece_bytes) {
    encoder.Append(text.substr(at, piece_bytes), &ids);
  }
  encoder.Finish(&ids);
  return ids;
}

void Check(std::string_view text, size_t piece_bytes) {
  const Tokenizer& tokenizer = TinyTokenizer();
  std::vector<TokenId> ids;
  tokenizer.Encode(text, false, &ids);
  CHECK(EncodeInPieces(text, piece_bytes) == ids) << "pieces of " << piece_bytes;
  std::string repaired;
  RepairUtf8(text, true, &repaired);
  CHECK(tokenizer.Decode(ids) == repaired);
  for (const TokenId id : ids) CHECK(!tokenizer.is_special(id)) << id;
  std::vector<TokenId> with_specials;
  tokenizer.Encode(text, true, &with_specials);
  CHECK(tokenizer.Decode(with_specials) == repaired);
}

}  // namespace
}  // namespace corpusd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  // Small pieces cut most often, a large one lets the word cache work.
  corpusd::Check(text, data[0] < 240 ? 1 + data[0] % 30 : 20000);
  return 0;
}
