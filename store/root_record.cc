#include "store/root_record.h"

#include <nlohmann/json.hpp>

namespace corpusd {

using nlohmann::json;

std::string EncodeRoot(const RootRecord& root) {
  json value = {{"version", 1},
                {"root", root.root.Hex()},
                {"corpus", root.corpus},
                {"when_ms", root.when_ms},
                {"identity", json::array()}};
  for (const IdentityField& field : root.identity) {
    value["identity"].push_back({field.name, field.value});
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<RootRecord> DecodeRoot(std::string_view bytes) {
  const Status damaged = CorruptionError("a root record of the catalogue cannot be read");
  try {  // the JSON library throws on a member that is absent or of another type
    const json value = json::parse(bytes);
    RootRecord root;
    root.corpus = value.at("corpus").get<std::string>();
    root.when_ms = value.at("when_ms").get<int64_t>();
    for (const json& field : value.at("identity")) {
      root.identity.push_back({field.at(0).get<std::string>(), field.at(1).get<std::string>()});
    }
    if (!Digest::FromHex(value.at("root").get<std::string>(), &root.root)) return damaged;
    if (ChainRoot(root.identity) != root.root) return damaged;
    return root;
  } catch (const json::exception& error) {
    return CorruptionError(damaged.message() + ": " + error.what());
  }
}

}  // namespace corpusd
