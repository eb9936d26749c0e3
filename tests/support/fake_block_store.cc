#include "tests/support/fake_block_store.h"

#include <algorithm>

#include "store/base/clock.h"
#include "store/pin_ledger.h"

namespace corpusd {
namespace {

// One block a corpus, which takes one page of the host tier.
constexpr uint64_t kHostBytes = 4096;
constexpr uint64_t kDiskBytes = 1 << 20;

class BytesReader : public SidecarReader {
 public:
  explicit BytesReader(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  uint64_t bytes() const override { return bytes_.size(); }
  Status Read(uint64_t offset, std::span<std::byte> bytes) const override {
    if (offset + bytes.size() > bytes_.size()) return InvalidArgumentError("behind its end");
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), bytes.size(), bytes.begin());
    return OkStatus();
  }

 private:
  const std::vector<std::byte> bytes_;
};

Status NoCorpus(std::string_view name) {
  return NotFoundError("corpus '" + std::string(name) + "' does not exist");
}

}  // namespace

FakeBlockStore::FakeBlockStore(std::shared_ptr<FakeDisk> disk)
    : disk_(std::move(disk)), gate_([this](uint64_t) { return TryDisk(); }, nullptr) {}

Status FakeBlockStore::TryDisk() const {
  std::lock_guard lock(disk_->mutex);
  return disk_->full ? ResourceExhaustedError("writing: no space left on device") : OkStatus();
}

Result<CorpusRecord> FakeBlockStore::CreateCorpus(CorpusRecord record,
                                                  std::span<const TokenId> /*tokens*/) {
  RETURN_IF_ERROR(gate_.Admit("making corpus '" + record.name + "'"));
  RETURN_IF_ERROR(gate_.Observe(TryDisk(), 0));
  std::lock_guard lock(disk_->mutex);
  if (disk_->corpora.count(record.name) > 0) {
    return AlreadyExistsError("corpus '" + record.name + "' exists");
  }
  record.id = disk_->next_id++;
  record.generation = 1;
  return disk_->corpora[record.name] = record;
}

Result<CorpusRecord> FakeBlockStore::GetCorpus(std::string_view name) const {
  std::lock_guard lock(disk_->mutex);
  const auto entry = disk_->corpora.find(name);
  if (entry == disk_->corpora.end()) return NoCorpus(name);
  return entry->second;
}

std::vector<CorpusRecord> FakeBlockStore::ListCorpora() const {
  std::lock_guard lock(disk_->mutex);
  std::vector<CorpusRecord> records;
  for (const auto& [name, record] : disk_->corpora) records.push_back(record);
  return records;
}

Result<std::vector<TokenId>> FakeBlockStore::CorpusTokens(std::string_view name) const {
  return NoCorpus(name);
}

Result<CorpusRecord> FakeBlockStore::UpdateCorpus(const CorpusRecord& record) {
  std::lock_guard lock(disk_->mutex);
  const auto entry = disk_->corpora.find(record.name);
  if (entry == disk_->corpora.end()) return NoCorpus(record.name);
  if (entry->second.generation != record.generation) {
    return Status(StatusCode::kAborted, "stale generation");
  }
  PinLedger ledger(WallTimeMs());
  for (const auto& [name, other] : disk_->corpora) ledger.Add(other);
  RETURN_IF_ERROR(ledger.CheckFits(record, {0, 0, kHostBytes, kDiskBytes}));
  entry->second = record;
  ++entry->second.generation;
  return entry->second;
}

Result<CorpusRecord> FakeBlockStore::ReplaceTokens(const CorpusRecord& record,
                                                   std::span<const TokenId> /*tokens*/) {
  return UpdateCorpus(record);
}

Status FakeBlockStore::RenameCorpus(std::string_view from, std::string_view to) {
  std::lock_guard lock(disk_->mutex);
  const auto entry = disk_->corpora.find(from);
  if (entry == disk_->corpora.end()) return NoCorpus(from);
  if (disk_->corpora.count(std::string(to)) > 0) return AlreadyExistsError("name is taken");
  CorpusRecord record = entry->second;
  disk_->corpora.erase(entry);
  record.name = to;
  record.replaces.clear();
  disk_->corpora[record.name] = record;
  return OkStatus();
}

