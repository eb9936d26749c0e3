// Any bytes as the files of a Hugging Face folder: the input is a configuration and a weight file,
// with a zero byte between. Nothing may crash, and no little file may cost much memory.
#include <filesystem>
#include <string>
#include <string_view>

#include "engine/model/hf_source.h"
#include "store/base/check.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

void CheckRefusal(const Status& status, const std::string& path) {
  CHECK(status.message().starts_with(path)) << status.message();
  CHECK(status.message().size() < 20'000) << "a message of " << status.message().size();
}

// What loading a model reads, whatever shape the configuration claims.
void ReadTensors(const HfSource& source) {
  const ModelConfig& c = source.config();
  const uint32_t q_rows = c.q_heads * c.head_dim;
  (void)source.Matrix("token_embd.weight", c.vocabulary, c.hidden).ok();
  for (uint32_t i = 0; i < std::min(c.layers, 4U); ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    (void)source.Matrix(prefix + "attn_q.weight", q_rows, c.hidden).ok();
    (void)source.Vector(prefix + "attn_q.bias", q_rows).ok();
    (void)source.Vector(prefix + "attn_norm.weight", c.hidden).ok();
    (void)source
        .ExpertMatrix(prefix + "ffn_up_exps.weight", 0, c.experts, c.expert_feed_forward, c.hidden)
        .ok();
  }
}

void Check(const TempDir& dir, std::string_view input) {
  const size_t cut = std::min(input.find('\0'), input.size());
  const std::string_view weights = input.substr(std::min(cut + 1, input.size()));
  dir.Write("config.json", input.substr(0, cut));
  dir.Write("model.safetensors", weights);
  const auto file = SafetensorsFile::Open(dir.File("model.safetensors"));
  if (!file.ok()) CheckRefusal(file.status(), dir.path());
  const auto source = HfSource::Open(dir.path());
  if (!source.ok()) return CheckRefusal(source.status(), dir.path());
  ReadTensors(**source);
}

}  // namespace
}  // namespace corpusd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const corpusd::TempDir kDir;
  corpusd::Check(kDir, {reinterpret_cast<const char*>(data), size});
  return 0;
}
