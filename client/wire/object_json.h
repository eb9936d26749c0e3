// client/wire/object_json.h -- corpora and jobs as the JSON objects that scripts depend on, the
// same from corpusctl and over HTTP. Key names and their order are promises; a time of 0 and an
// absent thing are null. Pure; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "corpusd/v1/corpusd.pb.h"

namespace corpusd {

// Prices that there are not are null, as questions that never make up for a cost.
nlohmann::ordered_json CostToJson(const v1::CorpusCost& cost);
nlohmann::ordered_json CorpusToJson(const v1::Corpus& corpus);
nlohmann::ordered_json JobToJson(const v1::Job& job);

// "2026-09-21T14:13:20Z"
std::string TimestampText(int64_t time_ms);
// The same, or null for 0.
nlohmann::ordered_json TimeOrNull(int64_t time_ms);

}  // namespace corpusd
