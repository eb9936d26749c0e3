// tests/bench/replay_cache.h -- a trace through one tier of so many blocks, under the store's own
// eviction policy and under others to compare it with. Every cache serves a request's leading
// blocks as far as it holds all of them, then takes the whole chain in and throws out what is too
// much. Pure; any thread.
#pragma once

#include <cstdint>

#include "tests/bench/replay_trace.h"

namespace corpusd {

struct ReplayResult {
  double hit_tokens = 0;     // found in the tier, of Trace::tokens
  double saved_seconds = 0;  // of prefill, in units of PrefillCost
  double total_seconds = 0;
  double half_life = 0;  // of the store's policy at the end
};

// What prefilling the first `tokens` of a chain costs, in units of one token without history:
// linear work and attention, which are equal at kCostPosition tokens (of SmolLM2-135M on a CPU with
// AVX2, from the prefill rates at 512 and 8,192 tokens).
inline constexpr double kCostPosition = 3000;
double PrefillCost(double tokens);

// The store's policy (store/eviction_policy.h). cost_aware: a use saves the prefill that its chain
// costs per byte, as on the disk tier; else every byte saves the same, as in the host tier, whose
// misses are read from disk.
ReplayResult ReplayStorePolicy(const Trace& trace, uint64_t blocks, bool cost_aware);
// Least recently used block first, of a chain the one farthest from its start.
ReplayResult ReplayLru(const Trace& trace, uint64_t blocks);
// S3-FIFO (Yang et al., SOSP 2023): a small queue of a tenth, a main queue, ghosts of the main
// one's size; a chain enters from its end, so that its start leaves last.
ReplayResult ReplayS3Fifo(const Trace& trace, uint64_t blocks);
// Belady's MIN with bypass, knowing the future: of all blocks, present or just used, those stay
// that are used again soonest. All blocks have one size, and a prefix is never used later than its
// continuation, so MIN obeys the prefix rule by itself: this is the most blocks, and but for
// partial last blocks the most tokens, that any policy can find, online or not.
ReplayResult ReplayOptimal(const Trace& trace, uint64_t blocks);

}  // namespace corpusd
