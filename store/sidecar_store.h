// store/sidecar_store.h -- SidecarStore: data made of a corpus, such as an index, each in a file of
// its own in one folder, with a CRC32C for each MiB. A file gets its name when it is whole and
// durable; the folder is the only list of them. Layout in FORMAT.md. Knows corpora by id alone:
// whether one exists is its user's to know. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "store/base/result.h"
#include "store/block_store.h"

namespace corpusd {

class SidecarStore {
 public:
  // Removes the sidecars of corpora that are not among these, and what was not finished.
  static Result<std::unique_ptr<SidecarStore>> Open(const std::string& folder,
                                                    const std::set<uint64_t>& corpora);

  using Parts = std::span<const std::span<const std::byte>>;
  // kInvalidArgument for what is no kind.
  static Status CheckKind(std::string_view kind);
  static uint64_t TotalBytes(Parts parts);
  // What a sidecar of so many bytes takes on disk.
  static uint64_t DiskBytes(uint64_t bytes);

  // One that is written, but has no name yet. Goes unless it is published.
  class Draft {
   public:
    ~Draft();
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;

   private:
    friend class SidecarStore;
    Draft(SidecarStore& store, uint64_t corpus_id, std::string kind, std::string path,
          uint64_t disk_bytes);
    SidecarStore& store_;
    const uint64_t corpus_id_;
    const std::string kind_, path_;
    const uint64_t disk_bytes_;
    bool published_ = false;
  };
  // Takes the room: counted as used from now on, until the draft goes or takes another's place.
  std::unique_ptr<Draft> Begin(uint64_t corpus_id, std::string_view kind, uint64_t bytes);
  // Durable when it returns. REQUIRES: the parts have the bytes that were told.
  Status Write(const Draft& draft, Parts parts) const;
  // Puts it in the place of the one before. After an error that one is still there, or this one is.
  Status Publish(Draft* draft);

  // kNotFound; kCorruption: its header is damaged, or it is cut off.
  Result<std::shared_ptr<const SidecarReader>> Open(uint64_t corpus_id,
                                                    std::string_view kind) const;
  // All of the corpus. What cannot be removed now goes when the folder is next opened.
  void Remove(uint64_t corpus_id);

  uint64_t PhysicalBytes() const;  // drafts included
  uint64_t BytesOf(uint64_t corpus_id) const;

 private:
  using Key = std::pair<uint64_t, std::string>;  // corpus id, kind
  explicit SidecarStore(std::string folder) : folder_(std::move(folder)) {}
  std::string PathOf(uint64_t corpus_id, std::string_view kind) const;

  const std::string folder_;
  mutable std::mutex mutex_;
  std::map<Key, uint64_t> disk_bytes_;
  uint64_t draft_bytes_ = 0;
  uint64_t next_draft_ = 0;
};

}  // namespace corpusd
