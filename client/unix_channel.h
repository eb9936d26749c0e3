// client/unix_channel.h -- UnixChannel: one connection to the daemon, sending requests and
// receiving responses with deadlines. Knows frames, not verbs. Blocking by poll(2), one thread at a
// time; while it waits to send it keeps reading, so two full socket buffers never block each other.
// Owns the file descriptor.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "client/client_error.h"
#include "client/wire/frame_codec.h"
#include "corpusd/v1/corpusd.pb.h"

namespace corpusd {

using ClientDeadline = std::chrono::steady_clock::time_point;
inline constexpr ClientDeadline kNoDeadline = ClientDeadline::max();

class UnixChannel {
 public:
  static ClientResult<std::unique_ptr<UnixChannel>> Connect(const std::string& path,
                                                            ClientDeadline deadline,
                                                            size_t frame_bytes_max,
                                                            const std::atomic<bool>* interrupted);
  ~UnixChannel();
  UnixChannel(const UnixChannel&) = delete;
  UnixChannel& operator=(const UnixChannel&) = delete;

  ClientResult<Done> Send(const v1::Request& request, ClientDeadline deadline);
  // RETURNS the next response, whatever its id.
  ClientResult<v1::Response> Receive(ClientDeadline deadline);
  // RETURNS a response if one has already come; never waits.
  std::optional<v1::Response> TryReceive();

 private:
  UnixChannel(int file, std::string path, size_t frame_bytes_max,
              const std::atomic<bool>* interrupted);

  // Waits for any of the poll events. RETURNS those that came.
  ClientResult<short> Wait(short events, ClientDeadline deadline);
  // Reads what is there into received_. RETURNS false once the peer has closed or broken the
  // protocol: broken_.
  bool ReadAvailable();
  ClientError Broken(const std::string& what) const;

  int file_;
  std::string path_;
  size_t frame_bytes_max_;
  const std::atomic<bool>* interrupted_;
  FrameDecoder decoder_;
  std::deque<v1::Response> received_;
  std::optional<ClientError> broken_;
};

}  // namespace corpusd
