#include "daemon/http/router.h"

#include <algorithm>

namespace corpusd {
namespace {

constexpr std::string_view kName = "{name}";

bool Matches(std::string_view pattern, const HttpRequest& request, std::string* name) {
  size_t next = 0;
  while (pattern.size() > 1) {
    pattern.remove_prefix(1);  // the slash
    const std::string_view part = pattern.substr(0, pattern.find('/'));
    pattern.remove_prefix(part.size());
    if (next == request.segments.size()) return false;
    const std::string& segment = request.segments[next++];
    if (part == kName && !segment.empty()) {
      *name = segment;
    } else if (part != segment) {
      return false;
    }
  }
  return next == request.segments.size();
}

}  // namespace

RouteMatch MatchRoute(const std::vector<Route>& routes, const HttpRequest& request) {
  RouteMatch match;
  for (const Route& route : routes) {
    std::string name;
    if (!Matches(route.pattern, request, &name)) continue;
    if (route.method == request.method) {
      match.route = &route;
      match.name = std::move(name);
      return match;
    }
    match.allow += (match.allow.empty() ? "" : ", ") + std::string(route.method);
  }
  return match;
}

}  // namespace corpusd
