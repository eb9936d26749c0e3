// engine/prefill/quality_sample.h -- what a KV format costs on a corpus's own text: a sample of its
// tokens is run twice, with exact keys and values and with coded ones, and the two predictions are
// compared. Bounded cost: two forward passes of at most kQualityTokens. One thread; takes its turns
// at the compute gate.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>

#include "engine/prefill/prefill_runner.h"

namespace corpusd {

inline constexpr uint32_t kQualityTokens = 512;

struct QualitySample {
  uint32_t tokens = 0;  // scored: the second half of the sample; 0: the corpus is too short
  double mean_kld = 0;  // mean KL divergence of the coded from the exact prediction, nats
  double same_top = 0;  // share of places where both find the same token most likely
};

// The sample is the middle of the corpus. layout: without sinks.
Result<QualitySample> MeasureQuality(const ComputeContext& context, std::span<const TokenId> tokens,
                                     const KvLayout& layout, const std::stop_token& stop);

}  // namespace corpusd
