#include "engine/ranks/tensor_source.h"

#include "engine/model/forwarding_source.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

class TensorSource final : public ForwardingSource {
 public:
  TensorSource(const ModelSource& source, const TensorShare& share)
      : ForwardingSource(source), share_(share) {}

  const ModelConfig& config() const override { return share_.config(); }

  Result<SourceMatrix> Matrix(const std::string& tensor, uint32_t rows,
                              uint32_t cols) const override {
    const bool joined = TensorShare::PartOf(tensor) == TensorPart::kJoined;
    const uint32_t whole_cols = joined ? cols * share_.ranks() : cols;
    ASSIGN_OR_RETURN(SourceMatrix matrix,
                     source_.Matrix(tensor, share_.WholeRows(tensor, rows), whole_cols));
    WeightSource& weight = matrix.weight;
    const NumberRange own = share_.RowsOf(tensor, weight.rows);
    const uint64_t row_bytes = WeightRowBytes(weight.type, whole_cols);
    weight.name = tensor;  // by which a TensorBackend knows it
    weight.rows = own.count;
    weight.bytes = weight.bytes.subspan(own.first * row_bytes, own.count * row_bytes);
    return matrix;
  }

  // An expert of another rank has no bytes.
  Result<SourceMatrix> ExpertMatrix(const std::string& tensor, uint32_t expert, uint32_t experts,
                                    uint32_t rows, uint32_t cols) const override {
    const NumberRange own = share_.ExpertsOf(share_.rank());
    SourceMatrix matrix;
    if (expert >= own.first && expert < own.end()) {
      ASSIGN_OR_RETURN(matrix, source_.ExpertMatrix(tensor, expert, experts, rows, cols));
    } else {
      matrix.weight.rows = rows;
      matrix.weight.cols = cols;
    }
    matrix.weight.name = tensor + "[" + std::to_string(expert) + "]";
    return matrix;
  }

  Result<std::vector<float>> Vector(const std::string& tensor, uint32_t count) const override {
    ASSIGN_OR_RETURN(const std::vector<float> whole,
                     source_.Vector(tensor, share_.WholeRows(tensor, count)));
    const NumberRange own = share_.RowsOf(tensor, static_cast<uint32_t>(whole.size()));
    CHECK(own.count == count) << tensor << ": " << own.count << " of " << count;
    return std::vector<float>(whole.begin() + own.first, whole.begin() + own.end());
  }

 private:
  const TensorShare share_;
};

}  // namespace

std::unique_ptr<ModelSource> MakeTensorSource(const ModelSource& source, const TensorShare& share) {
  return std::make_unique<TensorSource>(source, share);
}

}  // namespace corpusd
