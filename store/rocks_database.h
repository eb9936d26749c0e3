// store/rocks_database.h -- RocksDB behind Status and byte strings; its .cc holds the store's only
// RocksDB includes. Thread-safe. Two shapes of use: the catalogue (small values, WAL, synced
// batches) and the payload (values of 0.1 to 3 MiB, written as one ingested table file an extent,
// never compacted, dropped by file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

class RocksBatch {
 public:
  RocksBatch();
  ~RocksBatch();
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

// Bytes of one value, kept in place while this lives.
class RocksValue {
 public:
  RocksValue();
  ~RocksValue();
  RocksValue(const RocksValue&) = delete;
  RocksValue& operator=(const RocksValue&) = delete;
  std::span<const std::byte> bytes() const;

 private:
  friend class RocksDatabase;
  struct Slice;
  std::unique_ptr<Slice> slice_;
};

class RocksDatabase {
 public:
  enum class Use { kCatalog, kPayload };
  // Column families are numbered in the order of their names; "default" is added first by RocksDB
  // and unused.
  static Result<std::unique_ptr<RocksDatabase>> Open(const std::string& folder, Use use,
                                                     const std::vector<std::string>& families);
  ~RocksDatabase();

  // kNotFound if absent.
  Result<std::string> Get(size_t family, std::string_view key) const;
  Status GetPinned(size_t family, std::string_view key, RocksValue* value) const;
  // Values in the order of keys; an absent one is an empty optional.
  Result<std::vector<std::pair<bool, std::string>>> MultiGet(
      size_t family, const std::vector<std::string>& keys) const;
  // Atomic and on disk when it returns (sync) or written to the log only (not sync).
  Status Write(const RocksBatch& batch, bool sync);
  // Calls visit for every key with the prefix, in order, until it returns false.
  Status Scan(size_t family, std::string_view prefix,
              const std::function<bool(std::string_view key, std::string_view value)>& visit) const;

  // Writes a table file of ascending keys outside the log and adds it; durable when it returns.
  // Value pieces are concatenated. RETURNS the file's bytes.
  struct Row {
    std::string key;
    std::vector<std::string_view> pieces;
  };
  Result<uint64_t> IngestRows(size_t family, const std::vector<Row>& rows);
  // Drops whole table files inside [first, last), at once.
  Status DropFiles(size_t family, const std::string& first, const std::string& last);
  struct TableFile {
    std::string first_key, last_key;
    uint64_t bytes;
  };
  std::vector<TableFile> TableFiles() const;
  // All files of the database on disk.
  uint64_t PhysicalBytes() const;

 private:
  struct Implementation;
  explicit RocksDatabase(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace corpusd
