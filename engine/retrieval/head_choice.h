// engine/retrieval/head_choice.h -- from what every query head makes of every block, for questions
// whose block is known, to the heads that find it together. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/retrieval/retrieval_heads.h"

namespace corpusd {

struct HeadScores {
  HeadShape shape;
  uint32_t questions = 0;
  uint32_t blocks = 0;
  std::vector<float> scores = {};      // [layers * q_heads][questions][blocks]
  std::vector<uint32_t> answers = {};  // [questions]: the right block

  std::span<const float> of(uint32_t head, uint32_t question) const {
    return std::span(scores).subspan((size_t{head} * questions + question) * blocks, blocks);
  }
};

struct HeadChoiceRule {
  // KV heads: each costs 34 bytes a token of 64 numbers, and those of a lesser one make it worse
  // where texts are unlike the needles'.
  uint32_t sources_max = 1;
  // Of the best head's rank that a head must reach alone: those that read the same keys cost no
  // memory, and agree on other texts less than on needles.
  double least_share = 0.5;
};

// Mean over questions of 1 / the rank of the right block by the sum of the heads' scores, each in
// standard deviations of the blocks.
double MeanReciprocalRank(const HeadScores& scores, std::span<const RetrievalHead> heads);

// The heads of the best rank alone, in order of the model; of equal ones the first are taken.
std::vector<RetrievalHead> ChooseHeads(const HeadScores& scores, const HeadChoiceRule& rule);

}  // namespace corpusd
