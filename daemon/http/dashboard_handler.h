// daemon/http/dashboard_handler.h -- the dashboard's page and its files, which are a part of the
// program, and the metrics that it and Prometheus read. The files say nothing of this daemon and
// are open to everybody who can connect; what they show comes from the API, and needs what that
// needs.
#pragma once

#include <string_view>
#include <vector>

#include "daemon/http/http_context.h"
#include "daemon/http/http_message.h"

namespace corpusd {

struct DashboardFile {
  std::string_view name;  // "index.html"
  std::string_view content;
};
// Made of daemon/http/dashboard when the daemon is built.
const std::vector<DashboardFile>& DashboardFiles();

// GET / and GET /NAME of its files.
Result<HttpResponse> HandleDashboard(HttpContext& context, const HttpRequest& request);
// GET /metrics: the text format 0.0.4 of Prometheus.
Result<HttpResponse> HandleMetrics(HttpContext& context, const HttpRequest& request);

}  // namespace corpusd
