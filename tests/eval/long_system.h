// tests/eval/long_system.h -- what may answer questions over a long corpus: the engine's segmented
// corpora, and what they are held against. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/eval/long_task.h"
#include "tests/eval/token_text.h"

namespace corpusd {

struct LongAnswer {
  std::string text;
  // 0: the block or chunk that holds the answer was ranked first; none: not among those listed.
  std::optional<size_t> rank;
  std::optional<size_t> line_rank;  // the same for any block with a part of the fact's line
  bool ranked = false;              // whether the system ranks at all
  std::optional<bool> cited;        // whether the first citation is the fact's document
  double first_token_ms = 0, total_ms = 0, select_ms = 0;
  double prefill_flop = 0;       // until the first token, beyond what was stored
  uint64_t computed_tokens = 0;  // of corpus and question, before the first token
  uint64_t attended_tokens = 0;
  uint64_t read_bytes = 0;  // of stored blocks, from any tier
  uint64_t disk_bytes = 0;  // of them
};

class LongSystem {
 public:
  virtual ~LongSystem() = default;
  virtual std::string name() const = 0;  // "cq4 fused", "rag 128x4"
  // Before a corpus's questions. False: it cannot take this one (too long for the context).
  virtual Result<bool> Prepare(const LongCorpus& corpus) = 0;
  virtual Result<LongAnswer> Ask(const LongCorpus& corpus, const LongQuestion& question) = 0;
  // After a corpus's questions.
  virtual Status Release() { return OkStatus(); }
  // Of the last Prepare's prefill; 0 if all was stored.
  virtual double prepare_seconds() const { return 0; }
  // It is asked so many of a corpus's questions, evenly by depth.
  virtual size_t questions_max() const { return SIZE_MAX; }
};

// Of a transformer's pass over `tokens` tokens behind `past` ones that are attended to: multiply
// and add count two. The head once.
struct FlopModel {
  double token = 0;      // of the weights, a token
  double attention = 0;  // a token and attended token
  double head = 0;
  double Prefill(uint64_t tokens, uint64_t past) const;
};

// Everything that the systems over an engine share; all of it must outlive them.
struct EngineBench {
  Engine& engine;
  BlockStore& store;
  TokenCoder coder;
  FlopModel flop;
  uint32_t block_tokens = 128;
  uint32_t answer_tokens = 32;
  std::function<void(const std::string& corpus, const PrefillProgress&)> progress;
  bool keep = true;  // false: a corpus is removed after its questions
};

struct SegmentedSettings {
  std::string kv_format, retrieval;  // "": the engine's choice
  uint32_t budget_tokens = 0;        // 0: the engine's choice
};
std::unique_ptr<LongSystem> MakeSegmentedSystem(EngineBench& bench, SegmentedSettings settings);
// The whole corpus attended to, if it fits the context.
std::unique_ptr<LongSystem> MakeFullSystem(EngineBench& bench, std::string kv_format);
// The end of the corpus, as much as fits into `tokens`; corpora that are shorter are left to the
// full system.
std::unique_ptr<LongSystem> MakeLastSystem(EngineBench& bench, std::string kv_format,
                                           uint64_t tokens);

}  // namespace corpusd
