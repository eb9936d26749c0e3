// engine/model/model_source.h -- a model as its files have it: shape, weights, tokenizer, whatever
// the format. The graph is loaded from this interface alone. Tensors go by the names that GGUF
// gives them ("blk.0.attn_q.weight"), lie [outputs, inputs] row after row, and the rows of queries
// and keys are such that RoPE turns adjacent pairs. Immutable; any thread. What it returns must not
// outlive it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/backend/buffer.h"
#include "engine/model/model_config.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/base/result.h"

namespace corpusd {

// A matrix to load: bytes of the mapping, or of a copy where the file has another order.
struct SourceMatrix {
  WeightSource weight;
  std::vector<std::byte> copy;  // what weight.bytes shows, or empty
};

enum class WeightRole : uint8_t { kProduct, kTable, kRouter };  // kTable: of tokens, at either end

struct TensorSize {
  uint64_t elements = 0;
  uint64_t bytes = 0;
  WeightType type = WeightType::kF32;  // as Matrix gives it
  uint32_t cols = 1;                   // of a matrix: inputs
  WeightRole role = WeightRole::kProduct;
  bool matrix = false;     // a product's weights
  bool embedding = false;  // the table of tokens
};

class ModelSource {
 public:
  virtual ~ModelSource() = default;
  virtual const std::string& path() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual bool Has(const std::string& tensor) const = 0;
  // Each RETURNS kInvalidArgument if the tensor is missing or of another shape, kUnimplemented for
  // an element type that is not read.
  virtual Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                                      uint32_t cols) const = 0;
  // One expert's matrix of a tensor that holds those of all, `experts` of them.
  virtual Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert,
                                            uint32_t experts, uint32_t rows,
                                            uint32_t cols) const = 0;
  virtual Result<std::vector<float>> Vector(const std::string& tensor, uint32_t count) const = 0;

  // Of all tensors, in no order.
  virtual std::vector<TensorSize> TensorSizes() const = 0;
  // SHA-256 of all weights, 64 hexadecimal digits; errors as FileDigestHex.
  virtual Result<std::string> WeightsDigestHex(const std::string& cache_dir) const = 0;
  virtual Result<std::unique_ptr<Tokenizer>> LoadTokenizer() const = 0;
  virtual Result<ChatTemplate> LoadChatTemplate(const Tokenizer& tokenizer) const = 0;
  // The token that texts begin with, if the model wants one.
  virtual std::optional<TokenId> StartToken() const = 0;
};

// Of a tensor by the graph's name.
WeightRole RoleOf(std::string_view tensor);

// Elements of all tensors.
uint64_t CountParameters(const ModelSource& source);

// A GGUF file, or a folder with config.json and safetensors. Errors name the file at fault.
Result<std::unique_ptr<ModelSource>> OpenModelSource(const std::string& path);

class GgufFile;
// Over an open file, which must outlive the source.
Result<std::unique_ptr<ModelSource>> MakeGgufSource(const GgufFile& file);

}  // namespace corpusd
