// engine/retrieval/retrieval_rule.h -- how blocks are scored and chosen: every constant of it, with
// where it comes from. Plain data; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/retrieval/lexical_index.h"
#include "store/base/result.h"

namespace corpusd {

enum class RetrievalPolicy : uint8_t { kFused, kHeads, kLexical };
// "fused" or "", "heads", "lexical"; kInvalidArgument, naming the three, for any other text.
Result<RetrievalPolicy> ParseRetrievalPolicy(std::string_view name);
std::string_view RetrievalPolicyName(RetrievalPolicy policy);

struct RetrievalRule {
  Bm25Rule bm25;
  // Tokens of the same document before and behind a block whose words count as its own, too: what
  // is looked for may straddle the border of two blocks.
  uint32_t lexical_margin_tokens = 16;
  // Of the lexical score beside that of the heads, both in standard deviations. 1 is as good but
  // for near-identical records.
  double lexical_weight = 2.0;
  // Blocks that are looked into. Of 80 questions over 32K tokens (tests/eval/README.md, the texts
  // that settings are tuned on) 60 are answered with two, 55 with four, 56 with one.
  uint32_t blocks_max = 2;
  // The best hit's tokens are computed anew, right before the question, instead of read as stored:
  // a small model cannot read a line's stored keys and values among many like it. Of 80 questions
  // over other texts 58 are answered then, 37 without (four blocks).
  bool recompute_best = true;
  // Tokens around a block's hit that are attended, the hit among those behind. Of questions over
  // texts of 32K and 128K tokens, 52 and 57 % are answered with 32 and 32, 46 and 51 % with whole
  // blocks, 47 and 51 % with 64 and 64 (nothing computed anew).
  uint32_t tokens_before = 32;
  uint32_t tokens_behind = 32;
};

}  // namespace corpusd
