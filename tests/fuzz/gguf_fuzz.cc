// Any bytes as a model file: opened, read through, and handed to everything that reads its
// metadata. Nothing may crash, and no little file may cost much memory.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/model_config.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/reference/dequantize.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr const char* kKeys[] = {"general.architecture",    "general.alignment",
                                 "llama.block_count",       "llama.rope.freq_base",
                                 "tokenizer.ggml.tokens",   "tokenizer.ggml.token_type",
                                 "tokenizer.ggml.merges",   "tokenizer.ggml.add_bos_token",
                                 "tokenizer.chat_template", "k"};

// A file in memory that has a path.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("model.gguf", MFD_CLOEXEC)) { CHECK(fd_ >= 0); }
  std::string Write(const uint8_t* data, size_t size) const {
    CHECK(ftruncate(fd_, 0) == 0);
    CHECK(pwrite(fd_, data, size, 0) == static_cast<ssize_t>(size));
    return "/proc/self/fd/" + std::to_string(fd_);
  }

 private:
  const int fd_;
};

void ReadValues(const GgufFile& file) {
  for (const char* const key : kKeys) {
    (void)file.GetUint(key).ok();
    (void)file.GetInt(key).ok();
    (void)file.GetFloat(key).ok();
    (void)file.GetBool(key).ok();
    (void)file.GetString(key).ok();
    (void)file.GetStringArray(key).ok();
    (void)file.GetIntArray(key).ok();
    (void)file.GetFloatArray(key).ok();
  }
}

void ReadTensors(const GgufFile& file) {
  std::vector<float> row;
  for (const GgufTensor& tensor : file.tensors()) {
    const auto cols = static_cast<uint32_t>(tensor.dims[0]);
    row.resize(cols);
    CHECK(tensor.bytes.size() >= WeightRowBytes(tensor.type, cols));
    DequantizeRow(tensor.type, tensor.bytes.data(), row.data(), cols);
    CHECK(file.FindTensor(tensor.name) == &tensor);
  }
}

void Check(const std::string& path) {
  const auto file = GgufFile::Open(path);
  if (!file.ok()) {
    const std::string& text = file.status().message();
    CHECK(text.starts_with(path)) << text;
    CHECK(text.size() < 200'000) << "a message of " << text.size() << " bytes";
    return;
  }
  ReadValues(**file);
  ReadTensors(**file);
  (void)ReadModelConfig(**file).ok();
  const auto tokenizer = Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) return;
  const auto chat = ChatTemplate::FromGguf(**file, **tokenizer);
  std::vector<TokenId> ids;
  (*tokenizer)->Encode("The 1st \xff test<|im_end|>  \n", true, &ids);
  if (chat.ok()) (void)chat->CorpusPrefix("");
  for (const TokenId id : ids) CHECK(id < (*tokenizer)->vocabulary());
  (void)(*tokenizer)->Decode(ids);
}

}  // namespace
}  // namespace corpusd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const corpusd::MemoryFile kFile;
  corpusd::Check(kFile.Write(data, size));
  return 0;
}
