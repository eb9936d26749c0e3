#include "engine/model/named_source.h"

#include "engine/model/forwarding_source.h"

namespace corpusd {
namespace {

class NamedSource final : public ForwardingSource {
 public:
  using ForwardingSource::ForwardingSource;
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
};

}  // namespace

std::unique_ptr<ModelSource> MakeNamedSource(const ModelSource& source) {
  return std::make_unique<NamedSource>(source);
}

}  // namespace corpusd
