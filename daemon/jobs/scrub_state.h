// daemon/jobs/scrub_state.h -- ScrubState: how far a scrub is and what it has found. Kept inside
// its job's record, so a restart goes on where it stopped, and the last one is at hand for doctor.
// Plain data; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace corpusd {

struct ScrubState {
  // The sentences that are kept; the counts go on.
  static constexpr size_t kFindingsMax = 16;

  uint64_t bytes_per_s = 0;  // 0: as fast as the disk
  // Where to go on: corpora are taken by id, which is never used again.
  uint64_t corpus_id = 0;
  uint64_t block = 0;
  bool repair_due = false;  // a block of that corpus is damaged

  uint64_t blocks = 0;  // checked
  uint64_t total_blocks = 0;
  uint64_t bytes = 0;
  uint64_t damaged = 0;
  uint64_t missing = 0;
  uint64_t repaired = 0;
  uint64_t contradictions = 0;  // of the catalogue
  std::vector<std::string> findings;

  void Note(const std::string& sentence) {
    if (findings.size() < kFindingsMax) findings.push_back(sentence);
  }
};

nlohmann::json EncodeScrub(const ScrubState& state);
// What is absent or of another type keeps its default.
ScrubState DecodeScrub(const nlohmann::json& value);

}  // namespace corpusd
