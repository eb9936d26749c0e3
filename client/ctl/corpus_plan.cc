#include "client/ctl/corpus_plan.h"

#include <algorithm>
#include <cmath>

#include "client/wire/corpus_cost.h"

namespace corpusd::ctl {
namespace {

// Around the path in the line that each document begins with.
constexpr uint64_t kHeaderTokens = 6;
// Paths are cut finer than prose.
constexpr double kLabelBytesPerToken = 2.5;

uint64_t EstimateTokens(const PlanText& text, const v1::PlanReply& reply) {
  if (text.sample_bytes == 0) return reply.preamble_tokens();
  const double tokens_per_byte =
      static_cast<double>(reply.sample_tokens()) / static_cast<double>(text.sample_bytes);
  return reply.preamble_tokens() + static_cast<uint64_t>(std::llround(
                                       tokens_per_byte * static_cast<double>(text.text_bytes)));
}

}  // namespace

CorpusPlan ReckonPlan(const PlanText& text, const v1::PlanReply& reply, const std::string& mode,
                      const std::optional<PrefillRate>& rate) {
  CorpusPlan plan;
  plan.text = text;
  plan.tokens = EstimateTokens(text, reply);
  plan.mode = mode;
  if (mode == "auto") plan.mode = plan.tokens <= reply.exact_tokens_max() ? "exact" : "segmented";
  const uint64_t block_tokens = std::max<uint64_t>(reply.block_tokens(), 1);
  plan.blocks = (plan.tokens + block_tokens - 1) / block_tokens;
  if (plan.mode == "segmented") {
    plan.tokens +=
        text.documents * kHeaderTokens +
        static_cast<uint64_t>(static_cast<double>(text.label_bytes) / kLabelBytesPerToken);
    // The last block of each document is half empty on average.
    plan.blocks = plan.tokens / block_tokens + (text.documents + 1) / 2 + 1;
  }
  plan.rate = rate;
  if (rate && rate->tokens_per_s > 0) {
    plan.prefill_seconds =
        rate->fixed_seconds + static_cast<double>(plan.tokens) / rate->tokens_per_s;
  }
  // Without the corpus each question prefills all of it, or as much as the model can see.
  plan.cold_tokens = std::min<uint64_t>(plan.tokens, reply.exact_tokens_max());
  if (plan.cold_tokens > kQuestionTokens) {
    const uint64_t saved = plan.cold_tokens - kQuestionTokens;
    plan.break_even_questions = (plan.tokens + saved - 1) / saved;
  }
  return plan;
}

std::optional<PrefillRate> MeasuredRate(const v1::ListReply& corpora, const std::string& mode,
                                        const std::string& model_digest) {
  const v1::Corpus* best = nullptr;
  const auto better = [&](const v1::Corpus& one, const v1::Corpus& other) {
    const bool fits = one.mode() == mode;
    if (fits != (other.mode() == mode)) return fits;
    return one.tokens() > other.tokens();
  };
  for (const v1::Corpus& corpus : corpora.corpora()) {
    if (corpus.prefill_tokens_per_s() <= 0 || corpus.model_digest() != model_digest) continue;
    if (best == nullptr || better(corpus, *best)) best = &corpus;
  }
  if (best == nullptr) return std::nullopt;
  return PrefillRate{best->prefill_tokens_per_s(), best->name()};
}

v1::CorpusCost CostOfPlan(const CorpusPlan& plan, const v1::PlanReply& reply) {
  CostInputs inputs;
  inputs.tokens = plan.tokens;
  inputs.exact_tokens_max = reply.exact_tokens_max();
  inputs.segmented = plan.mode == "segmented";
  inputs.build_seconds = plan.prefill_seconds;
  if (plan.rate) inputs.prefill_tokens_per_s = plan.rate->tokens_per_s;
  for (const v1::PlanFormat& format : reply.formats()) {
    if (format.name() == reply.default_format()) inputs.disk_bytes = FormatBytesOf(plan, format);
  }
  return CostOf(reply.economics(), inputs);
}

uint64_t FormatBytesOf(const CorpusPlan& plan, const v1::PlanFormat& format) {
  uint64_t bytes = plan.blocks * format.block_bytes();
  for (const v1::PlanPart& part : format.parts()) {
    bytes += std::min<uint64_t>(plan.blocks, part.blocks_max()) * part.block_bytes();
  }
  return bytes;
}

uint64_t KeepAllBytesOf(const CorpusPlan& plan, const v1::PlanFormat& format) {
  uint64_t block_bytes = format.block_bytes();
  for (const v1::PlanPart& part : format.parts()) block_bytes += part.block_bytes();
  return plan.blocks * block_bytes;
}

std::string FitIn(const v1::DiskUsageReply& usage, const std::string& tier, uint64_t bytes) {
  for (const v1::Tier& found : usage.tiers()) {
    if (found.name() != tier || found.capacity_bytes() == 0) continue;
    if (bytes <= found.free_bytes()) return "yes";
    const uint64_t pinned = std::min(found.pinned_bytes(), found.capacity_bytes());
    return bytes <= found.capacity_bytes() - pinned ? "after eviction" : "no";
  }
  return "none";
}

}  // namespace corpusd::ctl
