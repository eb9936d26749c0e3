// engine/decode/prompt_cache.h -- PromptCache: keys and values of prompts that were asked without a
// corpus, in memory, run by run under the chain digest of all that comes before: prompts that begin
// alike compute the like part once. Runs are those of a prefill, so the bits of an answer do not
// hang on what was found. Knows no model and no store, and forgets all with the process.
//
// What is over the limit leaves from the tenant that holds the most, what it used longest ago first
// and tails before what they stand on: so a tenant that holds no more than its equal share loses
// nothing to others. Thread-safe; pages in use outlive their eviction.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/backend/buffer.h"
#include "engine/decode/prompt_report.h"
#include "engine/kv/kv_sequence.h"
#include "store/prefix_hash.h"

namespace corpusd {

class PromptCache {
 public:
  // bytes_max: of pages; 0: keeps nothing. run_tokens: a multiple of a page's.
  PromptCache(uint64_t bytes_max, uint32_t run_tokens)
      : bytes_max_(bytes_max), run_tokens_(run_tokens) {}

  // The digests of a prompt's whole runs; none if nothing is kept. root: who may share.
  std::vector<Digest> ChainOf(const Digest& root, std::span<const TokenId> prompt) const;
  // Puts the runs of the chain that are known, from its first on, into kv, which must be empty.
  // RETURNS how many tokens. At least one token of the prompt is left to be computed, for its
  // logits are wanted.
  uint64_t Find(std::span<const Digest> chain, uint64_t prompt_tokens, KvSequence* kv);
  // Keeps runs that kv begins with, as far as there is room. tenant: who is charged.
  void Keep(std::string_view tenant, std::span<const Digest> chain, const KvSequence& kv);

  PromptCacheUsage usage() const;

 private:
  struct Run {
    std::vector<std::shared_ptr<Buffer>> pages;
    uint64_t bytes = 0;
    std::string tenant;
    uint64_t used = 0;  // key in the tenant's order
  };
  struct Tenant {
    std::map<uint64_t, Digest> order;  // by use, the oldest first
    uint64_t bytes = 0;
  };

  // Of a chain's first runs: the last counts as used before those that it stands on.
  void Touch(std::span<const Digest> chain);
  void MakeRoom();

  const uint64_t bytes_max_;
  const uint32_t run_tokens_;
  mutable std::mutex mutex_;
  std::unordered_map<Digest, Run, DigestHash> runs_;
  std::map<std::string, Tenant, std::less<>> tenants_;  // those that have a run
  uint64_t next_use_ = 0;
  uint64_t bytes_ = 0;
  uint64_t found_tokens_ = 0, computed_tokens_ = 0, evicted_bytes_ = 0;
};

}  // namespace corpusd
