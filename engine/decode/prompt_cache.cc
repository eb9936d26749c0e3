#include "engine/decode/prompt_cache.h"

#include <algorithm>

namespace corpusd {

std::vector<Digest> PromptCache::ChainOf(const Digest& root,
                                         std::span<const TokenId> prompt) const {
  if (bytes_max_ == 0) return {};
  return BuildChain(root, prompt.first(prompt.size() / run_tokens_ * run_tokens_), run_tokens_);
}

uint64_t PromptCache::Find(std::span<const Digest> chain, uint64_t prompt_tokens, KvSequence* kv) {
  if (bytes_max_ == 0) return 0;
  chain = chain.first(std::min<size_t>(chain.size(), (prompt_tokens - 1) / run_tokens_));
  const std::lock_guard lock(mutex_);
  size_t found = 0;
  for (; found < chain.size(); ++found) {
    const auto run = runs_.find(chain[found]);
    if (run == runs_.end()) break;
    for (const std::shared_ptr<Buffer>& page : run->second.pages) kv->AddOwn(page);
  }
  Touch(chain.first(found));
  const uint64_t tokens = found * run_tokens_;
  found_tokens_ += tokens;
  computed_tokens_ += prompt_tokens - tokens;
  return tokens;
}

void PromptCache::Keep(std::string_view tenant, std::span<const Digest> chain,
                       const KvSequence& kv) {
  if (chain.empty()) return;
  const uint32_t run_pages = run_tokens_ / kv.own_format().block_tokens;
  const uint64_t run_bytes = run_pages * kv.own_format().BlockBytes();
  // A prompt that is longer than the cache keeps its beginning.
  chain = chain.first(std::min<size_t>(chain.size(), bytes_max_ / run_bytes));
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < chain.size(); ++i) {
    if (runs_.contains(chain[i])) continue;
    Tenant& owner = tenants_[std::string(tenant)];
    owner.order.emplace(next_use_, chain[i]);
    owner.bytes += run_bytes;
    bytes_ += run_bytes;
    runs_.emplace(chain[i], Run{kv.OwnPages(i * run_pages, run_pages), run_bytes,
                                std::string(tenant), next_use_++});
  }
  Touch(chain);
  MakeRoom();
}

void PromptCache::Touch(std::span<const Digest> chain) {
  for (size_t i = chain.size(); i-- > 0;) {
    Run& run = runs_.at(chain[i]);
    auto& order = tenants_.at(run.tenant).order;
    order.erase(run.used);
    run.used = next_use_++;
    order.emplace(run.used, chain[i]);
  }
}

void PromptCache::MakeRoom() {
  while (bytes_ > bytes_max_) {
    const auto most = std::max_element(
        tenants_.begin(), tenants_.end(),
        [](const auto& one, const auto& other) { return one.second.bytes < other.second.bytes; });
    Tenant& owner = most->second;
    const auto oldest = runs_.find(owner.order.begin()->second);
    owner.order.erase(owner.order.begin());
    owner.bytes -= oldest->second.bytes;
    bytes_ -= oldest->second.bytes;
    evicted_bytes_ += oldest->second.bytes;
    runs_.erase(oldest);
    if (owner.order.empty()) tenants_.erase(most);
  }
}

PromptCacheUsage PromptCache::usage() const {
  const std::lock_guard lock(mutex_);
  return {bytes_max_, bytes_, found_tokens_, computed_tokens_, evicted_bytes_};
}

}  // namespace corpusd
