// engine/decode/token_logprobs.h -- how likely the model took a token to be, and which it took to
// be likelier: the logarithm of the softmax of the logits as they came from the model. Pure.
#pragma once

#include <cstdint>
#include <span>

#include "engine/decode/sampling.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

// Of [vocabulary] logits; top: how many of the likeliest, ties to the lower id. REQUIRES: id <
// logits.size().
TokenLogprob LogprobOf(std::span<const float> logits, TokenId id, uint32_t top,
                       const Tokenizer& tokenizer);

}  // namespace corpusd
