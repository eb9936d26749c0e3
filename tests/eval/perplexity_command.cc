// corpus-eval perplexity and corpus-eval kld: what is printed, as a table or as JSON.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tests/eval/eval_command.h"
#include "tests/support/read_file.h"

namespace corpusd {
namespace {

using nlohmann::json;

json ToJson(const Estimate& estimate) {
  return {{"value", estimate.value}, {"error", estimate.error}};
}

json ToJson(const Quantiles& q) {
  return {{"minimum", q.minimum}, {"p0_1", q.p0_1}, {"p1", q.p1},      {"p5", q.p5},
          {"p10", q.p10},         {"p25", q.p25},   {"p50", q.median}, {"p75", q.p75},
          {"p90", q.p90},         {"p95", q.p95},   {"p99", q.p99},    {"p99_9", q.p99_9},
          {"maximum", q.maximum}};
}

// What the result was measured with.
json Settings(const ModelSession& session, const KvReadback& readback, uint32_t context) {
  return {{"context_tokens", context},
          {"kv_format", readback.format},
          {"sink", readback.sinks},
          {"tail", readback.tail},
          {"backend", session.backend_name()}};
}

json ToJson(const KldReport& r) {
  return {{"scored_tokens", r.scored_tokens},
          {"perplexity", ToJson(r.perplexity)},
          {"base_perplexity", ToJson(r.base_perplexity)},
          {"correlation", r.correlation},
          {"log_ratio", ToJson(r.log_ratio)},
          {"ratio", ToJson(r.ratio)},
          {"difference", ToJson(r.difference)},
          {"kld", ToJson(r.kld)},
          {"kld_quantiles", ToJson(r.kld_quantiles)},
          {"delta_p", ToJson(r.delta_p)},
          {"delta_p_rms", ToJson(r.delta_p_rms)},
          {"delta_p_quantiles", ToJson(r.delta_p_quantiles)},
          {"same_top", ToJson(r.same_top)}};
}

void PrintEstimate(const char* name, const Estimate& estimate, double factor, const char* unit) {
  std::printf("%-28s %12.6f +/- %.6f%s\n", name, factor * estimate.value, factor * estimate.error,
              unit);
}

void PrintQuantiles(const char* name, const Quantiles& q, double factor, const char* unit) {
  const std::pair<const char*, double> rows[] = {
      {"maximum", q.maximum}, {"99.9 %", q.p99_9}, {"99 %", q.p99},      {"95 %", q.p95},
      {"90 %", q.p90},        {"75 %", q.p75},     {"median", q.median}, {"25 %", q.p25},
      {"10 %", q.p10},        {"5 %", q.p5},       {"1 %", q.p1},        {"0.1 %", q.p0_1},
      {"minimum", q.minimum}};
  for (const auto& [label, value] : rows) {
    std::printf("%-20s %-7s %12.6f%s\n", name, label, factor * value, unit);
  }
}

void Print(const KldReport& r) {
  PrintEstimate("perplexity", r.perplexity, 1, "");
  PrintEstimate("perplexity of the base", r.base_perplexity, 1, "");
  std::printf("%-28s %12.4f %%\n", "correlation of their logs", 100 * r.correlation);
  PrintEstimate("ln(perplexity / base)", r.log_ratio, 1, "");
  PrintEstimate("perplexity / base", r.ratio, 1, "");
  PrintEstimate("perplexity - base", r.difference, 1, "");
  PrintEstimate("mean KLD", r.kld, 1, "");
  PrintQuantiles("KLD", r.kld_quantiles, 1, "");
  PrintEstimate("mean delta p", r.delta_p, 100, " %");
  PrintQuantiles("delta p", r.delta_p_quantiles, 100, " %");
  PrintEstimate("RMS delta p", r.delta_p_rms, 100, " %");
  PrintEstimate("same top token", r.same_top, 100, " %");
}

Result<std::vector<TokenId>> Ids(const ModelSession& session, const std::string& path) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  return PerplexityIds(session, std::move(text));
}

Result<PerplexityReport> Measure(ModelSession& session, const EvalArguments& a) {
  ASSIGN_OR_RETURN(const auto ids, Ids(session, a.text_path));
  const bool live = isatty(STDERR_FILENO) != 0;
  const auto report = MeasurePerplexity(session, ids, a.perplexity, [&](const PerplexityReport& r) {
    if (live) std::fprintf(stderr, "\rwindow %zu: %.4f", r.windows, r.perplexity);
  });
  if (live) std::fprintf(stderr, "\n");
  return report;
}

Status Compare(ModelSession& session, const EvalArguments& a) {
  ASSIGN_OR_RETURN(const auto base, LogitBaseReader::Open(a.base_path));
  const uint32_t context = base->shape().context_tokens;
  if (a.context_given && a.perplexity.context_tokens != context) {
    return InvalidArgumentError(a.base_path + " was made with --ctx " + std::to_string(context) +
                                ", not " + std::to_string(a.perplexity.context_tokens));
  }
  if (!a.text_path.empty()) {
    ASSIGN_OR_RETURN(const auto ids, Ids(session, a.text_path));
    const auto tokens = base->tokens();
    if (ids.size() < tokens.size() || !std::equal(tokens.begin(), tokens.end(), ids.begin())) {
      return InvalidArgumentError(a.base_path + " was made from another text than " + a.text_path +
                                  ", or with another tokenizer; leave --file out to take the "
                                  "base's own tokens");
    }
  }
  const bool live = isatty(STDERR_FILENO) != 0;
  ASSIGN_OR_RETURN(const KldReport report,
                   MeasureKld(session, *base, a.perplexity.readback, a.perplexity.windows_max,
                              [&](const KldReport& r, size_t windows) {
                                if (!live) return;
                                std::fprintf(stderr, "\rwindow %zu: KLD %.6f +/- %.6f", windows,
                                             r.kld.value, r.kld.error);
                              }));
  if (live) std::fprintf(stderr, "\n");
  if (a.format == "json") {
    json object = ToJson(report);
    object.update(Settings(session, a.perplexity.readback, context));
    std::cout << object.dump() << "\n";
  } else {
    std::printf("%zu tokens scored, %s, sink %u, tail %u, %s\n", report.scored_tokens,
                a.perplexity.readback.format.c_str(), a.perplexity.readback.sinks,
                a.perplexity.readback.tail, session.backend_name().c_str());
    Print(report);
  }
  return OkStatus();
}

}  // namespace

