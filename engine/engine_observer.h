// engine/engine_observer.h -- EngineObserver: who wants to know what the engine computed and what
// it was spared, such as a daemon that counts it. Called at the end of an answer and after each run
// of a prefill, by the thread that worked: must be quick, must not call the engine, and must be
// thread-safe. Not owned; outlives the engine.
#pragma once

#include <cstdint>

namespace corpusd {

struct QuestionReport;

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  // A question was answered, or cancelled while it was; its times are those of the engine alone.
  virtual void OnAnswer(const QuestionReport& report) = 0;
  // Tokens of a corpus became durable: computed, or found in the store.
  virtual void OnPrefill(uint64_t computed_tokens, uint64_t reused_tokens) = 0;
};

}  // namespace corpusd
