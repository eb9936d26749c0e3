// tests/support/hashed_checkpoint.h -- model folders as Hugging Face lays them out, whose weights
// are hashes of their names and places: tests/golden/make_families.py makes the same numbers, so
// that the oracle's logits can be kept without the weights. Any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace corpusd {

// One line of families.jsonl, or of another file of make_families.py.
struct FamilyCase {
  std::string name;
  nlohmann::json record;
  std::vector<uint32_t> ids;
  std::vector<std::vector<float>> logits;  // of some positions, at KeptLogit of a vocabulary
  std::vector<uint32_t> positions;         // whose they are; of most files all of them
  std::vector<uint32_t> borders;           // of chunks or windows, if positions lie around those
};

// Aborts the test program if the file cannot be read.
std::vector<FamilyCase> ReadFamilyCases(const std::string& path);

// Which logit the i-th number of a position is, of `kept` numbers.
inline uint32_t KeptLogit(uint32_t position, uint32_t i, uint32_t kept, uint32_t vocabulary) {
  return kept == vocabulary ? i : (position + i * vocabulary / kept) % vocabulary;
}

// Writes config.json and the weights, in the record's dtype and number of shards. `folder` exists.
void WriteCheckpoint(const FamilyCase& family_case, const std::string& folder);

}  // namespace corpusd
