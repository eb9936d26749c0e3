// engine/calibration/calibration_source.h -- the calibrations of one model: found in a folder, or
// made once and kept there. A corpus names the calibration that coded it by its digest, so the
// files are as precious as the blocks and live in the data folder. Thread-safe; what it returns
// lives as long as it does.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "engine/calibration/kv_calibration.h"
#include "engine/compute_gate.h"
#include "engine/kv/kv_layout.h"
#include "engine/model/model.h"
#include "engine/model/model_source.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

// $XDG_CACHE_HOME/corpusd, else ~/.cache/corpusd, where deploy/fetch_model keeps the model; "" for
// a service without a home.
std::string UserCacheFolder();

struct CalibrationOptions {
  std::string folder;          // "": nothing is kept
  std::string cache_folder;    // a second place that other data folders share; "": none
  std::string text_path;       // of a text to calibrate on; "": the bundled one
  std::string weights_digest;  // hex
  unsigned threads = 0;        // 0: all cores
  // Windows done, of how many, while one is made.
  std::function<void(size_t done, size_t windows)> progress;
};

class CalibrationSource {
 public:
  // The references must outlive it.
  CalibrationSource(const ModelSource& source, const Tokenizer& tokenizer, const Model& model,
                    Backend& backend, ComputeGate& gate, CalibrationOptions options);

  // Of new corpora: from the folder, else made now, which takes tens of seconds of turns at the
  // compute gate. A damaged file is made anew. kIoError, kInvalidArgument: the text cannot be read
  // or is too short.
  Result<const KvCalibration*> Current();
  // The one with this digest, for a corpus that was coded by it. kNotFound: it is not in the
  // folder.
  Result<const KvCalibration*> WithDigest(const std::string& digest);
  // Of a new corpus in this format, with Current() if it is coded; without exact first tokens,
  // which are the corpus's own.
  Result<KvLayout> LayoutOf(const KvFormat& blocks);
  // What is calibrated on. kIoError: it cannot be read.
  Result<std::string> Text() const;

 private:
  // The file in a folder whose name contains `part`; null if there is none that is whole.
  std::unique_ptr<KvCalibration> Find(const std::string& folder, const std::string& part) const;
  // From the cache folder, else from a pass over the text.
  Result<std::unique_ptr<KvCalibration>> FetchOrMake(const std::string& text,
                                                     const std::string& name) const;
  Result<const KvCalibration*> Adopt(std::unique_ptr<KvCalibration> calibration);

  const ModelSource& source_;
  const Tokenizer& tokenizer_;
  const Model& model_;
  Backend& backend_;
  ComputeGate& gate_;
  const CalibrationOptions options_;
  std::mutex mutex_;
  const KvCalibration* current_ = nullptr;
  std::map<std::string, std::unique_ptr<KvCalibration>> loaded_;  // by digest
};

}  // namespace corpusd