Status PerplexityCommand(const EvalArguments& a) {
  ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
  ASSIGN_OR_RETURN(const PerplexityReport report, Measure(*session, a));
  if (a.format == "json") {
    json object = {{"perplexity", report.perplexity},
                   {"standard_error", report.standard_error},
                   {"windows", report.windows},
                   {"scored_tokens", report.scored_tokens}};
    object.update(Settings(*session, a.perplexity.readback, a.perplexity.context_tokens));
    std::cout << object.dump() << "\n";
    return OkStatus();
  }
  std::printf("perplexity %.4f +/- %.4f over %zu tokens of %zu windows (%s, %s)\n",
              report.perplexity, report.standard_error, report.scored_tokens, report.windows,
              session->backend_name().c_str(), a.perplexity.readback.format.c_str());
  return OkStatus();
}

Status KldCommand(const EvalArguments& a) {
  if (a.perplexity.make_base.empty() == a.base_path.empty()) {
    return InvalidArgumentError("give either --make-base FILE or --base FILE");
  }
  if (!a.base_path.empty()) {
    ASSIGN_OR_RETURN(const auto session, ModelSession::Open(a.session));
    return Compare(*session, a);
  }
  if (a.text_path.empty()) return InvalidArgumentError("--make-base needs a text: --file FILE");
  return PerplexityCommand(a);
}

}  // namespace corpusd
