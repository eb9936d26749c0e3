// Any bytes as a tokenizer.model. Nothing may crash; what is taken encodes a text that comes back.
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/tokenizer/tokenizer.h"
#include "store/base/check.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

Result<std::unique_ptr<Tokenizer>> Load(const std::string& folder) {
  ASSIGN_OR_RETURN(TokenizerTables tables, ReadTokenizerFolder(folder));
  return Tokenizer::FromTables(std::move(tables));
}

void Check(std::string_view input) {
  static const TempDir kDir;
  kDir.Write("config.json", R"({"model_type":"llama"})");
  kDir.Write("tokenizer.model", input);
  const auto tokenizer = Load(kDir.path());
  if (!tokenizer.ok()) {
    CHECK(tokenizer.status().message().starts_with(kDir.path())) << tokenizer.status().message();
    CHECK(tokenizer.status().message().size() < 20'000);
    return;
  }
  const std::string text = "The test of aaaaaa and 12345, isn't it?";
  std::vector<TokenId> ids;
  (*tokenizer)->Encode(text, false, &ids);
  CHECK((*tokenizer)->Decode(ids) == text);
}

}  // namespace
}  // namespace corpusd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  corpusd::Check({reinterpret_cast<const char*>(data), size});
  return 0;
}