Result<CorpusRecord> FakeBlockStore::ReplaceCorpus(std::string_view from, std::string_view to,
                                                   std::string_view previous,
                                                   int64_t previous_expires_at_ms) {
  std::lock_guard lock(disk_->mutex);
  const auto made = disk_->corpora.find(from);
  if (made == disk_->corpora.end()) return NoCorpus(from);
  const auto old = disk_->corpora.find(to);
  if (old == disk_->corpora.end()) return NoCorpus(to);
  if (made->second.state != CorpusState::kReady || made->second.replaces != to) {
    return FailedPreconditionError("corpus '" + made->first + "' cannot take the place of '" +
                                   old->first + "'");
  }
  const auto oldest = disk_->corpora.find(previous);
  if (oldest != disk_->corpora.end() && PinHolds(oldest->second, WallTimeMs())) {
    return FailedPreconditionError("corpus '" + oldest->first + "' is pinned");
  }
  CorpusRecord next = made->second, before = old->second;
  next.name = before.name;
  next.pin = before.pin;
  next.expires_at_ms = before.expires_at_ms;
  next.priority = before.priority;
  next.created_at_ms = before.created_at_ms;
  next.replaces.clear();
  ++next.generation;
  PinLedger ledger(WallTimeMs());
  for (const auto& [name, other] : disk_->corpora) {
    if (name != to) ledger.Add(other);
  }
  RETURN_IF_ERROR(ledger.CheckFits(next, {0, 0, kHostBytes, kDiskBytes}));
  before.name = previous;
  before.pin.reset();
  before.priority = RetentionPriority::kLow;
  before.expires_at_ms = previous_expires_at_ms;
  ++before.generation;
  disk_->corpora.erase(made);
  disk_->corpora[before.name] = before;
  return disk_->corpora[next.name] = next;
}

Status FakeBlockStore::RemoveCorpus(std::string_view name) {
  std::lock_guard lock(disk_->mutex);
  return disk_->corpora.erase(std::string(name)) > 0 ? OkStatus() : NoCorpus(name);
}

Result<size_t> FakeBlockStore::LongestPrefix(std::span<const Digest> /*chain*/,
                                             std::span<const TokenId> /*tokens*/) const {
  return size_t{0};
}

Result<std::vector<BlockPresence>> FakeBlockStore::StoredBlocks(
    const CorpusChain& /*chain*/, std::span<const Digest> digests,
    std::span<const TokenId> /*tokens*/) const {
  return Presence(digests);
}

Status FakeBlockStore::PutSidecarParts(uint64_t corpus_id, std::string_view kind,
                                       std::span<const std::span<const std::byte>> parts) {
  RETURN_IF_ERROR(gate_.Observe(TryDisk(), 0));
  std::vector<std::byte> bytes;
  for (const auto& part : parts) bytes.insert(bytes.end(), part.begin(), part.end());
  std::lock_guard lock(disk_->mutex);
  disk_->sidecars[{corpus_id, std::string(kind)}] = std::move(bytes);
  return OkStatus();
}

Result<std::shared_ptr<const SidecarReader>> FakeBlockStore::OpenSidecar(
    uint64_t corpus_id, std::string_view kind) const {
  std::lock_guard lock(disk_->mutex);
  const auto sidecar = disk_->sidecars.find({corpus_id, std::string(kind)});
  if (sidecar == disk_->sidecars.end()) return NotFoundError("no such sidecar");
  return std::make_shared<const BytesReader>(sidecar->second);
}

Result<CorpusRecord> FakeBlockStore::Publish(const CorpusRecord& record,
                                             std::span<const BlockWrite> blocks) {
  CorpusRecord grown = record;
  for (const BlockWrite& block : blocks) grown.chain.push_back(block.digest);
  return UpdateCorpus(grown);
}

