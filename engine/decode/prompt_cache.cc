#include "engine/decode/prompt_cache.h"

#include <string>

namespace corpusd {

std::vector<Digest> PromptCache::ChainOf(std::string_view salt, std::span<const TokenId> prompt,
                                         size_t runs) const {
  const std::vector<IdentityField> fields = {{"prompt_cache", std::string(salt)}};
  return BuildChain(ChainRoot(fields), prompt.first(runs * run_tokens_), run_tokens_);
}

uint64_t PromptCache::Find(std::string_view salt, std::span<const TokenId> prompt, KvSequence* kv) {
  // At least one token is computed: its logits are wanted.
  const size_t runs = prompt.empty() ? 0 : (prompt.size() - 1) / run_tokens_;
  if (bytes_max_ == 0 || runs == 0) return 0;
  const std::vector<Digest> chain = ChainOf(salt, prompt, runs);
  std::lock_guard lock(mutex_);
  size_t found = 0;
  for (; found < chain.size(); ++found) {
    const auto run = runs_.find(chain[found]);
    if (run == runs_.end()) break;
    for (const std::shared_ptr<Buffer>& page : run->second.pages) kv->AddOwn(page);
  }
  Touch(std::span(chain).first(found));
  return found * run_tokens_;
}

void PromptCache::Keep(std::string_view salt, std::span<const TokenId> prompt,
                       const KvSequence& kv) {
  const size_t runs = prompt.size() / run_tokens_;
  if (bytes_max_ == 0 || runs == 0) return;
  const std::vector<Digest> chain = ChainOf(salt, prompt, runs);
  const uint32_t run_pages = run_tokens_ / kv.own_format().block_tokens;
  std::lock_guard lock(mutex_);
  size_t kept = 0;
  for (; kept < chain.size(); ++kept) {
    if (runs_.contains(chain[kept])) continue;
    Run run;
    run.pages = kv.OwnPages(kept * run_pages, run_pages);
    run.bytes = run_pages * kv.own_format().BlockBytes();
    // A prompt that is longer than the cache keeps its beginning.
    if ((kept + 1) * run.bytes > bytes_max_) break;
    bytes_ += run.bytes;
    run.used = next_use_++;
    order_.emplace(run.used, chain[kept]);
    runs_.emplace(chain[kept], std::move(run));
  }
  Touch(std::span(chain).first(kept));
  MakeRoom();
}

void PromptCache::Touch(std::span<const Digest> chain) {
  for (size_t i = chain.size(); i-- > 0;) {
    Run& run = runs_.at(chain[i]);
    order_.erase(run.used);
    run.used = next_use_++;
    order_.emplace(run.used, chain[i]);
  }
}

void PromptCache::MakeRoom() {
  while (bytes_ > bytes_max_) {
    const auto oldest = runs_.find(order_.begin()->second);
    bytes_ -= oldest->second.bytes;
    runs_.erase(oldest);
    order_.erase(order_.begin());
  }
}

uint64_t PromptCache::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace corpusd
