// tests/bench/replay_trace.h -- traces of requests as chains of block hashes: read from Mooncake's
// JSONL files, or made from a seed. Values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

inline constexpr uint32_t kTraceBlockTokens = 512;

struct TraceRequest {
  int64_t time_ms = 0;
  uint64_t tokens = 0;           // of the input; the last block may be partial
  std::vector<uint32_t> blocks;  // ids below Trace::unique_blocks; equal ids have equal prefixes
};

struct Trace {
  std::string name;
  std::vector<TraceRequest> requests;
  uint32_t unique_blocks = 0;
  uint64_t block_uses = 0;
  uint64_t tokens = 0;
};

// One JSON object a line: timestamp (ms), input_length, output_length (not used), hash_ids.
// kInvalidArgument names file and line of what cannot be read.
Result<Trace> ReadTrace(const std::string& path);

// Corpora of very different size compete for a tier: 120 corpora of 4 Ki to 512 Ki tokens (the
// logarithm is uniform), asked whole, by a Zipf law of exponent 0.9 that does not know their size.
//   steady    nothing else
//   shifting  who is popular is drawn anew every 600 requests
//   scans     every 50th request is a corpus of 600 Ki tokens that is never asked again
Result<Trace> MakeTrace(const std::string& pattern, uint32_t seed, size_t requests);

}  // namespace corpusd
