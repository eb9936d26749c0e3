// What a corpus costs: the arithmetic, and how it is said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/cost_text.h"
#include "client/wire/corpus_cost.h"
#include "client/wire/object_json.h"

namespace corpusd::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// An hour of compute costs 3.6: a second a thousandth.
v1::Economics Prices() {
  v1::Economics economics;
  economics.set_currency("EUR");
  economics.set_compute("2 CPU threads");
  economics.set_compute_hour_price(3.6);
  economics.set_gb_month_price(0.5);
  economics.set_rag_tokens(936);
  return economics;
}

// 10,000 tokens at 100 a second on 2 GB of disk.
CostInputs Corpus() {
  CostInputs inputs;
  inputs.tokens = 10'000;
  inputs.exact_tokens_max = 20'000;
  inputs.disk_bytes = 2'000'000'000;
  inputs.build_seconds = 100;
  inputs.prefill_tokens_per_s = 100;
  return inputs;
}

std::string TextOf(const v1::CorpusCost& cost) {
  Fields fields;
  AddCostFields(cost, &fields);
  std::string text;
  for (const auto& [name, value] : fields) text += name + ": " + value + "\n";
  return text;
}

TEST(CorpusCost, BuildingKeepingAndAskingHaveTheirPrices) {
  const v1::CorpusCost cost = CostOf(Prices(), Corpus());
  EXPECT_DOUBLE_EQ(cost.build_price(), 0.1);
  EXPECT_DOUBLE_EQ(cost.month_price(), 1);
  EXPECT_EQ(cost.questions(), 0u);
  EXPECT_DOUBLE_EQ(cost.question_seconds(), 0.64);
  EXPECT_EQ(cost.cold_tokens(), 10'000u);
  EXPECT_DOUBLE_EQ(cost.cold_seconds(), 100.64);
  EXPECT_DOUBLE_EQ(cost.rag_seconds(), 10);
  EXPECT_DOUBLE_EQ(cost.rag_price(), 0.01);
  // 100 s to build, against 100 and 9.36 saved by each question.
  EXPECT_EQ(cost.break_even_cold(), 1u);
  EXPECT_EQ(cost.break_even_rag(), 11u);
  EXPECT_EQ(cost.month_questions_cold(), 10u);
  EXPECT_EQ(cost.month_questions_rag(), 107u);
}

TEST(CorpusCost, WhatWasMeasuredGoesBeforeEstimates) {
  v1::Economics prices = Prices();
  prices.set_prompt_tokens_per_s(200);
  CostInputs inputs = Corpus();
  inputs.question_seconds = 6;
  inputs.questions = 3;
  const v1::CorpusCost cost = CostOf(prices, inputs);
  EXPECT_DOUBLE_EQ(cost.cold_seconds(), 50.32);
  EXPECT_DOUBLE_EQ(cost.rag_seconds(), 5);
  EXPECT_DOUBLE_EQ(cost.question_seconds(), 6);
  EXPECT_EQ(cost.break_even_cold(), 3u);
  EXPECT_EQ(cost.break_even_rag(), 0u) << "a question over the corpus takes longer";
  EXPECT_EQ(cost.month_questions_rag(), 0u);
  EXPECT_THAT(TextOf(cost), HasSubstr("never against retrieving 936 tokens for each"));
}

TEST(CorpusCost, AModelSeesNoMoreThanItsContext) {
  CostInputs inputs = Corpus();
  inputs.exact_tokens_max = 500;
  inputs.segmented = true;
  const v1::CorpusCost cost = CostOf(Prices(), inputs);
  EXPECT_EQ(cost.cold_tokens(), 500u);
  EXPECT_EQ(cost.rag_tokens(), 500u);
  EXPECT_DOUBLE_EQ(cost.question_seconds(), 1.28) << "a piece of it is computed anew";
}

TEST(CorpusCost, WithoutPricesOrRatesNothingIsMadeUp) {
  v1::Economics none;
  none.set_currency("USD");
  none.set_compute("1 GPU");
  none.set_rag_tokens(1000);
  v1::CorpusCost cost = CostOf(none, Corpus());
  EXPECT_EQ(cost.break_even_cold(), 1u) << "in seconds";
  EXPECT_EQ(cost.month_questions_cold(), 0u);
  EXPECT_THAT(TextOf(cost), HasSubstr("cost to build: 1m40s of 1 GPU\n"));
  EXPECT_THAT(TextOf(cost), Not(HasSubstr("USD")));
  EXPECT_THAT(TextOf(cost), Not(HasSubstr("month")));
  const auto json = CostToJson(cost);
  EXPECT_TRUE(json["build"]["price"].is_null());
  EXPECT_TRUE(json["month_questions"]["rag"].is_null());
  cost = CostOf(none, {});
  EXPECT_EQ(cost.break_even_cold(), 0u);
  EXPECT_EQ(TextOf(cost), "");
}

TEST(CorpusCost, IsSaidWithItsCurrency) {
  const v1::CorpusCost cost = CostOf(Prices(), Corpus());
  const std::string text = TextOf(cost);
  EXPECT_THAT(text, HasSubstr("cost to build: 1m40s of 2 CPU threads, 0.10 EUR\n"));
  EXPECT_THAT(text, HasSubstr("cost to keep: 1.00 EUR a month\n"));
  EXPECT_THAT(text, HasSubstr("cost to ask: 640 ms (estimated), 0.00064 EUR\n"));
  EXPECT_THAT(text, HasSubstr("from question 11 on against retrieving 936 tokens for each\n"));
  EXPECT_THAT(text, HasSubstr("107 pay for it against retrieving"));
  const auto json = CostToJson(cost);
  EXPECT_EQ(json["currency"], "EUR");
  EXPECT_EQ(json["break_even_questions"]["rag"], 11);
  EXPECT_EQ(json["question"]["measured"], 0);
  EXPECT_DOUBLE_EQ(json["build"]["price"], 0.1);
}

}  // namespace
}  // namespace corpusd::ctl
