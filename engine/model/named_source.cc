#include "engine/model/named_source.h"

namespace corpusd {
namespace {

class NamedSource final : public ModelSource {
 public:
  explicit NamedSource(const ModelSource& source) : source_(source) {}
  const std::string& path() const override { return source_.path(); }
  const ModelConfig& config() const override { return source_.config(); }
  bool Has(const std::string& tensor) const override { return source_.Has(tensor); }
  Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                              uint32_t cols) const override {
    ASSIGN_OR_RETURN(SourceMatrix matrix, source_.Matrix(tensor, rows, cols));
    matrix.weight.name = tensor;
    return matrix;
  }
  Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert, uint32_t experts,
                                    uint32_t rows, uint32_t cols) const override {
    ASSIGN_OR_RETURN(SourceMatrix matrix,
                     source_.ExpertMatrix(tensor, expert, experts, rows, cols));
    matrix.weight.name = tensor + "[" + std::to_string(expert) + "]";
    return matrix;
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

 private:
  const ModelSource& source_;
};

}  // namespace

std::unique_ptr<ModelSource> MakeNamedSource(const ModelSource& source) {
  return std::make_unique<NamedSource>(source);
}

}  // namespace corpusd
