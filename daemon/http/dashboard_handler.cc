#include "daemon/http/dashboard_handler.h"

#include <string>

#include "daemon/metrics/exposition.h"
#include "daemon/rpc/admission.h"

namespace corpusd {
namespace {

// Nothing from elsewhere, nothing inline, in nobody's frame.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::string_view TypeOf(std::string_view name) {
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "text/html; charset=utf-8";
}

}  // namespace

Result<HttpResponse> HandleDashboard(HttpContext& /*context*/, const HttpRequest& request) {
  const std::string name = request.segments.empty() ? "index.html" : request.segments.front();
  for (const DashboardFile& file : DashboardFiles()) {
    if (file.name != name) continue;
    HttpResponse response;
    response.content_type = TypeOf(name);
    response.headers = {{"Content-Security-Policy", kPolicy},
                        {"Referrer-Policy", "no-referrer"},
                        // A newer daemon has newer files.
                        {"Cache-Control", "no-cache"}};
    response.body = file.content;
    return response;
  }
  return NotFoundError("the dashboard has no '" + name + "'");
}

Result<HttpResponse> HandleMetrics(HttpContext& context, const HttpRequest& request) {
  // The figures are of all tenants.
  v1::Request stats;
  stats.mutable_stats();
  RETURN_IF_ERROR(
      AdmitRequest(context.services(), CredentialsOf(request.identity), &stats).status());
  HttpResponse response;
  response.content_type = kMetricsContentType;
  response.body = MetricsText(context.services());
  return response;
}

}  // namespace corpusd
