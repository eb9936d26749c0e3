#include "engine/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>

namespace corpusd {
namespace {

// The pair whose wavelength fits `rotations` times into the original context (YaRN, eq. 17 ff.).
double YarnPair(const RopeConfig& c, double rotations) {
  return c.dimensions * std::log(c.original_context / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(c.base));
}

// 1 where a pair keeps its frequency, 0 where it is interpolated, a ramp between.
double YarnKeep(const RopeConfig& c, uint32_t pair) {
  const double low = std::max(0.0, std::floor(YarnPair(c, c.yarn_beta_fast)));
  const double high = std::min(c.dimensions - 1.0, std::ceil(YarnPair(c, c.yarn_beta_slow)));
  const double ramp = (pair - low) / std::max(0.001, high - low);
  return 1 - std::clamp(ramp, 0.0, 1.0);
}

std::string Number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

}  // namespace

std::string RopeConfig::Canonical() const {
  std::string text = "base=" + Number(base) + ";dims=" + std::to_string(dimensions) +
                     ";scaling=" + std::to_string(static_cast<int>(scaling)) +
                     ";factor=" + Number(factor) + ";original=" + Number(original_context) +
                     ";beta=" + Number(yarn_beta_fast) + "," + Number(yarn_beta_slow) + ";factors=";
  for (const float f : frequency_factors) text += Number(f) + ",";
  return text;
}

Status ValidateRope(const RopeConfig& c, uint32_t head_dim) {
  if (c.dimensions == 0 || c.dimensions % 2 != 0 || c.dimensions > head_dim) {
    return InvalidArgumentError("rope dimension count " + std::to_string(c.dimensions) +
                                " must be even and at most the head dimension " +
                                std::to_string(head_dim));
  }
  if (!(c.base > 1) || !std::isfinite(c.base)) {
    return InvalidArgumentError("rope frequency base " + Number(c.base) + " must be above 1");
  }
  if (!(c.factor > 0) || !std::isfinite(c.factor)) {
    return InvalidArgumentError("rope scaling factor " + Number(c.factor) + " must be above 0");
  }
  if (c.scaling == RopeScaling::kYarn) {
    if (!(c.original_context >= 1)) {
      return InvalidArgumentError("rope scaling 'yarn' needs the original context length");
    }
    if (c.dimensions != head_dim) {
      return InvalidArgumentError("rope scaling 'yarn' over part of a head is not supported");
    }
  }
  if (!c.frequency_factors.empty()) {
    if (c.frequency_factors.size() != c.dimensions / 2) {
      return InvalidArgumentError("rope_freqs.weight has " +
                                  std::to_string(c.frequency_factors.size()) +
                                  " factors, the rope needs " + std::to_string(c.dimensions / 2));
    }
    for (const float f : c.frequency_factors) {
      if (!(f > 0) || !std::isfinite(f)) {
        return InvalidArgumentError("rope_freqs.weight holds a factor that is not positive");
      }
    }
  }
  return OkStatus();
}

std::vector<double> RopeFrequencies(const RopeConfig& c) {
  std::vector<double> frequencies(c.dimensions / 2);
  for (uint32_t j = 0; j < frequencies.size(); ++j) {
    double f = std::pow(c.base, -2.0 * j / c.dimensions);
    if (!c.frequency_factors.empty()) f /= c.frequency_factors[j];
    if (c.scaling == RopeScaling::kLinear) f /= c.factor;
    if (c.scaling == RopeScaling::kYarn) {
      const double keep = YarnKeep(c, j);
      f = f / c.factor * (1 - keep) + f * keep;
    }
    frequencies[j] = f;
  }
  return frequencies;
}

double RopeAttentionFactor(const RopeConfig& c) {
  if (c.scaling != RopeScaling::kYarn || c.factor <= 1) return 1;
  const double temperature = 0.1 * std::log(c.factor) + 1;
  return temperature * temperature;
}

std::vector<float> Llama3FrequencyFactors(double base, uint32_t dimensions,
                                          const Llama3Scaling& scaling) {
  std::vector<float> factors(dimensions / 2);
  const double low = scaling.low_frequency_factor, high = scaling.high_frequency_factor;
  for (uint32_t j = 0; j < factors.size(); ++j) {
    const double wavelength = 2 * std::numbers::pi * std::pow(base, 2.0 * j / dimensions);
    const double turns = scaling.original_context / wavelength;
    double slowing = 1;  // what the frequency is multiplied by
    if (turns < low) {
      slowing = 1 / scaling.factor;
    } else if (turns <= high && high > low) {  // models with low == high have no ramp
      const double keep = (turns - low) / (high - low);
      slowing = (1 - keep) / scaling.factor + keep;
    }
    factors[j] = static_cast<float>(1 / slowing);
  }
  return factors;
}

RopeAngles::RopeAngles(const RopeConfig& config, uint32_t positions)
    : positions_(positions), half_dim_(config.dimensions / 2) {
  const std::vector<double> frequencies = RopeFrequencies(config);
  cos_sin_.resize(size_t{positions} * half_dim_ * 2);
  size_t out = 0;
  for (uint32_t p = 0; p < positions; ++p) {
    for (const double f : frequencies) {
      cos_sin_[out++] = static_cast<float>(std::cos(p * f));
      cos_sin_[out++] = static_cast<float>(std::sin(p * f));
    }
  }
}

}  // namespace corpusd
