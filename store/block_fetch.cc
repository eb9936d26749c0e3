// What reads blocks in a DurableBlockStore: looking up, fetching, verifying.
#include <algorithm>
#include <atomic>
#include <thread>

#include "store/base/clock.h"
#include "store/durable_block_store.h"

namespace corpusd {
namespace {

// Enough readers to reach a disk's bandwidth with blocks of a few MB; more only fight for cores.
constexpr size_t kReadersMax = 4;

bool IsDamage(const Status& status) {
  return status.code() == StatusCode::kCorruption || status.code() == StatusCode::kNotFound;
}

}  // namespace

// One block on its way from disk.
struct DurableBlockStore::Load {
  size_t index = 0;
  Digest digest;
  ChainEntry entry;
  std::shared_ptr<HostBlock> block;
  BlockRef ref;
  Status status;
  bool done = false;
};

Result<size_t> DurableBlockStore::LongestPrefix(std::span<const Digest> chain,
                                                std::span<const TokenId> tokens) const {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(chain));
  const auto is_absent = [](const ChainEntry& e) { return e.references == 0 || e.quarantined; };
  const auto stored_end = std::find_if(entries.begin(), entries.end(), is_absent);
  const auto prefix = chain.first(static_cast<size_t>(stored_end - entries.begin()));
  ASSIGN_OR_RETURN(const auto stored, catalog_->BlockTokens(prefix));
  size_t first_token = 0;
  for (size_t i = 0; i < prefix.size(); ++i) {
    const size_t count = stored[i].size();
    if (count == 0) return i;  // removed since
    if (first_token + count > tokens.size() ||
        !std::equal(stored[i].begin(), stored[i].end(),
                    tokens.begin() + static_cast<ptrdiff_t>(first_token))) {
      return CorruptionError("block " + chain[i].Hex().substr(0, 12) +
                             " is stored with other token ids than its digest says");
    }
    first_token += count;
  }
  return prefix.size();
}

void DurableBlockStore::ReadBlock(Load& load) {
  load.status =
      payload_->Read(load.entry.location, load.digest, load.entry.tokens, load.block->bytes());
  if (load.status.ok()) {
    load.ref = host_.Insert(std::move(load.block), load.entry.place);
    load.done = true;
    return;
  }
  load.block.reset();
  if (IsDamage(load.status)) {
    // Moved or removed while it was read: not damage, the next round finds out.
    const auto now = catalog_->Entry(load.digest);
    if (!now.ok() || now->location != load.entry.location) return;
    Quarantine(load.digest, load.entry.location);
  }
  load.done = true;
}

Status DurableBlockStore::RunLoads(std::span<Load* const> claimed) {
  std::vector<Digest> digests;
  for (const Load* load : claimed) digests.push_back(load->digest);
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  std::vector<Load*> readable;
  std::vector<HostTier::Request> requests;
  for (size_t i = 0; i < claimed.size(); ++i) {
    Load& load = *claimed[i];
    load.entry = entries[i];
    if (load.entry.references == 0 || load.entry.quarantined) {
      load.status =
          load.entry.references == 0 ? NotFoundError("not stored") : CorruptionError("quarantined");
      load.done = true;
      continue;
    }
    readable.push_back(&load);
    requests.push_back({load.digest, load.entry.tokens, load.entry.payload_bytes});
  }
  ASSIGN_OR_RETURN(auto blocks, host_.Reserve(requests));
  for (size_t i = 0; i < readable.size(); ++i) readable[i]->block = std::move(blocks[i]);
  std::atomic<size_t> next{0};
  const auto read = [&] {
    for (size_t i = next.fetch_add(1); i < readable.size(); i = next.fetch_add(1)) {
      ReadBlock(*readable[i]);
    }
  };
  std::vector<std::jthread> threads;
  for (size_t t = 1; t < std::min(kReadersMax, readable.size()); ++t) threads.emplace_back(read);
  read();
  return OkStatus();
}

