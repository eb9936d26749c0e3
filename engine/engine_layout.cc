// What a corpus is written in: its format, the calibration of a coded one, its exact first tokens;
// and the identity that follows from them.
#include <algorithm>

#include "engine/llama_engine.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

constexpr std::string_view kCalibrationField = "kv_calibration";

// Made before daemons had a secret.
bool IsUnsalted(const CorpusRecord& record) {
  return std::any_of(record.identity.begin(), record.identity.end(), [](const IdentityField& f) {
    return f.name == "tenant" && f.value == kUnsaltedTenant;
  });
}

}  // namespace

std::span<const TokenId> FirstTokens(const CorpusRecord& record, std::span<const TokenId> tokens) {
  const uint64_t common = IsSegmented(record) ? record.sources.front().first_token : tokens.size();
  return tokens.first(std::min<uint64_t>(common, kBlockTokens));
}

Result<KvFormat> LlamaEngine::FormatOf(std::string_view kv_format) const {
  if (kv_format.empty()) kv_format = options_.kv_format;
  if (kv_format != "auto") return model_->Format(kv_format);
  auto format = model_->Format(kDefaultKvFormat);
  return format.ok() ? std::move(format) : model_->Format("bf16");
}

Result<KvLayout> LlamaEngine::LayoutOfFormat(std::string_view kv_format) const {
  ASSIGN_OR_RETURN(const KvFormat blocks, FormatOf(kv_format));
  ASSIGN_OR_RETURN(KvLayout layout, calibrations_->LayoutOf(blocks));
  layout.parts = model_->parts();
  return layout;
}

Result<KvLayout> LlamaEngine::LayoutOfRecord(const CorpusRecord& record) const {
  KvLayout layout;
  ASSIGN_OR_RETURN(layout.blocks, model_->Format(record.kv_format));
  ASSIGN_OR_RETURN(layout.own, model_->Format("bf16"));
  layout.parts = model_->parts();
  if (IsCoded(layout.blocks)) {
    const auto field =
        std::find_if(record.identity.begin(), record.identity.end(),
                     [](const IdentityField& f) { return f.name == kCalibrationField; });
    auto found = calibrations_->WithDigest(field == record.identity.end() ? "" : field->value);
    // Another one at least names the field that differs.
    if (!found.ok()) found = calibrations_->Current();
    ASSIGN_OR_RETURN(layout.calibration, std::move(found));
  }
  const std::string_view tenant = TenantOf(record.name);
  const std::string salt =
      tenant.empty() && IsUnsalted(record) ? "" : SaltOf(options_.tenant_salt, tenant);
  const std::string mismatch =
      DescribeIdentityMismatch(record.identity, IdentityOf(layout, record.segments, salt));
  if (mismatch.empty()) return layout;
  return FailedPreconditionError("corpus '" + record.name +
                                 "' was made with another identity and is not served: " + mismatch);
}

Result<KvLayout> LlamaEngine::LayoutOfChain(const CorpusRecord& record,
                                            std::span<const TokenId> tokens) {
  ASSIGN_OR_RETURN(KvLayout layout, LayoutOfRecord(record));
  if (tokens.empty()) return layout;
  RETURN_IF_ERROR(AddSinksOf(record, tokens, ComputePriority::kPrefill, {}, &layout));
  return layout;
}

Status LlamaEngine::AddSinksOf(const CorpusRecord& record, std::span<const TokenId> tokens,
                               ComputePriority priority, const std::stop_token& stop,
                               KvLayout* layout) {
  const auto first = FirstTokens(record, tokens);
  return AddSinks(
      ExtendChain(record.root, first), priority, stop,
      [&] { return Result(std::vector<TokenId>(first.begin(), first.end())); }, layout);
}

Status LlamaEngine::AddSinks(const Digest& first_block, ComputePriority priority,
                             const std::stop_token& stop,
                             const std::function<Result<std::vector<TokenId>>()>& first_tokens,
                             KvLayout* layout) {
  if (layout->calibration == nullptr) return OkStatus();
  layout->sinks = sinks_.Find(first_block);
  if (layout->sinks != nullptr) return OkStatus();
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, first_tokens());
  ASSIGN_OR_RETURN(layout->sinks, ComputeSinks(context(), tokens, *layout, priority, stop));
  sinks_.Keep(first_block, layout->sinks);
  return OkStatus();
}

Status LlamaEngine::RecordQuality(const KvLayout& layout, std::span<const TokenId> tokens,
                                  const std::stop_token& stop, CorpusRecord* record) {
  if (layout.blocks == layout.own || record->quality.has_value()) return OkStatus();
  KvLayout without_sinks = layout;
  without_sinks.sinks = nullptr;
  ASSIGN_OR_RETURN(const QualitySample sample,
                   MeasureQuality(context(), tokens, without_sinks, stop));
  if (sample.tokens == 0) return OkStatus();
  const CorpusQuality quality{sample.tokens, sample.mean_kld, sample.same_top};
  while (true) {
    record->quality = quality;
    auto updated = store_->UpdateCorpus(*record);
    if (updated.status().code() == StatusCode::kAborted) {  // renamed, pinned or touched meanwhile
      ASSIGN_OR_RETURN(*record, store_->GetCorpus(record->name));
      continue;
    }
    ASSIGN_OR_RETURN(*record, std::move(updated));
    return OkStatus();
  }
}

Result<RetrievalHeads> LlamaEngine::HeadsOfModel(const IndexScanner& scanner) const {
  const HeadShape shape = HeadShapeOf(model_->config());
  if (!options_.retrieval_heads.empty()) {
    return RetrievalHeads::FromNames(shape, options_.retrieval_heads);
  }
  if (auto known = RetrievalHeads::BuiltIn(shape)) return *std::move(known);
  ASSIGN_OR_RETURN(const std::string text, calibrations_->Text());
  const ComputeContext here = context();
  return KeptRetrievalHeads(
      {here, *tokenizer_, *chat_, scanner, options_.on_head_search}, text,
      {options_.calibration_dir, options_.calibration_cache, summary_.digest});
}

std::vector<IdentityField> LlamaEngine::IdentityOf(const KvLayout& layout, const SegmentRule& rule,
                                                   std::string_view salt) const {
  return CorpusIdentity(
      {summary_.digest, tokenizer_->DigestHex(), std::string(salt),
       layout.calibration == nullptr ? std::string() : layout.calibration->digest()},
      model_->config(), layout.blocks, ModeField(rule));
}

}  // namespace corpusd
