#include "client/ctl/cost_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

// "0.0031 USD": two digits that count, or hundredths. REQUIRES: price > 0.
std::string PriceText(double price, const std::string& currency) {
  const int digits = std::clamp(1 - static_cast<int>(std::floor(std::log10(price))), 2, 12);
  char text[64];
  std::snprintf(text, sizeof text, "%.*f ", digits, price);
  return text + currency;
}

// ", 0.0031 USD"; "" for no price.
std::string AndPrice(double price, const std::string& currency) {
  return price > 0 ? ", " + PriceText(price, currency) : "";
}

std::string TimesText(uint64_t times, const std::string& against) {
  return times == 0 ? "never against " + against
                    : "from question " + FormatCount(times) + " on against " + against;
}

std::string MonthText(uint64_t times, const std::string& against) {
  return times == 0 ? "none pay for it against " + against
                    : FormatCount(times) + " pay for it against " + against;
}

}  // namespace

void AddCostFields(const v1::CorpusCost& cost, Fields* fields) {
  const std::string& currency = cost.currency();
  if (cost.build_seconds() > 0) {
    fields->emplace_back("cost to build", FormatDuration(cost.build_seconds()) + " of " +
                                              cost.compute() +
                                              AndPrice(cost.build_price(), currency));
  }
  if (cost.month_price() > 0) {
    fields->emplace_back("cost to keep", PriceText(cost.month_price(), currency) + " a month");
  }
  if (!(cost.question_seconds() > 0) || !(cost.cold_seconds() > 0)) return;
  const std::string measured =
      cost.questions() == 0 ? "estimated" : "mean of " + FormatCount(cost.questions());
  const std::string pieces = "retrieving " + FormatCount(cost.rag_tokens()) + " tokens for each";
  fields->emplace_back("cost to ask", FormatMilliseconds(cost.question_seconds() * 1e3) + " (" +
                                          measured + ")" +
                                          AndPrice(cost.question_price(), currency));
  fields->emplace_back("without it", FormatMilliseconds(cost.cold_seconds() * 1e3) +
                                         AndPrice(cost.cold_price(), currency) + " to prefill " +
                                         FormatCount(cost.cold_tokens()) + " tokens; " +
                                         FormatMilliseconds(cost.rag_seconds() * 1e3) +
                                         AndPrice(cost.rag_price(), currency) + " for " +
                                         FormatCount(cost.rag_tokens()) + " retrieved ones");
  if (cost.build_seconds() > 0) {
    fields->emplace_back("building pays",
                         TimesText(cost.break_even_cold(), "prefilling it for each") + ", " +
                             TimesText(cost.break_even_rag(), pieces));
  }
  if (cost.month_price() > 0 && cost.question_price() > 0) {
    fields->emplace_back(
        "keeping pays",
        "questions a month: " + MonthText(cost.month_questions_cold(), "prefilling it for each") +
            ", " + MonthText(cost.month_questions_rag(), pieces));
  }
}

}  // namespace corpusd::ctl
