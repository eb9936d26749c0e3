// engine/ranks/tcp_transport.h -- ranks that are processes, on one host or several: a connection
// between every two, and one thread a rank that moves messages while the rank computes. Ranks trust
// the network they are on: nothing is encrypted, and the job's number only keeps two jobs apart.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/ranks/tcp_socket.h"
#include "engine/ranks/transport.h"

namespace corpusd {

struct TcpJob {
  uint32_t rank = 0;
  std::vector<std::string> addresses;  // "host:port" of every rank
  uint64_t number = 0;                 // the same of all ranks of a job
  std::chrono::milliseconds connect_timeout{30'000};
  std::chrono::milliseconds transfer_timeout = kTransferTimeout;
};

// Connects this rank, which listens at its address, with all others; returns when all are there.
// kUnavailable or kDeadlineExceeded names the rank that is not, kFailedPrecondition one of another
// job.
Result<std::unique_ptr<Transport>> JoinTcpJob(Socket listener, const TcpJob& job);

}  // namespace corpusd
