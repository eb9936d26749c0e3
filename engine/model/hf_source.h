// engine/model/hf_source.h -- a Hugging Face folder as a ModelSource: its tensor names and row
// orders turned into the ones the graph expects. Matrices that need no turning are read where they
// are mapped, the others are copied one at a time. Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/checkpoint_folder.h"
#include "engine/model/hf_config.h"
#include "engine/model/model_source.h"

namespace corpusd {

// What the folder calls a tensor that the graph calls "blk.3.attn_q.weight"; "" if the family has
// none such. prefix: before "layers.3." and "embed_tokens".
std::string HfTensorName(const std::string& tensor, const HfLayout& layout,
                         const std::string& prefix);

class HfSource final : public ModelSource {
 public:
  // Errors as CheckpointFolder::Open and ReadHfConfig.
  static Result<std::unique_ptr<HfSource>> Open(const std::string& path);

  const std::string& path() const override { return folder_->path(); }
  const ModelConfig& config() const override { return config_.model; }
  bool Has(const std::string& tensor) const override;
  Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                              uint32_t cols) const override;
  Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert, uint32_t experts,
                                    uint32_t rows, uint32_t cols) const override;
  Result<std::vector<float>> Vector(const std::string& tensor, uint32_t count) const override;
  std::vector<TensorSize> TensorSizes() const override;
  Result<std::string> WeightsDigestHex(const std::string& cache_dir) const override {
    return folder_->WeightsDigestHex(cache_dir);
  }
  Result<std::unique_ptr<Tokenizer>> LoadTokenizer() const override;
  Result<ChatTemplate> LoadChatTemplate(const Tokenizer& tokenizer) const override;
  std::optional<TokenId> StartToken() const override;

 private:
  HfSource() = default;
  Result<const SafeTensor*> Find(const std::string& tensor, const std::vector<uint64_t>& dims,
                                 WeightType* type) const;
  // The same by the folder's name.
  Result<const SafeTensor*> FindNamed(const std::string& name, const std::vector<uint64_t>& dims,
                                      WeightType* type) const;
  // The matrix in the folder's order of rows; of 8-bit floats as bfloat16, by the scales beside it.
  Result<SourceMatrix> MatrixNamed(const std::string& name, uint32_t rows, uint32_t cols) const;
  Result<const SafeTensor*> ScalesOf(const SafeTensor& codes) const;
  // For each row of a head as RoPE wants them, the row of the file; empty if they are the same.
  std::vector<uint32_t> RowsOfHead(const std::string& tensor) const;

  std::unique_ptr<CheckpointFolder> folder_;
  HfConfig config_;
  std::string prefix_;
};

}  // namespace corpusd
