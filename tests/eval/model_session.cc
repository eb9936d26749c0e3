#include "tests/eval/model_session.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "engine/backend/device_backend.h"
#include "engine/backend/reference_backend.h"
#include "engine/model/quantized_source.h"
#include "engine/prefill/prefill_runner.h"

namespace corpusd {
namespace {

constexpr uint32_t kLogitRows = 32;  // at once: 6 MB for a vocabulary of 49152

void ShowCalibration(size_t done, size_t windows) {
  std::fprintf(stderr, "\rcalibrating: window %zu of %zu%s", done, windows,
               done == windows ? "\n" : "");
}

// Of models that take a while: others would be gone before it is read.
void ShowLoading(uint32_t layers_done, uint32_t layers) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\rloading: layer %u of %u%s", layers_done, layers,
               layers_done == layers ? "\r\033[K" : "");
}

}  // namespace

Result<std::unique_ptr<ModelSession>> ModelSession::Open(const ModelSessionOptions& options) {
  auto session = std::make_unique<ModelSession>();
  ASSIGN_OR_RETURN(const WeightMode weights, ParseWeightMode(options.weights));
  ASSIGN_OR_RETURN(session->source_, OpenModelSource(options.model_path));
  session->source_ = WithWeights(std::move(session->source_), weights, options.threads);
  auto tokenizer = session->source_->LoadTokenizer();
  if (!tokenizer.ok() && options.needs_tokenizer) return tokenizer.status();
  if (tokenizer.ok()) session->tokenizer_ = *std::move(tokenizer);
  if (options.isa == "reference") {
    session->backend_ = MakeReferenceBackend();
  } else {
    ASSIGN_OR_RETURN(session->backend_,
                     MakeBackend(options.device, {options.threads, options.isa}));
  }
  if (options.wrap) session->backend_ = options.wrap(std::move(session->backend_));
  ASSIGN_OR_RETURN(session->model_, LoadModel(*session->source_, *session->backend_, ShowLoading));
  ASSIGN_OR_RETURN(
      session->scratch_,
      ForwardScratch::Create(*session->backend_, session->model_->config(), kRunTokens));
  ASSIGN_OR_RETURN(
      session->logits_,
      session->backend_->AllocateShared(
          uint64_t{session->model_->config().vocabulary} * kLogitRows * sizeof(float), "logits"));
  if (session->tokenizer_ == nullptr) return session;
  // Only a calibration needs it: the name of one begins with it.
  ASSIGN_OR_RETURN(const std::string digest,
                   session->source_->WeightsDigestHex(options.calibration_dir));
  session->calibrations_ = std::make_unique<CalibrationSource>(
      *session->source_, *session->tokenizer_, *session->model_, *session->backend_, session->gate_,
      CalibrationOptions{options.calibration_dir, "", options.calibration_text, digest,
                         options.threads, ShowCalibration});
  return session;
}

Result<KvLayout> ModelSession::Layout(const std::string& kv_format) {
  ASSIGN_OR_RETURN(const KvFormat blocks, model_->Format(kv_format));
  if (calibrations_ != nullptr) return calibrations_->LayoutOf(blocks);
  if (IsCoded(blocks)) {
    return FailedPreconditionError(source_->path() + ": '" + kv_format +
                                   "' needs a calibration, and that a tokenizer");
  }
  ASSIGN_OR_RETURN(const KvFormat own, model_->Format("bf16"));
  return KvLayout{blocks, own, nullptr, nullptr};
}

Result<std::unique_ptr<KvSequence>> ModelSession::NewSequence(const std::string& kv_format) {
  ASSIGN_OR_RETURN(const KvLayout layout, Layout(kv_format));
  return std::make_unique<KvSequence>(layout.OfBlocks());
}

Status ModelSession::Run(
    std::span<const TokenId> tokens, KvSequence& kv,
    const std::function<void(size_t row, std::span<const float> logits)>& rows) {
  for (size_t first = 0; first < tokens.size(); first += kRunTokens) {
    const auto run = tokens.subspan(first, std::min<size_t>(kRunTokens, tokens.size() - first));
    RETURN_IF_ERROR(model_->Forward(run, kv, *scratch_, [] { return true; }));
    if (!rows) continue;
    const auto count = static_cast<uint32_t>(run.size());
    for (uint32_t row = 0; row < count; row += kLogitRows) {
      const MatrixView logits =
          logits_->Matrix(std::min(kLogitRows, count - row), model_->config().vocabulary);
      RETURN_IF_ERROR(model_->Logits(*scratch_, row, logits));
      for (uint32_t r = 0; r < logits.rows; ++r) {
        rows(first + row + r, {logits.row(r), logits.cols});
      }
    }
  }
  return OkStatus();
}

}  // namespace corpusd
