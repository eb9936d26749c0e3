#include "store/bundle_import.h"

#include <algorithm>
#include <utility>

namespace corpusd {
namespace {

// Blocks are published in batches of about this size: one sync for each.
constexpr uint64_t kBatchBytes = uint64_t{16} << 20;
constexpr int kAttempts = 100;  // against changes by others, which are rare

void Differs(std::string* text, const char* what, const std::string& bundle,
             const std::string& here) {
  if (bundle == here) return;
  *text += std::string(text->empty() ? "" : "; ") + what + ": bundle '" + bundle + "', here '" +
           here + "'";
}

std::string ValueOf(std::span<const IdentityField> fields, const std::string& name) {
  const auto field =
      std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.name == name; });
  return field == fields.end() ? "(absent)" : field->value;
}

// "c8192: 36 sections of 4718592 bytes"
std::string PartsText(std::span<const CorpusPart> parts) {
  std::string text;
  for (const CorpusPart& part : parts) {
    text += (text.empty() ? "" : ", ") + part.kind + ": " + std::to_string(part.sections) +
            " sections of " + std::to_string(part.block_bytes) + " bytes";
  }
  return text.empty() ? "none" : text;
}

// "weights: bundle 'ab', here 'cd'; ..." for every field; empty if all are equal.
std::string DescribeDifference(const BundleHead& head, const CorpusShape& shape) {
  std::string text;
  const std::vector<IdentityField> here = WithoutTenant(shape.identity);
  for (const IdentityField& field : here) {
    Differs(&text, field.name.c_str(), ValueOf(head.identity, field.name), field.value);
  }
  for (const IdentityField& field : head.identity) {
    if (ValueOf(here, field.name) == "(absent)") {
      Differs(&text, field.name.c_str(), field.value, "(absent)");
    }
  }
  Differs(&text, "mode", head.mode, shape.mode);
  Differs(&text, "block tokens", std::to_string(head.block_tokens),
          std::to_string(shape.block_tokens));
  Differs(&text, "block bytes", std::to_string(head.block_bytes),
          std::to_string(shape.block_bytes));
  Differs(&text, "sections", std::to_string(head.sections), std::to_string(shape.sections));
  Differs(&text, "parts", PartsText(head.parts), PartsText(shape.parts));
  return text;
}

std::vector<CorpusPart> PartsUpTo(const BundleHead& head, uint64_t blocks) {
  std::vector<CorpusPart> parts = head.parts;
  ClipParts(blocks, &parts);
  return parts;
}

std::string IncompleteText(uint64_t blocks, uint64_t total) {
  return "the import is not complete: " + std::to_string(blocks) + " of " + std::to_string(total) +
         " blocks have come; import the bundle again to go on";
}

}  // namespace

BundleImporter::BundleImporter(BlockStore& store, ShapeOf shape_of, CheckName check_name,
                               std::string name)
    : store_(store),
      shape_of_(std::move(shape_of)),
      check_name_(std::move(check_name)),
      name_(std::move(name)),
      reader_(*this) {}

Status BundleImporter::Feed(std::span<const std::byte> bytes) {
  const Status status = reader_.Feed(bytes);
  if (status.ok()) return status;
  if (reader_.forged()) {
    DropWhatCame();
  } else {
    Abandon();
  }
  return status;
}

Result<CorpusRecord> BundleImporter::Finish() {
  if (const Status status = reader_.Finish(); !status.ok()) {
    Abandon();
    return status;
  }
  return record_;
}

void BundleImporter::Abandon() {
  if (!opened_ || record_.state == CorpusState::kReady) return;
  // What cannot be kept now has to come again: no more is lost than that.
  if (!waiting_.empty() && !HasItsParts(record_.chain.size() + waiting_.size() - 1)) {
    waiting_.pop_back();
  }
  if (!Flush().ok()) waiting_.clear();
  (void)Update([&](CorpusRecord& record) {
    record.error = IncompleteText(record.chain.size(), head_.blocks);
  });
}

