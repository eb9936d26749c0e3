#include "tests/bench/replay_trace.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <unordered_map>

namespace corpusd {
namespace {

using nlohmann::json;

constexpr size_t kCorpora = 120;
constexpr size_t kScanBlocks = 1200;
constexpr int64_t kIntervalMs = 6000;

void Add(Trace* trace, TraceRequest request) {
  trace->block_uses += request.blocks.size();
  trace->tokens += request.tokens;
  trace->requests.push_back(std::move(request));
}

// The same number in the same place on every machine, which std::shuffle and std's distributions do
// not promise.
class Dice {
 public:
  explicit Dice(uint32_t seed) : bits_(seed) {}
  double Uniform() { return bits_() / 4294967296.0; }
  template <typename T>
  void Shuffle(std::vector<T>* items) {
    for (size_t i = items->size(); i > 1; --i) {
      std::swap((*items)[i - 1], (*items)[static_cast<size_t>(Uniform() * static_cast<double>(i))]);
    }
  }

 private:
  std::mt19937 bits_;
};

}  // namespace

Result<Trace> ReadTrace(const std::string& path) {
  std::ifstream file(path);
  if (!file) return NotFoundError("cannot read the trace " + path);
  Trace trace;
  trace.name = path.substr(path.rfind('/') + 1);
  std::unordered_map<uint64_t, uint32_t> ids;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    const std::string where = path + ":" + std::to_string(number) + ": ";
    TraceRequest request;
    try {  // the JSON library throws
      const json value = json::parse(line);
      request.time_ms = static_cast<int64_t>(value.at("timestamp").get<double>());
      request.tokens = value.at("input_length").get<uint64_t>();
      for (const json& hash : value.at("hash_ids")) {
        const auto known = ids.try_emplace(hash.get<uint64_t>(), static_cast<uint32_t>(ids.size()));
        request.blocks.push_back(known.first->second);
      }
    } catch (const json::exception& error) {
      return InvalidArgumentError(where + error.what());
    }
    if (request.tokens > request.blocks.size() * kTraceBlockTokens) {
      return InvalidArgumentError(where + std::to_string(request.tokens) + " tokens in " +
                                  std::to_string(request.blocks.size()) + " blocks of 512");
    }
    Add(&trace, std::move(request));
  }
  trace.unique_blocks = static_cast<uint32_t>(ids.size());
  if (trace.block_uses == 0) return InvalidArgumentError(path + " has no requests");
  return trace;
}

Result<Trace> MakeTrace(const std::string& pattern, uint32_t seed, size_t requests) {
  if (pattern != "steady" && pattern != "shifting" && pattern != "scans") {
    return InvalidArgumentError("no pattern '" + pattern + "': steady, shifting and scans are");
  }
  Trace trace;
  trace.name = pattern + ", seed " + std::to_string(seed);
  Dice dice(seed);
  const auto chain = [&](size_t blocks) {
    std::vector<uint32_t> ids(blocks);
    std::iota(ids.begin(), ids.end(), trace.unique_blocks);
    trace.unique_blocks += static_cast<uint32_t>(blocks);
    return ids;
  };
  std::vector<std::vector<uint32_t>> corpora(kCorpora);
  for (auto& corpus : corpora)
    corpus = chain(static_cast<size_t>(8 * std::exp2(7 * dice.Uniform())));
  std::vector<double> popularity(kCorpora);
  for (size_t i = 0; i < kCorpora; ++i) {
    popularity[i] = std::pow(static_cast<double>(i + 1), -0.9);
  }
  const double total = std::accumulate(popularity.begin(), popularity.end(), 0.0);
  dice.Shuffle(&popularity);
  for (size_t i = 0; i < requests; ++i) {
    if (pattern == "shifting" && i % 600 == 599) dice.Shuffle(&popularity);
    TraceRequest request;
    request.time_ms = static_cast<int64_t>(i) * kIntervalMs;
    if (pattern == "scans" && i % 50 == 49) {
      request.blocks = chain(kScanBlocks);
    } else {
      double left = dice.Uniform() * total;
      size_t corpus = 0;
      while (corpus + 1 < kCorpora && left >= popularity[corpus]) left -= popularity[corpus++];
      request.blocks = corpora[corpus];
    }
    request.tokens = request.blocks.size() * kTraceBlockTokens;
    Add(&trace, std::move(request));
  }
  return trace;
}

}  // namespace corpusd
