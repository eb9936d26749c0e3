#include "tests/unit/engine/ranks/rank_threads.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/ranks/in_process_transport.h"
#include "engine/ranks/tcp_transport.h"

namespace corpusd {
namespace {

void RunTcpRanks(const RankJob& job, const std::function<void(Transport&)>& body) {
  std::vector<Socket> listeners(job.ranks);
  TcpJob tcp;
  tcp.number = 17;
  tcp.transfer_timeout = job.timeout;
  tcp.addresses.resize(job.ranks);
  for (uint32_t r = 0; r < job.ranks; ++r) {
    auto listener = ListenTcp("127.0.0.1:0", &tcp.addresses[r]);
    ASSERT_TRUE(listener.ok()) << listener.status().ToString();
    listeners[r] = std::move(*listener);
  }
  std::vector<std::jthread> threads;
  for (uint32_t r = 0; r < job.ranks; ++r) {
    threads.emplace_back([&, r] {
      TcpJob own = tcp;
      own.rank = r;
      auto transport = JoinTcpJob(std::move(listeners[r]), own);
      ASSERT_TRUE(transport.ok()) << transport.status().ToString();
      body(**transport);
    });
  }
}

}  // namespace

std::string NameOf(const RankJob& job) {
  return (job.kind == TransportKind::kTcp ? "tcp" : "threads") + std::to_string(job.ranks);
}

void RunRanks(const RankJob& job, const std::function<void(Transport&)>& body) {
  if (job.kind == TransportKind::kTcp) return RunTcpRanks(job, body);
  auto transports = MakeInProcessTransports(job.ranks, job.timeout);
  std::vector<std::jthread> threads;
  for (uint32_t r = 0; r < job.ranks; ++r) {
    threads.emplace_back([&, r] {
      body(*transports[r]);
      transports[r].reset();
    });
  }
}

}  // namespace corpusd
