// daemon/net/open_connections.h -- the connections of one listener. All but Count and
// WaitUntilNone are for the I/O thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace corpusd {

template <typename Connection>
class OpenConnections {
 public:
  uint64_t NewId() { return next_id_++; }
  void Add(uint64_t id, std::shared_ptr<Connection> connection) {
    connections_.emplace(id, std::move(connection));
    NoteCount();
  }
  // RETURNS whether it was there.
  bool Forget(uint64_t id) {
    const bool gone = connections_.erase(id) > 0;
    NoteCount();
    became_none_.notify_all();
    return gone;
  }
  // The function may close connections, which makes the listener forget them.
  template <typename Function>
  void ForEach(Function function) {
    const auto connections = connections_;
    for (const auto& [id, connection] : connections) function(*connection);
  }
  size_t size() const { return connections_.size(); }

  size_t Count() const {
    const std::lock_guard lock(mutex_);
    return count_;
  }
  void WaitUntilNone(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    became_none_.wait_for(lock, patience, [&] { return count_ == 0; });
  }

 private:
  void NoteCount() {
    const std::lock_guard lock(mutex_);
    count_ = connections_.size();
  }

  uint64_t next_id_ = 1;
  std::map<uint64_t, std::shared_ptr<Connection>> connections_;
  mutable std::mutex mutex_;
  std::condition_variable became_none_;
  size_t count_ = 0;  // guarded by mutex_
};

}  // namespace corpusd
