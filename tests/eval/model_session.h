// tests/eval/model_session.h -- a model without store or daemon, for corpus-eval and corpus-bench:
// loads a file on a backend and runs token ids through it in the engine's own runs. One thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/calibration/calibration_source.h"
#include "engine/compute_gate.h"
#include "engine/model/model.h"
#include "engine/model/model_source.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

struct ModelSessionOptions {
  std::string model_path;
  std::string weights = "auto";  // as what matrices are kept that are stored wider
  std::string device = "cpu";
  std::string isa = "auto";  // or "reference": plain loops in double, the oracle
  unsigned threads = 0;
  // Where calibrations of coded formats are kept; "": nowhere.
  std::string calibration_dir = UserCacheFolder();
  std::string calibration_text;  // a text file to calibrate on; "": the bundled one
  bool needs_tokenizer = true;   // false: a model without one will do
  // Puts something between the model and its backend; may be empty.
  std::function<std::unique_ptr<Backend>(std::unique_ptr<Backend>)> wrap;
};

class ModelSession {
 public:
  static Result<std::unique_ptr<ModelSession>> Open(const ModelSessionOptions& options);

  const Model& model() const { return *model_; }
  // REQUIRES: options.needs_tokenizer.
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ModelSource& source() const { return *source_; }
  Backend& backend() { return *backend_; }
  std::string backend_name() const { return std::string(backend_->name()); }

  // Of blocks in the named format; without exact first tokens. Calibrates if need be, saying so on
  // stderr.
  Result<KvLayout> Layout(const std::string& kv_format);
  Result<const KvCalibration*> Calibration() { return calibrations_->Current(); }
  // An empty sequence whose pages are all of the named format.
  Result<std::unique_ptr<KvSequence>> NewSequence(const std::string& kv_format);
  // Runs tokens through the model behind kv. rows, if given, gets the logits of each token in
  // order.
  Status Run(std::span<const TokenId> tokens, KvSequence& kv,
             const std::function<void(size_t row, std::span<const float> logits)>& rows);

 private:
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<Tokenizer> tokenizer_;  // null: none
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  ComputeGate gate_;
  std::unique_ptr<CalibrationSource> calibrations_;  // null: no tokenizer
  std::unique_ptr<ForwardScratch> scratch_;
  std::unique_ptr<Buffer> logits_;
};

}  // namespace corpusd
