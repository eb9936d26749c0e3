// engine/ranks/weight_message.h -- what a rank asks of those that share its weights, over a stream
// each: a greeting, then requests, each answered by the numbers asked for and nothing else. A
// request that is none ends the connection. Numbers are in the byte order of the machines, which
// are alike. Plain data.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace corpusd {

// Answered by a RankReply, and behind it, if that is Ok, by the bytes of the part (uint64_t).
struct WeightHello {
  uint64_t magic = kMagic;
  uint32_t rank = 0, ranks = 0;  // which part of how many is wanted
  std::array<char, 64> weights{};
  std::array<char, 40> backend{};
  static constexpr uint64_t kMagic = 0x3174687767726f63;  // no other protocol's first bytes
};
static_assert(sizeof(WeightHello) == 120);

enum class WeightOp : uint32_t {
  kProduct = 1,  // x [rows, cols], then, to be added to, the part's outputs [rows, count of them]
  kTable,        // `count` rows of the part; answered with [count, cols]
  // `count` experts (WeightExpert), x [rows, cols], logits [rows, width]; answered with the outputs
  // of each expert, one after the other, of the rows that choose it.
  kExperts,
};

struct WeightRequest {
  WeightOp op = WeightOp::kProduct;
  uint32_t weight = 0;  // its number
  uint32_t rows = 0, cols = 0;
  uint32_t count = 0, width = 0;
  uint32_t used = 0;  // experts of a row
  uint32_t accumulate = 0;
};
static_assert(sizeof(WeightRequest) == 32);

struct WeightExpert {
  uint32_t expert = 0;             // which of the logits
  uint32_t gate_up = 0, down = 0;  // numbers of its weights
};
static_assert(sizeof(WeightExpert) == 12);

// Rows of one request, and bytes of what comes with it or goes back.
inline constexpr uint32_t kWeightRowsMax = 1 << 16;
inline constexpr uint64_t kWeightBytesMax = uint64_t{4} << 30;

template <size_t N>
std::array<char, N> PaddedText(std::string_view text) {
  std::array<char, N> padded{};
  text = text.substr(0, N);
  std::copy(text.begin(), text.end(), padded.begin());
  return padded;
}
template <size_t N>
std::string UnpaddedText(const std::array<char, N>& padded) {
  return {padded.begin(), std::find(padded.begin(), padded.end(), '\0')};
}

}  // namespace corpusd
