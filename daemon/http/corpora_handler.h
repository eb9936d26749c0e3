// daemon/http/corpora_handler.h -- the resource /v1/corpora: what there is, and what may be done to
// one corpus. Each asks the handler that the socket's protocol asks, too. A corpus comes with an
// ETag; a change with If-Match is made only if it still has that one (412 otherwise).
#pragma once

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/http/http_context.h"
#include "daemon/http/http_message.h"
#include "daemon/http/json_text.h"

namespace corpusd {

Result<HttpResponse> HandleListCorpora(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleGetCorpus(HttpContext& context, const HttpRequest& request);
// {ttl, pinned, tier, reason, priority}: what is absent stays; ttl null: no expiry.
Result<HttpResponse> HandlePatchCorpus(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleDeleteCorpus(HttpContext& context, const HttpRequest& request);
// Cancels its prefill.
Result<HttpResponse> HandleCancelCorpus(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandlePinCorpus(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleUnpinCorpus(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleWarmCorpus(HttpContext& context, const HttpRequest& request);
Result<HttpResponse> HandleEvictCorpus(HttpContext& context, const HttpRequest& request);

// The object, with its unfinished job if it has one, and its ETag.
HttpResponse CorpusReply(const Services& services, const v1::Corpus& corpus, int status = 200);
// A duration as text ("30d") or in seconds, in milliseconds. otherwise: if it is absent or null.
uint64_t ReadTtl(JsonFields* fields, std::string_view field, uint64_t otherwise);

}  // namespace corpusd
