// client/ctl/corpus_plan.h -- CorpusPlan: what a corpus would take, reckoned from what was counted
// of its text and what the daemon says of itself. Pure arithmetic; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "corpusd/v1/corpusd.pb.h"

namespace corpusd::ctl {

// Counted by reading the sources.
struct PlanText {
  uint64_t documents = 0;
  uint64_t text_bytes = 0;
  uint64_t label_bytes = 0;   // of all documents: each begins with its path
  uint64_t sample_bytes = 0;  // of the text that the daemon tokenized
};

// A prefill rate that was measured by the daemon, and where.
struct PrefillRate {
  double tokens_per_s = 0;
  std::string corpus;
  double fixed_seconds = 0;  // that any corpus takes beside its tokens, as far as is known
};

struct CorpusPlan {
  PlanText text;
  uint64_t tokens = 0;
  uint64_t blocks = 0;
  std::string mode;                 // exact or segmented
  std::optional<PrefillRate> rate;  // nothing was measured yet
  double prefill_seconds = 0;       // with a rate
  // What a question without the corpus would prefill, and from which question on the corpus has
  // paid for itself; 0: never.
  uint64_t cold_tokens = 0;
  uint64_t break_even_questions = 0;
};

// mode: "auto", "exact" or "segmented", as of ingest.
CorpusPlan ReckonPlan(const PlanText& text, const v1::PlanReply& reply, const std::string& mode,
                      const std::optional<PrefillRate>& rate);

// The rate of the corpus of that mode and model with the most tokens; of another mode if need be.
std::optional<PrefillRate> MeasuredRate(const v1::ListReply& corpora, const std::string& mode,
                                        const std::string& model_digest);

// What it will cost in the reply's default format, as far as is known.
v1::CorpusCost CostOfPlan(const CorpusPlan& plan, const v1::PlanReply& reply);

uint64_t FormatBytesOf(const CorpusPlan& plan, const v1::PlanFormat& format);
// The same if layers that see a chunk or a window were kept everywhere; equal without such layers.
uint64_t KeepAllBytesOf(const CorpusPlan& plan, const v1::PlanFormat& format);
// Whether so many bytes can be there: "yes", "no", "after eviction" (only if others leave), "none"
// (there is no such tier). Host and device hold copies, which leave by themselves.
std::string FitIn(const v1::DiskUsageReply& usage, const std::string& tier, uint64_t bytes);

}  // namespace corpusd::ctl
