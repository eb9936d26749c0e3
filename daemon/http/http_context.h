// daemon/http/http_context.h -- what HTTP handlers share: the daemon's services and what HTTP
// itself remembers. Made by the HttpService. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/http/exchange.h"
#include "daemon/http/idempotency_keys.h"
#include "daemon/rpc/services.h"

namespace corpusd {

class HttpContext {
 public:
  explicit HttpContext(const Services& services) : services_(services) {}

  const Services& services() const { return services_; }

  // What `doctor` says, at most some seconds old: probes come often, and a check syncs a file.
  Result<v1::DoctorReply> Health();
  // Sends a whole response and counts the request that has it. Those that a call answers are
  // counted by the call. route: its pattern.
  void Send(HttpExchange& exchange, std::string_view route, HttpResponse response);
  IdempotencyKeys& idempotency() { return idempotency_; }
  // Unix seconds at which the daemon came up: when its model was "created".
  int64_t started_at_s() const { return started_at_s_; }

 private:
  const Services& services_;
  const int64_t started_at_s_ = services_.now_ms() / 1000;
  IdempotencyKeys idempotency_;
  std::mutex health_mutex_;
  std::optional<v1::DoctorReply> health_;
  std::chrono::steady_clock::time_point health_at_{};
};

// What clients call the model: its name with '-' for white space, "SmolLM2-135M-Instruct".
std::string ModelId(const Services& services);

// 24 random hex digits, for ids of requests and completions.
std::string RandomId();

}  // namespace corpusd
