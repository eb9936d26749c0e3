#include "daemon/http/health_handler.h"

#include "daemon/http/json_text.h"

namespace corpusd {

Result<HttpResponse> HandleLive(HttpContext& /*context*/, const HttpRequest& /*request*/) {
  return JsonReply({{"status", "ok"}});
}

Result<HttpResponse> HandleHealth(HttpContext& context, const HttpRequest& /*request*/) {
  if (context.services().stopping) return UnavailableError("the daemon is stopping");
  return JsonReply({{"status", "ok"}});
}

Result<HttpResponse> HandleReady(HttpContext& context, const HttpRequest& /*request*/) {
  ASSIGN_OR_RETURN(const v1::DoctorReply health, context.Health());
  OrderedJson checks = OrderedJson::array();
  OrderedJson degraded = OrderedJson::array();
  for (const v1::Check& check : health.checks()) {
    checks.push_back({{"name", check.name()}, {"level", check.level()}, {"text", check.text()}});
    if (check.level() != "ok") degraded.push_back(check.name() + ": " + check.text());
  }
  const bool stopping = context.services().stopping;
  const char* const status = stopping ? "stopping" : degraded.empty() ? "ok" : "degraded";
  OrderedJson body;
  body["status"] = status;
  body["degraded"] = std::move(degraded);
  body["checks"] = std::move(checks);
  return JsonReply(body, stopping ? 503 : 200);
}

}  // namespace corpusd
