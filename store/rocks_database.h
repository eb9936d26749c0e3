// store/rocks_database.h -- RocksDB behind Status and byte strings; its .cc holds the store's only
// RocksDB includes. Thread-safe. Two shapes of use: the catalogue (small values, WAL, synced
// batches) and the payload (values of 0.1 to 3 MiB, written as one ingested table file an extent,
// never compacted, dropped by file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace rocksdb {
class Env;
}

namespace corpusd {

class RocksBatch {
 public:
  void Put(size_t family, std::string_view key, std::string_view value);
  void Delete(size_t family, std::string_view key);

 private:
  friend class RocksDatabase;
  struct Operation {
    size_t family;
    bool put;
    std::string key, value;
  };
  std::vector<Operation> operations_;
};

class RocksDatabase {
 public:
  enum class Use { kCatalog, kPayload };
  // Column families are numbered in the order of their names; RocksDB's "default" is unused.
  static Result<std::unique_ptr<RocksDatabase>> Open(const std::string& folder, Use use,
                                                     const std::vector<std::string>& families);
  ~RocksDatabase();

  // kNotFound if absent.
  Result<std::string> Get(size_t family, std::string_view key) const;
  // Hands the value's bytes to use without a copy, and RETURNS what it returns. RocksDB's own
  // checksum is not computed: the caller checks its own. kNotFound if absent.
  Status Read(size_t family, std::string_view key,
              const std::function<Status(std::span<const std::byte>)>& use) const;
  // Values in the order of keys; an absent one is an empty optional.
  Result<std::vector<std::optional<std::string>>> MultiGet(
      size_t family, const std::vector<std::string>& keys) const;
  // Atomic and on disk when it returns (sync) or written to the log only (not sync). After an
  // error the batch may or may not come back when the folder is next opened; a later successful
  // Write settles that it does not.
  // more, if given, is part of the same atomic write.
  Status Write(const RocksBatch& batch, bool sync, const RocksBatch* more = nullptr);
  // Calls visit for every key with the prefix, in order, until it returns false.
  Status Scan(size_t family, std::string_view prefix,
              const std::function<bool(std::string_view key, std::string_view value)>& visit) const;

  // Writes a table file of ascending keys outside the log and adds it; durable when it returns.
  // Value pieces are concatenated. On an error nothing stays behind.
  struct Row {
    std::string key;
    std::vector<std::string_view> pieces;
  };
  Status IngestRows(size_t family, const std::vector<Row>& rows);
  // Drops whole table files inside any of the ranges [first, last), at once and with one sync.
  struct KeyRange {
    std::string first, last;
  };
  Status DropFiles(size_t family, const std::vector<KeyRange>& ranges);
  struct TableFile {
    std::string first_key, last_key;
    uint64_t bytes;
  };
  std::vector<TableFile> TableFiles() const;
  // Writes, syncs and removes a small file: whether the folder takes writes now.
  Status ProbeWrites() const;
  // What all files of the database take on disk.
  uint64_t PhysicalBytes() const;

 private:
  struct Implementation;
  explicit RocksDatabase(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

// Databases opened from now on use this environment, for a test's faulty file system; null: the
// usual one.
void SetRocksEnvironmentForTests(rocksdb::Env* env);

}  // namespace corpusd
