#include "daemon/http/completion_handler.h"
#include "daemon/http/corpora_handler.h"
#include "daemon/http/corpus_create.h"
#include "daemon/http/corpus_events.h"
#include "daemon/http/dashboard_handler.h"
#include "daemon/http/health_handler.h"
#include "daemon/http/model_handler.h"
#include "daemon/http/router.h"

namespace corpusd {

const std::vector<Route>& HttpRoutes() {
  using enum Access;
  using enum RoutePool;
  static const std::vector<Route> kRoutes = {
      {"GET", "/", kPublic, kAtOnce, false, HandleDashboard},
      {"GET", "/dashboard.css", kPublic, kAtOnce, false, HandleDashboard},
      {"GET", "/dashboard.js", kPublic, kAtOnce, false, HandleDashboard},
      {"GET", "/metrics.js", kPublic, kAtOnce, false, HandleDashboard},
      {"GET", "/metrics", kReader, kShort, false, HandleMetrics},
      {"GET", "/health", kPublic, kAtOnce, false, HandleHealth},
      {"GET", "/v1/health", kPublic, kAtOnce, false, HandleHealth},
      {"GET", "/livez", kPublic, kAtOnce, false, HandleLive},
      {"GET", "/readyz", kPublic, kShort, false, HandleReady},
      {"GET", "/v1/models", kReader, kShort, false, HandleModels},
      {"GET", "/v1/models/{name}", kReader, kShort, false, HandleModel},
      {"GET", "/openapi.json", kPublic, kAtOnce, false, HandleOpenApi},
      {"GET", "/props", kReader, kAtOnce, false, HandleProps},
      {"POST", "/tokenize", kReader, kTokens, false, HandleTokenize},
      {"POST", "/detokenize", kReader, kTokens, false, HandleDetokenize},
      {"POST", "/v1/chat/completions", kReader, kShort, false, nullptr, AnswerChatCompletion},
      {"POST", "/v1/completions", kReader, kShort, false, nullptr, AnswerCompletion},
      {"GET", "/v1/corpora", kReader, kShort, false, HandleListCorpora},
      {"POST", "/v1/corpora", kWriter, kTokens, true, nullptr, AnswerCreateCorpus},
      {"GET", "/v1/corpora/{name}", kReader, kShort, false, HandleGetCorpus},
      {"PATCH", "/v1/corpora/{name}", kWriter, kLong, false, HandlePatchCorpus},
      {"DELETE", "/v1/corpora/{name}", kWriter, kLong, false, HandleDeleteCorpus},
      {"POST", "/v1/corpora/{name}/cancel", kWriter, kShort, false, HandleCancelCorpus},
      {"POST", "/v1/corpora/{name}/pin", kWriter, kLong, false, HandlePinCorpus},
      {"POST", "/v1/corpora/{name}/unpin", kWriter, kShort, false, HandleUnpinCorpus},
      {"POST", "/v1/corpora/{name}/warm", kWriter, kLong, false, HandleWarmCorpus},
      {"POST", "/v1/corpora/{name}/evict", kWriter, kShort, false, HandleEvictCorpus},
      {"GET", "/v1/corpora/{name}/events", kReader, kShort, false, nullptr, AnswerCorpusEvents},
  };
  return kRoutes;
}

}  // namespace corpusd
