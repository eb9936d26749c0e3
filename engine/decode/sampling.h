// engine/decode/sampling.h -- what a client may say about how answers are made: options as values,
// with the limits that are checked before anything is computed. The order in which they act is
// Sampler's (sampler.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/status.h"
#include "store/prefix_hash.h"

namespace corpusd {

inline constexpr uint32_t kAnswersMax = 16;  // of one question
inline constexpr uint32_t kTopLogprobsMax = 20;
inline constexpr uint32_t kStopStringsMax = 16;
inline constexpr uint32_t kStopStringBytesMax = 256;
inline constexpr uint32_t kRepetitionWindowMax = 65536;
inline constexpr uint32_t kRepetitionWindowDefault = 64;
inline constexpr double kTemperatureMax = 100;
inline constexpr double kRepetitionPenaltyMax = 10;
inline constexpr double kAdditivePenaltyMax = 2;  // of either sign

// The defaults change nothing: the likeliest token is taken.
struct SamplingOptions {
  double temperature = 0;  // 0: the largest logit, ties to the lower id
  uint32_t top_k = 0;      // of so many largest logits; 0: of all
  double top_p = 1;        // nucleus: the fewest tokens whose probabilities reach it
  double min_p = 0;        // tokens at least so likely, as a share of the likeliest's probability
  double repetition_penalty = 1;  // divides a positive logit and multiplies a negative one
  uint32_t repetition_window = kRepetitionWindowDefault;  // last tokens of question and answer
  double presence_penalty = 0;   // taken from the logit of a token that the answer has
  double frequency_penalty = 0;  // taken from it for each time that the answer has it
  uint64_t seed = 0;
};

struct AnswerOptions {
  SamplingOptions sampling;
  uint32_t count = 1;  // answers of the one question
  // An answer ends where one of them would begin, and has none of it.
  std::vector<std::string> stop;
  // Set: the likelihood of every token is reported, beside so many of the likeliest in its place.
  std::optional<uint32_t> top_logprobs;
};

// kInvalidArgument, beginning with the name of the option as clients write it: "top_p must be ...".
Status CheckAnswerOptions(const AnswerOptions& options);

// The likelihood of a token by the model alone, before any option of sampling.
struct TokenLogprob {
  TokenId id = 0;
  std::string bytes;              // the token's text, not always whole UTF-8 characters
  double logprob = 0;             // natural logarithm
  std::vector<TokenLogprob> top;  // the likeliest in this place, the best first; theirs are empty
};

// A piece of an answer on its way.
struct AnswerDelta {
  uint32_t choice = 0;    // which of the answers
  std::string_view text;  // complete UTF-8
  // Of the tokens that this text completes, if asked for.
  std::span<const TokenLogprob> logprobs;
  // For those who care for one answer's text alone.
  operator std::string_view() const { return text; }  // NOLINT: implicit on purpose
};
// false cancels all answers of the question.
using AnswerSink = std::function<bool(const AnswerDelta&)>;

// One whole answer.
struct GeneratedAnswer {
  std::string text;
  std::string finish_reason;           // "stop", "length", "cancelled"
  std::string stop;                    // the stop string that ended it; "": another reason
  uint32_t tokens = 0;                 // computed, those of a stop string included
  std::vector<TokenLogprob> logprobs;  // of the tokens that are wholly in the text, if asked for
};

}  // namespace corpusd
