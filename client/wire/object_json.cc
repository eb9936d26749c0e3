#include "client/wire/object_json.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace corpusd {
namespace {

using Json = nlohmann::ordered_json;

Json TextOrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json NumberOrNull(uint64_t number) { return number == 0 ? Json(nullptr) : Json(number); }

Json PartsToJson(const v1::Corpus& corpus) {
  Json parts = Json::array();
  for (const v1::CorpusPart& part : corpus.parts()) {
    parts.push_back({{"kind", part.kind()}, {"blocks", part.blocks()}, {"bytes", part.bytes()}});
  }
  return parts;
}

Json PinToJson(const v1::Corpus& corpus) {
  if (!corpus.pinned()) return nullptr;
  return {{"tier", corpus.pin_tier()},
          {"expires_at", TimeOrNull(corpus.pin_expires_at_ms())},
          {"owner", TextOrNull(corpus.pin_owner())},
          {"reason", TextOrNull(corpus.pin_reason())},
          {"pinned_at", TimeOrNull(corpus.pinned_at_ms())},
          {"bytes", corpus.pin_bytes()}};
}

Json QualityToJson(const v1::Corpus& corpus) {
  if (!corpus.has_quality()) return nullptr;
  const v1::Quality& quality = corpus.quality();
  return {{"sample_tokens", quality.sample_tokens()},
          {"mean_kld", quality.mean_kld()},
          {"same_top", quality.same_top()},
          {"limit", quality.limit()}};
}

Json PriceOrNull(double price) { return price > 0 ? Json(price) : Json(nullptr); }

}  // namespace

Json CostToJson(const v1::CorpusCost& cost) {
  return {
      {"currency", cost.currency()},
      {"compute", cost.compute()},
      {"build", {{"seconds", cost.build_seconds()}, {"price", PriceOrNull(cost.build_price())}}},
      {"month", {{"price", PriceOrNull(cost.month_price())}}},
      {"question",
       {{"seconds", cost.question_seconds()},
        {"price", PriceOrNull(cost.question_price())},
        {"measured", cost.questions()}}},
      {"cold",
       {{"tokens", cost.cold_tokens()},
        {"seconds", cost.cold_seconds()},
        {"price", PriceOrNull(cost.cold_price())}}},
      {"rag",
       {{"tokens", cost.rag_tokens()},
        {"seconds", cost.rag_seconds()},
        {"price", PriceOrNull(cost.rag_price())}}},
      {"break_even_questions",
       {{"cold", NumberOrNull(cost.break_even_cold())},
        {"rag", NumberOrNull(cost.break_even_rag())}}},
      {"month_questions",
       {{"cold", NumberOrNull(cost.month_questions_cold())},
        {"rag", NumberOrNull(cost.month_questions_rag())}}}};
}

std::string TimestampText(int64_t time_ms) {
  const time_t seconds = static_cast<time_t>(time_ms / 1000 - (time_ms % 1000 < 0 ? 1 : 0));
  std::tm parts{};
  if (gmtime_r(&seconds, &parts) == nullptr) return "-";
  char text[64];
  if (std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) return "-";
  return text;
}

Json TimeOrNull(int64_t time_ms) {
  return time_ms == 0 ? Json(nullptr) : Json(TimestampText(time_ms));
}

Json CorpusToJson(const v1::Corpus& corpus) {
  Json sources = Json::array();
  for (const v1::Source& source : corpus.sources()) {
    sources.push_back({{"path", source.path()},
                       {"tokens", source.tokens()},
                       {"bytes", source.bytes()},
                       {"digest", source.digest()}});
  }
  return {
      {"name", corpus.name()},
      {"id", corpus.id()},
      {"state", corpus.state()},
      {"mode", corpus.mode()},
      {"tokens", corpus.tokens()},
      {"segments", corpus.segments()},
      {"blocks", corpus.blocks()},
      {"kv_format", corpus.kv_format()},
      {"model", {{"name", corpus.model_name()}, {"digest", corpus.model_digest()}}},
      {"root", corpus.root()},
      {"bytes",
       {{"bf16", corpus.bf16_bytes()},
        {"stored", corpus.stored_bytes()},
        {"device", corpus.device_bytes()},
        {"host", corpus.host_bytes()},
        {"disk", corpus.disk_bytes()},
        {"disk_of_ranks", Json(std::vector<uint64_t>(corpus.rank_disk_bytes().begin(),
                                                     corpus.rank_disk_bytes().end()))},
        {"keep_all", NumberOrNull(corpus.keep_all_bytes())}}},
      {"parts", PartsToJson(corpus)},
      {"pinned", PinToJson(corpus)},
      {"expires_at", TimeOrNull(corpus.expires_at_ms())},
      {"priority", TextOrNull(corpus.priority())},
      {"created_at", TimeOrNull(corpus.created_at_ms())},
      {"last_used_at", TimeOrNull(corpus.last_used_at_ms())},
      {"prefill",
       {{"seconds", corpus.prefill_seconds()},
        {"tokens_per_s", corpus.prefill_tokens_per_s()},
        {"resumed_times", corpus.prefill_resumed_times()}}},
      {"quality", QualityToJson(corpus)},
      {"cost", corpus.has_cost() ? CostToJson(corpus.cost()) : Json(nullptr)},
      {"sources", std::move(sources)},
      {"roots", corpus.roots()},
      {"replaces", TextOrNull(corpus.replaces())},
      {"skipped_files", corpus.skipped_files()},
      {"error", TextOrNull(corpus.error())},
  };
}

Json JobToJson(const v1::Job& job) {
  Json object = {
      {"id", job.id()},
      {"kind", job.kind()},
      {"corpus", job.corpus()},
      {"state", job.state()},
      {"done_tokens", job.done_tokens()},
      {"total_tokens", job.total_tokens()},
      {"reused_tokens", job.reused_tokens()},
      {"tokens_per_s", job.tokens_per_s()},
      {"eta_s", job.eta_s() < 0 ? Json(nullptr) : Json(job.eta_s())},
      {"written_bytes", job.written_bytes()},
      {"resumed_times", job.resumed_times()},
      {"failed_times", job.failed_times()},
      {"retry_at", TimeOrNull(job.retry_at_ms())},
      {"error", TextOrNull(job.error())},
      {"created_at", TimeOrNull(job.created_at_ms())},
      {"started_at", TimeOrNull(job.started_at_ms())},
      {"finished_at", TimeOrNull(job.finished_at_ms())},
  };
  if (!job.has_scrub()) return object;
  const v1::Scrub& scrub = job.scrub();
  object["corpus"] = nullptr;
  object["scrub"] = {{"blocks", scrub.blocks()},
                     {"total_blocks", scrub.total_blocks()},
                     {"bytes", scrub.bytes()},
                     {"damaged", scrub.damaged()},
                     {"missing", scrub.missing()},
                     {"repaired", scrub.repaired()},
                     {"contradictions", scrub.contradictions()},
                     {"findings", scrub.findings()},
                     {"bytes_per_s", scrub.bytes_per_s()}};
  return object;
}

}  // namespace corpusd
