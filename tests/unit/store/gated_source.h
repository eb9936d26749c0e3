// tests/unit/store/gated_source.h -- a BlockSource whose reads a test holds back and lets go,
// counts and makes fail. Its blocks are those of MakeCorpus, their bytes those of PayloadOf.
// Thread-safe.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "store/block_loader.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {

class GatedSource : public BlockSource {
 public:
  explicit GatedSource(bool in_parts = true) : in_parts_(in_parts) {}

  void Add(const TestCorpus& corpus, uint64_t payload_bytes = kTestBlockBytes,
           uint32_t sections = kTestSections) {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < corpus.chain.size(); ++i) {
      ChainEntry entry;
      entry.location = {1, static_cast<uint32_t>(i)};
      entry.place = {corpus.chain[0], i};
      entry.payload_bytes = payload_bytes;
      entry.tokens = kTestBlockTokens;
      entry.sections = sections;
      entry.references = 1;
      entries_[corpus.chain[i]] = entry;
    }
  }

  // --- what a test asks and orders
  void Hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  // Lets `reads` more reads finish; the others stay held.
  void Let(size_t reads) {
    const std::lock_guard lock(mutex_);
    allowed_ += reads;
    changed_.notify_all();
  }
  void LetAll() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }
  void WaitForReads(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reads_.size() >= count; });
  }
  // Digest and first section of every read that was begun, in order.
  std::vector<std::pair<Digest, uint32_t>> reads() {
    const std::lock_guard lock(mutex_);
    return reads_;
  }
  // The next read of this section fails with it.
  void Fail(const Digest& digest, uint32_t first_section, Status status) {
    const std::lock_guard lock(mutex_);
    failures_[{digest.Hex(), first_section}] = std::move(status);
  }
  // What the catalogue says from now on.
  void Move(const Digest& digest, const BlockLocation& location, uint32_t references = 1) {
    const std::lock_guard lock(mutex_);
    entries_[digest].location = location;
    entries_[digest].references = references;
  }
  std::vector<Digest> quarantined() {
    const std::lock_guard lock(mutex_);
    return quarantined_;
  }

  // --- BlockSource
  Result<std::vector<ChainEntry>> Entries(std::span<const Digest> digests) const override {
    const std::lock_guard lock(mutex_);
    std::vector<ChainEntry> entries;
    for (const Digest& digest : digests) {
      const auto it = entries_.find(digest);
      entries.push_back(it == entries_.end() ? ChainEntry{} : it->second);
    }
    return entries;
  }
  bool ReadsParts() const override { return in_parts_; }
  Result<TierKind> ReadSections(const Digest& digest, const ChainEntry& entry, SectionRange range,
                                std::span<std::byte> payload) override {
    std::unique_lock lock(mutex_);
    reads_.emplace_back(digest, range.first);
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_ || allowed_ > 0; });
    if (held_) --allowed_;
    const auto failure = failures_.find({digest.Hex(), range.first});
    if (failure != failures_.end()) {
      const Status status = failure->second;
      failures_.erase(failure);
      return status;
    }
    std::vector<std::byte>& bytes = payloads_[digest];
    if (bytes.empty()) bytes = PayloadOf(digest, payload.size());
    lock.unlock();
    const size_t part = payload.size() / entry.sections;
    std::copy(bytes.begin() + static_cast<ptrdiff_t>(range.first * part),
              bytes.begin() + static_cast<ptrdiff_t>(range.end * part),
              payload.begin() + static_cast<ptrdiff_t>(range.first * part));
    return TierKind::kDisk;
  }
  void Quarantine(const Digest& digest, const BlockLocation& /*location*/) override {
    const std::lock_guard lock(mutex_);
    quarantined_.push_back(digest);
    entries_[digest].quarantined = true;
  }

 private:
  const bool in_parts_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<Digest, ChainEntry, DigestHash> entries_;
  std::unordered_map<Digest, std::vector<std::byte>, DigestHash> payloads_;
  std::vector<std::pair<Digest, uint32_t>> reads_;
  std::map<std::pair<std::string, uint32_t>, Status> failures_;
  std::vector<Digest> quarantined_;
  bool held_ = false;
  size_t allowed_ = 0;
};

}  // namespace corpusd