bool BundleImporter::HasItsParts(uint64_t index) const {
  for (size_t p = 0; p < head_.parts.size(); ++p) {
    const auto& held = head_.parts[p].held;
    const bool wanted = std::any_of(held.begin(), held.end(), [&](const BlockRange& range) {
      return index >= range.first && index < range.end;
    });
    if (wanted && waiting_[index - record_.chain.size()].parts[p].empty()) return false;
  }
  return true;
}

void BundleImporter::DropWhatCame() {
  if (!opened_) return;
  if (created_) {
    (void)store_.RemoveCorpus(name_);
    return;
  }
  (void)Update([&](CorpusRecord& record) {
    record.chain.resize(std::min<size_t>(record.chain.size(), first_blocks_));
    record.durable_tokens =
        std::min<uint64_t>(record.tokens, layout_->TokensOfBlocks(record.chain.size()));
  });
}

Status BundleImporter::Update(const std::function<void(CorpusRecord&)>& change) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    ASSIGN_OR_RETURN(CorpusRecord record, store_.GetCorpus(name_));
    if (record.id != record_.id) break;
    change(record);
    auto updated = store_.UpdateCorpus(record);
    if (updated.ok()) record_ = *std::move(updated);
    if (updated.ok() || updated.status().code() != StatusCode::kAborted) return updated.status();
  }
  return UnavailableError("corpus '" + name_ + "' was changed by others: import the bundle again");
}

Status BundleImporter::CheckFits(const BundleHead& head) const {
  const std::string differences = DescribeDifference(head, shape_);
  if (!differences.empty()) {
    return InvalidArgumentError(
        "the bundle of '" + head.name +
        "' was made for another model or format and cannot be served here: " + differences);
  }
  if (head.tokens > shape_.tokens_max) {
    return InvalidArgumentError("the bundle has " + std::to_string(head.tokens) +
                                " tokens; a corpus of this model may have at most " +
                                std::to_string(shape_.tokens_max));
  }
  return OkStatus();
}

Status BundleImporter::OnHead(const BundleHead& head) {
  const auto shape = shape_of_(head);
  if (!shape.ok()) {
    return Status(
        shape.status().code(),
        "the bundle of '" + head.name + "' cannot be served here: " + shape.status().message());
  }
  shape_ = *shape;
  RETURN_IF_ERROR(CheckFits(head));
  head_ = head;
  if (name_.empty()) name_ = head.name;
  return check_name_(name_);
}

Result<std::optional<CorpusRecord>> BundleImporter::FindUnfinished() const {
  auto existing = store_.GetCorpus(name_);
  if (existing.status().code() == StatusCode::kNotFound) return std::optional<CorpusRecord>();
  RETURN_IF_ERROR(existing.status());
  const Status other = AlreadyExistsError(
      "corpus '" + name_ + "' exists already: remove it, or import under another name with --name");
  if (existing->root != shape_.root || existing->tokens != head_.tokens) return other;
  // The same tokens cut into other documents are other blocks.
  if (head_.segments != SegmentRule{} && existing->sources != head_.sources) return other;
  if (existing->parts != PartsUpTo(head_, existing->chain.size())) return other;
  ASSIGN_OR_RETURN(const auto tokens, store_.CorpusTokens(name_));
  if (tokens != tokens_) return other;
  if (existing->state == CorpusState::kReady) {
    return AlreadyExistsError("corpus '" + name_ + "' is complete: nothing is left to import");
  }
  return std::optional<CorpusRecord>(*std::move(existing));
}

