// engine/decode/prompt_report.h -- what is told of prompts: of one while it is computed, and of
// what is kept of those that came without a corpus. Plain data.
#pragma once

#include <cstdint>

namespace corpusd {

// How far a question's prompt is, what it stands on included.
struct PromptProgress {
  uint64_t total_tokens = 0;
  uint64_t cached_tokens = 0;  // were there before
  uint64_t done_tokens = 0;    // the cached ones included
  double ms = 0;               // since it began
};

struct PromptCacheUsage {
  uint64_t capacity_bytes = 0, used_bytes = 0;
  uint64_t found_tokens = 0, computed_tokens = 0;  // of all prompts since the start
  uint64_t evicted_bytes = 0;
};

}  // namespace corpusd
