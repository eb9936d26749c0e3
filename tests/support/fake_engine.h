// tests/support/fake_engine.h -- an Engine whose tokens are bytes and whose answers are scripted,
// so that tests of the daemon decide when a prefill moves and how long an answer takes. Thread-safe
// as the real one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>

#include "engine/engine.h"

namespace corpusd {

// What the test turns; outlives the engine.
struct FakeEngineControls {
  static constexpr uint64_t kContextTokens = 1000;
  static constexpr uint64_t kRunTokens = 16;

  // Prefill takes one run of kRunTokens for each permit; unlimited at first.
  void HoldPrefill();
  void PermitRuns(int runs);
  void ReleasePrefill();
  // Who asks for a tokenizer waits, and holds the worker it is on; never at first.
  void HoldTokenizers();
  void ReleaseTokenizers();
  // Prefill fails with this text and code after its first run, if set before.
  std::string prefill_error;
  StatusCode prefill_code = StatusCode::kResourceExhausted;

  std::string kv_format = "bf16";        // the default
  std::atomic<uint64_t> rank_blocks{0};  // of each corpus, in the memory of other ranks
  QuestionRequest last_question;         // "options", or the last one without a corpus
  std::atomic<int> runs{0};              // made, over all prefills
  std::atomic<int> tokenizers_waiting{0};
  std::atomic<int> asks_running{0};
  std::atomic<int> asks_stopped{0};       // ended by their stop token or sink
  std::atomic<bool> hold_indexes{false};  // their loading waits until it is stopped
  std::atomic<int> indexes_loading{0}, indexes_stopped{0};

  void KeepQuestion(const QuestionRequest& request);
  bool TakePermit(const std::stop_token& stop);
  void WaitForTokenizer();

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  int permits_ = 1 << 30;
  bool tokenizers_held_ = false;
};

// Ask answers "w w w ..." of max_tokens pieces at once, several answers one after the other, but
// for these questions:
//   "forever"  pieces every millisecond until stopped
//   "big"      max_tokens pieces of 256 KiB
//   "fail"     kCorruption
//   "options"  it is kept in last_question
// Without a corpus it answers the same, its prompt being the bytes of all messages. Who wants to
// know how far the prompt is hears of its beginning and its end.
// A tokenizer given the text "no memory" throws std::length_error.
class FakeEngine : public Engine {
 public:
  FakeEngine(BlockStore& store, FakeEngineControls& controls);

  const ModelSummary& model() const override { return model_; }
  uint64_t reserved_tokens() const override { return 0; }
  std::vector<TokenId> Tokenize(std::string_view text, bool parse_special) const override;
  Result<std::string> Detokenize(std::span<const TokenId> ids) const override;
  Result<std::unique_ptr<CorpusTokenizer>> NewCorpusTokenizer(std::string_view preamble,
                                                              bool appending,
                                                              uint64_t first_token) override;
  Result<CorpusRecord> CreateCorpus(const CorpusRequest& request,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override;
  Result<CorpusRecord> AppendCorpus(std::string_view name,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override;
  Status Prefill(std::string_view name, const std::function<void(const PrefillProgress&)>& progress,
                 std::stop_token stop) override;
  Result<QuestionReport> Ask(const QuestionRequest& request, const AnswerSink& sink,
                             std::stop_token stop) override;
  Result<VerifyOutcome> Verify(std::string_view name, bool repair,
                               const std::function<bool(uint64_t, uint64_t)>& progress) override;
  Result<uint64_t> Repair(std::string_view name) override;
  using Engine::ShapeOf;
  Result<CorpusShape> ShapeOf(std::string_view kv_format, const SegmentRule& rule,
                              std::string_view tenant) const override;
  EvictReport EvictFromRanks(const CorpusRecord& /*record*/, bool /*dry_run*/) override {
    EvictReport report;
    report.blocks = controls_.rank_blocks;
    report.bytes = 10 * report.blocks;
    return report;
  }
  Result<FetchStats> Warm(std::string_view name) override;
  Result<DeviceWarming> WarmDevice(std::string_view name) override;
  Result<uint64_t> LoadIndexes(const std::stop_token& stop) override;
  PromptCacheUsage prompt_cache() const override { return {6, 5, 7, 9, 8}; }

 private:
  Status CheckFits(uint64_t tokens) const;

  BlockStore& store_;
  FakeEngineControls& controls_;
  ModelSummary model_;
};

}  // namespace corpusd
