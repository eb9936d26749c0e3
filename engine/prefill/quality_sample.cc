#include "engine/prefill/quality_sample.h"

#include <algorithm>
#include <cmath>

namespace corpusd {
namespace {

constexpr uint32_t kLeastTokens = 64;  // a shorter text says nothing about a format
constexpr uint32_t kLogitRows = 16;    // at once: 3 MB for a vocabulary of 49152

// A pass over the sample, and the logits of its rows.
class Pass {
 public:
  static Result<std::unique_ptr<Pass>> Run(const ComputeContext& context,
                                           std::span<const TokenId> tokens, const KvLayout& layout,
                                           const std::stop_token& stop) {
    auto pass = std::make_unique<Pass>(context);
    KvSequence kv(layout.OfBlocks());
    ASSIGN_OR_RETURN(pass->scratch_, ForwardScratch::Create(context.backend, context.model.config(),
                                                            static_cast<uint32_t>(tokens.size())));
    {
      ComputeGate::Turn turn(context.gate, ComputePriority::kPrefill);
      Status met;
      const Status status = context.model.Forward(tokens, kv, *pass->scratch_, [&] {
        met = OfferTurn(context.backend, turn);
        return met.ok() && !stop.stop_requested();
      });
      RETURN_IF_ERROR(met);
      RETURN_IF_ERROR(status);
    }
    ASSIGN_OR_RETURN(
        pass->logits_,
        context.backend.AllocateShared(
            uint64_t{context.model.config().vocabulary} * kLogitRows * sizeof(float), "logits"));
    return pass;
  }
  explicit Pass(const ComputeContext& context) : context_(context) {}

  Result<MatrixView> Logits(uint32_t first_row, uint32_t rows) {
    const ComputeGate::Turn turn(context_.gate, ComputePriority::kPrefill);
    const MatrixView logits = logits_->Matrix(rows, context_.model.config().vocabulary);
    RETURN_IF_ERROR(context_.model.Logits(*scratch_, first_row, logits));
    return logits;
  }

 private:
  const ComputeContext& context_;
  std::unique_ptr<ForwardScratch> scratch_;
  std::unique_ptr<Buffer> logits_;
};

double LogOfSum(const float* logits, uint32_t count, float largest) {
  double sum = 0;
  for (uint32_t i = 0; i < count; ++i) sum += std::exp(double{logits[i]} - largest);
  return largest + std::log(sum);
}

void Compare(const float* exact, const float* coded, uint32_t count, QualitySample* sample) {
  const float* const exact_top = std::max_element(exact, exact + count);
  const float* const coded_top = std::max_element(coded, coded + count);
  const double exact_log = LogOfSum(exact, count, *exact_top);
  const double coded_log = LogOfSum(coded, count, *coded_top);
  double kld = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const double log_p = exact[i] - exact_log;
    kld += std::exp(log_p) * (log_p - (coded[i] - coded_log));
  }
  sample->mean_kld += kld;
  sample->same_top += exact_top - exact == coded_top - coded ? 1 : 0;
  ++sample->tokens;
}

}  // namespace

Result<QualitySample> MeasureQuality(const ComputeContext& context, std::span<const TokenId> tokens,
                                     const KvLayout& layout, const std::stop_token& stop) {
  QualitySample sample;
  const size_t count =
      std::min<size_t>({tokens.size(), kQualityTokens, context.model.config().context_tokens});
  if (count < kLeastTokens) return sample;
  const auto part = tokens.subspan((tokens.size() - count) / 2, count);
  KvLayout coded_layout = layout;
  if (layout.calibration != nullptr) {
    ASSIGN_OR_RETURN(coded_layout.sinks,
                     ComputeSinks(context, part, layout, ComputePriority::kPrefill, stop));
  }
  ASSIGN_OR_RETURN(const auto exact,
                   Pass::Run(context, part, {layout.own, layout.own, nullptr, nullptr}, stop));
  ASSIGN_OR_RETURN(const auto coded, Pass::Run(context, part, coded_layout, stop));
  const auto rows = static_cast<uint32_t>(count);
  for (uint32_t row = rows / 2; row < rows; row += kLogitRows) {
    if (stop.stop_requested()) return CancelledError("the measuring of a sample was stopped");
    const uint32_t some = std::min(kLogitRows, rows - row);
    ASSIGN_OR_RETURN(const MatrixView a, exact->Logits(row, some));
    ASSIGN_OR_RETURN(const MatrixView b, coded->Logits(row, some));
    for (uint32_t r = 0; r < some; ++r) Compare(a.row(r), b.row(r), a.cols, &sample);
  }
  sample.mean_kld /= sample.tokens;
  sample.same_top /= sample.tokens;
  return sample;
}

}  // namespace corpusd
