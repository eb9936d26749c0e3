#include "daemon/http/http_context.h"

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "daemon/metrics/daemon_metrics.h"
#include "daemon/metrics/label_values.h"
#include "daemon/rpc/doctor.h"

namespace corpusd {
namespace {

constexpr std::chrono::seconds kHealthAgeMax{5};
constexpr size_t kIdDigits = 24;

// What an HTTP status is counted as: kOk, or the first code that has it.
StatusCode CodeOfHttpStatus(int status) {
  if (status < 400) return StatusCode::kOk;
  if (status == 401) return StatusCode::kPermissionDenied;
  for (const StatusCode code : kCountedErrors) {
    if (StatusCodeHttp(code) == status) return code;
  }
  return status < 500 ? StatusCode::kInvalidArgument : StatusCode::kInternal;
}

}  // namespace

void HttpContext::Send(HttpExchange& exchange, std::string_view route, HttpResponse response) {
  services_.metrics.OnRequest("http", route, CodeOfHttpStatus(response.status));
  exchange.Send(std::move(response));
}

Result<v1::DoctorReply> HttpContext::Health() {
  std::lock_guard lock(health_mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (!health_ || now - health_at_ > kHealthAgeMax) {
    ASSIGN_OR_RETURN(v1::Response response, HandleDoctor(services_));
    health_ = std::move(*response.mutable_doctor());
    health_at_ = now;
  }
  return *health_;
}

std::string ModelId(const Services& services) {
  std::string id = services.engine.model().name;
  std::replace_if(
      id.begin(), id.end(), [](char c) { return c == ' ' || c == '\t' || c == '@'; }, '-');
  return id;
}

std::string RandomId() {
  thread_local std::mt19937_64 random = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  std::string id;
  uint64_t bits = 0;
  for (size_t i = 0; i < kIdDigits; ++i, bits >>= 4) {
    if (i % 16 == 0) bits = random();
    id.push_back("0123456789abcdef"[bits & 15]);
  }
  return id;
}

}  // namespace corpusd
