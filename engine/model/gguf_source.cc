// A GGUF file as a ModelSource, and the choice between the formats.
#include <filesystem>

#include "engine/model/file_digest.h"
#include "engine/model/gguf.h"
#include "engine/model/hf_source.h"
#include "engine/model/model_source.h"
#include "engine/model/rope_rows.h"
#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

class GgufSource final : public ModelSource {
 public:
  GgufSource(const GgufFile& file, ModelConfig config) : file_(file), config_(std::move(config)) {}
  // The same, keeping the file.
  GgufSource(std::unique_ptr<GgufFile> file, ModelConfig config)
      : GgufSource(*file, std::move(config)) {
    owned_ = std::move(file);
  }

  const std::string& path() const override { return file_.path(); }
  const ModelConfig& config() const override { return config_; }
  bool Has(const std::string& tensor) const override { return file_.FindTensor(tensor) != nullptr; }

  Result<SourceMatrix> Matrix(const std::string& name, uint32_t rows,
                              uint32_t cols) const override {
    ASSIGN_OR_RETURN(const GgufTensor* const tensor, Find(name, {cols, rows}));
    SourceMatrix matrix{{name, tensor->type, rows, cols, tensor->bytes}, {}};
    if (!IsHalfSplit(name)) return matrix;
    matrix.copy = ReorderRows(tensor->bytes, WeightRowBytes(tensor->type, cols), RowsOfHead());
    matrix.weight.bytes = matrix.copy;
    return matrix;
  }

  Result<SourceMatrix> ExpertMatrix(const std::string& name, uint32_t expert, uint32_t experts,
                                    uint32_t rows, uint32_t cols) const override {
    ASSIGN_OR_RETURN(const GgufTensor* const tensor, Find(name, {cols, rows, experts}));
    const uint64_t bytes = tensor->bytes.size() / experts;
    return SourceMatrix{{name + "[" + std::to_string(expert) + "]", tensor->type, rows, cols,
                         tensor->bytes.subspan(expert * bytes, bytes)},
                        {}};
  }

  Result<std::vector<float>> Vector(const std::string& name, uint32_t count) const override {
    ASSIGN_OR_RETURN(const GgufTensor* const tensor, Find(name, {count}));
    std::vector<float> values(count);
    DequantizeRow(tensor->type, tensor->bytes.data(), values.data(), count);
    return IsHalfSplit(name) ? ReorderNumbers(values, RowsOfHead()) : values;
  }

  std::vector<TensorSize> TensorSizes() const override {
    std::vector<TensorSize> sizes;
    for (const GgufTensor& tensor : file_.tensors()) {
      TensorSize size{1,
                      tensor.bytes.size(),
                      tensor.type,
                      static_cast<uint32_t>(tensor.dims.empty() ? 1 : tensor.dims[0]),
                      RoleOf(tensor.name),
                      tensor.dims.size() >= 2,
                      tensor.name == "token_embd.weight"};
      for (const uint64_t dim : tensor.dims) size.elements *= dim;
      sizes.push_back(size);
    }
    return sizes;
  }
  Result<std::string> WeightsDigestHex(const std::string& cache_dir) const override {
    return FileDigestHex(path(), cache_dir);
  }
  Result<std::unique_ptr<Tokenizer>> LoadTokenizer() const override {
    return Tokenizer::FromGguf(file_);
  }
  Result<ChatTemplate> LoadChatTemplate(const Tokenizer& tokenizer) const override {
    return ChatTemplate::FromGguf(file_, tokenizer);
  }
  std::optional<TokenId> StartToken() const override {
    const auto wanted = file_.GetBool("tokenizer.ggml.add_bos_token");
    const auto token = file_.GetUint("tokenizer.ggml.bos_token_id");
    if (!wanted.ok() || !*wanted || !token.ok() || *token >= config_.vocabulary) {
      return std::nullopt;
    }
    return static_cast<TokenId>(*token);
  }

 private:
  // Files of the llama architectures are in our order already.
  bool IsHalfSplit(const std::string& tensor) const {
    return !config_.architecture.starts_with("llama") && IsQueryOrKey(tensor);
  }
  std::vector<uint32_t> RowsOfHead() const {
    return RowsFromHalves(config_.head_dim, config_.rope.dimensions);
  }

  Result<const GgufTensor*> Find(const std::string& name, std::vector<uint64_t> dims) const {
    const GgufTensor* const tensor = file_.FindTensor(name);
    if (tensor == nullptr) return InvalidArgumentError("tensor '" + name + "' is missing");
    if (tensor->dims == dims) return tensor;
    const auto text = [](const std::vector<uint64_t>& shape) {
      std::string out;
      for (const uint64_t dim : shape) out += (out.empty() ? "" : " x ") + std::to_string(dim);
      return out;
    };
    return InvalidArgumentError("tensor '" + name + "' is " + text(tensor->dims) + ", expected " +
                                text(dims));
  }

  std::unique_ptr<GgufFile> owned_;  // null: the file is the caller's
  const GgufFile& file_;
  const ModelConfig config_;
};

}  // namespace

WeightRole RoleOf(std::string_view tensor) {
  if (tensor.ends_with("ffn_gate_inp.weight")) return WeightRole::kRouter;
  const bool table = tensor == "token_embd.weight" || tensor == "output.weight";
  return table ? WeightRole::kTable : WeightRole::kProduct;
}

uint64_t CountParameters(const ModelSource& source) {
  uint64_t total = 0;
  for (const TensorSize& size : source.TensorSizes()) total += size.elements;
  return total;
}

Result<std::unique_ptr<ModelSource>> MakeGgufSource(const GgufFile& file) {
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(file));
  return std::make_unique<GgufSource>(file, std::move(config));
}

Result<std::unique_ptr<ModelSource>> OpenModelSource(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    ASSIGN_OR_RETURN(auto source, HfSource::Open(path));
    return std::unique_ptr<ModelSource>(std::move(source));
  }
  ASSIGN_OR_RETURN(auto file, GgufFile::Open(path));
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(*file));
  return std::make_unique<GgufSource>(std::move(file), std::move(config));
}

}  // namespace corpusd
