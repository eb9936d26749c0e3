// tests/eval/kld_statistics.h -- what llama-perplexity --kl-divergence prints, gathered row by row:
// how far a model's answers are from those of a base file. Plain arithmetic, one thread.
#pragma once

#include <span>
#include <vector>

#include "tests/eval/logit_base.h"

namespace corpusd {

// A mean and its standard error, from sums over n values.
struct Estimate {
  double value = 0;
  double error = 0;
};

struct Quantiles {
  double minimum = 0, p0_1 = 0, p1 = 0, p5 = 0, p10 = 0, p25 = 0, median = 0;
  double p75 = 0, p90 = 0, p95 = 0, p99 = 0, p99_9 = 0, maximum = 0;
};

struct KldReport {
  size_t scored_tokens = 0;
  Estimate perplexity, base_perplexity;
  double correlation = 0;      // of ln PPL and ln PPL of the base, token by token
  Estimate log_ratio;          // ln(PPL / base PPL); the error knows that both are correlated
  Estimate ratio, difference;  // PPL / base PPL, PPL - base PPL
  Estimate kld;                // nats a token, base against model
  Quantiles kld_quantiles;
  Estimate delta_p, delta_p_rms;  // of the probability of the text's own token, as fractions
  Quantiles delta_p_quantiles;
  Estimate same_top;  // how often both hold the same token most likely
};

class KldStatistics {
 public:
  void Add(std::span<const float> logits, const LogitRow& base, TokenId target);
  // REQUIRES: at least one Add. Errors are 0 below 10 tokens.
  KldReport Report() const;

 private:
  struct Sum {
    double first = 0, second = 0;
    void Add(double value) {
      first += value;
      second += value * value;
    }
    Estimate Mean(size_t count) const;
  };

  Sum nll_, base_nll_, kld_, delta_, squared_delta_;
  double nll_product_ = 0;
  size_t same_top_ = 0;
  std::vector<float> klds_, deltas_;
};

// -log softmax(logits)[target], in double.
double NegativeLogLikelihood(std::span<const float> logits, TokenId target);

}  // namespace corpusd
