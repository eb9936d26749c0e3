// daemon/http/health_handler.h -- the answers to probes: does the daemon live, does it serve, what
// is degraded. Open to everybody who can connect.
#pragma once

#include "daemon/http/http_context.h"
#include "daemon/http/http_message.h"

namespace corpusd {

// GET /livez: the process answers; looks at nothing.
Result<HttpResponse> HandleLive(HttpContext& context, const HttpRequest& request);
// GET /health, as llama.cpp's server has it: {"status": "ok"}, or 503 while the daemon stops.
Result<HttpResponse> HandleHealth(HttpContext& context, const HttpRequest& request);
// GET /readyz: {"status": "ok"|"degraded"|"stopping", "degraded": [what], "checks": [...]}. A
// daemon that still answers questions is ready, 200, whatever is degraded; 503 while it stops.
Result<HttpResponse> HandleReady(HttpContext& context, const HttpRequest& request);

}  // namespace corpusd
