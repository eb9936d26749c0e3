// tests/eval/bm25.h -- BM25 over chunks of text (Robertson and Zaragoza 2009): what a search engine
// would find, to hold retrieval against. Not the engine's own. Immutable once built; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace corpusd {

// Runs of ASCII letters and digits, in lower case; bytes beyond ASCII count as letters.
std::vector<std::string> Bm25Terms(std::string_view text);

class Bm25Index {
 public:
  explicit Bm25Index(const std::vector<std::string>& chunks);
  // The best `count` chunks that share a term with the query, the best first, the earlier first
  // among equals.
  std::vector<size_t> Search(std::string_view query, size_t count) const;

 private:
  struct Posting {
    uint32_t chunk = 0, occurrences = 0;
  };
  std::unordered_map<std::string, std::vector<Posting>> postings_;
  std::vector<uint32_t> lengths_;  // terms of each chunk
  double mean_length_ = 0;
};

}  // namespace corpusd
