#include "client/ctl/json_objects.h"

#include <nlohmann/json.hpp>
#include <string>

#include "client/sources/line_label.h"
#include "client/wire/utf8.h"

namespace corpusd::ctl {
namespace {

Json TextOrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json NumberOrNull(uint64_t number) { return number == 0 ? Json(nullptr) : Json(number); }

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

Json LogprobToJson(const v1::TokenLogprob& logprob) {
  Json bytes = Json::array();
  for (const char byte : logprob.token()) bytes.push_back(static_cast<uint8_t>(byte));
  return {{"token", ToUtf8(logprob.token())},
          {"bytes", std::move(bytes)},
          {"id", logprob.id()},
          {"logprob", logprob.logprob()}};
}

Json AnswersToJson(const v1::AskReply& reply) {
  Json answers = Json::array();
  for (const v1::Answer& answer : reply.answers()) {
    Json logprobs = nullptr;
    for (const v1::TokenLogprob& token : answer.logprobs()) {
      Json top = Json::array();
      for (const v1::TokenLogprob& other : token.top()) top.push_back(LogprobToJson(other));
      logprobs.push_back(LogprobToJson(token));
      logprobs.back()["top"] = std::move(top);
    }
    answers.push_back({{"index", answer.index()},
                       {"answer", answer.text()},
                       {"finish_reason", answer.finish_reason()},
                       {"stop", TextOrNull(answer.stop())},
                       {"tokens", answer.tokens()},
                       {"logprobs", std::move(logprobs)}});
  }
  return answers;
}

}  // namespace

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
      {"answers", AnswersToJson(reply)},
  };
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
