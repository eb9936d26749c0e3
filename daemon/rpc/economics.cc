#include "daemon/rpc/economics.h"

#include <algorithm>
#include <string>
#include <thread>

#include "client/wire/corpus_cost.h"
#include "daemon/metrics/daemon_metrics.h"

namespace corpusd {

v1::Economics EconomicsOf(const Services& services) {
  const Options& options = services.options;
  v1::Economics economics;
  economics.set_currency(options.price_currency);
  economics.set_gb_month_price(options.price_gb_month);
  economics.set_rag_tokens(options.rag_tokens);
  economics.set_prompt_tokens_per_s(services.metrics.rates().PromptTokensPerSecond());
  if (services.engine.model().backend.starts_with("cuda")) {
    economics.set_compute_hour_price(options.price_gpu_hour);
    economics.set_compute("1 GPU");
    return economics;
  }
  const unsigned threads =
      options.threads > 0 ? options.threads : std::max(1U, std::thread::hardware_concurrency());
  economics.set_compute_hour_price(options.price_cpu_hour * threads);
  economics.set_compute(std::to_string(threads) + (threads == 1 ? " CPU thread" : " CPU threads"));
  return economics;
}

v1::CorpusCost CostOfCorpus(const Services& services, const v1::Corpus& corpus) {
  const QuestionRates::Mean mean = services.metrics.rates().OfCorpus(corpus.name());
  CostInputs inputs;
  inputs.tokens = corpus.tokens();
  inputs.exact_tokens_max = services.engine.model().context_tokens;
  inputs.disk_bytes = corpus.disk_bytes();
  inputs.segmented = corpus.mode() == "segmented";
  inputs.build_seconds = corpus.prefill_seconds();
  inputs.prefill_tokens_per_s = corpus.prefill_tokens_per_s();
  inputs.question_seconds = mean.seconds;
  inputs.questions = mean.questions;
  return CostOf(EconomicsOf(services), inputs);
}

}  // namespace corpusd
