// tests/bench/model_plan.h -- what a corpus of so many tokens takes on a model that need not be
// here: bytes of its weights, of its keys and values, and time from rates that were measured on
// matrices and pages of its shape. Arithmetic only. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/quantized_source.h"
#include "kernels/weight_types.h"
#include "store/base/result.h"

namespace corpusd {

// Stored keys and values of `tokens` tokens.
struct KvPlan {
  std::string format;
  uint64_t token_bytes = 0;  // of layers that see everything
  uint64_t bytes = 0;        // of all tokens, with what layers of a span keep at the end
};
// kInvalidArgument for a format that is not known.
Result<KvPlan> PlanKv(const ModelConfig& config, const std::string& format, uint64_t tokens);

inline constexpr const char* kOutputName = "output";

// One product of a layer, or the output's: how often a token meets it in the whole model.
struct PlannedProduct {
  std::string name;
  WeightType type = WeightType::kBf16;
  uint32_t rows = 0, cols = 0;
  double a_token = 0;  // products of a row and this matrix
};
// Of all layers (of a mixture once for each expert used), and the output's. stored: of the files.
std::vector<PlannedProduct> ProductsOf(const ModelConfig& config, WeightType stored,
                                       WeightMode mode);

// Layers by what their queries see.
struct SpanCount {
  uint32_t all = 0;
  uint32_t local = 0;       // chunks and windows
  uint64_t local_keys = 0;  // that a query of them sees, on the mean over a long text
};
SpanCount SpansOf(const ModelConfig& config);

// Seconds that were measured, a row of a run, a query and a key, or a token's keys and values.
struct MeasuredRates {
  double products_row = 0;      // all products of the layers, in runs of many rows
  double products_one_row = 0;  // of one row alone, with the output's
  double key_row = 0;           // one layer's attention, a row of many and a key
  double key_one_row = 0;       // the same of one row alone
  double encode_token = 0;      // one layer's keys and values into the format
};

struct TimePlan {
  double products = 0, local_attention = 0, full_attention = 0, encoding = 0;  // prefill, seconds
  double prefill = 0;
  double decode_token = 0;  // behind all tokens
  double question = 0;      // a question's tokens behind all tokens, until the first answer token
};
TimePlan PlanTime(const ModelConfig& config, const MeasuredRates& rates, uint64_t tokens,
                  uint32_t question_tokens);

}  // namespace corpusd
