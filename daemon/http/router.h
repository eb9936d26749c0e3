// daemon/http/router.h -- the table of routes: which method on which path is answered by what, on
// which workers, for whom, and how long its body may be. Immutable; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/exchange.h"
#include "daemon/http/http_context.h"
#include "daemon/http/http_message.h"
#include "store/base/result.h"

namespace corpusd {

// Where a handler runs: kAtOnce on the I/O thread, so it must not block.
enum class RoutePool : uint8_t { kAtOnce, kShort, kLong, kTokens };

// What needs no more than this is refused above it; POST /v1/corpora has http_max_body_bytes.
inline constexpr size_t kPlainBodyBytesMax = size_t{4} << 20;

struct Route {
  std::string_view method;
  std::string_view pattern;  // "/v1/corpora/{name}/pin"
  Access access = Access::kReader;
  RoutePool pool = RoutePool::kShort;
  bool large_body = false;  // up to http_max_body_bytes
  // One of the two. A reply goes out whole; an answer sends by itself, now or later.
  Result<HttpResponse> (*reply)(HttpContext&, const HttpRequest&) = nullptr;
  void (*answer)(HttpContext&, const std::shared_ptr<HttpExchange>&) = nullptr;
};

// Every route of this daemon (routes.cc).
const std::vector<Route>& HttpRoutes();

struct RouteMatch {
  const Route* route = nullptr;
  std::string name;  // for {name}
  // If there is no route: the methods that the path has, such as "GET, POST"; "": no such path.
  std::string allow;
};
RouteMatch MatchRoute(const std::vector<Route>& routes, const HttpRequest& request);

}  // namespace corpusd
