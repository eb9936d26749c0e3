// tests/unit/engine/ranks/rank_threads.h -- runs the ranks of a job as threads of the test, with
// either transport. Returns when all have ended.
#pragma once

#include <functional>
#include <string>

#include "engine/ranks/transport.h"

namespace corpusd {

enum class TransportKind : uint8_t { kInProcess, kTcp };

struct RankJob {
  TransportKind kind = TransportKind::kInProcess;
  uint32_t ranks = 2;
  std::chrono::milliseconds timeout{20'000};
};

// "tcp4"
std::string NameOf(const RankJob& job);

// body(transport) in a thread a rank; a rank whose body returns is gone for the others. A job that
// cannot begin fails the test.
void RunRanks(const RankJob& job, const std::function<void(Transport&)>& body);

}  // namespace corpusd