Result<CorpusRecord> FakeBlockStore::AdoptBlocks(const CorpusRecord& record,
                                                 std::span<const Digest> blocks) {
  CorpusRecord grown = record;
  grown.chain.append(blocks.begin(), blocks.end());
  return UpdateCorpus(grown);
}

Status FakeBlockStore::NoteUse(std::string_view name) { return GetCorpus(name).status(); }

Status FakeBlockStore::Repair(const BlockWrite& /*block*/) { return OkStatus(); }

Result<std::vector<BlockRef>> FakeBlockStore::Fetch(std::span<const Digest> digests,
                                                    FetchStats* /*stats*/) {
  return std::vector<BlockRef>(digests.size());
}

Result<std::unique_ptr<BlockPrefetch>> FakeBlockStore::Prefetch(
    std::span<const Digest> /*digests*/, const PrefetchOptions& /*options*/) {
  return UnimplementedError("the fake store holds no bytes");
}

Status FakeBlockStore::ReadBlock(const Digest& digest, std::vector<std::byte>* /*payload*/,
                                 uint32_t* /*sections*/) {
  return NotFoundError("block " + digest.Hex().substr(0, 12) + " is not stored");
}

Result<std::vector<BlockPresence>> FakeBlockStore::Presence(std::span<const Digest> digests) const {
  return std::vector<BlockPresence>(digests.size(), BlockPresence::kAbsent);
}

Result<uint64_t> FakeBlockStore::PromoteToDevice(std::span<const Digest> /*chain*/,
                                                 std::span<const BlockRef> /*blocks*/,
                                                 const std::stop_token& /*stop*/) {
  return UnimplementedError("the fake store has no device tier");
}

Result<VerifyReport> FakeBlockStore::Verify(
    std::string_view name, const std::function<bool(uint64_t, uint64_t)>& /*progress*/) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  VerifyReport report;
  report.blocks = record.chain.size();
  return report;
}

Result<EvictReport> FakeBlockStore::Evict(std::string_view name, TierKind /*from*/,
                                          bool /*dry_run*/) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  if (record.pin) return FailedPreconditionError("corpus '" + record.name + "' is pinned");
  return EvictReport{record.chain.size(), record.tokens};
}

Result<EvictPlan> FakeBlockStore::EvictByPolicy(TierKind from, uint64_t bytes, bool dry_run) {
  EvictPlan plan;
  std::lock_guard lock(disk_->mutex);
  for (auto& [name, record] : disk_->corpora) {
    if (plan.bytes >= bytes) break;
    if (record.pin) {
      plan.pinned_bytes += record.tokens;
      continue;
    }
    plan.steps.push_back({name, record.id, 0, 1, record.tokens, false, "priority normal"});
    plan.bytes += record.tokens;
    if (dry_run || from != TierKind::kDisk) continue;
    record.durable_tokens = 0;
    record.state = CorpusState::kEvicted;
  }
  return plan;
}

std::vector<TierUsage> FakeBlockStore::Usage() const {
  uint64_t pinned = 0;
  for (const CorpusRecord& record : ListCorpora()) pinned += record.pin ? record.tokens : 0;
  return {{"host", kHostBytes, pinned, pinned, kHostBytes - std::min(pinned, kHostBytes)},
          {"disk", kDiskBytes, 0, 0, kDiskBytes}};
}

CorpusUsage FakeBlockStore::UsageOf(const CorpusRecord& record) const {
  return {record.tokens, 0, record.tokens};
}

std::vector<std::string> FakeBlockStore::Diagnose() const {
  return {"ok: in memory", "warn: a fake"};
}

Status FakeBlockStore::PutJob(uint64_t id, std::string_view record) {
  std::lock_guard lock(disk_->mutex);
  disk_->jobs[id] = record;
  return OkStatus();
}

std::vector<std::pair<uint64_t, std::string>> FakeBlockStore::ListJobs() const {
  std::lock_guard lock(disk_->mutex);
  return {disk_->jobs.begin(), disk_->jobs.end()};
}

Status FakeBlockStore::RemoveJob(uint64_t id) {
  std::lock_guard lock(disk_->mutex);
  disk_->jobs.erase(id);
  return OkStatus();
}

}  // namespace corpusd
