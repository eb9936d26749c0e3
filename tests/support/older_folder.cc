#include "tests/support/older_folder.h"

#include "store/catalog_families.h"
#include "store/key_codec.h"
#include "store/rocks_database.h"

namespace corpusd {

Status MakeOlderCatalog(const std::string& data_dir, const std::string& schema) {
  ASSIGN_OR_RETURN(
      const auto database,
      RocksDatabase::Open(data_dir + "/catalog", RocksDatabase::Use::kCatalog, FamilyNames()));
  RocksBatch batch;
  RETURN_IF_ERROR(database->Scan(kChainRows, "", [&](std::string_view key, std::string_view value) {
    uint64_t id = 0;
    uint32_t row = 0;
    ReadBigEndian(key, 0, &id);
    ReadBigEndian(key, 8, &row);
    auto block = static_cast<uint32_t>(row * kDigestsPerRow);
    for (size_t at = 0; at < value.size(); at += sizeof(Digest)) {
      batch.Put(kManifests, KeyOf(id, block++), value.substr(at, sizeof(Digest)));
    }
    batch.Delete(kChainRows, key);
    return true;
  }));
  RETURN_IF_ERROR(database->Scan(kExtents, "", [&](std::string_view key, std::string_view value) {
    if (schema == "1") {
      batch.Delete(kExtents, key);
    } else {
      batch.Put(kExtents, key, value.substr(0, 8));
    }
    return true;
  }));
  RETURN_IF_ERROR(database->Scan(kUses, "", [&](std::string_view key, std::string_view value) {
    batch.Put(kUses, key, value.substr(0, 8));
    return true;
  }));
  for (const std::string_view prefix : {kQuarantinedPrefix, kTokenSumsPrefix}) {
    RETURN_IF_ERROR(database->Scan(kMeta, prefix, [&](std::string_view key, std::string_view) {
      batch.Delete(kMeta, key);
      return true;
    }));
  }
  batch.Put(kMeta, "schema", schema);
  return database->Write(batch, /*sync=*/true);
}

}  // namespace corpusd
