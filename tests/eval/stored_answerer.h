// tests/eval/stored_answerer.h -- recall through everything that serves: the engine tokenizes and
// prefills a text as an exact corpus of a store, its blocks are coded and written, and questions
// are asked over what is read back. With temperature tuning or without. One thread.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "store/device_memory.h"
#include "tests/eval/recall.h"

namespace corpusd {

struct StoredAnswererOptions {
  EngineOptions engine;
  std::string work_dir;  // of the store, which is emptied text by text
  uint64_t host_bytes = 0, disk_bytes = 0, device_bytes = 0;
  std::shared_ptr<DeviceMemory> device;  // of the store, if the engine has one
};

// What a run of it cost so far.
struct StoredCosts {
  double prefill_seconds = 0, question_seconds = 0;
  uint64_t prefilled_tokens = 0, questions = 0;
};

class StoredAnswerer : public RecallAnswerer {
 public:
  virtual const StoredCosts& costs() const = 0;
  virtual const std::string& backend() const = 0;
};

// Behind a format's name this leaves the queries of layers without positions unscaled, as
// attn_temperature_tuning = false in config.json; of models in folders only.
inline constexpr std::string_view kUntuned = "-untuned";

// Errors as Engine::Create. Takes questions without an answer's start: pairs and repeats.
Result<std::unique_ptr<StoredAnswerer>> MakeStoredAnswerer(const StoredAnswererOptions& options);

}  // namespace corpusd
