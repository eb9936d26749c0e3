// engine/model/rope_table.h -- the rotation angles of a model, as a table by position difference.
// Owns its memory; immutable after Build; any thread. Sources: RoPE, Su et al. 2021 (arXiv
// 2104.09864); linear scaling, Chen et al. 2023 (arXiv 2306.15595); YaRN, Peng et al. 2023 (arXiv
// 2309.00071); the "llama3" factors come with the file as rope_freqs.weight.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/shapes.h"
#include "store/base/result.h"

namespace corpusd {

enum class RopeScaling : uint8_t { kNone, kLinear, kYarn };

struct RopeConfig {
  double base = 10000;
  uint32_t dimensions = 0;  // of head_dim, from 0; even
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;            // of linear and YaRN
  double original_context = 0;  // YaRN: tokens the model was trained on
  double yarn_beta_fast = 32, yarn_beta_slow = 1;
  std::vector<float> frequency_factors;  // dimensions / 2 divisors ("llama3"), or empty
  // The same on every host; part of every chain root.
  std::string Canonical() const;
};

// RETURNS the frequency of each pair, radians per position; REQUIRES a config that ValidateRope
// accepts.
std::vector<double> RopeFrequencies(const RopeConfig& config);
// What q.k is multiplied by beside 1/sqrt(head_dim): YaRN's temperature, squared since it is put on
// both q and k; 1 otherwise.
double RopeAttentionFactor(const RopeConfig& config);
Status ValidateRope(const RopeConfig& config, uint32_t head_dim);

// The divisors of "llama3" scaling (Llama 3.1 models): pairs whose wavelength is beyond
// original_context / low turn slower by `factor`, those within original_context / high as before, a
// ramp between. REQUIRES: base > 1, dimensions even, all others above 0.
struct Llama3Scaling {
  double factor = 1, low_frequency_factor = 1, high_frequency_factor = 1, original_context = 0;
};
std::vector<float> Llama3FrequencyFactors(double base, uint32_t dimensions,
                                          const Llama3Scaling& scaling);

class RopeAngles {
 public:
  // Rows for deltas [0, positions).
  RopeAngles(const RopeConfig& config, uint32_t positions);
  RopeTable table() const { return {cos_sin_.data(), positions_, half_dim_}; }

 private:
  std::vector<float> cos_sin_;
  uint32_t positions_;
  uint32_t half_dim_;
};

}  // namespace corpusd
