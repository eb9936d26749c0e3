#include "daemon/rpc/corpus_message.h"

#include <algorithm>
#include <string>

#include "client/wire/utf8.h"
#include "daemon/access/tenant_name.h"
#include "store/pin_ledger.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

constexpr size_t kNameBytesMax = 128;

// Chains: of an exact corpus one, of a segmented one those behind its preamble.
uint64_t SegmentsOf(const CorpusRecord& record) {
  if (record.segments.window_tokens == 0) return 1;
  uint64_t segments = 0;
  for (const CorpusSource& source : record.sources) {
    segments += (source.tokens + record.segments.window_tokens - 1) / record.segments.window_tokens;
  }
  return segments;
}

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

}  // namespace

Status CheckCorpusName(std::string_view name) {
  // Who may say a tenant is decided before (daemon/access/request_scope.h).
  if (const std::string_view tenant = TenantOf(name); IsTenantName(tenant)) {
    name.remove_prefix(tenant.size() + 1);
  }
  const bool good = !name.empty() && name.size() <= kNameBytesMax && name[0] != '.' &&
                    name[0] != '-' && std::all_of(name.begin(), name.end(), IsNameCharacter);
  if (good) return OkStatus();
  return InvalidArgumentError(
      "a corpus name has 1 to 128 letters, digits, '.', '_' or '-' and begins with none of '.' and "
      "'-'; got " +
      std::to_string(name.size()) + " bytes" +
      (name.size() <= kNameBytesMax && !name.empty() ? ": '" + std::string(name) + "'" : ""));
}

std::string_view TierText(TierKind tier) {
  switch (tier) {
    case TierKind::kDevice:
      return "device";
    case TierKind::kHost:
      return "host";
    case TierKind::kDisk:
      return "disk";
  }
  return "unknown";
}

Result<TierKind> ParseTier(std::string_view text, TierKind if_empty) {
  if (text.empty()) return if_empty;
  if (text == "host") return TierKind::kHost;
  if (text == "disk") return TierKind::kDisk;
  if (text == "device") {
    return FailedPreconditionError("this daemon has no device tier: use host or disk");
  }
  return InvalidArgumentError("tier '" + std::string(text) + "' is none of device, host, disk");
}

v1::Corpus ToMessage(const CorpusRecord& record, const CorpusUsage& usage,
                     const ModelSummary& model, const std::optional<JobRecord>& job,
                     int64_t now_ms) {
  v1::Corpus message;
  message.set_name(record.name);
  message.set_id(record.id);
  message.set_generation(record.generation);
  message.set_state(std::string(CorpusStateText(record.state)));
  message.set_mode(record.mode);
  message.set_tokens(record.tokens);
  message.set_segments(SegmentsOf(record));
  message.set_blocks(record.chain.size());
  message.set_kv_format(record.kv_format);
  message.set_model_name(model.name);
  message.set_model_digest(model.digest);
  message.set_root(record.root.Hex());
  message.set_bf16_bytes(record.bf16_bytes);
  message.set_stored_bytes(usage.stored_bytes);
  uint64_t all_bytes = record.block_bytes;
  for (const CorpusPart& part : record.parts) {
    v1::CorpusPart* out = message.add_parts();
    out->set_kind(part.kind);
    for (const BlockRange& range : part.held)
      out->set_blocks(out->blocks() + range.end - range.first);
    out->set_bytes(out->blocks() * part.block_bytes);
    all_bytes += part.block_bytes;
  }
  if (!record.parts.empty()) message.set_keep_all_bytes(record.chain.size() * all_bytes);
  message.set_device_bytes(usage.device_bytes);
  message.set_host_bytes(usage.host_bytes);
  message.set_disk_bytes(usage.disk_bytes);
  if (PinHolds(record, now_ms)) {
    message.set_pinned(true);
    message.set_pin_tier(std::string(TierText(static_cast<TierKind>(record.pin->tier))));
    message.set_pin_expires_at_ms(record.pin->expires_at_ms);
    message.set_pin_owner(record.pin->owner);
    message.set_pin_reason(record.pin->reason);
    message.set_pinned_at_ms(record.pin->created_at_ms);
    message.set_pin_bytes(PinCharge(record));
  }
  message.set_priority(std::string(PriorityText(record.priority)));
  message.set_expires_at_ms(record.expires_at_ms);
  message.set_created_at_ms(record.created_at_ms);
  message.set_last_used_at_ms(record.last_used_at_ms);
  message.set_prefill_seconds(record.prefill_seconds);
  if (record.prefill_seconds > 0) {
    const uint64_t computed =
        record.prefill_tokens == 0 ? record.durable_tokens : record.prefill_tokens;
    message.set_prefill_tokens_per_s(static_cast<double>(computed) / record.prefill_seconds);
  }
  message.set_prefill_resumed_times(record.resumed_times);
  for (const CorpusSource& source : record.sources) {
    v1::Source* out = message.add_sources();
    out->set_path(source.path);
    out->set_first_token(source.first_token);
    out->set_tokens(source.tokens);
    out->set_bytes(source.bytes);
    out->set_digest(source.sha256);
  }
  if (record.quality) {
    v1::Quality* quality = message.mutable_quality();
    quality->set_sample_tokens(record.quality->sample_tokens);
    quality->set_mean_kld(record.quality->mean_kld);
    quality->set_same_top(record.quality->same_top);
    quality->set_limit(model.quality_kld_max);
  }
  for (const std::string& root : record.roots) message.add_roots(ToUtf8(root));
  message.set_replaces(record.replaces);
  message.set_error(record.error);
  message.set_durable_tokens(record.durable_tokens);
  message.set_skipped_files(record.skipped_files);
  if (job) message.set_job_id(job->id);
  return message;
}

v1::Job ToMessage(const JobRecord& job) {
  v1::Job message;
  message.set_id(job.id);
  message.set_kind(job.kind);
  message.set_corpus(job.corpus);
  message.set_state(std::string(JobStateText(job.state)));
  message.set_done_tokens(job.done_tokens);
  message.set_total_tokens(job.total_tokens);
  message.set_tokens_per_s(job.tokens_per_s);
  message.set_eta_s(job.eta_s);
  message.set_written_bytes(job.written_bytes);
  message.set_error(job.error);
  message.set_created_at_ms(job.created_at_ms);
  message.set_started_at_ms(job.started_at_ms);
  message.set_finished_at_ms(job.finished_at_ms);
  message.set_reused_tokens(job.reused_tokens);
  message.set_resumed_times(job.resumed_times);
  message.set_failed_times(job.failed_times);
  message.set_retry_at_ms(job.retry_at_ms);
  if (!job.scrub) return message;
  v1::Scrub* scrub = message.mutable_scrub();
  scrub->set_blocks(job.scrub->blocks);
  scrub->set_total_blocks(job.scrub->total_blocks);
  scrub->set_bytes(job.scrub->bytes);
  scrub->set_damaged(job.scrub->damaged);
  scrub->set_missing(job.scrub->missing);
  scrub->set_repaired(job.scrub->repaired);
  scrub->set_contradictions(job.scrub->contradictions);
  for (const std::string& finding : job.scrub->findings) scrub->add_findings(ToUtf8(finding));
  scrub->set_bytes_per_s(job.scrub->bytes_per_s);
  return message;
}

}  // namespace corpusd
