#include "store/miss_reason.h"

#include <nlohmann/json.hpp>

namespace corpusd {
namespace {

using nlohmann::json;

constexpr int kNoteVersion = 1;

}  // namespace

std::string_view EvictionReasonText(EvictionReason reason) {
  switch (reason) {
    case EvictionReason::kRoom:
      return "room";
    case EvictionReason::kAsked:
      return "asked";
    case EvictionReason::kExpired:
      return "expired";
    case EvictionReason::kRemoved:
      return "removed";
  }
  return "unknown";
}

std::string EncodeEvictionNote(const EvictionNote& note) {
  const json value = {{"version", kNoteVersion},
                      {"corpus", note.corpus},
                      {"corpus_id", note.corpus_id},
                      {"first_block", note.first_block},
                      {"blocks", note.blocks},
                      {"bytes", note.bytes},
                      {"first_digest", note.first_digest.Hex()},
                      {"when_ms", note.when_ms},
                      {"reason", static_cast<int>(note.reason)},
                      {"detail", note.detail.substr(0, kEvictionDetailBytes)}};
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<EvictionNote> DecodeEvictionNote(std::string_view bytes) {
  const Status damaged = CorruptionError("an eviction note of the catalogue cannot be read");
  try {  // the JSON library throws on a member of the wrong type
    const json value = json::parse(bytes);
    if (value.at("version") != kNoteVersion) return damaged;
    EvictionNote note;
    note.corpus = value.value("corpus", "");
    note.corpus_id = value.value("corpus_id", uint64_t{0});
    note.first_block = value.value("first_block", uint64_t{0});
    note.blocks = value.value("blocks", uint64_t{0});
    note.bytes = value.value("bytes", uint64_t{0});
    note.when_ms = value.value("when_ms", int64_t{0});
    const int reason = value.value("reason", 0);
    if (reason < 0 || reason > static_cast<int>(EvictionReason::kRemoved)) return damaged;
    note.reason = static_cast<EvictionReason>(reason);
    note.detail = value.value("detail", "");
    if (!Digest::FromHex(value.value("first_digest", ""), &note.first_digest)) return damaged;
    return note;
  } catch (const json::exception& error) {
    return CorruptionError(damaged.message() + ": " + error.what());
  }
}

}  // namespace corpusd
