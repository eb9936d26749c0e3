// engine/ranks/rank_shelf.h -- the part of rank 0's store that lies with another rank: blocks in
// that rank's own data folder. Rank 0's catalogue names them and says what may go; the folder keeps
// no list. A folder belongs to the store that first used it, and refuses another. One connection
// for each, beside the group's: the shelf serves while the ranks compute, and without a group.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "engine/ranks/rank_message.h"
#include "engine/ranks/tcp_socket.h"
#include "store/block_store.h"
#include "store/folder_lock.h"
#include "store/payload_store.h"

namespace corpusd {

// The rank's end. Thread-safe.
class RankShelf {
 public:
  // Takes the folder, which is made if need be.
  static Result<std::unique_ptr<RankShelf>> Open(const std::string& data_dir, uint64_t disk_bytes);

  // Serves rank 0 at the other end until it goes or `stopped`. One thread.
  Status Serve(const Socket& socket, const std::function<bool()>& stopped);

  // Of blocks that this rank keeps. kUnavailable: rank 0 has not attached it; kResourceExhausted:
  // the folder may not grow so much.
  Result<BlockExtent> Write(std::span<const BlockWrite* const> blocks);
  Status Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
              uint32_t sections, std::span<std::byte> payload) const;

 private:
  RankShelf(std::string data_dir, uint64_t disk_bytes, std::unique_ptr<FolderLock> lock)
      : data_dir_(std::move(data_dir)), disk_bytes_(disk_bytes), lock_(std::move(lock)) {}
  Status Attach(RankMessageReader& message);
  Status CheckOwner(const std::string& store_id) const;
  Status ServeOne(const Socket& socket, std::string_view body);
  Status ServeRead(const Socket& socket, RankMessageReader& message);
  Status ServeWrite(const Socket& socket, RankMessageReader& message);
  Status ServeCopy(const Socket& socket, RankMessageReader& message);
  Status CheckRoom(uint64_t needed_bytes) const;

  const std::string data_dir_;
  const uint64_t disk_bytes_;
  const std::unique_ptr<FolderLock> lock_;
  // Held by whoever uses the folder, alone by whoever opens it anew.
  mutable std::shared_mutex mutex_;
  std::unique_ptr<PayloadStore> payload_;  // null: not attached
  std::mutex write_mutex_;                 // one write at a time, so that the cap is exact
};

// Which rank of a rank file keeps a block of a corpus, by its place in the chain: of exact ones who
// attends to it when all ranks follow. text_ranks: among whom pages are dealt; of the file's lines
// every `stride`th is one.
uint32_t KeeperOf(const CorpusRecord& record, uint64_t position, uint32_t text_ranks,
                  uint32_t stride = 1);

// Rank 0's shelves, by rank of the rank file. Thread-safe.
class RankShelves {
 public:
  // store_id: the same for one data folder, and no other.
  RankShelves(BlockStore& store, std::string store_id, std::chrono::milliseconds timeout)
      : store_(store), store_id_(std::move(store_id)), timeout_(timeout) {}
  ~RankShelves();

  // Attaches the shelf at the other end in the place of the one before.
  Status Attach(uint32_t rank, Socket socket);
  // Of the shelf that is attached now; none: it is away.
  std::optional<uint64_t> Epoch(uint32_t rank) const;
  // Asks the shelf; one that does not answer, now or when it is read, is detached.
  std::optional<ShelfUsage> Usage(uint32_t rank);

 private:
  class Remote;
  // This one does not answer any more.
  void Forget(uint32_t rank, const Remote* lost);
  struct Held {
    std::shared_ptr<Remote> shelf;
    uint64_t epoch = 0;
  };

  BlockStore& store_;
  const std::string store_id_;
  const std::chrono::milliseconds timeout_;
  mutable std::mutex mutex_;
  std::map<uint32_t, Held> shelves_;
};

}  // namespace corpusd
