// daemon/http/http_service.h -- HttpService: requests to handlers: finds the route, checks who
// asks, puts the work on the right pool, and answers for it when it fails. Knows no socket.
// Thread-safe; services are borrowed and must outlive it and every exchange.
#pragma once

#include <memory>
#include <optional>

#include "daemon/http/exchange.h"
#include "daemon/http/http_context.h"
#include "daemon/http/router.h"

namespace corpusd {

class HttpService {
 public:
  explicit HttpService(const Services& services) : context_(services) {}

  // Whom connections tell of themselves.
  DaemonMetrics& metrics() const { return context_.services().metrics; }

  // How long the body of this request may be; its path and method are known.
  size_t BodyBytesMax(const HttpRequest& request) const;
  // Answers now or later, from any thread. Does not block.
  void Handle(const std::shared_ptr<HttpExchange>& exchange);

 private:
  // The answer to those who may not use the route now; none: they may.
  std::optional<HttpResponse> Refusal(const HttpRequest& request, const Route& route);
  void Run(const Route& route, const std::shared_ptr<HttpExchange>& exchange);

  HttpContext context_;
};

}  // namespace corpusd
