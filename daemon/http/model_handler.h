// daemon/http/model_handler.h -- what clients ask of the model itself: its name and limits, every
// ready corpus of it as a model of its own, texts as token ids and back.
#pragma once

#include "daemon/http/http_context.h"
#include "daemon/http/http_message.h"

namespace corpusd {

// GET /v1/models and /v1/models/{name}: the model, and "MODEL@CORPUS" for every ready corpus.
Result<HttpResponse> HandleModels(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleModel(HttpContext& context, const HttpRequest& request);
// GET /props: limits and defaults.
Result<HttpResponse> HandleProps(HttpContext& context, const HttpRequest& request);
// GET /openapi.json
Result<HttpResponse> HandleOpenApi(HttpContext& context, const HttpRequest& request);
// POST /tokenize {content, parse_special, with_pieces} -> {tokens}; POST /detokenize {tokens} ->
// {content}, in which bytes that are no UTF-8 are U+FFFD.
Result<HttpResponse> HandleTokenize(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleDetokenize(HttpContext& context, const HttpRequest& request);

}  // namespace corpusd
