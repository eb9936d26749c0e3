#include "client/wire/corpus_cost.h"

#include <algorithm>
#include <cmath>

namespace corpusd {
namespace {

constexpr double kSecondsOfHour = 3600;
constexpr double kGigabyte = 1e9;

// The first whole number of times that `saving` makes up for `cost`; 0: never.
uint64_t TimesToPay(double cost, double saving) {
  if (!(saving > 0) || !(cost > 0)) return 0;
  // Beyond it nobody counts.
  return static_cast<uint64_t>(std::min(std::ceil(cost / saving), 1e15));
}

}  // namespace

v1::CorpusCost CostOf(const v1::Economics& economics, const CostInputs& inputs) {
  const double second_price = economics.compute_hour_price() / kSecondsOfHour;
  v1::CorpusCost cost;
  cost.set_currency(economics.currency());
  cost.set_compute(economics.compute());
  cost.set_build_seconds(inputs.build_seconds);
  cost.set_build_price(inputs.build_seconds * second_price);
  cost.set_month_price(static_cast<double>(inputs.disk_bytes) / kGigabyte *
                       economics.gb_month_price());
  cost.set_cold_tokens(std::min(inputs.tokens, inputs.exact_tokens_max));
  cost.set_rag_tokens(std::min(economics.rag_tokens(), inputs.exact_tokens_max));

  // Prompts are what questions without a corpus are; where there were none, corpora are near it.
  const double rate = economics.prompt_tokens_per_s() > 0 ? economics.prompt_tokens_per_s()
                                                          : inputs.prefill_tokens_per_s;
  const auto seconds_of = [&](uint64_t tokens) {
    return rate > 0 ? static_cast<double>(tokens) / rate : 0;
  };
  cost.set_cold_seconds(seconds_of(cost.cold_tokens() + kQuestionTokens));
  cost.set_rag_seconds(seconds_of(cost.rag_tokens() + kQuestionTokens));
  cost.set_questions(inputs.questions);
  cost.set_question_seconds(
      inputs.questions > 0
          ? inputs.question_seconds
          : seconds_of(kQuestionTokens + (inputs.segmented ? kRecomputedTokens : 0)));
  cost.set_question_price(cost.question_seconds() * second_price);
  cost.set_cold_price(cost.cold_seconds() * second_price);
  cost.set_rag_price(cost.rag_seconds() * second_price);

  const double saved_cold = cost.cold_seconds() - cost.question_seconds();
  const double saved_rag = cost.rag_seconds() - cost.question_seconds();
  cost.set_break_even_cold(TimesToPay(inputs.build_seconds, saved_cold));
  cost.set_break_even_rag(TimesToPay(inputs.build_seconds, saved_rag));
  cost.set_month_questions_cold(TimesToPay(cost.month_price(), saved_cold * second_price));
  cost.set_month_questions_rag(TimesToPay(cost.month_price(), saved_rag * second_price));
  return cost;
}

}  // namespace corpusd
