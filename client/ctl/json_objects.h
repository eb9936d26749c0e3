// client/ctl/json_objects.h -- the daemon's answers as the JSON objects that scripts depend on. Key
// names and their order are promises; a time of 0 and an absent thing are null. Pure; any thread.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "client/wire/object_json.h"
#include "corpusd/v1/corpusd.pb.h"

namespace corpusd::ctl {

using Json = nlohmann::ordered_json;

using corpusd::CorpusToJson;
using corpusd::CostToJson;
using corpusd::JobToJson;
Json AskToJson(const v1::AskReply& reply);
Json DiskUsageToJson(const v1::DiskUsageReply& usage);
Json VerifyToJson(const std::string& name, const v1::VerifyReply& reply);
Json DoctorToJson(const v1::DoctorReply& reply);
// server: null if there is none.
Json VersionToJson(const std::string& client_version, const v1::VersionReply* server);

}  // namespace corpusd::ctl