std::vector<DurableBlockStore::Load*> DurableBlockStore::ClaimLoads(std::vector<Load>& loads) {
  std::unique_lock lock(load_mutex_);
  while (true) {
    std::vector<Load*> claimed;
    bool waiting = false;
    for (Load& load : loads) {
      if (load.done) continue;
      if (loading_.contains(load.digest)) {
        waiting = true;
        continue;
      }
      // Whoever was reading it has let go of it, so this either finds it or it is to be read.
      load.ref = host_.Find(load.digest);
      load.done = load.ref.valid();
      if (!load.done) claimed.push_back(&load);
    }
    for (const Load* load : claimed) loading_.insert(load->digest);
    if (!claimed.empty() || !waiting) return claimed;
    load_done_.wait(lock);
  }
}

Result<std::vector<BlockRef>> DurableBlockStore::Fetch(std::span<const Digest> digests,
                                                       FetchStats* stats) {
  const double start = SteadySeconds();
  std::vector<BlockRef> refs(digests.size());
  std::vector<Load> loads;
  for (size_t i = 0; i < digests.size(); ++i) {
    refs[i] = host_.Find(digests[i]);
    if (refs[i].valid()) {
      stats->host_bytes += refs[i].bytes().size();
    } else {
      loads.push_back({i, digests[i], {}, nullptr, {}, OkStatus(), false});
    }
  }
  Status failed;
  for (auto claimed = ClaimLoads(loads); !claimed.empty(); claimed = ClaimLoads(loads)) {
    failed = RunLoads(claimed);
    {
      const std::lock_guard lock(load_mutex_);
      for (const Load* load : claimed) loading_.erase(load->digest);
    }
    load_done_.notify_all();
    RETURN_IF_ERROR(failed);
  }
  for (Load& load : loads) {
    if (load.status.ok() || load.ref.valid()) {
      // From disk, be it by the hand of another Fetch.
      stats->disk_bytes += load.ref.bytes().size();
      refs[load.index] = std::move(load.ref);
    } else if (load.entry.references == 0) {
      stats->missing.push_back(load.index);
    } else if (IsDamage(load.status)) {
      stats->damaged.push_back(load.index);
    } else {
      failed = load.status;
    }
  }
  RETURN_IF_ERROR(failed);
  stats->seconds += SteadySeconds() - start;
  return refs;
}

Result<VerifyReport> DurableBlockStore::Verify(
    std::string_view name, const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  ASSIGN_OR_RETURN(const auto tokens, catalog_->BlockTokens(record.chain));
  VerifyReport report;
  std::vector<std::byte> buffer;
  Digest parent = record.root;
  for (size_t i = 0; i < record.chain.size(); ++i) {
    const Digest& digest = record.chain[i];
    // Looked up now: what was true at the start may have been repaired or moved since.
    const auto entry = catalog_->Entry(digest);
    ++report.blocks;
    if (entry.status().code() == StatusCode::kNotFound) {
      report.missing.push_back(digest);
    } else if (!entry.ok()) {
      return entry.status();
    } else {
      report.bytes += entry->payload_bytes;
      buffer.resize(entry->payload_bytes);
      Status status = payload_->Read(entry->location, digest, entry->tokens, buffer);
      if (status.ok() && (tokens[i].empty() || ExtendChain(parent, tokens[i]) != digest)) {
        status = CorruptionError("token ids differ");
      }
      if (!status.ok() && !IsDamage(status)) return status;
      if (!status.ok()) {
        Quarantine(digest, entry->location);
        host_.Erase(digest);
        report.damaged.push_back(digest);
      }
    }
    parent = digest;
    if (progress && !progress(i + 1, record.chain.size())) {
      return CancelledError("verifying corpus '" + record.name + "' was cancelled");
    }
  }
  return report;
}

}  // namespace corpusd
