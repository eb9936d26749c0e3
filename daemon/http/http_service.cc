#include "daemon/http/http_service.h"

#include <exception>

#include "daemon/http/api_error.h"
#include "daemon/log.h"
#include "daemon/metrics/daemon_metrics.h"
#include "store/lease_table.h"

namespace corpusd {
namespace {

// Of what a handler reads; questions have leases of their own.
constexpr int64_t kReaderLifetimeMs = int64_t{30} * 60 * 1000;

WorkerPool& PoolOf(const Services& services, RoutePool pool) {
  switch (pool) {
    case RoutePool::kLong:
      return services.slow;
    case RoutePool::kTokens:
      return services.ingest;
    case RoutePool::kAtOnce:
    case RoutePool::kShort:
      break;
  }
  return services.admin;
}

HttpResponse Unauthorized(const Status& why) {
  ApiError error = ToApiError(why);
  error.status = 401;
  error.type = ErrorType(error.status);
  error.code = "invalid_api_key";
  HttpResponse response = ErrorReply(error);
  response.headers.push_back({"WWW-Authenticate", "Bearer"});
  return response;
}

HttpResponse NoRoute(const HttpRequest& request, const RouteMatch& match) {
  std::string path;
  for (const std::string& segment : request.segments) path += "/" + segment;
  if (match.allow.empty()) {
    return ErrorReply(NotFoundError("there is no '" + (path.empty() ? "/" : path) + "' here"));
  }
  ApiError error = BadRequest("'" + path + "' has no " + request.method + ", only " + match.allow);
  error.status = 405;
  error.code = "method_not_allowed";
  HttpResponse response = ErrorReply(error);
  response.headers.push_back({"Allow", match.allow});
  return response;
}

// What requests that no route takes are counted as: their paths are the client's to make up.
constexpr std::string_view kNoRoute = "none";

}  // namespace

size_t HttpService::BodyBytesMax(const HttpRequest& request) const {
  const RouteMatch match = MatchRoute(HttpRoutes(), request);
  if (match.route == nullptr || !match.route->large_body) return kPlainBodyBytesMax;
  return context_.services().options.http_body_bytes_max;
}

void HttpService::Run(const Route& route, const std::shared_ptr<HttpExchange>& exchange) {
  try {
    if (route.answer != nullptr) return route.answer(context_, exchange);
    Result<HttpResponse> response = route.reply(context_, exchange->request());
    if (response.ok()) return context_.Send(*exchange, route.pattern, *std::move(response));
    context_.services().metrics.OnRequest("http", route.pattern, response.status().code());
    exchange->Send(ErrorReply(response.status()));
  } catch (const std::exception& error) {  // out of memory: the root of a worker's task
    Log(LogLevel::kError, "http_failed",
        {{"request", exchange->request().id}, {"error", error.what()}});
    exchange->Send(ErrorReply(InternalError("the request failed")));
  }
}

std::optional<HttpResponse> HttpService::Refusal(const HttpRequest& request, const Route& route) {
  if (route.access != Access::kPublic) {
    const auto principal = context_.services().access.Authenticate(CredentialsOf(request.identity));
    if (!principal.ok()) return Unauthorized(principal.status());
  }
  const Status access = CheckAccess(request.identity, route.access);
  if (!access.ok()) return ErrorReply(access);
  if (context_.services().stopping && route.access != Access::kPublic) {
    return ErrorReply(UnavailableError("the daemon is stopping; try again when it runs"));
  }
  return std::nullopt;
}

void HttpService::Handle(const std::shared_ptr<HttpExchange>& exchange) {
  const HttpRequest& request = exchange->request();
  RouteMatch match = MatchRoute(HttpRoutes(), request);
  if (match.route == nullptr) {
    return context_.Send(*exchange, kNoRoute, NoRoute(request, match));
  }
  const Route& route = *match.route;
  if (auto refusal = Refusal(request, route)) {
    return context_.Send(*exchange, route.pattern, *std::move(refusal));
  }
  exchange->set_name(std::move(match.name));
  if (route.pool == RoutePool::kAtOnce) return Run(route, exchange);
  WorkerPool& pool = PoolOf(context_.services(), route.pool);
  const bool taken = pool.Submit([this, &route, exchange] {
    const LeaseScope scope(std::make_shared<LeaseHolder>(
        "http " + exchange->request().id + ", " + IdentityText(exchange->request().identity),
        kReaderLifetimeMs, nullptr));
    Run(route, exchange);
  });
  if (taken) return;
  context_.Send(*exchange, route.pattern,
                ErrorReply(UnavailableError(std::to_string(pool.running()) + " requests run and " +
                                            std::to_string(pool.queued()) +
                                            " wait already; try again later")));
}

std::string SseData(const std::string& data) { return "data: " + data + "\n\n"; }

}  // namespace corpusd
