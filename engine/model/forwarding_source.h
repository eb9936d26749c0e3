// engine/model/forwarding_source.h -- a source over another one: what a class does not override is
// what the other says. Immutable; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model_source.h"

namespace corpusd {

class ForwardingSource : public ModelSource {
 public:
  // source must outlive it.
  explicit ForwardingSource(const ModelSource& source) : source_(source) {}

  const std::string& path() const override { return source_.path(); }
  const ModelConfig& config() const override { return source_.config(); }
  bool Has(const std::string& tensor) const override { return source_.Has(tensor); }
  Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                              uint32_t cols) const override {
    return source_.Matrix(tensor, rows, cols);
  }
  Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert, uint32_t experts,
                                    uint32_t rows, uint32_t cols) const override {
    return source_.ExpertMatrix(tensor, expert, experts, rows, cols);
  }
  Result<std::vector<float>> Vector(const std::string& tensor, uint32_t count) const override {
    return source_.Vector(tensor, count);
  }
  std::vector<TensorSize> TensorSizes() const override { return source_.TensorSizes(); }
  Result<std::string> WeightsDigestHex(const std::string& cache_dir) const override {
    return source_.WeightsDigestHex(cache_dir);
  }
  Result<std::unique_ptr<Tokenizer>> LoadTokenizer() const override {
    return source_.LoadTokenizer();
  }
  Result<ChatTemplate> LoadChatTemplate(const Tokenizer& tokenizer) const override {
    return source_.LoadChatTemplate(tokenizer);
  }
  std::optional<TokenId> StartToken() const override { return source_.StartToken(); }

 protected:
  const ModelSource& source_;
};

}  // namespace corpusd