Result<CorpusRecord> BundleImporter::Create() {
  CorpusRecord record;
  record.name = name_;
  record.mode = shape_.mode;
  // Neither ready nor waiting for a prefill: a restart leaves it alone.
  record.state = CorpusState::kCancelled;
  record.error = IncompleteText(0, head_.blocks);
  record.kv_format = shape_.kv_format;
  record.block_bytes = shape_.block_bytes;
  record.bf16_bytes = head_.bf16_bytes;
  record.whole_blocks = head_.blocks;
  record.identity = shape_.identity;
  record.root = shape_.root;
  record.sources = head_.sources;
  record.prefill_seconds = head_.prefill_seconds;  // what it cost to compute, wherever
  record.skipped_files = head_.skipped_files;
  record.segments = head_.segments;
  record.roots = head_.roots;
  record.parts = PartsUpTo(head_, 0);
  return store_.CreateCorpus(std::move(record), tokens_);
}

Status BundleImporter::OnTokens(std::vector<TokenId> tokens) {
  tokens_ = std::move(tokens);
  for (const TokenId id : tokens_) {
    if (id < shape_.vocabulary) continue;
    return CorruptionError("token id " + std::to_string(id) + " is outside the model's " +
                           std::to_string(shape_.vocabulary));
  }
  chain_ = layout_.emplace(ChainOf(head_)).Digests(shape_.root, tokens_);
  ASSIGN_OR_RETURN(const auto unfinished, FindUnfinished());
  if (unfinished) {
    record_ = *unfinished;
  } else {
    ASSIGN_OR_RETURN(record_, Create());
    created_ = true;
  }
  opened_ = true;
  first_blocks_ = record_.chain.size();
  return OkStatus();
}

Status BundleImporter::OnBlock(uint64_t index, const BlockHeader& /*header*/,
                               std::span<const std::byte> payload) {
  blocks_done_ = index + 1;
  if (index < record_.chain.size()) return OkStatus();
  // Not with the block that fills a batch, whose parts are still to come.
  if (waiting_bytes_ >= kBatchBytes) RETURN_IF_ERROR(Flush());
  WaitingBlock& block = waiting_.emplace_back();
  block.payload.assign(payload.begin(), payload.end());
  block.parts.resize(head_.parts.size());
  waiting_bytes_ += payload.size();
  return OkStatus();
}

Status BundleImporter::OnPart(uint64_t index, uint32_t part, const BlockHeader& /*header*/,
                              std::span<const std::byte> payload) {
  if (index < record_.chain.size()) return OkStatus();
  waiting_.back().parts[part].assign(payload.begin(), payload.end());
  waiting_bytes_ += payload.size();
  return OkStatus();
}

Status BundleImporter::Flush() {
  if (waiting_.empty()) return OkStatus();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::vector<BlockWrite> writes;
    const size_t first = record_.chain.size();
    for (size_t i = 0; i < waiting_.size(); ++i) {
      const BlockSpan span = layout_->block(first + i);
      const auto begin = tokens_.begin() + static_cast<ptrdiff_t>(span.first_token);
      writes.push_back({chain_[first + i],
                        {begin, begin + span.tokens},
                        waiting_[i].payload,
                        shape_.sections,
                        {waiting_[i].parts.begin(), waiting_[i].parts.end()}});
    }
    CorpusRecord grown = record_;
    grown.parts = PartsUpTo(head_, first + writes.size());
    auto published = store_.Publish(grown, writes);
    if (published.ok()) {
      record_ = *std::move(published);
      waiting_.clear();
      waiting_bytes_ = 0;
      return OkStatus();
    }
    if (published.status().code() != StatusCode::kAborted) return published.status();
    ASSIGN_OR_RETURN(CorpusRecord now, store_.GetCorpus(name_));
    if (now.id != record_.id || now.chain != record_.chain) break;
    record_ = std::move(now);
  }
  return UnavailableError("corpus '" + name_ + "' was changed by others: import the bundle again");
}

Status BundleImporter::OnEnd() {
  RETURN_IF_ERROR(Flush());
  return Update([](CorpusRecord& record) {
    record.state = CorpusState::kReady;
    record.error.clear();
  });
}

}  // namespace corpusd
