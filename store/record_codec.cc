#include "store/record_codec.h"

#include <zstd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "store/base/check.h"
#include "store/block_header.h"
#include "store/key_codec.h"

namespace corpusd {
namespace {

using nlohmann::json;

constexpr int kRecordVersion = 1;
constexpr uint8_t kEntryVersion = 1;
constexpr size_t kEntryBytes = 1 + 8 + 4 + 8 + 4 + 4 + 4 + 1 + 8 + 32;

json EncodeSource(const CorpusSource& source) {
  return {{"path", source.path},
          {"first_token", source.first_token},
          {"tokens", source.tokens},
          {"bytes", source.bytes},
          {"sha256", source.sha256}};
}

CorpusSource DecodeSource(const json& value) {
  return {value.value("path", ""), value.value("first_token", uint64_t{0}),
          value.value("tokens", uint64_t{0}), value.value("bytes", uint64_t{0}),
          value.value("sha256", "")};
}

json EncodePart(const CorpusPart& part) {
  json held = json::array();
  for (const BlockRange& range : part.held) held.push_back({range.first, range.end});
  return {{"kind", part.kind},
          {"block_bytes", part.block_bytes},
          {"sections", part.sections},
          {"blocks_max", part.blocks_max},
          {"held", std::move(held)}};
}

// Throws what the JSON library throws on a member that is absent or of another type.
CorpusPart DecodePart(const json& value) {
  CorpusPart part{value.at("kind").get<std::string>(),
                  value.at("block_bytes").get<uint64_t>(),
                  value.at("sections").get<uint32_t>(),
                  value.at("blocks_max").get<uint64_t>(),
                  {}};
  for (const json& range : value.at("held")) {
    part.held.push_back({range.at(0).get<uint64_t>(), range.at(1).get<uint64_t>()});
  }
  return part;
}

void DecodeFields(const json& value, CorpusRecord* record) {
  record->id = value.value("id", uint64_t{0});
  record->generation = value.value("generation", uint64_t{0});
  record->name = value.value("name", "");
  record->mode = value.value("mode", "");
  record->state = static_cast<CorpusState>(value.value("state", 0));
  record->error = value.value("error", "");
  record->tokens = value.value("tokens", uint64_t{0});
  record->durable_tokens = value.value("durable_tokens", uint64_t{0});
  record->kv_format = value.value("kv_format", "");
  record->block_bytes = value.value("block_bytes", uint64_t{0});
  record->bf16_bytes = value.value("bf16_bytes", uint64_t{0});
  record->expires_at_ms = value.value("expires_at_ms", int64_t{0});
  record->whole_blocks = value.value("whole_blocks", uint64_t{0});
  const int priority = value.value("priority", static_cast<int>(RetentionPriority::kNormal));
  record->priority = static_cast<RetentionPriority>(std::clamp(priority, 0, 2));
  record->created_at_ms = value.value("created_at_ms", int64_t{0});
  record->last_used_at_ms = value.value("last_used_at_ms", int64_t{0});
  record->prefill_seconds = value.value("prefill_seconds", 0.0);
  record->prefill_tokens = value.value("prefill_tokens", uint64_t{0});
  record->resumed_times = value.value("resumed_times", 0U);
  record->skipped_files = value.value("skipped_files", uint64_t{0});
  record->roots = value.value("roots", std::vector<std::string>{});
  record->replaces = value.value("replaces", "");
  if (const auto rule = value.find("segments"); rule != value.end()) {
    record->segments = {rule->at("window_tokens").get<uint32_t>(),
                        rule->at("overlap_tokens").get<uint32_t>()};
  }
  for (const json& part : value.value("parts", json::array())) {
    record->parts.push_back(DecodePart(part));
  }
}

}  // namespace

std::string_view CorpusStateText(CorpusState state) {
  switch (state) {
    case CorpusState::kQueued:
      return "queued";
    case CorpusState::kPrefilling:
      return "prefilling";
    case CorpusState::kReady:
      return "ready";
    case CorpusState::kFailed:
      return "failed";
    case CorpusState::kCancelled:
      return "cancelled";
    case CorpusState::kEvicted:
      return "evicted";
  }
  return "unknown";
}

std::string_view PriorityText(RetentionPriority priority) {
  switch (priority) {
    case RetentionPriority::kLow:
      return "low";
    case RetentionPriority::kNormal:
      return "normal";
    case RetentionPriority::kHigh:
      return "high";
  }
  return "normal";
}

Result<RetentionPriority> ParsePriority(std::string_view text) {
  for (const auto priority :
       {RetentionPriority::kLow, RetentionPriority::kNormal, RetentionPriority::kHigh}) {
    if (text == PriorityText(priority)) return priority;
  }
  return InvalidArgumentError("priority '" + std::string(text) + "' is none of low, normal, high");
}

std::string EncodeRecord(const CorpusRecord& r) {
  json value = {{"version", kRecordVersion},
                {"id", r.id},
                {"generation", r.generation},
                {"name", r.name},
                {"mode", r.mode},
                {"state", static_cast<int>(r.state)},
                {"error", r.error},
                {"tokens", r.tokens},
                {"durable_tokens", r.durable_tokens},
                {"blocks", r.chain.size()},
                {"kv_format", r.kv_format},
                {"block_bytes", r.block_bytes},
                {"bf16_bytes", r.bf16_bytes},
                {"root", r.root.Hex()},
                {"expires_at_ms", r.expires_at_ms},
                {"priority", static_cast<int>(r.priority)},
                {"whole_blocks", r.whole_blocks},
                {"created_at_ms", r.created_at_ms},
                {"last_used_at_ms", r.last_used_at_ms},
                {"prefill_seconds", r.prefill_seconds},
                {"prefill_tokens", r.prefill_tokens},
                {"resumed_times", r.resumed_times},
                {"skipped_files", r.skipped_files}};
  for (const IdentityField& f : r.identity) value["identity"].push_back({f.name, f.value});
  if (r.pin) {
    value["pin"] = {{"tier", r.pin->tier},
                    {"expires_at_ms", r.pin->expires_at_ms},
                    {"owner", r.pin->owner},
                    {"reason", r.pin->reason},
                    {"created_at_ms", r.pin->created_at_ms}};
  }
  if (r.quality) {
    value["quality"] = {{"sample_tokens", r.quality->sample_tokens},
                        {"mean_kld", r.quality->mean_kld},
                        {"same_top", r.quality->same_top}};
  }
  if (r.segments != SegmentRule{}) {
    value["segments"] = {{"window_tokens", r.segments.window_tokens},
                         {"overlap_tokens", r.segments.overlap_tokens}};
  }
  for (const CorpusPart& part : r.parts) value["parts"].push_back(EncodePart(part));
  if (!r.roots.empty()) value["roots"] = r.roots;
  if (!r.replaces.empty()) value["replaces"] = r.replaces;
  // Paths may hold any bytes; those that are not UTF-8 are kept as replacement characters.
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<CorpusRecord> DecodeRecord(std::string_view bytes) {
  const Status damaged = CorruptionError("a corpus record of the catalogue cannot be read");
  try {  // the JSON library throws on a member of the wrong type
    const json value = json::parse(bytes);
    if (value.at("version") != kRecordVersion) return damaged;
    CorpusRecord record;
    DecodeFields(value, &record);
    if (!Digest::FromHex(value.value("root", ""), &record.root)) return damaged;
    for (const json& field : value.value("identity", json::array())) {
      record.identity.push_back({field.at(0).get<std::string>(), field.at(1).get<std::string>()});
    }
    if (const auto pin = value.find("pin"); pin != value.end()) {
      record.pin = CorpusPin{pin->at("tier").get<uint8_t>(),
                             pin->value("expires_at_ms", int64_t{0}), pin->value("owner", ""),
                             pin->value("reason", ""), pin->value("created_at_ms", int64_t{0})};
    }
    if (const auto quality = value.find("quality"); quality != value.end()) {
      record.quality =
          CorpusQuality{quality->at("sample_tokens").get<uint32_t>(),
                        quality->value("mean_kld", 0.0), quality->value("same_top", 0.0)};
    }
    return record;
  } catch (const json::exception& error) {
    return CorruptionError(damaged.message() + ": " + error.what());
  }
}

std::string EncodeSources(std::span<const CorpusSource> sources) {
  json value = json::array();
  for (const CorpusSource& source : sources) value.push_back(EncodeSource(source));
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::vector<CorpusSource>> DecodeSources(std::string_view bytes) {
  try {
    std::vector<CorpusSource> sources;
    for (const json& source : json::parse(bytes)) sources.push_back(DecodeSource(source));
    return sources;
  } catch (const json::exception& error) {
    return CorruptionError(std::string("a corpus's sources cannot be read: ") + error.what());
  }
}

std::string EncodeChainEntry(const ChainEntry& entry) {
  std::string bytes;
  bytes.push_back(static_cast<char>(kEntryVersion));
  AppendBigEndian(&bytes, entry.location.extent);
  AppendBigEndian(&bytes, entry.location.ordinal);
  AppendBigEndian(&bytes, entry.payload_bytes);
  AppendBigEndian(&bytes, entry.tokens);
  AppendBigEndian(&bytes, entry.sections);
  AppendBigEndian(&bytes, entry.references);
  bytes.push_back(entry.quarantined ? 1 : 0);
  AppendBigEndian(&bytes, entry.place.position);
  bytes.append(entry.place.group.bytes.begin(), entry.place.group.bytes.end());
  return bytes;
}

Result<ChainEntry> DecodeChainEntry(std::string_view bytes) {
  if (bytes.size() != kEntryBytes || static_cast<uint8_t>(bytes[0]) != kEntryVersion) {
    return CorruptionError("a chain entry of the catalogue cannot be read");
  }
  ChainEntry entry;
  ReadBigEndian(bytes, 1, &entry.location.extent);
  ReadBigEndian(bytes, 9, &entry.location.ordinal);
  ReadBigEndian(bytes, 13, &entry.payload_bytes);
  ReadBigEndian(bytes, 21, &entry.tokens);
  ReadBigEndian(bytes, 25, &entry.sections);
  ReadBigEndian(bytes, 29, &entry.references);
  entry.quarantined = bytes[33] != 0;
  ReadBigEndian(bytes, 34, &entry.place.position);
  std::copy(bytes.begin() + 42, bytes.end(), entry.place.group.bytes.begin());
  if (entry.tokens == 0 || entry.payload_bytes == 0 || entry.payload_bytes > kMaxPayloadBytes ||
      entry.references == 0) {
    return CorruptionError("a chain entry of the catalogue holds impossible numbers");
  }
  return entry;
}

std::string EncodeTokens(std::span<const TokenId> tokens) {
  std::string bytes(ZSTD_compressBound(tokens.size_bytes()), '\0');
  const size_t size =
      ZSTD_compress(bytes.data(), bytes.size(), tokens.data(), tokens.size_bytes(), /*level=*/3);
  CHECK(ZSTD_isError(size) == 0) << ZSTD_getErrorName(size);
  bytes.resize(size);
  return bytes;
}

Status DecodeTokens(std::string_view bytes, std::vector<TokenId>* tokens) {
  // Both of its error values are above any size allowed here.
  const unsigned long long size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size > kTokensPerChunk * sizeof(TokenId) || size % sizeof(TokenId) != 0) {
    return CorruptionError("token ids of the catalogue cannot be read: wrong size");
  }
  const size_t first = tokens->size();
  tokens->resize(first + size / sizeof(TokenId));
  const size_t got = ZSTD_decompress(tokens->data() + first, size, bytes.data(), bytes.size());
  if (got != size) return CorruptionError("token ids of the catalogue cannot be decompressed");
  return OkStatus();
}

}  // namespace corpusd
