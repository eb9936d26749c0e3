// daemon/http/corpus_create.h -- POST /v1/corpora: a corpus out of texts in the request or of files
// that the daemon may read. It goes the way of every ingest; the answer is 202 as soon as the text
// is tokenized and its prefill queued, never later. With Idempotency-Key it may be sent twice.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/http/api_error.h"
#include "daemon/http/exchange.h"
#include "daemon/http/http_context.h"

namespace corpusd {

void AnswerCreateCorpus(HttpContext& context, const std::shared_ptr<HttpExchange>& exchange);

// {name, contents|sources, mode, kv_format, preamble, ttl, pinned, priority}. contents: a text, or
// an array of texts and of {path, text}; sources: paths.
struct CorpusCreation {
  v1::IngestBegin begin;
  std::vector<std::pair<std::string, std::string>> contents;  // path, text
  std::vector<std::string> sources;
  std::optional<ApiError> error;  // then the rest is void
};
CorpusCreation ReadCorpusCreation(std::string_view body);

}  // namespace corpusd
