#include "client/ctl/json_objects.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/units.h"
#include "client/sources/line_label.h"

namespace corpusd::ctl {
namespace {

Json TimeOrNull(int64_t time_ms) {
  return time_ms == 0 ? Json(nullptr) : Json(FormatTimestamp(time_ms));
}

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

Json WriteStateToJson(const v1::WriteState& state) {
  return {{"read_only", state.read_only()},
          {"reason", TextOrNull(state.reason())},
          {"since", TimeOrNull(state.since_ms())},
          {"refused", state.refused()}};
}

Json EvictionsToJson(const v1::Evictions& evictions) {
  return {{"automatic", evictions.automatic()},
          {"high_percent", evictions.high_percent()},
          {"low_percent", evictions.low_percent()},
          {"passes", evictions.passes()},
          {"corpora", evictions.corpora()},
          {"blocks", evictions.blocks()},
          {"bytes", evictions.bytes()},
          {"refusals", evictions.refusals()},
          {"last", TimeOrNull(evictions.last_ms())},
          {"last_text", TextOrNull(evictions.last_text())}};
}

Json LineOrNull(uint64_t line) { return line == 0 ? Json(nullptr) : Json(line); }

Json SelectionToJson(const v1::AskReply& reply) {
  if (!reply.has_selection()) return nullptr;
  return {{"candidate_blocks", reply.selection().candidate_blocks()},
          {"chosen_blocks", reply.selection().chosen_blocks()},
          {"select_ms", reply.selection().select_ms()}};
}

Json QualityToJson(const v1::Corpus& corpus) {
  if (!corpus.has_quality()) return nullptr;
  const v1::Quality& quality = corpus.quality();
  return {{"sample_tokens", quality.sample_tokens()},
          {"mean_kld", quality.mean_kld()},
          {"same_top", quality.same_top()},
          {"limit", quality.limit()}};
}

}  // namespace

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
      {"sources", std::move(sources)},
      {"roots", corpus.roots()},
      {"replaces", TextOrNull(corpus.replaces())},
      {"skipped_files", corpus.skipped_files()},
      {"error", TextOrNull(corpus.error())},
  };
}

Json AskToJson(const v1::AskReply& reply) {
  Json citations = Json::array();
  for (const v1::Citation& citation : reply.citations()) {
    const sources::FileLines lines =
        sources::LinesInFile(citation.source(), citation.first_line(), citation.last_line());
    citations.push_back({{"source", citation.source()},
                         {"first_token", citation.first_token()},
                         {"tokens", citation.tokens()},
                         {"weight", citation.weight()},
                         {"path", lines.path},
                         {"first_line", LineOrNull(lines.first)},
                         {"last_line", LineOrNull(lines.last)}});
  }
  return {
      {"answer", reply.answer()},
      {"finish_reason", reply.finish_reason()},
      {"usage",
       {{"prompt_tokens", reply.usage().prompt_tokens()},
        {"cached_tokens", reply.usage().cached_tokens()},
        {"recomputed_tokens", reply.usage().recomputed_tokens()},
        {"completion_tokens", reply.usage().completion_tokens()}}},
      {"timing",
       {{"queue_ms", reply.timing().queue_ms()},
        {"load_ms", reply.timing().load_ms()},
        {"first_token_ms", reply.timing().first_token_ms()},
        {"total_ms", reply.timing().total_ms()},
        {"decode_tokens_per_s", reply.timing().decode_tokens_per_s()}}},
      {"read",
       {{"device_bytes", reply.read().device_bytes()},
        {"host_bytes", reply.read().host_bytes()},
        {"disk_bytes", reply.read().disk_bytes()},
        {"remote_bytes", reply.read().remote_bytes()}}},
      {"attended_tokens", reply.attended_tokens()},
      {"citations", std::move(citations)},
      {"selection", SelectionToJson(reply)},
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

Json DiskUsageToJson(const v1::DiskUsageReply& usage) {
  Json tiers = Json::array();
  for (const v1::Tier& tier : usage.tiers()) {
    tiers.push_back({{"name", tier.name()},
                     {"capacity_bytes", tier.capacity_bytes()},
                     {"used_bytes", tier.used_bytes()},
                     {"pinned_bytes", tier.pinned_bytes()},
                     {"free_bytes", tier.free_bytes()}});
  }
  Json corpora = Json::array();
  for (const v1::Corpus& corpus : usage.corpora()) {
    corpora.push_back({{"name", corpus.name()},
                       {"device_bytes", corpus.device_bytes()},
                       {"host_bytes", corpus.host_bytes()},
                       {"disk_bytes", corpus.disk_bytes()},
                       {"keep_all_bytes", NumberOrNull(corpus.keep_all_bytes())}});
  }
  Json holders = Json::array();
  for (const v1::PinHolder& holder : usage.pin_holders()) {
    holders.push_back({{"owner", TextOrNull(holder.owner())},
                       {"pins", holder.pins()},
                       {"bytes", holder.bytes()}});
  }
  Json leases = Json::array();
  for (const v1::Lease& lease : usage.leases()) {
    leases.push_back({{"id", lease.id()},
                      {"owner", lease.owner()},
                      {"blocks", lease.blocks()},
                      {"bytes", lease.bytes()},
                      {"since", TimeOrNull(lease.since_ms())},
                      {"expires_at", TimeOrNull(lease.expires_at_ms())}});
  }
  return {{"tiers", std::move(tiers)},
          {"corpora", std::move(corpora)},
          {"writes", WriteStateToJson(usage.write_state())},
          {"evictions", EvictionsToJson(usage.evictions())},
          {"leases", std::move(leases)},
          {"pins",
           {{"owner_bytes", usage.pins_owner_bytes()},
            {"total_bytes", usage.pins_total_bytes()},
            {"holders", std::move(holders)}}}};
}

Json VerifyToJson(const std::string& name, const v1::VerifyReply& reply) {
  return {{"name", name},
          {"blocks", reply.blocks()},
          {"bytes", reply.bytes()},
          {"damaged", reply.damaged()},
          {"missing", reply.missing()},
          {"repaired", reply.repaired()}};
}

Json DoctorToJson(const v1::DoctorReply& reply) {
  Json checks = Json::array();
  for (const v1::Check& check : reply.checks()) {
    checks.push_back({{"name", check.name()}, {"level", check.level()}, {"text", check.text()}});
  }
  return {{"checks", std::move(checks)}};
}

Json VersionToJson(const std::string& client_version, const v1::VersionReply* server) {
  Json server_json = nullptr;
  if (server != nullptr) {
    server_json = {{"version", server->version()},
                   {"backend", server->backend()},
                   {"model", {{"name", server->model_name()}, {"digest", server->model_digest()}}},
                   {"protocol", server->protocol()},
                   {"pid", server->pid()}};
  }
  return {{"client", {{"version", client_version}}}, {"server", std::move(server_json)}};
}

}  // namespace corpusd::ctl
