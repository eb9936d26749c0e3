// engine/decode/prompt_cache.h -- PromptCache: keys and values of prompts that were asked without a
// corpus, in memory, run by run under the chain digest of all that comes before: prompts that begin
// alike compute the like part once. Runs are those of a prefill, so a prompt's bits do not hang on
// what was found. What was used longest ago goes first, tails before what they stand on. Knows no
// model and no store. Thread-safe; pages in use outlive their eviction.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/backend/buffer.h"
#include "engine/kv/kv_sequence.h"
#include "store/prefix_hash.h"

namespace corpusd {

class PromptCache {
 public:
  // bytes_max: of pages; 0: keeps nothing. run_tokens: a multiple of a page's.
  PromptCache(uint64_t bytes_max, uint32_t run_tokens)
      : bytes_max_(bytes_max), run_tokens_(run_tokens) {}

  // Puts what is known of the prompt into kv, which must be empty. RETURNS how many tokens: whole
  // runs, and never all of the prompt. salt: of those who may share.
  uint64_t Find(std::string_view salt, std::span<const TokenId> prompt, KvSequence* kv);
  // Keeps the whole runs of the prompt, which kv begins with, as far as there is room.
  void Keep(std::string_view salt, std::span<const TokenId> prompt, const KvSequence& kv);

  uint64_t bytes() const;

 private:
  struct Run {
    std::vector<std::shared_ptr<Buffer>> pages;
    uint64_t bytes = 0;
    uint64_t used = 0;  // key in order_
  };

  std::vector<Digest> ChainOf(std::string_view salt, std::span<const TokenId> prompt,
                              size_t runs) const;
  // Of a chain's first runs: the last counts as used before those that it stands on.
  void Touch(std::span<const Digest> chain);
  void MakeRoom();

  const uint64_t bytes_max_;
  const uint32_t run_tokens_;
  mutable std::mutex mutex_;
  std::unordered_map<Digest, Run, DigestHash> runs_;
  std::map<uint64_t, Digest> order_;  // by use, the oldest first
  uint64_t next_use_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace corpusd
