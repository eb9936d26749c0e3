#include "store/bundle_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "store/base/check.h"
#include "store/base/crc32c.h"
#include "store/block_header.h"

namespace corpusd {
namespace {

using nlohmann::json;

// As in PNG: a byte that is no text, and line ends that a careless copy would change.
constexpr std::array<uint8_t, 8> kMagic = {0x89, 'C', 'P', 'B', '\r', '\n', 0x1a, '\n'};
constexpr uint32_t kStoreSchema = 1;  // of digests and block headers; not the data folder's
constexpr std::string_view kTenantField = "tenant";

constexpr size_t kIdentityFieldsMax = 64;
constexpr size_t kIdentityBytesMax = size_t{64} << 10;
constexpr size_t kNameBytesMax = 128;
constexpr size_t kPathBytesMax = 4096;
constexpr uint32_t kBlockTokensMax = 65536;
constexpr size_t kPartsMax = 64;

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T Read(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

Status BadHead(const std::string& what) { return CorruptionError("head of the bundle: " + what); }

// Throws unless the member is a whole number that is not negative: a float would be cut to fit.
uint64_t NumberOf(const json& value, const char* name) {
  return value.at(name).get_ref<const json::number_unsigned_t&>();
}

CorpusSource SourceFrom(const json& value) {
  return {value.at("path").get<std::string>(), NumberOf(value, "first_token"),
          NumberOf(value, "tokens"), NumberOf(value, "bytes"),
          value.at("sha256").get<std::string>()};
}

// What does not fit is no number that later checks would allow.
uint32_t Narrow(uint64_t number) { return number > UINT32_MAX ? 0 : static_cast<uint32_t>(number); }

// Throws what the JSON library throws on a member that is absent or of another type.
BundleHead HeadFrom(const json& value) {
  BundleHead head;
  head.name = value.at("name").get<std::string>();
  head.model_name = value.at("model").get<std::string>();
  head.mode = value.at("mode").get<std::string>();
  head.kv_format = value.at("kv_format").get<std::string>();
  for (const json& field : value.at("identity")) {
    head.identity.push_back({field.at(0).get<std::string>(), field.at(1).get<std::string>()});
  }
  if (!Digest::FromHex(value.at("root").get<std::string>(), &head.root)) head.root = {};
  head.block_tokens = Narrow(NumberOf(value, "block_tokens"));
  head.sections = Narrow(NumberOf(value, "sections"));
  head.block_bytes = NumberOf(value, "block_bytes");
  head.tokens = NumberOf(value, "tokens");
  head.blocks = NumberOf(value, "blocks");
  head.bf16_bytes = NumberOf(value, "bf16_bytes");
  head.prefill_seconds = value.at("prefill_seconds").get<double>();
  head.skipped_files = NumberOf(value, "skipped_files");
  for (const json& source : value.at("sources")) head.sources.push_back(SourceFrom(source));
  for (const json& part : value.value("parts", json::array())) {
    CorpusPart& out = head.parts.emplace_back();
    out.kind = part.at("kind").get<std::string>();
    out.block_bytes = NumberOf(part, "block_bytes");
    out.sections = Narrow(NumberOf(part, "sections"));
    out.blocks_max = NumberOf(part, "blocks_max");
    for (const json& range : part.at("held")) {
      out.held.push_back({range.at(0).get_ref<const json::number_unsigned_t&>(),
                          range.at(1).get_ref<const json::number_unsigned_t&>()});
    }
  }
  head.roots = value.value("roots", std::vector<std::string>{});
  if (const auto rule = value.find("segments"); rule != value.end()) {
    head.segments = {Narrow(NumberOf(*rule, "window_tokens")),
                     Narrow(NumberOf(*rule, "overlap_tokens"))};
  }
  return head;
}

Status CheckTexts(const BundleHead& head) {
  for (const std::string* text : {&head.name, &head.model_name, &head.mode, &head.kv_format}) {
    if (text->size() > kNameBytesMax) return BadHead("a name has over 128 bytes");
  }
  if (head.identity.size() > kIdentityFieldsMax) return BadHead("over 64 fields of identity");
  for (const IdentityField& field : head.identity) {
    if (field.name == kTenantField) return BadHead("it names a tenant");
    if (field.name.size() + field.value.size() > kIdentityBytesMax) {
      return BadHead("a field of identity has over 64 KiB");
    }
  }
  for (const std::string& root : head.roots) {
    if (root.size() > kPathBytesMax) return BadHead("a root has over 4096 bytes");
  }
  for (const CorpusSource& source : head.sources) {
    if (source.path.size() > kPathBytesMax || source.sha256.size() > kNameBytesMax) {
      return BadHead("a source has a path over 4096 bytes or a digest over 128");
    }
    if (source.first_token > head.tokens || source.tokens > head.tokens - source.first_token) {
      return BadHead("source '" + source.path + "' lies outside the tokens");
    }
  }
  return OkStatus();
}

// What corpus_chain.h looks at.
CorpusRecord ShapeOf(const BundleHead& head) {
  CorpusRecord record;
  record.name = head.name;
  record.tokens = head.tokens;
  record.segments = head.segments;
  record.sources = head.sources;
  return record;
}

// Without making a list of segments: the numbers are a stranger's.
uint64_t BlocksOf(const BundleHead& head) {
  const auto blocks = [&](uint64_t tokens) {
    return tokens / head.block_tokens + (tokens % head.block_tokens != 0 ? 1 : 0);
  };
  if (head.segments.window_tokens == 0) return blocks(head.tokens);
  uint64_t count = blocks(head.sources.front().first_token);
  for (const CorpusSource& source : head.sources) count += blocks(source.tokens);
  return count;  // windows are whole blocks
}

bool IsBlockSize(uint64_t bytes, uint32_t sections) {
  return sections >= 1 && sections <= kMaxSections && bytes >= 1 && bytes <= kMaxPayloadBytes &&
         bytes % sections == 0;
}

Status CheckParts(const BundleHead& head) {
  if (head.parts.size() > kPartsMax) return BadHead("over 64 kinds of parts");
  for (const CorpusPart& part : head.parts) {
    if (part.kind.empty() || part.kind.size() > kNameBytesMax) return BadHead("a part's kind");
    if (!IsBlockSize(part.block_bytes, part.sections)) {
      return BadHead("parts of " + std::to_string(part.block_bytes) + " bytes in " +
                     std::to_string(part.sections) + " sections");
    }
  }
  if (!head.parts.empty() && head.segments.window_tokens > 0) {
    return BadHead("a segmented corpus with parts");
  }
  return PartsFit(head.parts, head.blocks) ? OkStatus() : BadHead("parts of no blocks");
}

Status CheckNumbers(const BundleHead& head) {
  if (head.block_tokens < 1 || head.block_tokens > kBlockTokensMax) {
    return BadHead(std::to_string(head.block_tokens) + " tokens a block");
  }
  if (!IsBlockSize(head.block_bytes, head.sections)) {
    return BadHead("blocks of " + std::to_string(head.block_bytes) + " bytes in " +
                   std::to_string(head.sections) + " sections");
  }
  if (const Status segmented = CheckSegmented(ShapeOf(head), head.block_tokens); !segmented.ok()) {
    return BadHead(segmented.message());
  }
  if (head.tokens < 1 || head.tokens > kBundleTokensMax || head.blocks != BlocksOf(head)) {
    return BadHead(std::to_string(head.tokens) + " tokens in " + std::to_string(head.blocks) +
                   " blocks");
  }
  if (!std::isfinite(head.prefill_seconds) || head.prefill_seconds < 0) {
    return BadHead("an impossible time of prefill");
  }
  return CheckParts(head);
}

}  // namespace

std::vector<IdentityField> WithoutTenant(std::span<const IdentityField> identity) {
  std::vector<IdentityField> fields;
  for (const IdentityField& field : identity) {
    if (field.name != kTenantField) fields.push_back(field);
  }
  return fields;
}

CorpusChain ChainOf(const BundleHead& head) { return {ShapeOf(head), head.block_tokens}; }

std::vector<HeldPart> PartsInOrder(const BundleHead& head, std::span<const Digest> chain) {
  CorpusRecord record;
  record.chain = std::vector<Digest>(chain.begin(), chain.end());
  record.parts = head.parts;
  std::vector<HeldPart> parts = HeldParts(record);
  std::stable_sort(parts.begin(), parts.end(),
                   [](const HeldPart& a, const HeldPart& b) { return a.block < b.block; });
  return parts;
}

uint32_t BundleVersionOf(const BundleHead& head) {
  if (!head.parts.empty()) return kPartsBundleVersion;
  return head.segments == SegmentRule{} ? kBundleVersion : kSegmentedBundleVersion;
}

std::string EncodeBundlePrelude(uint32_t version) {
  std::string bytes(reinterpret_cast<const char*>(kMagic.data()), kMagic.size());
  Append(&bytes, version);
  Append(&bytes, kStoreSchema);
  return bytes;
}

Status CheckBundlePrelude(std::span<const std::byte> bytes) {
  if (bytes.size() != kBundlePreludeBytes ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return CorruptionError("this is no bundle of corpusd: it does not begin like one");
  }
  const auto version = Read<uint32_t>(bytes, 8);
  if (version < kBundleVersion || version > kPartsBundleVersion) {
    return InvalidArgumentError("the bundle has version " + std::to_string(version) +
                                ", this corpusd reads versions " + std::to_string(kBundleVersion) +
                                " to " + std::to_string(kPartsBundleVersion) +
                                ": export it with a corpusd of this version");
  }
  const auto schema = Read<uint32_t>(bytes, 12);
  if (schema == kStoreSchema) return OkStatus();
  return InvalidArgumentError("the bundle has schema " + std::to_string(schema) +
                              ", this corpusd has schema " + std::to_string(kStoreSchema) +
                              ": ingest the text again");
}

std::string EncodeBundleRecord(const BundleRecord& record) {
  std::string bytes;
  Append(&bytes, static_cast<uint32_t>(record.kind));
  Append(&bytes, static_cast<uint32_t>(record.encoding));
  Append(&bytes, record.stored_bytes);
  Append(&bytes, record.content_bytes);
  Append(&bytes, record.body_crc);
  Append(&bytes, Crc32c(std::as_bytes(std::span(bytes))));
  return bytes;
}

Result<BundleRecord> DecodeBundleRecord(std::span<const std::byte> bytes) {
  CHECK(bytes.size() == kBundleRecordHeaderBytes) << bytes.size();
  constexpr size_t kCrcOffset = kBundleRecordHeaderBytes - sizeof(uint32_t);
  if (Crc32c(bytes.first(kCrcOffset)) != Read<uint32_t>(bytes, kCrcOffset)) {
    return CorruptionError("the checksum of a record's header differs");
  }
  BundleRecord record;
  record.kind = static_cast<BundleRecordKind>(Read<uint32_t>(bytes, 0));
  record.encoding = static_cast<BundleEncoding>(Read<uint32_t>(bytes, 4));
  record.stored_bytes = Read<uint64_t>(bytes, 8);
  record.content_bytes = Read<uint64_t>(bytes, 16);
  record.body_crc = Read<uint32_t>(bytes, 24);
  switch (record.kind) {
    case BundleRecordKind::kHead:
    case BundleRecordKind::kTokens:
    case BundleRecordKind::kBlock:
    case BundleRecordKind::kEnd:
      break;
    default:
      return CorruptionError("a record of an unknown kind");
  }
  if (record.encoding != BundleEncoding::kRaw && record.encoding != BundleEncoding::kZstd) {
    return CorruptionError("a record of an unknown encoding");
  }
  if (record.encoding == BundleEncoding::kRaw && record.stored_bytes != record.content_bytes) {
    return CorruptionError("a record whose two lengths differ");
  }
  return record;
}

std::string EncodeBundleHead(const BundleHead& head) {
  json value = {{"name", head.name},
                {"model", head.model_name},
                {"mode", head.mode},
                {"kv_format", head.kv_format},
                {"root", head.root.Hex()},
                {"block_tokens", head.block_tokens},
                {"sections", head.sections},
                {"block_bytes", head.block_bytes},
                {"tokens", head.tokens},
                {"blocks", head.blocks},
                {"bf16_bytes", head.bf16_bytes},
                {"prefill_seconds", head.prefill_seconds},
                {"skipped_files", head.skipped_files},
                {"identity", json::array()},
                {"sources", json::array()}};
  for (const IdentityField& field : head.identity) {
    value["identity"].push_back({field.name, field.value});
  }
  for (const CorpusSource& source : head.sources) {
    value["sources"].push_back({{"path", source.path},
                                {"first_token", source.first_token},
                                {"tokens", source.tokens},
                                {"bytes", source.bytes},
                                {"sha256", source.sha256}});
  }
  if (head.segments != SegmentRule{}) {
    value["segments"] = {{"window_tokens", head.segments.window_tokens},
                         {"overlap_tokens", head.segments.overlap_tokens}};
  }
  for (const CorpusPart& part : head.parts) {
    json held = json::array();
    for (const BlockRange& range : part.held) held.push_back({range.first, range.end});
    value["parts"].push_back({{"kind", part.kind},
                              {"block_bytes", part.block_bytes},
                              {"sections", part.sections},
                              {"blocks_max", part.blocks_max},
                              {"held", std::move(held)}});
  }
  if (!head.roots.empty()) value["roots"] = head.roots;
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<BundleHead> DecodeBundleHead(std::string_view bytes) {
  BundleHead head;
  try {  // the JSON library throws on a member that is absent or of another type
    head = HeadFrom(json::parse(bytes));
  } catch (const json::exception& error) {
    return BadHead(error.what());
  }
  RETURN_IF_ERROR(CheckNumbers(head));
  RETURN_IF_ERROR(CheckTexts(head));
  if (head.root != ChainRoot(head.identity)) {
    return BadHead("its root does not follow from its identity");
  }
  return head;
}

}  // namespace corpusd
