#include "daemon/jobs/scrub_state.h"

#include <array>
#include <nlohmann/json.hpp>

namespace corpusd {
namespace {

struct Counter {
  const char* name;
  uint64_t ScrubState::*member;
};

constexpr std::array kCounters = {
    Counter{"bytes_per_s", &ScrubState::bytes_per_s},
    Counter{"corpus_id", &ScrubState::corpus_id},
    Counter{"block", &ScrubState::block},
    Counter{"blocks", &ScrubState::blocks},
    Counter{"total_blocks", &ScrubState::total_blocks},
    Counter{"bytes", &ScrubState::bytes},
    Counter{"damaged", &ScrubState::damaged},
    Counter{"missing", &ScrubState::missing},
    Counter{"repaired", &ScrubState::repaired},
    Counter{"contradictions", &ScrubState::contradictions},
};

}  // namespace

nlohmann::json EncodeScrub(const ScrubState& state) {
  nlohmann::json value = {{"repair_due", state.repair_due}, {"findings", state.findings}};
  for (const Counter& counter : kCounters) value[counter.name] = state.*counter.member;
  return value;
}

ScrubState DecodeScrub(const nlohmann::json& value) {
  ScrubState state;
  if (!value.is_object()) return state;
  for (const Counter& counter : kCounters) {
    const auto field = value.find(counter.name);
    if (field != value.end() && field->is_number_unsigned()) {
      state.*counter.member = field->get<uint64_t>();
    }
  }
  const auto due = value.find("repair_due");
  state.repair_due = due != value.end() && due->is_boolean() && due->get<bool>();
  const auto findings = value.find("findings");
  if (findings != value.end() && findings->is_array()) {
    for (const nlohmann::json& finding : *findings) {
      if (finding.is_string()) state.Note(finding.get<std::string>());
    }
  }
  return state;
}

}  // namespace corpusd
